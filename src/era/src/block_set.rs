use crate::Run;

/// A set of the device's blocks, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
}

impl BlockSet {
    /// How many blocks are in the set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Whether a block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        let word = usize::try_from(block / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// The blocks as runs: ascending, disjoint, and never touching each other.
    pub fn runs(&self) -> Runs<'_> {
        Runs { words: &self.words, at: 0 }
    }

    /// Adds little-endian words of a bitset, the first of which has this index.
    pub(crate) fn add_words(&mut self, first: u64, words: &[[u8; 8]]) {
        let first = index(first);
        self.grow(first + words.len());
        for (mine, theirs) in self.words[first..].iter_mut().zip(words) {
            *mine |= u64::from_le_bytes(*theirs);
        }
    }

    /// Adds those of consecutive blocks that are chosen, `first` being the first's number.
    pub(crate) fn add_chosen(&mut self, first: u64, chosen: impl ExactSizeIterator<Item = bool>) {
        self.grow(index((first + chosen.len() as u64).div_ceil(64)));
        for (block, chosen) in (first..).zip(chosen) {
            self.words[index(block / 64)] |= u64::from(chosen) << (block % 64);
        }
    }

    fn grow(&mut self, words: usize) {
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }
}

/// Takes an eighth of a byte for each block up to the highest.
impl FromIterator<u64> for BlockSet {
    fn from_iter<I: IntoIterator<Item = u64>>(blocks: I) -> Self {
        let mut set = Self::default();
        for block in blocks {
            set.grow(index(block / 64) + 1);
            set.words[index(block / 64)] |= 1 << (block % 64);
        }
        set
    }
}

/// Blocks are fewer than 2^31, so that this never changes a number.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The runs of a [`BlockSet`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    words: &'a [u64],
    /// The next block to look at.
    at: u64,
}

impl Runs<'_> {
    /// The first block at or after `at` that is (or is not) in the set; the end if none.
    fn seek(&self, wanted: bool) -> u64 {
        let end = self.words.len() as u64 * 64;
        let mut at = self.at;
        while at < end {
            let word = self.words[index(at / 64)];
            let word = if wanted { word } else { !word };
            let rest = word >> (at % 64);
            if rest != 0 {
                return at + u64::from(rest.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let first = self.seek(true);
        if first == self.words.len() as u64 * 64 {
            return None;
        }
        self.at = first;
        self.at = self.seek(false);
        Some(Run { first, last: self.at - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[u64]) -> BlockSet {
        BlockSet { words: words.to_vec() }
    }

    fn runs(words: &[u64]) -> Vec<(u64, u64)> {
        set(words).runs().map(|run| (run.first, run.last)).collect()
    }

    #[test]
    fn runs_cross_words_and_end_at_the_end() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[0, 0]), []);
        assert_eq!(runs(&[0b1101]), [(0, 0), (2, 3)]);
        assert_eq!(runs(&[1 << 63, 1]), [(63, 64)]);
        assert_eq!(runs(&[u64::MAX, u64::MAX]), [(0, 127)]);
        assert_eq!(runs(&[0, u64::MAX, 0, 1 << 63]), [(64, 127), (255, 255)]);
    }

    #[test]
    fn a_set_is_made_of_blocks_in_any_order() {
        let blocks: BlockSet = [70, 3, 64, 3].into_iter().collect();
        assert_eq!(blocks, set(&[0b1000, 0b100_0001]));
        assert_eq!([].into_iter().collect::<BlockSet>(), set(&[]));
    }

    #[test]
    fn chosen_blocks_join_what_is_there() {
        let mut blocks = BlockSet::default();
        blocks.add_chosen(62, [true, false, true].into_iter());
        blocks.add_words(0, &[[1, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(blocks.count(), 3);
        assert!(blocks.contains(0) && blocks.contains(62) && blocks.contains(64));
        assert!(!blocks.contains(63) && !blocks.contains(65) && !blocks.contains(1 << 40));
    }
}
