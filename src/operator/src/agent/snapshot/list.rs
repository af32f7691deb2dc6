//! The list of a snapshot, made to fit into slices. Pure.

use eratrack_api::changed_block_slice::summary;
use eratrack_api::{SliceSummary, names};
use eratrack_model::Run;
use eratrack_model::extents::RunList;
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

    /// Several lists in one, of which the kernel marked so many blocks together. As slow as [`List::incremental`].
    pub(crate) fn joined(runs: &RunList, marked_blocks: u64) -> Self {
        Self { marked_blocks, fitted: fit(runs.iter(), limits()) }
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
    use crate::agent::snapshot::status::complete;
    use crate::agent::testing::{CHAIN, at, snapshot};
    use eratrack_model::extents::ChangedBlocks;
    use serde_json::json;

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

    /// A million separate ranges, at distances that differ: the whole text of them would be some ten times the room.
    #[test]
    fn a_million_separate_ranges_fit_and_the_status_says_what_it_cost() {
        const BLOCK: u64 = 262_144;
        let blocks: Vec<u64> =
            (0..1_000_000_u64).map(|index| index * 8 + index * index % 5).collect();
        let runs = ChangedBlocks::new(blocks.iter().copied().collect(), 0, 8_000_008);
        let list = List::incremental(&Changes { runs, marked_blocks: 1_000_000 });
        assert_eq!(list.parts().len(), names::SLICES_MAX as usize);
        assert!(list.parts().iter().all(|part| part.ranges.len() <= names::SLICE_RANGES_MAX));
        let used: usize = list.parts().iter().map(|part| part.ranges.len()).sum();
        assert!(used > 15 * names::SLICE_RANGES_MAX, "only {used} bytes are used");
        let text: Vec<_> = list.parts().iter().map(|part| part.ranges.as_str()).collect();
        let found: eratrack_model::extents::RunList = text.join(",").parse().expect("ranges");
        assert!(blocks.iter().all(|block| found.contains(*block)), "nothing is lost");
        assert!((10_000..200_000).contains(&list.ranges()), "{} ranges", list.ranges());

        let boundary = json!({"chainID": CHAIN, "era": 7, "type": "Incremental", "sinceEra": 4,
            "sizeBytes": 8_000_008 * BLOCK, "blockSizeBytes": BLOCK});
        let status = complete(&snapshot("s", &boundary), &list, at(1));
        assert_eq!(status.changed_bytes, Some(1_000_000 * BLOCK));
        assert_eq!(status.listed_bytes, Some(found.blocks() * BLOCK));
        assert!(status.listed_bytes > status.changed_bytes);
        assert_eq!(
            status.slices.map(|slices| (slices.count, slices.bytes)),
            Some((16, used as u64 + 15))
        );
    }
}
