//! One metadata block and the fields in it.

use std::fmt;

use crate::error::ErrorKind;

/// The size of a metadata block in bytes (`DM_ERA_METADATA_BLOCK_SIZE`).
pub const BLOCK_SIZE: usize = 4096;

/// More blocks than this the kernel's metadata space map does not manage, whatever the
/// device's size (`DM_SM_METADATA_MAX_BLOCKS`, drivers/md/persistent-data/dm-space-map-metadata.h).
pub const MAX_BLOCKS: u64 = 255 * ((1 << 14) - 64);

/// The bytes of one metadata block, aligned so that `O_DIRECT` can read into them on
/// every device whose logical block is at most 4 KiB.
#[repr(C, align(4096))]
#[derive(Clone, PartialEq, Eq)]
pub struct Block([u8; BLOCK_SIZE]);

impl Block {
    /// A block of zeroes.
    pub fn zeroed() -> Box<Self> {
        Box::new(Self([0; BLOCK_SIZE]))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; BLOCK_SIZE] {
        &self.0
    }

    /// The bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8; BLOCK_SIZE] {
        &mut self.0
    }

    /// The little-endian number at a constant offset within the block.
    pub(crate) fn u32_at(&self, offset: usize) -> u32 {
        u32_at(&self.0, offset)
    }

    /// The little-endian number at an offset that the caller keeps within the block.
    pub(crate) fn u64_at(&self, offset: usize) -> u64 {
        u64_at(&self.0, offset)
    }

    /// Checks what every kind of block has: its checksum and its own number.
    pub(crate) fn verify(&self, number: u64, what: BlockKind) -> Result<(), ErrorKind> {
        verify(&self.0, number, what)
    }
}

/// The little-endian number at a constant offset within a block.
pub(crate) fn u32_at(block: &[u8; BLOCK_SIZE], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&block[offset..offset + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at(block: &[u8; BLOCK_SIZE], offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[offset..offset + 8]);
    u64::from_le_bytes(bytes)
}

/// Checks what every kind of block has: its checksum and its own number.
pub(crate) fn verify(
    block: &[u8; BLOCK_SIZE],
    number: u64,
    what: BlockKind,
) -> Result<(), ErrorKind> {
    let (expected, found) = (checksum(block, what), u32_at(block, 0));
    if expected != found {
        return Err(ErrorKind::Checksum { block: number, what, expected, found });
    }
    let found = u64_at(block, what.blocknr_offset());
    if found != number {
        return Err(ErrorKind::Misplaced { block: number, what, found });
    }
    Ok(())
}

/// What the checksum field at offset 0 must hold: CRC32C without the final inversion
/// (`dm_bm_checksum`), mixed with the salt of the block's kind.
fn checksum(block: &[u8; BLOCK_SIZE], kind: BlockKind) -> u32 {
    !crc32c::crc32c(&block[4..]) ^ kind.salt()
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:02x?}…)", &self.0[..16])
    }
}

/// What a block claims to be; decides its salt and its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// The superblock, or the clone of it that a metadata snapshot is.
    Superblock,
    /// A node of a btree.
    Node,
    /// A block of packed array values.
    Array,
    /// The index of the space map's bitmaps.
    SpaceMapIndex,
    /// A bitmap of the space map.
    SpaceMapBitmap,
}

impl BlockKind {
    /// `SUPERBLOCK_CSUM_XOR` (dm-era-target.c), `BTREE_CSUM_XOR` (dm-btree-spine.c),
    /// `CSUM_XOR` (dm-array.c), `INDEX_CSUM_XOR` and `BITMAP_CSUM_XOR` (dm-space-map-common.c).
    fn salt(self) -> u32 {
        match self {
            Self::Superblock => 146_538_381,
            Self::Node => 121_107,
            Self::Array => 595_846_735,
            Self::SpaceMapIndex => 160_478,
            Self::SpaceMapBitmap => 240_779,
        }
    }

    fn blocknr_offset(self) -> usize {
        match self {
            Self::Superblock | Self::Node | Self::SpaceMapIndex | Self::SpaceMapBitmap => 8,
            Self::Array => 16,
        }
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock",
            Self::Node => "btree node",
            Self::Array => "array block",
            Self::SpaceMapIndex => "space map index",
            Self::SpaceMapBitmap => "space map bitmap",
        })
    }
}
