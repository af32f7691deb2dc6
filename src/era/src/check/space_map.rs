//! The metadata space map: how often each metadata block is referred to
//! (drivers/md/persistent-data/dm-space-map-common.c).
//!
//! An index of bitmaps with two bits a block: free, one, two, or "look into the tree", which
//! has the counts above two.

use super::finding::Problem;
use super::walk::Walk;
use crate::block::{BLOCK_SIZE, Block, BlockKind, MAX_BLOCKS};
use crate::error::{ErrorKind, Step};
use crate::source::BlockSource;
use crate::superblock::SpaceMapRoot;

/// Blocks that a bitmap counts: two bits each, after `struct disk_bitmap_header`.
const PER_BITMAP: u64 = (BLOCK_SIZE as u64 - 16) * 4;
/// A value of the tree of counts.
const COUNT: usize = 4;
/// The two bits that refer to the tree.
const IN_TREE: u8 = 3;

/// Offsets within `struct disk_metadata_index` and within its entries, in bytes.
mod at {
    pub(super) const ENTRIES: usize = 16;
    pub(super) const ENTRY: usize = 16;
    pub(super) const BITMAP: usize = 0;
    pub(super) const NR_FREE: usize = 8;
    pub(super) const NONE_FREE_BEFORE: usize = 12;
    /// In a bitmap.
    pub(super) const BITS: usize = 16;
}

/// The counts as they are stored.
pub(super) struct SpaceMap {
    pub(super) root: SpaceMapRoot,
    /// The two bits of each block; none where a bitmap cannot be read.
    bits: Vec<Option<u8>>,
    /// The blocks with counts above two, in order, and the counts.
    tree: Vec<(u64, u32)>,
    /// Whether the tree could be read in full.
    tree_is_whole: bool,
}

/// Reads the whole map; none if its root makes no sense.
pub(super) fn read<S: BlockSource>(walk: &mut Walk<'_, S>, root: SpaceMapRoot) -> Option<SpaceMap> {
    if root.nr_blocks == 0 || root.nr_blocks > MAX_BLOCKS {
        let expected = format!("1 to {MAX_BLOCKS}");
        return walk.lose(ErrorKind::field(0, "space map nr_blocks", expected, root.nr_blocks));
    }
    if root.nr_blocks > walk.blocks() {
        let (found, blocks) = (root.nr_blocks, walk.blocks());
        walk.report(Problem::MoreManagedThanThere { found, blocks });
        // Room is taken for blocks that are there alone.
        let there = SpaceMapRoot { nr_blocks: blocks, ..root };
        let bits = walk
            .within(Step::SpaceMapIndex(root.bitmap_root), |walk| read_index(walk, there, None));
        let tree = walk.within(Step::ReferenceCounts, |walk| read_tree(walk, there));
        return Some(SpaceMap { root: there, bits: bits?, tree, tree_is_whole: false });
    }
    let bits =
        walk.within(Step::SpaceMapIndex(root.bitmap_root), |walk| read_index(walk, root, Some(0)));
    let lost = walk.lost;
    let tree = walk.within(Step::ReferenceCounts, |walk| read_tree(walk, root));
    let tree_is_whole = lost == walk.lost;
    Some(SpaceMap { root, bits: bits?, tree, tree_is_whole })
}

fn read_tree<S: BlockSource>(walk: &mut Walk<'_, S>, root: SpaceMapRoot) -> Vec<(u64, u32)> {
    let mut tree = Vec::new();
    walk.tree(root.ref_count_root, COUNT, true, &mut |walk, block, value, _| {
        let mut count = [0; COUNT];
        count.copy_from_slice(value);
        let count = u32::from_le_bytes(count);
        // Keys are met once each: this never has more of them than there are blocks.
        if block < root.nr_blocks {
            tree.push((block, count));
        } else {
            walk.report(Problem::CountUnused { block, count, bits: 0 });
        }
    });
    tree
}

fn read_index<S: BlockSource>(
    walk: &mut Walk<'_, S>,
    root: SpaceMapRoot,
    mut allocated: Option<u64>,
) -> Option<Vec<Option<u8>>> {
    let index = walk.follow(root.bitmap_root, BlockKind::SpaceMapIndex, true)?;
    let mut bits = Vec::new();
    // At most as many as the index has entries, because nr_blocks is within MAX_BLOCKS.
    for first in (0..root.nr_blocks).step_by(usize::try_from(PER_BITMAP).unwrap_or(usize::MAX)) {
        let counted = PER_BITMAP.min(root.nr_blocks - first);
        let entry = Entry::parse(index.block(), first / PER_BITMAP);
        let step = Step::SpaceMapBitmap { index: first / PER_BITMAP, block: entry.bitmap };
        let used = walk.within(step, |walk| read_bitmap(walk, entry, counted, &mut bits));
        allocated = allocated.zip(used).map(|(all, used)| all + used);
        let end = usize::try_from(first + counted).unwrap_or(usize::MAX);
        bits.resize(end, None);
    }
    if let Some(counted) = allocated.filter(|counted| *counted != root.nr_allocated) {
        walk.report(Problem::Sum { field: "nr_allocated", found: root.nr_allocated, counted });
    }
    Some(bits)
}

/// `struct disk_index_entry`.
#[derive(Clone, Copy)]
struct Entry {
    bitmap: u64,
    nr_free: u32,
    none_free_before: u32,
}

impl Entry {
    fn parse(index: &Block, number: u64) -> Self {
        let offset = at::ENTRIES + usize::try_from(number).unwrap_or(0) * at::ENTRY;
        Self {
            bitmap: index.u64_at(offset + at::BITMAP),
            nr_free: index.u32_at(offset + at::NR_FREE),
            none_free_before: index.u32_at(offset + at::NONE_FREE_BEFORE),
        }
    }
}

