//! Which blocks were written when: a function of the seed, so that nothing is kept.

use crate::spec::Spec;

/// Blocks that one word of a bitset tells of.
const WINDOW: u32 = 64;
/// In how many of the digested eras blocks are written as in the later ones; before them it
/// is one era for a whole window.
const RECENT: u32 = 4;
/// Of a hash's 2^32 values: what makes one block in a million written, since a window that
/// is written at all has 7.84 such blocks on average.
const THRESHOLD_PER_PPM: u64 = 35_060;

/// Answers for one [`Spec`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    seed: u64,
    nr_blocks: u32,
    digested: u32,
    threshold: u64,
}

impl History {
    pub(crate) fn new(spec: &Spec) -> Self {
        let threshold = u64::from(spec.written_ppm) * THRESHOLD_PER_PPM;
        Self { seed: spec.seed, nr_blocks: spec.nr_blocks, digested: spec.digested, threshold }
    }

    /// The blocks of a window that were written in one of the recent or later eras.
    pub(crate) fn word(&self, era: u32, window: u32) -> u64 {
        let hash = self.hash(era.into(), window);
        if hash & 0xffff_ffff >= self.threshold {
            return 0;
        }
        let (start, length) = (hash >> 32 & 63, (hash >> 38 & 15) + 1);
        (((1 << length) - 1) << start) & self.there(window)
    }

    /// Those blocks of a window that the device has.
    fn there(&self, window: u32) -> u64 {
        match self.nr_blocks - window * WINDOW {
            rest @ 0..WINDOW => (1 << rest) - 1,
            _ => u64::MAX,
        }
    }

    /// The last digested era in which each block was written, from `first` on.
    pub(crate) fn eras(&self, first: u32, into: &mut [[u8; 4]]) {
        let mut at = 0;
        while at < into.len() {
            let block = first + u32::try_from(at).expect("as many as blocks");
            let (window, skipped) = (block / WINDOW, (block % WINDOW) as usize);
            let count = (WINDOW as usize - skipped).min(into.len() - at);
            let eras = self.window_eras(window);
            for (mine, era) in into[at..at + count].iter_mut().zip(&eras[skipped..]) {
                *mine = era.to_le_bytes();
            }
            at += count;
        }
    }

    fn window_eras(&self, window: u32) -> [u32; WINDOW as usize] {
        let mut eras = [self.old_era(window); WINDOW as usize];
        for era in self.before_recent() + 1..=self.digested {
            let mut word = self.word(era, window);
            while word != 0 {
                eras[word.trailing_zeros() as usize] = era;
                word &= word - 1;
            }
        }
        eras
    }

    fn before_recent(&self) -> u32 {
        self.digested.saturating_sub(RECENT)
    }

    /// The era of a window's blocks that were not written of late; zero is never.
    fn old_era(&self, window: u32) -> u32 {
        let hash = self.hash(u64::MAX, window);
        match self.before_recent() {
            0 => 0,
            _ if hash.is_multiple_of(4) => 0,
            eras => 1 + u32::try_from((hash >> 2) % u64::from(eras)).expect("less than eras"),
        }
    }

    /// Whether a block was written in the eras from `since` to `last`, both included.
    pub(crate) fn changed_since(&self, since: u32, last: u32, block: u32) -> bool {
        let (window, bit) = (block / WINDOW, block % WINDOW);
        let since = since.max(1);
        let mut recent = since.max(self.before_recent() + 1)..=last;
        let old = self.old_era(window);
        (old != 0 && old >= since) || recent.any(|era| self.word(era, window) >> bit & 1 == 1)
    }

    fn hash(&self, era: u64, window: u32) -> u64 {
        let key = self.seed ^ era.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mix(key.wrapping_add(u64::from(window).wrapping_mul(0xd1b5_4a32_d192_ed03)))
    }
}

/// The finaliser of `SplitMix64`: every bit of the number changes about half of the result's.
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_blocks_are_written_as_asked_for() {
        let spec = Spec { written_ppm: 10_000, ..Spec::of(1_000_000) };
        let history = History::new(&spec);
        let words = (0..spec.nr_blocks.div_ceil(64)).map(|window| history.word(20, window));
        let written: u32 = words.map(u64::count_ones).sum();
        assert!((9_500..10_500).contains(&written), "{written}");
    }

    #[test]
    fn the_array_has_the_last_era_of_each_block() {
        let spec = Spec { written_ppm: 100_000, ..Spec::of(5000) };
        let history = History::new(&spec);
        let mut eras = vec![[0; 4]; 1018];
        history.eras(1018, &mut eras);
        let mut seen = [0; 21];
        for (block, era) in (1018..).zip(&eras) {
            let era = u32::from_le_bytes(*era);
            seen[era as usize] += 1;
            assert_eq!(history.changed_since(era, 20, block), era > 0, "{block}");
            assert!(!history.changed_since(era + 1, 20, block), "{block}");
        }
        assert!(
            seen[0] > 0 && seen[1..].iter().filter(|&&count| count > 0).count() > 10,
            "{seen:?}"
        );
    }

    #[test]
    fn nothing_is_written_beyond_the_end() {
        let spec = Spec { written_ppm: 120_000, ..Spec::of(64 * 100 + 3) };
        let history = History::new(&spec);
        let words: Vec<u64> = (1..2000).map(|era| history.word(era, 100)).collect();
        assert!(words.iter().any(|&word| word != 0) && words.iter().all(|&word| word < 8));
    }
}
