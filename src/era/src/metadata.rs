//! One consistent view of the metadata, and what it says about the device's blocks.

use std::ops::ControlFlow;

use crate::Era;
use crate::array::{self, Batch, Here, Take};
use crate::block::MAX_BLOCKS;
use crate::block_set::BlockSet;
use crate::btree;
use crate::changes::{Changes, check_era};
use crate::error::{Error, ErrorKind, Step};
use crate::reader::Reader;
use crate::source::BlockSource;
use crate::superblock::{Superblock, Writeset};

/// Where the superblock is.
const SUPERBLOCK: u64 = 0;
/// Of a device of so many blocks the array is 1 MiB; verifying less takes no longer than
/// having a thread do it.
const WORTH_A_THREAD: u64 = 256 * 1018;
/// Blocks of era 0 were never written: the first resume begins era 1.
const FIRST_ERA: Era = Era(1);

/// Which of the metadata's views to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The metadata as last committed, with the current writeset: for a device that is not
    /// active, cleanly shut down or not. While the device is active this may be torn.
    Live,
    /// The metadata snapshot that the superblock names. While the device is active the
    /// superblock may be torn: take the block from the status line, [`View::HeldAt`].
    Held,
    /// The metadata snapshot at this block: the last field of the era device's status. The
    /// caller answers for its still being held when the reading is done.
    HeldAt(u64),
}

/// What an era's writeset is at the time of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritesetState {
    /// The era is over.
    Archived,
    /// The era goes on, or ended without being archived.
    Current,
}

/// A piece of the metadata, as [`Metadata::visit`] comes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A writeset begins.
    Writeset {
        /// Of which era.
        era: Era,
        /// Whether that era is over.
        state: WritesetState,
        /// How many blocks the device had in it.
        nr_bits: u32,
    },
    /// Which blocks are in the writeset, from this block of the device on: a bit each, in
    /// little-endian words. The last word may have bits after the writeset's last block;
    /// they are zero.
    Bits {
        /// The block of the first bit.
        first: u64,
        /// The bits.
        words: &'a [[u8; 8]],
    },
    /// The writeset ends.
    WritesetEnd,
    /// The last digested era of blocks of the device: a little-endian number each, zero for
    /// never.
    Eras {
        /// The block of the first era.
        first: u64,
        /// The eras.
        eras: &'a [[u8; 4]],
    },
}

/// A view of dm-era's metadata whose superblock was verified. Every other block is
/// verified when it is read.
#[derive(Debug)]
pub struct Metadata<S> {
    source: S,
    number: u64,
    path: Vec<Step>,
    superblock: Superblock,
}

impl<S: BlockSource> Metadata<S> {
    /// Reads and verifies the superblock of a view.
    pub fn open(source: S, view: View) -> Result<Self, Error> {
        let (number, path) = match view {
            View::Live => (SUPERBLOCK, vec![Step::Superblock]),
            View::Held => {
                let path = vec![Step::Superblock];
                let live = read_superblock(&source, SUPERBLOCK, &path)?;
                let Some(held) = live.metadata_snap else {
                    return Err(Error { kind: ErrorKind::NoSnapshot, path });
                };
                (held, vec![Step::Superblock, Step::Snapshot(held)])
            }
            // A status without a snapshot: the superblock's lists lack the current writeset.
            View::HeldAt(SUPERBLOCK) => {
                let path = vec![Step::Snapshot(SUPERBLOCK)];
                return Err(Error { kind: ErrorKind::NoSnapshot, path });
            }
            View::HeldAt(held) => (held, vec![Step::Snapshot(held)]),
        };
        let mut superblock = read_superblock(&source, number, &path)?;
        if view != View::Live {
            // The clone's copy refers to blocks that are not held: they may have changed.
            superblock.current_writeset = None;
        }
        Ok(Self { source, number, path, superblock })
    }

    /// The granularity: how many sectors of 512 bytes a block of the device has.
    pub fn granularity_sectors(&self) -> u32 {
        self.superblock.data_block_size
    }

    /// How many blocks the device has; the last one may be shorter than the others.
    pub fn nr_blocks(&self) -> u32 {
        self.superblock.nr_blocks
    }

    /// The era that was current when this view was committed.
    pub fn current_era(&self) -> Era {
        self.superblock.current_era
    }

