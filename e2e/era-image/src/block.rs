//! The blocks of dm-era's metadata, each with its checksum
//! (drivers/md/dm-era-target.c and drivers/md/persistent-data/).

/// Bytes in a metadata block.
pub const BLOCK_SIZE: usize = 4096;

pub(crate) type Bytes = [u8; BLOCK_SIZE];

const NODE_HEADER: usize = 32;
const ARRAY_HEADER: usize = 24;
const BITMAP_HEADER: usize = 16;
/// Two bits for each block that a bitmap counts.
pub(crate) const COUNTED_PER_BITMAP: u64 = (BLOCK_SIZE - BITMAP_HEADER) as u64 * 4;

/// What a block is: decides the salt of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The superblock or a clone of it.
    Superblock,
    /// A node of a btree.
    Node,
    /// A block of array or bitset values.
    Array,
    /// A block of the space map's counts.
    Bitmap,
    /// The space map's index of its bitmaps.
    Index,
}

/// Gives a block of [`BLOCK_SIZE`] bytes the checksum of its content.
pub fn seal(kind: Kind, block: &mut [u8]) {
    let salt: u32 = match kind {
        Kind::Superblock => 146_538_381,
        Kind::Node => 121_107,
        Kind::Array => 595_846_735,
        Kind::Bitmap => 240_779,
        Kind::Index => 160_478,
    };
    let checksum = !crc32c::crc32c(&block[4..]) ^ salt;
    block[..4].copy_from_slice(&checksum.to_le_bytes());
}

fn put_u32(block: &mut Bytes, offset: usize, value: u32) {
    block[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(block: &mut Bytes, offset: usize, value: u64) {
    block[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("less than a block")
}

/// An entry of a btree: a key, and as much of the value as the tree's values are long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    pub(crate) value: [u8; 12],
}

impl Entry {
    /// An entry that refers to a block.
    pub(crate) fn block(key: u64, number: u64) -> Self {
        let mut value = [0; 12];
        value[..8].copy_from_slice(&number.to_le_bytes());
        Self { key, value }
    }

    /// An entry of the writeset tree (`struct writeset_disk`, packed).
    pub(crate) fn writeset(era: u32, nr_bits: u32, root: u64) -> Self {
        let mut value = [0; 12];
        value[..4].copy_from_slice(&nr_bits.to_le_bytes());
        value[4..].copy_from_slice(&root.to_le_bytes());
        Self { key: era.into(), value }
    }
}

/// `struct btree_node`.
pub(crate) fn node(number: u64, internal: bool, entries: &[Entry], value_size: usize) -> Bytes {
    let max_entries = (BLOCK_SIZE - NODE_HEADER) / (8 + value_size) / 3 * 3;
    let mut block = [0; BLOCK_SIZE];
    put_u32(&mut block, 4, if internal { 1 } else { 2 });
    put_u64(&mut block, 8, number);
    put_u32(&mut block, 16, small(entries.len()));
    put_u32(&mut block, 20, small(max_entries));
    put_u32(&mut block, 24, small(value_size));
    for (index, entry) in entries.iter().enumerate() {
        put_u64(&mut block, NODE_HEADER + index * 8, entry.key);
        let at = NODE_HEADER + max_entries * 8 + index * value_size;
        block[at..at + value_size].copy_from_slice(&entry.value[..value_size]);
    }
    seal(Kind::Node, &mut block);
    block
}

/// How many values of `N` bytes an array block has room for.
pub(crate) const fn array_capacity(value_size: usize) -> usize {
    (BLOCK_SIZE - ARRAY_HEADER) / value_size
}

/// `struct array_block`.
pub(crate) fn array<const N: usize>(number: u64, values: &[[u8; N]]) -> Bytes {
    let mut block = [0; BLOCK_SIZE];
    put_u32(&mut block, 4, small(array_capacity(N)));
    put_u32(&mut block, 8, small(values.len()));
    put_u32(&mut block, 12, small(N));
    put_u64(&mut block, 16, number);
    block[ARRAY_HEADER..ARRAY_HEADER + values.len() * N].copy_from_slice(values.as_flattened());
    seal(Kind::Array, &mut block);
    block
}

/// `struct disk_bitmap_header` and what follows it: `counts` has 1 or 2 for each block in use.
pub(crate) fn bitmap(number: u64, counts: impl Iterator<Item = u8>) -> Bytes {
    let mut block = [0; BLOCK_SIZE];
    put_u64(&mut block, 8, number);
    for (index, count) in counts.enumerate() {
        // The lower bit is the higher one of the count (`sm_lookup_bitmap`).
        let bits = (count >> 1) | ((count & 1) << 1);
        block[BITMAP_HEADER + index / 4] |= bits << (index % 4 * 2);
    }
    seal(Kind::Bitmap, &mut block);
    block
}

/// `struct disk_index_entry`: a bitmap, and how many of its blocks are free from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) bitmap: u64,
    pub(crate) free: u32,
    pub(crate) first_free: u32,
}

/// `struct disk_metadata_index`.
pub(crate) fn index(number: u64, entries: &[IndexEntry]) -> Bytes {
    let mut block = [0; BLOCK_SIZE];
    put_u64(&mut block, 8, number);
    for (i, entry) in entries.iter().enumerate() {
        let at = 16 + i * 16;
        put_u64(&mut block, at, entry.bitmap);
        put_u32(&mut block, at + 8, entry.free);
        put_u32(&mut block, at + 12, entry.first_free);
    }
    seal(Kind::Index, &mut block);
    block
}

/// `struct superblock_disk`, with `struct disk_sm_root` in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Superblock {
    pub(crate) number: u64,
    pub(crate) metadata_blocks: u64,
    pub(crate) allocated: u64,
    pub(crate) index: u64,
    pub(crate) ref_counts: u64,
    pub(crate) granularity_sectors: u32,
    pub(crate) nr_blocks: u32,
    pub(crate) current_era: u32,
    /// Zero is none.
    pub(crate) current_writeset: u64,
    pub(crate) writeset_tree: u64,
    pub(crate) era_array: u64,
    /// Zero is none.
    pub(crate) snapshot: u64,
}

