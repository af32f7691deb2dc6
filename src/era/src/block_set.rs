use crate::Run;

/// Words of a segment: 4 KiB, for 32 768 blocks.
const SEGMENT: usize = 512;

/// A set of the device's blocks, one bit each up to the highest that is in it. It grows by
/// segments that stay where they are, so that it never takes more memory than that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    /// The last one is not empty.
    segments: Vec<Box<[u64; SEGMENT]>>,
}

impl BlockSet {
    /// How many blocks are in the set.
    pub fn count(&self) -> u64 {
        self.segments
            .iter()
            .flat_map(|words| &**words)
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether a block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        let word = usize::try_from(block / 64).unwrap_or(usize::MAX);
        let words = self.segments.get(word / SEGMENT);
        words.is_some_and(|words| words[word % SEGMENT] >> (block % 64) & 1 == 1)
    }

    /// The blocks as runs: ascending, disjoint, and never touching each other.
    pub fn runs(&self) -> Runs<'_> {
        Runs { segments: &self.segments, at: 0 }
    }

    /// Adds those of 64 blocks whose bits are set, the lowest bit being the first block's.
    pub(crate) fn add(&mut self, first: u64, bits: u64) {
        let (word, shift) = (index(first / 64), first % 64);
        self.add_word(word, bits << shift);
        // By as much as the word holds of them, and nothing if it holds all.
        self.add_word(
            word + 1,
            bits.checked_shr(64 - u32::try_from(shift).unwrap_or(0)).unwrap_or(0),
        );
    }

    /// Adds little-endian words of a bitset, the first of which has this index.
    pub(crate) fn add_words(&mut self, first: u64, words: &[[u8; 8]]) {
        for (word, bits) in (index(first)..).zip(words) {
            // Most words of most sets are zero.
            if *bits != [0; 8] {
                self.add_word(word, u64::from_le_bytes(*bits));
            }
        }
    }

    /// Grows to where a bit is set, and no further.
    fn add_word(&mut self, word: usize, bits: u64) {
        if bits == 0 {
            return;
        }
        let segment = word / SEGMENT;
        if self.segments.len() <= segment {
            self.segments.resize_with(segment + 1, || Box::new([0; SEGMENT]));
        }
        self.segments[segment][word % SEGMENT] |= bits;
    }
}

/// Takes an eighth of a byte for each block up to the highest.
impl FromIterator<u64> for BlockSet {
    fn from_iter<I: IntoIterator<Item = u64>>(blocks: I) -> Self {
        let mut set = Self::default();
        for block in blocks {
            set.add(block, 1);
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
    segments: &'a [Box<[u64; SEGMENT]>],
    /// The next block to look at.
    at: u64,
}

impl Runs<'_> {
    fn end(&self) -> u64 {
        (self.segments.len() * SEGMENT) as u64 * 64
    }

    /// The first block at or after `at` that is (or is not) in the set; the end if none.
    fn seek(&self, wanted: bool) -> u64 {
        let end = self.end();
        let mut at = self.at;
        while at < end {
            let word = index(at / 64);
            let word = self.segments[word / SEGMENT][word % SEGMENT];
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
        if first == self.end() {
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
        let mut set = BlockSet::default();
        let words: Vec<[u8; 8]> = words.iter().map(|word| word.to_le_bytes()).collect();
        set.add_words(0, &words);
        set
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
    fn blocks_are_added_wherever_they_begin() {
        let mut blocks = BlockSet::default();
        blocks.add(62, 0b101);
        blocks.add_words(0, &[[1, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(blocks, [0, 62, 64].into_iter().collect());
        assert_eq!(blocks.count(), 3);
        assert!(blocks.contains(0) && blocks.contains(62) && blocks.contains(64));
        assert!(!blocks.contains(63) && !blocks.contains(65) && !blocks.contains(1 << 40));
        for first in [0, 1, 63, 64, 32_767, 32_768] {
            let mut blocks = BlockSet::default();
            blocks.add(first, u64::MAX);
            assert_eq!(blocks.runs().collect::<Vec<_>>(), [Run { first, last: first + 63 }]);
        }
    }

    #[test]
    fn room_is_taken_for_what_is_in_it_alone() {
        let mut blocks = BlockSet::default();
        blocks.add_words(1 << 20, &[[0; 8]; 600]);
        assert!(blocks.segments.is_empty() && blocks.is_empty());
        blocks.add(32_768, 1);
        assert_eq!(blocks.segments.len(), 2);
    }
}