    /// The blocks that were written in `since` or later, as far as this view knows. Since
    /// era zero or one: every block ever written.
    pub fn changed_since(&self, since: Era) -> Result<BlockSet, Error> {
        let since = self.check_since(since)?;
        let mut changes = Changes::new(since, self.current_era());
        let mut read = |take: &mut dyn Take| self.read_changes(since, take);
        if u64::from(self.nr_blocks()) < WORTH_A_THREAD {
            read(&mut Here::new(|batch: &Batch| changes.add(batch)))?;
        } else {
            array::beside(|batch| changes.add(batch), &mut read)?;
        }
        Ok(changes.into_blocks())
    }

    /// Reads what tells of writes in `since` or later.
    fn read_changes(&self, since: Era, take: &mut dyn Take) -> Result<(), Error> {
        let mut reader = self.reader();
        let mut oldest = None;
        self.each_archived(&mut reader, |reader, era, writeset| {
            oldest.get_or_insert(era);
            if era < since { Ok(()) } else { array::read_bits(reader, writeset, take) }
        })?;
        self.with_current(&mut reader, |reader, writeset| {
            array::read_bits(reader, writeset, take)
        })?;
        if array_is_older(oldest, since) {
            return Ok(());
        }
        let Superblock { era_array_root, nr_blocks, .. } = self.superblock;
        reader.within(Step::EraArray, |reader| {
            array::read_eras(reader, era_array_root, nr_blocks, take)
        })
    }

    /// What an era to list from comes to: at least one, and refused where it has not begun.
    pub fn check_since(&self, since: Era) -> Result<Era, Error> {
        let (since, current) = (since.max(FIRST_ERA), self.current_era());
        if since > current && since > FIRST_ERA {
            let kind = ErrorKind::Future { since, current };
            return Err(Error { kind, path: self.path.clone() });
        }
        Ok(since)
    }

    /// Visits the writesets that are not yet digested into the array, oldest first, the
    /// current one last: its era, its state, and the blocks written in that era.
    pub fn visit_writesets(
        &self,
        mut visit: impl FnMut(Era, WritesetState, &BlockSet),
    ) -> Result<(), Error> {
        let mut reader = self.reader();
        self.each_archived(&mut reader, |reader, era, writeset| {
            visit(era, WritesetState::Archived, &gather(reader, writeset)?);
            Ok(())
        })?;
        self.with_current(&mut reader, |reader, writeset| {
            visit(self.current_era(), WritesetState::Current, &gather(reader, writeset)?);
            Ok(())
        })
    }

    /// Visits the array: each block of the device in order, and the last digested era in
    /// which it was written; zero is never.
    pub fn visit_array(&self, mut visit: impl FnMut(u64, Era)) -> Result<(), Error> {
        self.each_eras(&mut self.reader(), |first, eras| {
            for (block, era) in (first..).zip(eras) {
                visit(block, Era(u32::from_le_bytes(*era)));
            }
            Ok(())
        })
    }

    /// Visits all there is, piece by piece and never more than a block's worth at once: the
    /// writesets as [`Self::visit_writesets`] does, then the array. Ends with
    /// [`ErrorKind::Stopped`] when told to break.
    pub fn visit(&self, mut visit: impl FnMut(Part<'_>) -> ControlFlow<()>) -> Result<(), Error> {
        let mut reader = self.reader();
        let current = self.current_era();
        self.each_archived(&mut reader, |reader, era, writeset| {
            pieces(reader, (era, WritesetState::Archived), writeset, &mut visit)
        })?;
        self.with_current(&mut reader, |reader, writeset| {
            pieces(reader, (current, WritesetState::Current), writeset, &mut visit)
        })?;
        self.each_eras(&mut reader, |first, eras| go_on(visit(Part::Eras { first, eras })))
    }

    fn reader(&self) -> Reader<'_, S> {
        Reader::below(&self.source, self.number, &self.path)
    }

