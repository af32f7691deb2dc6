//! The superblock, and the clone of it that a metadata snapshot is
//! (`struct superblock_disk`, drivers/md/dm-era-target.c).

use crate::Era;
use crate::block::{BLOCK_SIZE, Block, BlockKind};
use crate::error::{Error, ErrorKind};
use crate::reader::Reader;
use crate::source::BlockSource;

const MAGIC: u64 = 2_126_579_579;
const VERSION: u32 = 1;
/// Of the metadata, in sectors.
const METADATA_BLOCK_SECTORS: u32 = 8;
/// `MIN_BLOCK_SIZE`: the granularity is a multiple of it, in sectors.
const GRANULARITY_UNIT: u32 = 8;
/// `valid_nr_blocks`: a device has fewer blocks than this.
pub(crate) const NR_BLOCKS_LIMIT: u64 = 1 << 31;

/// Offsets of the fields in bytes.
mod at {
    pub(super) const FLAGS: usize = 4;
    pub(super) const MAGIC: usize = 32;
    pub(super) const VERSION: usize = 40;
    pub(super) const SPACE_MAP_NR_BLOCKS: usize = 44;
    pub(super) const SPACE_MAP_NR_ALLOCATED: usize = 52;
    pub(super) const SPACE_MAP_BITMAP_ROOT: usize = 60;
    pub(super) const SPACE_MAP_REF_COUNT_ROOT: usize = 68;
    pub(super) const DATA_BLOCK_SIZE: usize = 172;
    pub(super) const METADATA_BLOCK_SIZE: usize = 176;
    pub(super) const NR_BLOCKS: usize = 180;
    pub(super) const CURRENT_ERA: usize = 184;
    pub(super) const CURRENT_NR_BITS: usize = 188;
    pub(super) const CURRENT_ROOT: usize = 192;
    pub(super) const WRITESET_TREE_ROOT: usize = 200;
    pub(super) const ERA_ARRAY_ROOT: usize = 208;
    pub(super) const METADATA_SNAP: usize = 216;
}

/// Where an era's bitset is (`struct writeset_disk`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writeset {
    /// How many blocks the device had in that era.
    pub(crate) nr_bits: u32,
    pub(crate) root: u64,
}

impl Writeset {
    /// As a value of the writeset tree, packed.
    pub(crate) const SIZE: usize = 12;

    /// From such a value.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let (mut nr_bits, mut root) = ([0; 4], [0; 8]);
        nr_bits.copy_from_slice(&value[..4]);
        root.copy_from_slice(&value[4..Self::SIZE]);
        Self { nr_bits: u32::from_le_bytes(nr_bits), root: u64::from_le_bytes(root) }
    }
}

/// Where the metadata space map is (`struct disk_sm_root`, dm-space-map-common.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceMapRoot {
    pub(crate) nr_blocks: u64,
    pub(crate) nr_allocated: u64,
    pub(crate) bitmap_root: u64,
    pub(crate) ref_count_root: u64,
}

/// A verified superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The granularity in sectors.
    pub(crate) data_block_size: u32,
    pub(crate) nr_blocks: u32,
    pub(crate) current_era: Era,
    /// None when the device was suspended cleanly.
    pub(crate) current_writeset: Option<Writeset>,
    pub(crate) writeset_tree_root: u64,
    pub(crate) era_array_root: u64,
    /// The block of the held clone.
    pub(crate) metadata_snap: Option<u64>,
    pub(crate) space_map: SpaceMapRoot,
}

impl Superblock {
    /// Reads and verifies the superblock or a clone of it.
    pub(crate) fn read<S: BlockSource>(reader: &Reader<'_, S>, number: u64) -> Result<Self, Error> {
        let block = reader.read_unverified(number)?;
        Self::verify(number, &block).map_err(|kind| reader.error(kind))
    }

    /// Verifies a block that is to be the superblock or a clone of it.
    pub(crate) fn verify(number: u64, block: &Block) -> Result<Self, ErrorKind> {
        if block.bytes() == &[0; BLOCK_SIZE] {
            return Err(ErrorKind::Unformatted { block: number });
        }
        // Before the checksum: "not dm-era's" says more than "damaged".
        let found = block.u64_at(at::MAGIC);
        if found != MAGIC {
            return Err(ErrorKind::Magic { block: number, expected: MAGIC, found });
        }
        block.verify(number, BlockKind::Superblock)?;
        check_fields(number, block)?;
        Ok(Self::parse(block))
    }

    fn parse(block: &Block) -> Self {
        let root = block.u64_at(at::CURRENT_ROOT);
        let nr_bits = block.u32_at(at::CURRENT_NR_BITS);
        let snap = block.u64_at(at::METADATA_SNAP);
        Self {
            data_block_size: block.u32_at(at::DATA_BLOCK_SIZE),
            nr_blocks: block.u32_at(at::NR_BLOCKS),
            current_era: Era(block.u32_at(at::CURRENT_ERA)),
            // INVALID_WRITESET_ROOT is the superblock's own number.
            current_writeset: (root != 0).then_some(Writeset { nr_bits, root }),
            writeset_tree_root: block.u64_at(at::WRITESET_TREE_ROOT),
            era_array_root: block.u64_at(at::ERA_ARRAY_ROOT),
            metadata_snap: (snap != 0).then_some(snap),
            space_map: SpaceMapRoot {
                nr_blocks: block.u64_at(at::SPACE_MAP_NR_BLOCKS),
                nr_allocated: block.u64_at(at::SPACE_MAP_NR_ALLOCATED),
                bitmap_root: block.u64_at(at::SPACE_MAP_BITMAP_ROOT),
                ref_count_root: block.u64_at(at::SPACE_MAP_REF_COUNT_ROOT),
            },
        }
    }
}

fn check_fields(number: u64, block: &Block) -> Result<(), ErrorKind> {
    let exact = |field, at, expected: u32| match block.u32_at(at) {
        found if found == expected => Ok(()),
        found => Err(ErrorKind::field(number, field, expected.to_string(), found)),
    };
    exact("version", at::VERSION, VERSION)?;
    exact("flags", at::FLAGS, 0)?;
    exact("metadata_block_size", at::METADATA_BLOCK_SIZE, METADATA_BLOCK_SECTORS)?;

    let granularity = block.u32_at(at::DATA_BLOCK_SIZE);
    if granularity == 0 || !granularity.is_multiple_of(GRANULARITY_UNIT) {
        let expected = "a multiple of 8 sectors";
        return Err(ErrorKind::field(number, "data_block_size", expected, granularity));
    }
    let nr_blocks = block.u32_at(at::NR_BLOCKS);
    if u64::from(nr_blocks) >= NR_BLOCKS_LIMIT {
        let expected = format!("less than {NR_BLOCKS_LIMIT}");
        return Err(ErrorKind::field(number, "nr_blocks", expected, nr_blocks));
    }
    Ok(())
}
