//! Writes metadata as the kernel would, from a history of what was written in which era.

use std::collections::{BTreeMap, BTreeSet};

use era_metadata::{BLOCK_SIZE, Era};
use proptest::prelude::*;

/// What happened to a device, and how far the kernel's housekeeping had come.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) nr_blocks: u32,
    /// How long the device was before it grew.
    pub(crate) old_blocks: u32,
    /// How many eras it had then.
    pub(crate) old_eras: usize,
    /// What was written in era 1 and in those that follow it.
    pub(crate) eras: Vec<BTreeSet<u32>>,
    /// How many of them are wholly in the array.
    pub(crate) digested: usize,
    /// Blocks below this one of the oldest undigested era are in the array already.
    pub(crate) digested_below: u32,
    /// Whether the last era is the superblock's current writeset, else it is archived.
    pub(crate) unclean: bool,
    /// How many entries the nodes of btrees get.
    pub(crate) fan_out: usize,
}

impl History {
    /// The blocks written in `since` or later.
    pub(crate) fn changed_since(&self, since: Era) -> Vec<u64> {
        let skipped = (since.0 as usize).saturating_sub(1);
        let blocks: BTreeSet<u64> =
            self.eras.iter().skip(skipped).flatten().map(|&block| block.into()).collect();
        blocks.into_iter().collect()
    }

    pub(crate) fn current_era(&self) -> Era {
        Era(u32::try_from(self.eras.len()).unwrap())
    }

    /// The eras that are not archived: none or the last.
    fn archived(&self) -> usize {
        self.eras.len() - usize::from(self.unclean)
    }

    /// How long the device was in an era, counted from zero.
    fn length(&self, era: usize) -> u32 {
        if era < self.old_eras { self.old_blocks } else { self.nr_blocks }
    }

    fn array(&self) -> Vec<[u8; 4]> {
        let mut last = vec![0_u32; self.nr_blocks as usize];
        for (index, blocks) in self.eras.iter().enumerate().take(self.digested + 1) {
            let whole = index < self.digested;
            let partly = index < self.archived();
            let reached = |block: &&u32| whole || (partly && **block < self.digested_below);
            for &block in blocks.iter().filter(reached) {
                last[block as usize] = u32::try_from(index + 1).unwrap();
            }
        }
        last.into_iter().map(u32::to_le_bytes).collect()
    }
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    let nr_blocks = prop_oneof![
        3 => 1_u32..200,
        2 => 1_000_u32..5_000,
        1 => 32_570_u32..32_590,
        1 => 60_000_u32..70_000,
    ];
    (nr_blocks, 2_usize..8, any::<bool>()).prop_flat_map(|(nr_blocks, fan_out, unclean)| {
        let run = (0..nr_blocks, 1_u32..40)
            .prop_map(move |(first, count)| first..nr_blocks.min(first + count));
        let era = prop::collection::vec(run, 0..6)
            .prop_map(|runs| runs.into_iter().flatten().collect::<BTreeSet<_>>());
        let eras = prop::collection::vec(era, 1..12);
        let index = any::<prop::sample::Index>;
        (eras, index(), 0..=nr_blocks, 1..=nr_blocks, index()).prop_map(
            move |(mut eras, digested, digested_below, old_blocks, old_eras)| {
                let (digested, old_eras) = (digested.index(eras.len()), old_eras.index(eras.len()));
                for blocks in &mut eras[..old_eras] {
                    blocks.retain(|&block| block < old_blocks);
                }
                History {
                    nr_blocks,
                    old_blocks,
                    old_eras,
                    eras,
                    digested,
                    digested_below,
                    unclean,
                    fan_out,
                }
            },
        )
    })
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Superblock,
    Node,
    Array,
}

/// Blocks that keep knowing what they are, so that a change can be given a right checksum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) blocks: Vec<(Kind, Vec<u8>)>,
}

