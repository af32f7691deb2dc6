use std::collections::{BTreeMap, BTreeSet};

use eratrack_model::Era;
use eratrack_model::units::Sectors;

/// dm-era's metadata on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeEra {
    /// The current era.
    pub era: Era,
    /// Sectors a block.
    pub granularity: Sectors,
    /// A metadata snapshot is held.
    pub held: bool,
    pub(super) failed: bool,
    blocks: BTreeMap<u64, Era>,
}

impl FakeEra {
    pub(super) fn fresh(granularity: Sectors) -> Self {
        Self { era: Era(0), granularity, held: false, failed: false, blocks: BTreeMap::new() }
    }

    pub(super) fn roll_over(&mut self) {
        self.era.0 += 1;
    }

    pub(super) fn mark(&mut self, first: u64, last: u64) {
        self.blocks.extend((first..=last).map(|block| (block, self.era)));
    }

    /// Blocks last written in that era or a later one.
    pub fn changed_since(&self, since: Era) -> BTreeSet<u64> {
        let changed = self.blocks.iter().filter(|(_, era)| **era >= since);
        changed.map(|(block, _)| *block).collect()
    }

    /// As the kernel prints it.
    pub(super) fn status(&self) -> String {
        if self.failed {
            return "Error".to_owned();
        }
        let held = if self.held { "7" } else { "-" };
        format!("8 {}/{} {} {held}", 20 + self.blocks.len(), 4096, self.era)
    }
}