    fn each_archived(
        &self,
        reader: &mut Reader<'_, S>,
        mut work: impl FnMut(&mut Reader<'_, S>, Era, Writeset) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let root = self.superblock.writeset_tree_root;
        reader.within(Step::WritesetTree, |reader| {
            btree::walk_leaves(reader, root, Writeset::SIZE, &mut |reader, node| {
                for index in 0..node.nr_entries {
                    let (key, value) = (node.key(index), node.value(index));
                    reader.within(Step::Writeset(key), |reader| {
                        let era = self.check_era(key).map_err(|kind| reader.error(kind))?;
                        let writeset = self.check_writeset(reader, Writeset::parse(value))?;
                        work(reader, era, writeset)
                    })?;
                }
                Ok(())
            })
        })
    }

    fn with_current(
        &self,
        reader: &mut Reader<'_, S>,
        work: impl FnOnce(&mut Reader<'_, S>, Writeset) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(writeset) = self.superblock.current_writeset else { return Ok(()) };
        reader.within(Step::CurrentWriteset, |reader| {
            let writeset = self.check_writeset(reader, writeset)?;
            work(reader, writeset)
        })
    }

    fn each_eras(
        &self,
        reader: &mut Reader<'_, S>,
        mut work: impl FnMut(u64, &[[u8; 4]]) -> Result<(), ErrorKind>,
    ) -> Result<(), Error> {
        let Superblock { era_array_root, nr_blocks, .. } = self.superblock;
        reader.within(Step::EraArray, |reader| {
            array::walk_eras(reader, era_array_root, nr_blocks, |first, eras| {
                for era in eras {
                    check_era(u32::from_le_bytes(*era).into(), self.current_era())?;
                }
                work(first, eras)
            })
        })
    }

    fn check_era(&self, key: u64) -> Result<Era, ErrorKind> {
        check_era(key, self.current_era())?;
        // Not above a current era.
        Ok(Era(u32::try_from(key).unwrap_or(u32::MAX)))
    }

    /// A writeset of before the device grew is shorter than the device; none is longer.
    fn check_writeset(
        &self,
        reader: &Reader<'_, S>,
        writeset: Writeset,
    ) -> Result<Writeset, Error> {
        let (found, nr_blocks) = (writeset.nr_bits, self.nr_blocks());
        if found <= nr_blocks {
            return Ok(writeset);
        }
        Err(reader.error(ErrorKind::WritesetTooLong { found, nr_blocks }))
    }
}

fn read_superblock<S: BlockSource>(
    source: &S,
    number: u64,
    path: &[Step],
) -> Result<Superblock, Error> {
    let blocks = source.blocks().min(MAX_BLOCKS);
    if number >= blocks {
        let kind = ErrorKind::OutOfBounds { block: number, last: blocks.saturating_sub(1) };
        return Err(Error { kind, path: path.to_vec() });
    }
    Superblock::read(&Reader::below(source, number, path), number)
}

fn gather<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    writeset: Writeset,
) -> Result<BlockSet, Error> {
    let mut blocks = BlockSet::default();
    add_bits(reader, writeset, &mut blocks)?;
    Ok(blocks)
}

/// A writeset in pieces.
fn pieces<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    (era, state): (Era, WritesetState),
    writeset: Writeset,
    visit: &mut impl FnMut(Part<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let begin = Part::Writeset { era, state, nr_bits: writeset.nr_bits };
    go_on(visit(begin)).map_err(|kind| reader.error(kind))?;
    array::walk_bits(reader, writeset, |first, words| {
        go_on(visit(Part::Bits { first: first * 64, words }))
    })?;
    go_on(visit(Part::WritesetEnd)).map_err(|kind| reader.error(kind))
}

fn go_on(flow: ControlFlow<()>) -> Result<(), ErrorKind> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ErrorKind::Stopped),
    }
}

fn add_bits<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    writeset: Writeset,
    to: &mut BlockSet,
) -> Result<(), Error> {
    array::walk_bits(reader, writeset, |first, words| {
        to.add_words(first, words);
        Ok(())
    })
}

/// Whether the array knows of no write in `since` or later that a writeset does not know.
///
/// The kernel digests the oldest writeset first, and removes it from the tree only when
/// every bit is in the array (`metadata_digest_lookup_writeset` and what follows it). So
/// no value in the array is above the oldest archived era, and those that equal it are in
/// its writeset still. Without an archived writeset nothing bounds the array's values.
fn array_is_older(oldest_archived: Option<Era>, since: Era) -> bool {
    oldest_archived.is_some_and(|oldest| oldest <= since)
}
