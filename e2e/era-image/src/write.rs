//! Metadata, block after block.

use std::io;

use crate::block::{
    self, Bytes, COUNTED_PER_BITMAP, Entry, IndexEntry, Superblock, array_capacity,
};
use crate::history::History;
use crate::layout::Layout;
use crate::sink::Sink;
use crate::spec::Spec;
use crate::tree::{Allocate, Tree};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The length of the metadata in blocks.
    pub blocks: u64,
    /// How many of them are in use.
    pub used: u64,
    /// The block of the metadata snapshot.
    pub held: Option<u64>,
}

pub(crate) fn write(spec: &Spec, sink: &mut impl Sink) -> io::Result<Written> {
    let layout = Layout::new(spec);
    let mut writer = Writer { layout, sink, next: 0 };
    let superblock = writer.reserve();
    let bitmaps: Vec<u64> = (0..layout.bitmaps).map(|_| writer.reserve()).collect();
    let index = writer.reserve();
    let ref_counts = Tree::new(spec.fan_out, 4).finish(&mut writer)?;
    let held = spec.held.then(|| writer.reserve());
    let roots = Roots::write(spec, &mut writer)?;
    assert_eq!(writer.next, layout.used, "the layout counts what is written");

    let shared = [roots.writeset_tree, roots.era_array];
    let twice = if spec.held { &shared[..] } else { &[] };
    write_space_map(&layout, index, &bitmaps, twice, writer.sink)?;
    let live = Superblock {
        number: superblock,
        metadata_blocks: layout.blocks,
        allocated: layout.used,
        index,
        ref_counts,
        granularity_sectors: spec.granularity_sectors,
        nr_blocks: spec.nr_blocks,
        current_era: spec.current_era(),
        current_writeset: roots.current,
        writeset_tree: roots.writeset_tree,
        era_array: roots.era_array,
        snapshot: held.unwrap_or(0),
    };
    if let Some(number) = held {
        // A snapshot is cloned before the superblock refers to it.
        let clone = Superblock { number, snapshot: 0, ..live };
        writer.sink.put(number, &clone.block())?;
    }
    writer.sink.put(superblock, &live.block())?;
    Ok(Written { blocks: layout.blocks, used: layout.used, held })
}

struct Writer<'s, S> {
    layout: Layout,
    sink: &'s mut S,
    next: u64,
}

impl<S: Sink> Writer<'_, S> {
    /// The place of a block that is written later.
    fn reserve(&mut self) -> u64 {
        let place = self.layout.place(self.next);
        self.next += 1;
        place
    }

    /// An array of values that `fill` fills, given the index of the first; its root.
    fn array<const N: usize>(
        &mut self,
        length: u32,
        fan_out: usize,
        mut fill: impl FnMut(u32, &mut [[u8; N]]),
    ) -> io::Result<u64> {
        let capacity = array_capacity(N);
        let mut values = vec![[0; N]; capacity];
        let mut tree = Tree::new(fan_out, 8);
        for (index, first) in (0..).zip((0..length).step_by(capacity)) {
            let values = &mut values[..capacity.min((length - first) as usize)];
            fill(first, values);
            let number = self.allocate(|number| block::array(number, values))?;
            tree.push(self, Entry::block(index, number))?;
        }
        tree.finish(self)
    }
}

impl<S: Sink> Allocate for Writer<'_, S> {
    fn allocate(&mut self, make: impl FnOnce(u64) -> Bytes) -> io::Result<u64> {
        let place = self.reserve();
        self.sink.put(place, &make(place))?;
        Ok(place)
    }
}

/// The blocks that the superblock refers to.
struct Roots {
    era_array: u64,
    writeset_tree: u64,
    /// Zero is none.
    current: u64,
}

impl Roots {
    fn write<S: Sink>(spec: &Spec, writer: &mut Writer<'_, S>) -> io::Result<Self> {
        let history = History::new(spec);
        let era_array =
            writer.array(spec.nr_blocks, spec.fan_out, |first, into| history.eras(first, into))?;
        let mut tree = Tree::new(spec.fan_out, 12);
        for era in spec.archived() {
            let root = write_bitset(spec, &history, era, writer)?;
            tree.push(writer, Entry::writeset(era, spec.nr_blocks, root))?;
        }
        let writeset_tree = tree.finish(writer)?;
        let current = if spec.current_writeset() {
            write_bitset(spec, &history, spec.current_era(), writer)?
        } else {
            0
        };
        Ok(Self { era_array, writeset_tree, current })
    }
}

fn write_bitset<S: Sink>(
    spec: &Spec,
    history: &History,
    era: u32,
    writer: &mut Writer<'_, S>,
) -> io::Result<u64> {
    writer.array(spec.nr_blocks.div_ceil(64), spec.fan_out, |first, into: &mut [[u8; 8]]| {
        for (window, word) in (first..).zip(into) {
            *word = history.word(era, window).to_le_bytes();
        }
    })
}

/// Every block in use counts one, those in `twice` two.
fn write_space_map(
    layout: &Layout,
    index: u64,
    bitmaps: &[u64],
    twice: &[u64],
    sink: &mut impl Sink,
) -> io::Result<()> {
    let mut entries = Vec::new();
    for (&number, first) in bitmaps.iter().zip((0..).step_by(16_320)) {
        let end = (first + COUNTED_PER_BITMAP).min(layout.blocks);
        let used_end = layout.used.clamp(first, end);
        let counts = (first..used_end).map(|block| 1 + u8::from(twice.contains(&block)));
        sink.put(number, &block::bitmap(number, counts))?;
        entries.push(IndexEntry {
            bitmap: number,
            // The kernel counts what lies beyond the last block as free (`sm_ll_extend`).
            free: small(first + COUNTED_PER_BITMAP - used_end),
            first_free: small(used_end - first),
        });
    }
    sink.put(index, &block::index(index, &entries))
}

fn small(count: u64) -> u32 {
    u32::try_from(count).expect("at most what a bitmap counts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BLOCK_SIZE, Placement};
    use std::fs::File;

    #[test]
    fn a_file_has_the_same_bytes_as_memory() {
        let path = std::env::temp_dir().join(format!("era-image-{}", std::process::id()));
        for placement in [Placement::Ascending, Placement::Shuffled] {
            let spec = Spec { placement, held: true, unclean: true, ..Spec::of(300_000) };
            let written = spec.write(&File::create(&path).unwrap()).unwrap();
            let (file, memory) = (std::fs::read(&path).unwrap(), spec.bytes());
            std::fs::remove_file(&path).unwrap();
            assert!(file == memory, "{placement:?}");
            assert_eq!(memory.len() as u64, written.blocks * BLOCK_SIZE as u64);
            assert_eq!(written.blocks, written.used + spec.free);
        }
    }

    #[test]
    fn another_seed_is_another_history() {
        assert_ne!(Spec::of(50_000).bytes(), Spec { seed: 2, ..Spec::of(50_000) }.bytes());
    }
}
