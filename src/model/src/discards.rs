//! What becomes of discards, and what their presence adds to a list.
//!
//! dm-era marks only the first block that a discard touches, however long it is. So the length
//! of a discard is limited before X goes through X-era, and a list made while discards could
//! happen is dilated: a marked block may stand for the ones after it.

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Granularity};

/// What becomes of discards while X is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiscardPolicy {
    /// They go through, each no longer than one block.
    Limit,
    /// There are none: X reports that it takes none.
    Off,
}

/// Discards as a queue takes them (`/sys/block/*/queue/discard_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscardLimits {
    /// The longest discard (`discard_max_bytes`); 0 if none is taken.
    pub max: Bytes,
    /// What a discard must be a multiple of to have an effect (`discard_granularity`).
    pub granularity: Bytes,
}

impl DiscardPolicy {
    /// Limited where the queue can take discards of one block, else off: the kernel refuses or
    /// ignores a limit that is no multiple of the discard granularity (`queue_discard_max_store`,
    /// block/blk-sysfs.c).
    pub fn decide(below: DiscardLimits, granularity: Granularity) -> Self {
        let DiscardLimits { max, granularity: unit } = below;
        let divides = unit.0 == 0 || granularity.bytes().0.is_multiple_of(unit.0);
        if max.0 > 0 && divides { Self::Limit } else { Self::Off }
    }

    /// The most that one discard may cover on X-era.
    pub fn limit(self, granularity: Granularity) -> Bytes {
        match self {
            Self::Limit => granularity.bytes(),
            Self::Off => Bytes(0),
        }
    }
}

/// What is known of discards since the boundary that a list starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardHistory {
    /// What a discard of X-era's must be a multiple of to have an effect.
    pub granularity: Bytes,
    /// The longest that one may have been: what X-era's queue takes now, or took meanwhile.
    pub longest: Bytes,
    /// X's discard counter moved since that boundary, or nobody knows.
    pub may_have_happened: bool,
}

impl DiscardHistory {
    /// By how many blocks each run of a list must be extended, for it to hold what discards
    /// changed.
    ///
    /// Nothing when there were none; nothing when each discard is exactly one block, which the
    /// kernel sees to where the discard granularity equals ours and the limit is one block; else
    /// as many blocks as one discard can reach beyond its first.
    pub fn dilation(self, granularity: Granularity) -> u64 {
        let Self { granularity: unit, longest, may_have_happened } = self;
        let block = granularity.bytes();
        let one_block_each = unit == block && longest == block;
        if !may_have_happened || one_block_each { 0 } else { longest.0.div_ceil(block.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max: u64, granularity: u64) -> DiscardLimits {
        DiscardLimits { max: Bytes(max), granularity: Bytes(granularity) }
    }

    const KI: u64 = 1 << 10;
    const BLOCK: Granularity = Granularity::DEFAULT;

    #[test]
    fn discards_are_off_where_the_unit_does_not_divide_a_block() {
        let decide = |max, unit| DiscardPolicy::decide(limits(max, unit), BLOCK);
        assert_eq!(decide(1 << 30, 512), DiscardPolicy::Limit);
        assert_eq!(decide(1 << 30, 256 * KI), DiscardPolicy::Limit);
        assert_eq!(decide(1 << 30, 0), DiscardPolicy::Limit);
        assert_eq!(decide(1 << 30, 512 * KI), DiscardPolicy::Off);
        assert_eq!(decide(1 << 30, 192 * KI), DiscardPolicy::Off);
        assert_eq!(decide(0, 512), DiscardPolicy::Off);
        assert_eq!(DiscardPolicy::Limit.limit(BLOCK), Bytes(256 * KI));
        assert_eq!(DiscardPolicy::Off.limit(BLOCK), Bytes(0));
    }

    #[test]
    fn a_list_is_dilated_as_far_as_a_discard_can_reach() {
        let dilation = |max, unit, may_have_happened| {
            let (granularity, longest) = (Bytes(unit), Bytes(max));
            DiscardHistory { granularity, longest, may_have_happened }.dilation(BLOCK)
        };
        assert_eq!(dilation(256 * KI, 4 * KI, true), 1);
        assert_eq!(dilation(64 * KI, 4 * KI, true), 1);
        assert_eq!(dilation(1024 * KI, 4 * KI, true), 4);
        assert_eq!(dilation(1024 * KI + 1, 4 * KI, true), 5);
        assert_eq!(dilation(1024 * KI, 256 * KI, true), 4);
        assert_eq!(dilation(256 * KI, 256 * KI, true), 0);
        assert_eq!(dilation(0, 0, true), 0);
        assert_eq!(dilation(u64::MAX, 4 * KI, false), 0);
    }
}
