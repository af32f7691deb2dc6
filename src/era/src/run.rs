/// Consecutive changed blocks, both ends included; in units of the granularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The first changed block.
    pub first: u64,
    /// The last changed block; never less than `first`.
    pub last: u64,
}

impl Run {
    /// How many blocks the run covers; never zero.
    pub fn blocks(self) -> u64 {
        self.last - self.first + 1
    }
}
