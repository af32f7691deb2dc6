//! How much room dm-era's metadata needs at worst.

use crate::block::{BLOCK_SIZE, MAX_BLOCKS};
use crate::superblock::NR_BLOCKS_LIMIT;

/// How many writesets may wait to be digested at once, if the caller knows no better: as
/// many rollovers as can happen while one writeset is digested.
pub const DEFAULT_UNDIGESTED: u32 = 10;

/// `u32` values in an array block, and 64-bit words in a bitset's.
const ERAS_PER_BLOCK: u64 = 1018;
const WORDS_PER_BLOCK: u64 = 509;
/// Of 252 entries, a node that has just been split has half.
const CHILDREN: u64 = 126;
/// Blocks that a block of the space map's bitmap counts.
const COUNTED_PER_BLOCK: u64 = 16_320;
/// The superblock and its clone, the writeset tree, the space map's index, and reserve.
const SPARE: u64 = 32;
/// Array versions at once: held, committed, in transaction.
pub const ARRAYS: u64 = 3;
/// Bitsets beside the undigested: the current one and the next one.
pub const LIVE_WRITESETS: u64 = 2;

/// The worst case, in metadata blocks of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// How many blocks of the granularity the device has.
    pub device_blocks: u64,
    /// The era array, in all its versions.
    pub array: u64,
    /// The bitsets: undigested, current and next.
    pub writesets: u64,
    /// The space map's two copies.
    pub space_maps: u64,
    /// The rest.
    pub spare: u64,
}

impl Sizing {
    /// All parts together, in metadata blocks of 4 KiB.
    pub fn total(&self) -> u64 {
        let Self { device_blocks: _, array, writesets, space_maps, spare } = *self;
        array + writesets + space_maps + spare
    }

    /// All parts together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.total() * BLOCK_SIZE as u64
    }
}

/// Why no metadata of the kernel's would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizingError {
    /// The kernel refuses such a granularity (`valid_block_size`, dm-era-target.c).
    #[error("a granularity of {sectors} sectors is not a multiple of 8 sectors (4 KiB)")]
    Granularity {
        /// What was asked for.
        sectors: u64,
    },
    /// There is nothing to track.
    #[error("the device has no sectors")]
    EmptyDevice,
    /// More blocks than the kernel tracks (`valid_nr_blocks`, dm-era-target.c).
    #[error(
        "the device has {blocks} blocks, dm-era tracks less than {limit}: choose a larger granularity"
    )]
    TooManyBlocks {
        /// Blocks of the granularity.
        blocks: u64,
        /// One more than the kernel tracks.
        limit: u64,
    },
    /// More metadata than the kernel's space map manages.
    #[error(
        "the metadata needs {needed} blocks of 4 KiB, dm-era manages {limit}: choose a larger granularity"
    )]
    TooMuchMetadata {
        /// Metadata blocks of 4 KiB.
        needed: u64,
        /// The most the kernel manages.
        limit: u64,
    },
}

/// The metadata that a device of `device_sectors` needs at worst at a granularity, when
/// `undigested` writesets may wait. Both lengths are in sectors of 512 bytes.
pub fn required(
    device_sectors: u64,
    granularity_sectors: u64,
    undigested: u32,
) -> Result<Sizing, SizingError> {
    if granularity_sectors == 0 || !granularity_sectors.is_multiple_of(8) {
        return Err(SizingError::Granularity { sectors: granularity_sectors });
    }
    let device_blocks = device_sectors.div_ceil(granularity_sectors);
    if device_blocks == 0 {
        return Err(SizingError::EmptyDevice);
    }
    if device_blocks >= NR_BLOCKS_LIMIT {
        let (blocks, limit) = (device_blocks, NR_BLOCKS_LIMIT);
        return Err(SizingError::TooManyBlocks { blocks, limit });
    }
    let array = ARRAYS * with_tree(device_blocks.div_ceil(ERAS_PER_BLOCK));
    let writeset = with_tree(device_blocks.div_ceil(64).div_ceil(WORDS_PER_BLOCK));
    let writesets = (u64::from(undigested) + LIVE_WRITESETS) * writeset;
    let space_maps = space_maps(array + writesets + SPARE);
    let sizing = Sizing { device_blocks, array, writesets, space_maps, spare: SPARE };
    if sizing.total() > MAX_BLOCKS {
        let (needed, limit) = (sizing.total(), MAX_BLOCKS);
        return Err(SizingError::TooMuchMetadata { needed, limit });
    }
    Ok(sizing)
}

/// What the tutorial of 2017 computes for a device of so many sectors, in bytes:
/// `round((2.5e-6 * KiB + 128) / 4) * 4` KiB, at a granularity of 4096 sectors. It was fitted
/// to metadata of devices that were never written and is too small for one that is.
pub fn tutorial(device_sectors: u64) -> u64 {
    const MILLIONTHS: u128 = 1_000_000;
    let quarter = 4 * MILLIONTHS;
    // 2.5e-6 KiB a KiB are 1.25e-6 a sector.
    let kib = u128::from(device_sectors) * 5 / 4 + 128 * MILLIONTHS;
    let rounded = (kib + quarter / 2) / quarter;
    u64::try_from(rounded * 4096).unwrap_or(u64::MAX)
}

