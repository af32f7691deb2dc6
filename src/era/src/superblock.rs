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
}

impl Superblock {
    /// Reads and verifies the superblock or a clone of it.
    pub(crate) fn read<S: BlockSource>(reader: &Reader<'_, S>, number: u64) -> Result<Self, Error> {
        let block = reader.read_unverified(number)?;
        if block.bytes() == &[0; BLOCK_SIZE] {
            return Err(reader.error(ErrorKind::Unformatted { block: number }));
        }
        // Before the checksum: "not dm-era's" says more than "damaged".
        let found = block.u64_at(at::MAGIC);
        if found != MAGIC {
            let kind = ErrorKind::Magic { block: number, expected: MAGIC, found };
            return Err(reader.error(kind));
        }
        reader.verify(number, &block, BlockKind::Superblock)?;
        check_fields(reader, number, &block)?;
        Ok(Self::parse(&block))
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
        }
    }
}

fn check_fields<S: BlockSource>(
    reader: &Reader<'_, S>,
    number: u64,
    block: &Block,
) -> Result<(), Error> {
    let exact = |field, at, expected: u32| match block.u32_at(at) {
        found if found == expected => Ok(()),
        found => Err(reader.field(number, field, expected.to_string(), found)),
    };
    exact("version", at::VERSION, VERSION)?;
    exact("flags", at::FLAGS, 0)?;
    exact("metadata_block_size", at::METADATA_BLOCK_SIZE, METADATA_BLOCK_SECTORS)?;

    let granularity = block.u32_at(at::DATA_BLOCK_SIZE);
    if granularity == 0 || !granularity.is_multiple_of(GRANULARITY_UNIT) {
        let expected = "a multiple of 8 sectors";
        return Err(reader.field(number, "data_block_size", expected, granularity));
    }
    let nr_blocks = block.u32_at(at::NR_BLOCKS);
    if u64::from(nr_blocks) >= NR_BLOCKS_LIMIT {
        let expected = format!("less than {NR_BLOCKS_LIMIT}");
        return Err(reader.field(number, "nr_blocks", expected, nr_blocks));
    }
    Ok(())
}