impl Superblock {
    pub(crate) fn block(&self) -> Bytes {
        let mut block = [0; BLOCK_SIZE];
        put_u64(&mut block, 8, self.number);
        put_u64(&mut block, 32, 2_126_579_579);
        put_u32(&mut block, 40, 1);
        let map = [self.metadata_blocks, self.allocated, self.index, self.ref_counts];
        for (i, field) in map.into_iter().enumerate() {
            put_u64(&mut block, 44 + i * 8, field);
        }
        put_u32(&mut block, 172, self.granularity_sectors);
        put_u32(&mut block, 176, 8);
        put_u32(&mut block, 180, self.nr_blocks);
        put_u32(&mut block, 184, self.current_era);
        put_u32(&mut block, 188, self.nr_blocks);
        put_u64(&mut block, 192, self.current_writeset);
        put_u64(&mut block, 200, self.writeset_tree);
        put_u64(&mut block, 208, self.era_array);
        put_u64(&mut block, 216, self.snapshot);
        seal(Kind::Superblock, &mut block);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_pairs_of_bits_the_higher_one_first() {
        let block = bitmap(3, [1, 2, 0, 1].into_iter());
        assert_eq!(block[16], 0b10_00_01_10);
        assert_eq!(&block[8..10], [3, 0]);
    }

    #[test]
    fn capacities_are_the_kernels() {
        assert_eq!((array_capacity(4), array_capacity(8)), (1018, 509));
        assert_eq!(COUNTED_PER_BITMAP, 16_320);
        let node = node(7, false, &[Entry::writeset(5, 6, 9)], 12);
        assert_eq!(node[20], 201);
        assert_eq!(node[32], 5);
        assert_eq!(node[32 + 201 * 8..][..5], [6, 0, 0, 0, 9]);
    }

    #[test]
    fn a_changed_block_is_sealed_anew() {
        let (mut block, whole) = (array(2, &[[1; 4]]), array(2, &[[2; 4]]));
        block[24..28].fill(2);
        assert_ne!(block, whole);
        seal(Kind::Array, &mut block);
        assert_eq!(block, whole);
    }
}