/// Array blocks and the btree nodes above them.
fn with_tree(leaves: u64) -> u64 {
    let mut level = leaves.div_ceil(CHILDREN);
    let mut all = leaves + level;
    while level > 1 {
        level = level.div_ceil(CHILDREN);
        all += level;
    }
    all
}

/// The space map counts its own blocks too: the least number that holds both it and the
/// rest. It ends, because each block of it counts far more than the two it costs.
fn space_maps(rest: u64) -> u64 {
    let mut own = 0;
    loop {
        let needed = 2 * (rest + own).div_ceil(COUNTED_PER_BLOCK);
        if needed == own {
            return own;
        }
        own = needed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    fn bytes(device: u64, granularity: u64) -> u64 {
        required(device / 512, granularity / 512, DEFAULT_UNDIGESTED).unwrap().bytes()
    }

    #[test]
    fn sizes_are_those_of_the_formula() {
        let rounded = |bytes: u64, unit: u64| (bytes + unit / 2) / unit;
        assert_eq!(rounded(bytes(TIB, 64 * KIB), MIB), 219);
        assert_eq!(rounded(bytes(TIB, 2 * MIB), MIB), 7);
        assert_eq!(rounded(bytes(16 * TIB, 64 * KIB) * 10, GIB), 34);
        // 512 blocks: one array block and one bitset block, each below one node.
        let sizing = required(2 * MIB, 4096, 10).unwrap();
        let expected = Sizing {
            device_blocks: 512,
            array: 3 * 2,
            writesets: 12 * 2,
            space_maps: 2,
            spare: 32,
        };
        assert_eq!(sizing, expected);
        assert_eq!(sizing.total(), 64);
    }

    /// KiB of metadata at granularities of 4096 and 8192 sectors, measured by others on
    /// devices that were never written: less than this cannot be right.
    #[test]
    fn sizes_are_never_below_what_others_measured() {
        let measured = [
            (GIB, 64, 64),
            (2 * GIB, 68, 64),
            (4 * GIB, 72, 68),
            (8 * GIB, 80, 72),
            (16 * GIB, 96, 80),
            (32 * GIB, 128, 96),
            (64 * GIB, 204, 128),
            (128 * GIB, 344, 204),
            (256 * GIB, 628, 348),
            (512 * GIB, 1336, 628),
            (TIB, 2768, 1320),
            (2 * TIB, 5568, 2764),
            (4 * TIB, 11248, 5560),
            (8 * TIB, 22308, 11248),
            (16 * TIB, 42388, 21168),
        ];
        for (device, at_4096, at_8192) in measured {
            assert!(bytes(device, 2 * MIB) >= at_4096 * KIB, "{device} bytes");
            assert!(bytes(device, 4 * MIB) >= at_8192 * KIB, "{device} bytes");
        }
    }

    #[test]
    fn the_tutorial_computes_less() {
        let kib = |device| tutorial(device / 512) / KIB;
        assert_eq!([0, GIB, 128 * GIB, TIB, 16 * TIB].map(kib), [128, 132, 464, 2812, 43_076]);
        assert_eq!(tutorial(u64::MAX), 23_058_430_092_264 * KIB);
        for device in [GIB, TIB, 16 * TIB] {
            assert!(bytes(device, 2 * MIB) > tutorial(device / 512), "{device} bytes");
        }
    }

    #[test]
    fn the_space_map_counts_itself() {
        assert_eq!(space_maps(COUNTED_PER_BLOCK - 2), 2);
        assert_eq!(space_maps(COUNTED_PER_BLOCK - 1), 4);
    }

    #[test]
    fn trees_grow_by_levels() {
        assert_eq!(with_tree(1), 2);
        assert_eq!(with_tree(126), 127);
        assert_eq!(with_tree(127), 127 + 2 + 1);
    }

    #[test]
    fn what_the_kernel_cannot_do_is_refused() {
        let refused = |device, granularity| required(device, granularity, 10).unwrap_err();
        assert_eq!(refused(100, 0), SizingError::Granularity { sectors: 0 });
        assert_eq!(refused(100, 12), SizingError::Granularity { sectors: 12 });
        assert_eq!(refused(0, 8), SizingError::EmptyDevice);
        let blocks = 1 << 31;
        assert_eq!(refused(8 << 31, 8), SizingError::TooManyBlocks { blocks, limit: blocks });
        let needed = SizingError::TooMuchMetadata { needed: 7_177_524, limit: MAX_BLOCKS };
        assert_eq!(refused((8 << 31) - 8, 8), needed);
    }
}