/// Reads one bitmap; returns how many blocks are in use by it.
fn read_bitmap<S: BlockSource>(
    walk: &mut Walk<'_, S>,
    entry: Entry,
    counted: u64,
    bits: &mut Vec<Option<u8>>,
) -> Option<u64> {
    let bitmap = walk.follow(entry.bitmap, BlockKind::SpaceMapBitmap, true)?;
    let all: Vec<u8> =
        bitmap.block().bytes()[at::BITS..].iter().flat_map(|byte| two_bits(*byte)).collect();
    // The kernel counts what lies beyond the last block as free (`sm_ll_extend`).
    let free = PER_BITMAP - in_use(&all);
    if free != u64::from(entry.nr_free) {
        let found = entry.nr_free.into();
        walk.report(Problem::Sum { field: "nr_free", found, counted: free });
    }
    let first_free = all.iter().position(|bits| *bits == 0).map_or(PER_BITMAP, |free| free as u64);
    if first_free < u64::from(entry.none_free_before) {
        let found = entry.none_free_before;
        walk.report(Problem::FreeBefore { found, free: first_free });
    }
    let counted = usize::try_from(counted).unwrap_or(usize::MAX);
    let (within, beyond) = all.split_at(counted.min(all.len()));
    let beyond = beyond.iter().filter(|bits| **bits != 0).count() as u64;
    if beyond != 0 {
        walk.report(Problem::Sum {
            field: "entries beyond the last block",
            found: beyond,
            counted: 0,
        });
    }
    bits.extend(within.iter().copied().map(Some));
    Some(in_use(within))
}

fn in_use(bits: &[u8]) -> u64 {
    bits.iter().map(|bits| u64::from(*bits != 0)).sum()
}

/// The counts of four blocks; the higher bit of each comes first (`sm_lookup_bitmap`).
fn two_bits(byte: u8) -> [u8; 4] {
    [0, 2, 4, 6].map(|shift| {
        let pair = byte >> shift;
        (pair & 1) << 1 | pair >> 1 & 1
    })
}

impl SpaceMap {
    /// Compares the counts with the references that were met.
    pub(super) fn compare<S: BlockSource>(&self, walk: &mut Walk<'_, S>) {
        self.compare_tree(walk);
        let managed = self.root.nr_blocks;
        if walk.references.end() > managed {
            let block = walk.references.end() - 1;
            walk.report(Problem::NotManaged { block, managed });
        }
        let mut lost = Lost::default();
        let mut run: Option<Disagreement> = None;
        for block in 0..managed {
            let found = self.disagreement(walk, block);
            lost.add(found);
            let too_low = found.filter(Disagreement::is_too_low);
            run = match (run, too_low) {
                (Some(run), Some(found)) if run.joins(&found) => {
                    Some(Disagreement { last: block, ..run })
                }
                (before, found) => {
                    report(walk, before);
                    found
                }
            };
        }
        report(walk, run);
        // What could not be read may refer to these.
        if walk.lost == 0 {
            lost.report(walk);
        }
    }

    /// What the tree has and the bitmaps do not refer to.
    fn compare_tree<S: BlockSource>(&self, walk: &mut Walk<'_, S>) {
        for &(block, count) in &self.tree {
            let Some(bits) = self.bits(block) else { continue };
            if bits != IN_TREE || count <= 2 {
                walk.report(Problem::CountUnused { block, count, bits });
            }
        }
    }

    /// A block's two bits, if its bitmap could be read.
    fn bits(&self, block: u64) -> Option<u8> {
        usize::try_from(block).ok().and_then(|block| *self.bits.get(block)?)
    }

    fn disagreement<S: BlockSource>(
        &self,
        walk: &mut Walk<'_, S>,
        block: u64,
    ) -> Option<Disagreement> {
        let stored = match self.bits(block)? {
            IN_TREE => match self.tree.binary_search_by_key(&block, |(block, _)| *block) {
                Ok(found) => self.tree.get(found)?.1,
                Err(_) if self.tree_is_whole => {
                    walk.report(Problem::CountMissing { block });
                    return None;
                }
                Err(_) => return None,
            },
            bits => bits.into(),
        };
        let references = walk.references.of(block);
        let found = Disagreement { first: block, last: block, stored, references };
        (stored != references).then_some(found)
    }
}

/// Consecutive blocks about which map and references disagree in the same way.
#[derive(Clone, Copy)]
struct Disagreement {
    first: u64,
    last: u64,
    stored: u32,
    references: u32,
}

impl Disagreement {
    fn is_too_low(&self) -> bool {
        self.stored < self.references
    }

    fn joins(&self, next: &Self) -> bool {
        let alike = self.stored == next.stored && self.references == next.references;
        alike && self.last + 1 == next.first
    }
}

fn report<S: BlockSource>(walk: &mut Walk<'_, S>, found: Option<Disagreement>) {
    let Some(Disagreement { first, last, stored, references }) = found else { return };
    walk.report(Problem::CountTooLow { first, last, stored, references });
}

/// Blocks that the kernel takes for used, or used more often than they are.
#[derive(Default)]
struct Lost {
    blocks: u64,
    first: Option<u64>,
}

impl Lost {
    fn add(&mut self, found: Option<Disagreement>) {
        if let Some(found) = found.filter(|found| !found.is_too_low()) {
            self.blocks += 1;
            self.first.get_or_insert(found.first);
        }
    }

    fn report<S: BlockSource>(self, walk: &mut Walk<'_, S>) {
        if let Some(first) = self.first {
            walk.report(Problem::CountTooHigh { blocks: self.blocks, first });
        }
    }
}
