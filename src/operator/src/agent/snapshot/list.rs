//! The list of a snapshot, made to fit into slices. Pure.

use eratrack_api::changed_block_slice::summary;
use eratrack_api::{SliceSummary, names};
use eratrack_model::Run;
use eratrack_model::slices::{FittedList, SliceLimits, SliceText, fit};

use crate::agent::stacks::Changes;

/// What the API server takes: so many texts, each so long.
fn limits() -> SliceLimits {
    SliceLimits::new(names::SLICE_RANGES_MAX, names::SLICES_MAX as usize).unwrap_or_default()
}

/// A list that fits, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    /// How many blocks the kernel marked.
    pub(crate) marked_blocks: u64,
    fitted: FittedList,
}

impl List {
    /// Every block of a volume.
    pub(crate) fn full(blocks: u64) -> Self {
        let all = blocks.checked_sub(1).map(|last| Run { first: 0, last });
        Self { marked_blocks: blocks, fitted: fit(all.into_iter(), limits()) }
    }

    /// What was changed. Passes over it many times: call it where one may block.
    pub(crate) fn incremental(changes: &Changes) -> Self {
        let Changes { runs, marked_blocks } = changes;
        Self { marked_blocks: *marked_blocks, fitted: fit(runs.iter(), limits()) }
    }

    /// The texts.
    pub(crate) fn parts(&self) -> &[SliceText] {
        &self.fitted.slices
    }

    /// How many blocks the texts list.
    pub(crate) fn listed_blocks(&self) -> u64 {
        self.fitted.listed_blocks
    }

    /// How many ranges the texts list.
    pub(crate) fn ranges(&self) -> u64 {
        self.parts().iter().map(|part| part.ranges.split(',').count() as u64).sum()
    }

    /// How a reader knows that it has them all.
    pub(crate) fn summary(&self) -> SliceSummary {
        summary(self.parts().iter().map(|part| part.ranges.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eratrack_model::extents::ChangedBlocks;

    fn incremental(blocks: impl Iterator<Item = u64>, marked_blocks: u64) -> List {
        let runs = ChangedBlocks::new(blocks.collect(), 0, 4_000_000);
        List::incremental(&Changes { runs, marked_blocks })
    }

    #[test]
    fn full_is_one_range_and_unchanged_is_none() {
        let full = List::full(4000);
        assert_eq!((full.ranges(), full.parts()[0].ranges.as_str()), (1, "0-3999"));
        let none = incremental([].into_iter(), 0);
        assert_eq!((none.ranges(), none.parts().len(), none.summary().count), (0, 0, 0));
    }

    #[test]
    fn too_many_ranges_become_more_blocks_never_fewer() {
        let list = incremental((0..400_000).map(|index| index * 3), 400_000);
        assert!(list.listed_blocks() > list.marked_blocks);
        assert!(list.parts().len() <= names::SLICES_MAX as usize);
        assert!(list.parts().iter().all(|part| part.ranges.len() <= names::SLICE_RANGES_MAX));
    }
}
