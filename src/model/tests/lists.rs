//! Whatever list is made to fit, nothing of it is lost.

use eratrack_model::Run;
use eratrack_model::extents::{ChangedBlocks, RunList};
use eratrack_model::slices::{FittedList, SliceLimits, fit};
use proptest::prelude::*;

fn list() -> impl Strategy<Value = RunList> {
    let step = (prop_oneof![1..4u64, 1..5000u64], prop_oneof![Just(1), 1..200u64]);
    prop::collection::vec(step, 0..300).prop_map(|steps| {
        let mut at = 0;
        RunList::new(steps.into_iter().map(|(gap, blocks)| {
            let first = at + gap;
            at = first + blocks;
            Run { first, last: at - 1 }
        }))
    })
}

fn listed(fitted: &FittedList) -> RunList {
    let texts: Vec<_> = fitted.slices.iter().map(|slice| slice.ranges.as_str()).collect();
    texts.join(",").parse().unwrap()
}

fn gaps(list: &RunList) -> Vec<(u64, u64)> {
    let pairs = list.as_slice().windows(2);
    pairs.map(|pair| (pair[1].first - pair[0].last - 1, pair[0].last)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_slice_is_within_limits_and_nothing_is_lost(
        list in list(),
        bytes in 41..400usize,
        slices in 1..5usize,
    ) {
        let fitted = fit(list.iter(), SliceLimits::new(bytes, slices).unwrap());
        prop_assert!(fitted.slices.len() <= slices);
        prop_assert!(fitted.slices.iter().all(|slice| (1..=bytes).contains(&slice.ranges.len())));
        let found = listed(&fitted);
        for run in list.as_slice() {
            prop_assert!(found.as_slice().iter().any(|f| f.first <= run.first && run.last <= f.last));
        }
        prop_assert_eq!(found.blocks(), fitted.listed_blocks);
        prop_assert_eq!(fit(list.iter(), SliceLimits::new(bytes, slices).unwrap()), fitted);
    }

    #[test]
    fn slices_say_truly_what_is_in_them(list in list(), bytes in 41..400usize) {
        let fitted = fit(list.iter(), SliceLimits::new(bytes, 3).unwrap());
        for slice in &fitted.slices {
            let runs: RunList = slice.ranges.parse().unwrap();
            let (first, last) = (runs.as_slice()[0], *runs.as_slice().last().unwrap());
            prop_assert_eq!((slice.first, slice.last), (first.first, last.last));
            prop_assert_eq!(slice.blocks, runs.blocks());
        }
    }

    /// No gap is closed while a smaller one, or an equal one before it, stays open; and closing
    /// one less would not have been enough.
    #[test]
    fn only_the_smallest_gaps_are_closed(list in list(), bytes in 41..400usize) {
        let limits = SliceLimits::new(bytes, 2).unwrap();
        let fitted = fit(list.iter(), limits);
        let open = gaps(&listed(&fitted));
        let (mut closed, mut kept) = (Vec::new(), Vec::new());
        for gap in gaps(&list) {
            if open.contains(&gap) { kept.push(gap) } else { closed.push(gap) }
        }
        prop_assert_eq!(closed.len() as u64, fitted.closed_gaps);
        prop_assert_eq!(fitted.listed_blocks, list.blocks() + closed.iter().map(|(gap, _)| gap).sum::<u64>());
        if let (Some(most), Some(least)) = (closed.iter().max(), kept.iter().min()) {
            prop_assert!(most < least, "closed {:?}, kept {:?}", most, least);
        }
    }

    #[test]
    fn what_fits_is_not_touched(list in list()) {
        let fitted = fit(list.iter(), SliceLimits::DEFAULT);
        prop_assert_eq!(fitted.closed_gaps, 0);
        prop_assert_eq!(fitted.listed_blocks, list.blocks());
        prop_assert_eq!(listed(&fitted), list);
    }

    #[test]
    fn a_dilated_list_has_each_block_and_those_after_it(blocks in prop::collection::vec(0..200u64, 0..30), by in 0..20u64, more in 0..50u64) {
        let nr_blocks = blocks.iter().max().map_or(0, |last| last + 1) + more;
        let changed = ChangedBlocks::new(blocks.iter().copied().collect(), by, nr_blocks);
        let expected: Vec<_> = (0..nr_blocks)
            .filter(|block| (block.saturating_sub(by)..=*block).any(|before| blocks.contains(&before)))
            .collect();
        let found: Vec<_> = changed.iter().flat_map(|run| run.first..=run.last).collect();
        prop_assert_eq!(changed.blocks(), expected.len() as u64);
        prop_assert_eq!(changed.is_empty(), expected.is_empty());
        prop_assert_eq!(found, expected);
    }

    /// Made while it is read, a list comes out as one that was kept whole.
    #[test]
    fn what_is_fitted_from_bits_is_what_is_fitted_from_a_list(
        blocks in prop::collection::vec(0..3000u64, 0..600),
        by in 0..4u64,
        bytes in 41..400usize,
        slices in 1..5usize,
    ) {
        let limits = SliceLimits::new(bytes, slices).unwrap();
        let changed = ChangedBlocks::new(blocks.iter().copied().collect(), by, 3000);
        let each = blocks.iter().map(|&first| Run { first, last: (first + by).min(2999) });
        let kept = RunList::new(each);
        prop_assert_eq!(changed.iter().collect::<Vec<_>>(), kept.as_slice());
        prop_assert_eq!(fit(changed.iter(), limits), fit(kept.iter(), limits));
    }

    #[test]
    fn lists_read_back(list in list()) {
        prop_assert_eq!(list.to_string().parse(), Ok(list));
    }
}

#[test]
fn a_full_list_is_one_run() {
    let fitted = fit([Run { first: 0, last: 8_388_607 }].into_iter(), SliceLimits::DEFAULT);
    let texts: Vec<_> = fitted.slices.iter().map(|slice| slice.ranges.as_str()).collect();
    assert_eq!((texts, fitted.closed_gaps), (vec!["0-8388607"], 0));
}

/// Every other block of 600,000: the text of so many ranges is 2 MB, a third more than there
/// is room for.
#[test]
fn the_worst_list_fits_into_the_published_limits() {
    let every_other = (0..300_000).map(|n| Run { first: 2 * n, last: 2 * n });
    let list = RunList::new(every_other);
    let fitted = fit(list.iter(), SliceLimits::DEFAULT);
    assert_eq!(fitted.slices.len(), 16);
    assert!(fitted.slices.iter().all(|slice| slice.ranges.len() <= 96 << 10));
    let used: usize = fitted.slices.iter().map(|slice| slice.ranges.len()).sum();
    assert!(used > 15 * (96 << 10), "only {used} bytes used");
    assert_eq!(listed(&fitted).blocks(), 300_000 + fitted.closed_gaps);
}