impl Image {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.blocks.iter().flat_map(|(_, block)| block).copied().collect()
    }

    /// Writes into a block.
    pub(crate) fn put(&mut self, block: usize, offset: usize, bytes: &[u8]) {
        self.blocks[block].1[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Gives a block the checksum of its content.
    pub(crate) fn seal(&mut self, block: usize) {
        let (kind, bytes) = &self.blocks[block];
        let salt: u32 = match kind {
            Kind::Superblock => 146_538_381,
            Kind::Node => 121_107,
            Kind::Array => 595_846_735,
        };
        let checksum = !crc32c::crc32c(&bytes[4..]) ^ salt;
        self.put(block, 0, &checksum.to_le_bytes());
    }

    fn allocate(&mut self, kind: Kind) -> usize {
        self.blocks.push((kind, vec![0; BLOCK_SIZE]));
        self.blocks.len() - 1
    }

    pub(crate) fn node(
        &mut self,
        internal: bool,
        entries: &[(u64, Vec<u8>)],
        value_size: usize,
    ) -> u64 {
        let block = self.allocate(Kind::Node);
        let max_entries = (BLOCK_SIZE - 32) / (8 + value_size) / 3 * 3;
        self.header(block, 4, if internal { 1 } else { 2 });
        self.put(block, 8, &(block as u64).to_le_bytes());
        self.header(block, 16, entries.len());
        self.header(block, 20, max_entries);
        self.header(block, 24, value_size);
        for (index, (key, value)) in entries.iter().enumerate() {
            self.put(block, 32 + index * 8, &key.to_le_bytes());
            self.put(block, 32 + max_entries * 8 + index * value_size, value);
        }
        self.seal(block);
        block as u64
    }

    fn header(&mut self, block: usize, offset: usize, value: usize) {
        self.put(block, offset, &u32::try_from(value).unwrap().to_le_bytes());
    }

    /// A btree whose nodes have at most `fan_out` entries.
    pub(crate) fn tree(
        &mut self,
        entries: &[(u64, Vec<u8>)],
        value_size: usize,
        fan_out: usize,
    ) -> u64 {
        if entries.is_empty() {
            return self.node(false, &[], value_size);
        }
        let mut level: Vec<(u64, Vec<u8>)> = Vec::new();
        for chunk in entries.chunks(fan_out) {
            let node = self.node(false, chunk, value_size);
            level.push((chunk[0].0, node.to_le_bytes().to_vec()));
        }
        while level.len() > 1 {
            let mut above = Vec::new();
            for chunk in level.chunks(fan_out) {
                let node = self.node(true, chunk, 8);
                above.push((chunk[0].0, node.to_le_bytes().to_vec()));
            }
            level = above;
        }
        u64::from_le_bytes(level[0].1.clone().try_into().unwrap())
    }

    pub(crate) fn array<const N: usize>(&mut self, values: &[[u8; N]], fan_out: usize) -> u64 {
        let max_entries = (BLOCK_SIZE - 24) / N;
        let mut leaves = Vec::new();
        for (index, chunk) in values.chunks(max_entries).enumerate() {
            let block = self.allocate(Kind::Array);
            self.header(block, 4, max_entries);
            self.header(block, 8, chunk.len());
            self.header(block, 12, N);
            self.put(block, 16, &(block as u64).to_le_bytes());
            self.put(block, 24, chunk.as_flattened());
            self.seal(block);
            leaves.push((index as u64, (block as u64).to_le_bytes().to_vec()));
        }
        self.tree(&leaves, 8, fan_out)
    }

    pub(crate) fn bitset(&mut self, blocks: &BTreeSet<u32>, nr_bits: u32, fan_out: usize) -> u64 {
        let mut words = vec![0_u64; nr_bits.div_ceil(64) as usize];
        for block in blocks {
            words[(block / 64) as usize] |= 1 << (block % 64);
        }
        let words: Vec<[u8; 8]> = words.into_iter().map(u64::to_le_bytes).collect();
        self.array(&words, fan_out)
    }
}

/// `struct writeset_disk`.
fn writeset(nr_bits: u32, root: u64) -> Vec<u8> {
    [&nr_bits.to_le_bytes()[..], &root.to_le_bytes()].concat()
}

/// The metadata that a history leaves.
pub(crate) fn image(history: &History) -> Image {
    let History { nr_blocks, fan_out, .. } = *history;
    let mut image = Image::default();
    let superblock = image.allocate(Kind::Superblock);
    let era_array = image.array(&history.array(), fan_out);
    let mut roots = BTreeMap::new();
    for (index, blocks) in history.eras.iter().enumerate().skip(history.digested) {
        roots.insert(index, image.bitset(blocks, history.length(index), fan_out));
    }
    let last = history.eras.len() - 1;
    let current = if history.unclean { roots.remove(&last) } else { None };
    let archived: Vec<(u64, Vec<u8>)> = roots
        .into_iter()
        .map(|(index, root)| (index as u64 + 1, writeset(history.length(index), root)))
        .collect();
    let writeset_tree = image.tree(&archived, 12, fan_out);

    image.put(superblock, 32, &2_126_579_579_u64.to_le_bytes());
    image.put(superblock, 40, &1_u32.to_le_bytes());
    image.put(superblock, 172, &8_u32.to_le_bytes());
    image.put(superblock, 176, &8_u32.to_le_bytes());
    image.put(superblock, 180, &nr_blocks.to_le_bytes());
    image.put(superblock, 184, &history.current_era().0.to_le_bytes());
    image.put(superblock, 188, &writeset(history.length(last), current.unwrap_or(0)));
    image.put(superblock, 200, &writeset_tree.to_le_bytes());
    image.put(superblock, 208, &era_array.to_le_bytes());
    image.seal(superblock);
    image
}
