//! How many blocks of metadata there are, and which of them is where.

use crate::block::{COUNTED_PER_BITMAP, array_capacity};
use crate::history::mix;
use crate::spec::{Placement, Spec};

/// The superblock, the space map's index and its tree of higher counts.
const SINGLE: u64 = 3;

/// The order in which blocks are allocated is a row of numbers from zero, the superblock's;
/// the layout says where each of them lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    seed: u64,
    placement: Placement,
    /// Blocks in use; they are the first.
    pub(crate) used: u64,
    /// All blocks.
    pub(crate) blocks: u64,
    /// Of the space map.
    pub(crate) bitmaps: u64,
}

impl Layout {
    pub(crate) fn new(spec: &Spec) -> Self {
        let archived = u64::try_from(spec.archived().len()).expect("eras");
        let bitsets = archived + u64::from(spec.current_writeset());
        let eras = u64::from(spec.nr_blocks).div_ceil(array_capacity(4) as u64);
        let words = u64::from(spec.nr_blocks).div_ceil(64).div_ceil(array_capacity(8) as u64);
        let content = SINGLE
            + u64::from(spec.held)
            + eras
            + nodes(eras, spec.fan_out)
            + bitsets * (words + nodes(words, spec.fan_out))
            + nodes(archived, spec.fan_out);
        let bitmaps = bitmaps(content + spec.free);
        let used = content + bitmaps;
        let (seed, placement) = (spec.seed, spec.placement);
        Self { seed, placement, used, blocks: used + spec.free, bitmaps }
    }

    /// Where a block lies: another place for each.
    pub(crate) fn place(&self, index: u64) -> u64 {
        match self.placement {
            _ if index == 0 => 0,
            Placement::Ascending => index,
            Placement::Aged if !index.is_multiple_of(8) => index,
            Placement::Aged => 8 + 8 * self.shuffle(index / 8 - 1, (self.used - 1) / 8),
            Placement::Shuffled => 1 + self.shuffle(index - 1, self.used - 1),
        }
    }

    /// Another number below `count` for each number below it: a Feistel network over the
    /// least even number of bits, gone through again until the result is in range.
    fn shuffle(&self, mut number: u64, count: u64) -> u64 {
        let half = (u64::BITS - count.leading_zeros()).div_ceil(2);
        let mask = (1 << half) - 1;
        loop {
            let (mut left, mut right) = (number >> half, number & mask);
            for round in 0..4 {
                let mixed = mix(self.seed ^ (round << 56) ^ right) & mask;
                (left, right) = (right, left ^ mixed);
            }
            number = left << half | right;
            if number < count {
                return number;
            }
        }
    }
}

/// Nodes of a btree over so many entries, of which each has `fan_out` and the last the rest
/// too; an empty tree has one.
fn nodes(entries: u64, fan_out: usize) -> u64 {
    let fan_out = fan_out as u64;
    let mut level = (entries / fan_out).max(1);
    let mut all = level;
    while level > 1 {
        level = (level / fan_out).max(1);
        all += level;
    }
    all
}

/// Bitmaps count themselves too.
fn bitmaps(rest: u64) -> u64 {
    let mut own = 0;
    loop {
        let needed = (rest + own).div_ceil(COUNTED_PER_BITMAP);
        if needed == own {
            return own;
        }
        own = needed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_a_place_of_its_own() {
        for placement in [Placement::Ascending, Placement::Aged, Placement::Shuffled] {
            for nr_blocks in [1, 5_000, 300_000] {
                let layout = Layout::new(&Spec { placement, ..Spec::of(nr_blocks) });
                let mut places: Vec<u64> = (0..layout.used).map(|at| layout.place(at)).collect();
                let apart = places.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count() as u64;
                assert_eq!(places[0], 0);
                match placement {
                    Placement::Ascending => assert_eq!(apart, 0),
                    Placement::Aged => assert!(apart <= layout.used / 4, "{apart}"),
                    Placement::Shuffled => assert!(apart >= layout.used / 2, "{apart}"),
                }
                places.sort_unstable();
                assert!(places.iter().copied().eq(0..layout.used), "{placement:?}");
            }
        }
    }

    #[test]
    fn a_tebibyte_takes_as_much_as_it_should() {
        let layout = Layout::new(&Spec::of(1 << 24));
        // 16 481 blocks of eras, 164 + 1 nodes above them; four bitsets of 516 + 5 + 1.
        assert_eq!(layout.used, 3 + 16_481 + 165 + 4 * 522 + 1 + 2);
        assert_eq!(layout.bitmaps, 2);
    }
}
