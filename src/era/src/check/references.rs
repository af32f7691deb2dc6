//! Numbers about metadata blocks. They grow with the highest block met, which is below
//! [`crate::MAX_BLOCKS`]: 16 MiB at most.

/// How often each block is referred to.
#[derive(Debug, Default)]
pub(super) struct References {
    counts: Vec<u32>,
}

impl References {
    pub(super) fn add(&mut self, block: u64) {
        let index = index(block);
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] = self.counts[index].saturating_add(1);
    }

    pub(super) fn of(&self, block: u64) -> u32 {
        self.counts.get(index(block)).copied().unwrap_or(0)
    }

    /// The blocks that are referred to.
    pub(super) fn blocks(&self) -> u64 {
        self.counts.iter().filter(|&&count| count > 0).count() as u64
    }

    /// One more than the highest block that is referred to.
    pub(super) fn end(&self) -> u64 {
        self.counts.len() as u64
    }
}

/// A set of blocks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// Marks a block; says whether it was marked before.
    pub(super) fn mark(&mut self, block: u64) -> bool {
        let word = index(block / 64);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (block % 64);
        let before = self.words[word] & bit != 0;
        self.words[word] |= bit;
        before
    }
}

/// The caller has checked that the block exists.
fn index(block: u64) -> usize {
    usize::try_from(block).unwrap_or(usize::MAX)
}
