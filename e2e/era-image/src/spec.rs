use std::fs::File;
use std::io;

use crate::history::History;
use crate::sink::{FileSink, MemorySink};
use crate::write::{self, Written};

/// In which order blocks of metadata lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// As allocated on fresh metadata: ascending.
    Ascending,
    /// As after some digesting, when every eighth block has been written anew elsewhere.
    Aged,
    /// No block lies beside its neighbour.
    Shuffled,
}

/// A device and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Decides which blocks were written when.
    pub seed: u64,
    /// How many blocks the device has: more than zero, fewer than 2^31.
    pub nr_blocks: u32,
    /// Sectors of 512 bytes in a block: a multiple of 8.
    pub granularity_sectors: u32,
    /// Eras 1 to this one are in the array.
    pub digested: u32,
    /// This many eras after them have a writeset each; the last one is the current era.
    pub undigested: u32,
    /// Whether the last era's writeset is the superblock's, as while the device is in use
    /// or after an unclean end; else it is archived like the others.
    pub unclean: bool,
    /// Whether a metadata snapshot is held. It knows all but the current writeset.
    pub held: bool,
    /// How many in a million blocks are written in each era, in runs of 1 to 16; of those
    /// eras in the array, in the last four. At most 120 000.
    pub written_ppm: u32,
    /// How many entries the nodes of btrees get, the last of each level up to twice as many:
    /// 2 to 100. The packaged checker takes no less than 84.
    pub fan_out: usize,
    /// Where blocks of metadata lie.
    pub placement: Placement,
    /// Blocks of metadata that are not in use.
    pub free: u64,
}

impl Spec {
    /// A device of blocks of 64 KiB with four undigested eras and a clean end, of whose
    /// blocks 0.6 % were written in the last eight eras; nodes not quite half full,
    /// near to how the kernel leaves them.
    pub fn of(nr_blocks: u32) -> Self {
        Self {
            seed: 1,
            nr_blocks,
            granularity_sectors: 128,
            digested: 20,
            undigested: 4,
            unclean: false,
            held: false,
            written_ppm: 750,
            fan_out: 100,
            placement: Placement::Ascending,
            free: 64,
        }
    }

    /// The era that is current.
    pub fn current_era(&self) -> u32 {
        self.digested + self.undigested
    }

    /// The eras whose writeset is in the writeset tree.
    pub(crate) fn archived(&self) -> std::ops::Range<u32> {
        let end = self.current_era() + 1 - u32::from(self.current_writeset());
        self.digested + 1..end
    }

    /// Whether the superblock has a writeset of its own.
    pub(crate) fn current_writeset(&self) -> bool {
        self.unclean && self.undigested > 0
    }

    /// Whether a reader must list a block as written in an era or later.
    pub fn changed_since(&self, since: u32, block: u32) -> bool {
        History::new(self).changed_since(since, self.current_era(), block)
    }

    /// Like [`Self::changed_since`] of the metadata snapshot.
    pub fn held_changed_since(&self, since: u32, block: u32) -> bool {
        History::new(self).changed_since(since, self.archived().end - 1, block)
    }

    /// The runs of blocks that a reader must list: first and last, both included.
    pub fn runs_since(&self, since: u32) -> Vec<(u64, u64)> {
        let history = History::new(self);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for block in 0..self.nr_blocks {
            if !history.changed_since(since, self.current_era(), block) {
                continue;
            }
            let block = u64::from(block);
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == block => *last = block,
                _ => runs.push((block, block)),
            }
        }
        runs
    }

    /// Writes the metadata into an empty file, block after block; free blocks are holes.
    pub fn write(&self, file: &File) -> io::Result<Written> {
        let mut sink = FileSink::new(file);
        let written = write::write(self, &mut sink)?;
        sink.finish(written.blocks)?;
        Ok(written)
    }

    /// The metadata in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut sink = MemorySink::default();
        match write::write(self, &mut sink) {
            Ok(written) => sink.finish(written.blocks),
            Err(error) => unreachable!("memory does not fail: {error}"),
        }
    }
}
