//! What lists say together is what was written, and lists that may miss something are refused.

use std::collections::BTreeSet;

use eratrack_model::delta::{Delta, DeltaError, Head, Line, Reach, path};
use eratrack_model::extents::RunList;
use eratrack_model::units::{Bytes, Granularity};
use eratrack_model::{Era, Run};
use proptest::prelude::*;

const BLOCKS: u64 = 200;

fn line() -> Line {
    let block = Granularity::MIN;
    let size = Bytes(BLOCKS * block.bytes().0 - 512);
    Line { volume: "v".into(), chain: "c".into(), block, size }
}

fn head(name: &str, since: u32, era: u32) -> Head {
    Head { snapshot: name.into(), line: line(), reach: Reach::Since(Era(since)), era: Era(era) }
}

fn full(name: &str, reason: &str, era: u32) -> Head {
    Head { reach: Reach::Full(reason.into()), ..head(name, 0, era) }
}

fn runs(blocks: &BTreeSet<u64>) -> RunList {
    RunList::new(blocks.iter().map(|&block| Run { first: block, last: block }))
}

fn delta(name: &str, since: u32, era: u32, list: &str) -> Delta {
    Delta { head: head(name, since, era), runs: list.parse().unwrap() }
}

/// A chain of lists, each from the era of the one before it or from earlier, with what was written in each step.
fn chain() -> impl Strategy<Value = Vec<Delta>> {
    let step = (1..4u32, 0..4u32, prop::collection::btree_set(0..BLOCKS, 0..40));
    prop::collection::vec(step, 1..12).prop_map(|steps| {
        let mut era = 5;
        steps
            .into_iter()
            .enumerate()
            .map(|(index, (eras, further, blocks))| {
                let since = era - further;
                era += eras;
                Delta { head: head(&format!("s{index}"), since, era), runs: runs(&blocks) }
            })
            .collect()
    })
}

fn shuffled() -> impl Strategy<Value = (Vec<Delta>, Vec<Delta>)> {
    chain().prop_flat_map(|chain| (Just(chain.clone()), Just(chain).prop_shuffle()))
}

fn blocks(list: &RunList) -> BTreeSet<u64> {
    list.iter().flat_map(|run| run.first..=run.last).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_union_is_the_union_of_sets_in_whatever_order((ordered, given) in shuffled()) {
        let expected: BTreeSet<u64> = ordered.iter().flat_map(|it| blocks(&it.runs)).collect();
        let earliest = ordered.iter().map(|it| it.head.since().unwrap()).min();
        let union = Delta::union(given).unwrap();
        prop_assert_eq!(&runs(&expected), &union.runs);
        prop_assert_eq!(union.head.since().ok(), earliest);
        prop_assert_eq!(union.head.era, ordered.last().unwrap().head.era);
    }

    /// Of lists that each refer to the one before alone, none but the ends can be left out.
    #[test]
    fn a_missed_link_is_always_refused((ordered, given) in shuffled(), left_out in 1..11usize) {
        prop_assume!(left_out + 1 < ordered.len());
        let mut strict = ordered.clone();
        for index in 1..strict.len() {
            strict[index].head.reach = Reach::Since(ordered[index - 1].head.era);
        }
        let gone = strict[left_out].head.snapshot.clone();
        let given = given.iter().map(|it| strict.iter().find(|s| s.head.snapshot == it.head.snapshot).unwrap().clone());
        let union = Delta::union(given.filter(|it| it.head.snapshot != gone));
        prop_assert!(matches!(union, Err(DeltaError::Gap { .. })), "{:?}", union);
        let heads: Vec<_> = strict.iter().map(|it| it.head.clone()).filter(|it| it.snapshot != gone).collect();
        let found = path(&heads, &heads[0], heads.last().unwrap());
        prop_assert!(matches!(found, Err(DeltaError::Gap { .. })), "{:?}", found);
    }

    /// However few lists a path takes, they hold every block that was written after the first snapshot.
    #[test]
    fn a_path_misses_no_write(
        steps in prop::collection::vec((prop::collection::btree_set(0..BLOCKS, 0..20), 0..5usize), 2..12),
        seed in any::<prop::sample::Index>(),
    ) {
        // Snapshot n is at era n + 1; its list holds the steps from where it refers back to.
        let lists: Vec<Delta> = (1..steps.len()).map(|n| {
            let back = steps[n].1.min(n - 1);
            let written = steps[n - back..=n].iter().flat_map(|(blocks, _)| blocks.iter().copied()).collect();
            let n32 = u32::try_from(n).unwrap();
            let since = n32 - u32::try_from(back).unwrap();
            Delta { head: head(&format!("s{n}"), since, n32 + 1), runs: runs(&written) }
        }).collect();
        let heads: Vec<_> = lists.iter().map(|it| it.head.clone()).collect();
        let from = seed.index(heads.len());
        for to in from + 1..heads.len() {
            let chosen = path(&heads, &heads[from], &heads[to]).unwrap();
            prop_assert!(chosen.len() <= to - from);
            let union = Delta::union(chosen.iter().map(|head| {
                lists.iter().find(|list| list.head == **head).unwrap().clone()
            })).unwrap();
            prop_assert!(union.head.since().unwrap() <= heads[from].era);
            let truth: BTreeSet<u64> = steps[from + 2..=to + 1].iter().flat_map(|(blocks, _)| blocks.clone()).collect();
            prop_assert!(truth.is_subset(&blocks(&union.runs)), "{:?}", chosen);
        }
    }
}

#[test]
fn a_full_one_in_between_is_refused_with_its_reason() {
    let heads = [head("a", 1, 2), full("b", "SlicesLost", 4), head("c", 4, 6)];
    let error = path(&heads, &heads[0], &heads[2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b is full (SlicesLost): what changed up to it is not known; copy in full, once"
    );
    let to_full = path(&heads, &heads[0], &heads[1]).unwrap_err();
    assert!(matches!(to_full, DeltaError::Full { .. }), "{to_full}");
    // One can begin at a full one.
    assert_eq!(path(&heads, &heads[1], &heads[2]).unwrap(), [&heads[2]]);
    let everything = Delta { head: heads[1].clone(), runs: "0-199".parse().unwrap() };
    for given in [vec![everything.clone()], vec![everything, delta("c", 4, 6, "1")]] {
        let error = Delta::union(given).unwrap_err();
        assert!(matches!(error, DeltaError::Full { .. }), "{error}");
    }
}

#[test]
fn a_full_one_that_a_later_list_reaches_over_is_not_needed() {
    let heads = [head("a", 1, 2), full("b", "NoBaseline", 4), head("c", 2, 6)];
    assert_eq!(path(&heads, &heads[0], &heads[2]).unwrap(), [&heads[2]]);
}

#[test]
fn another_chain_says_why_it_began() {
    let other = |head: Head| Head { line: Line { chain: "d".into(), ..line() }, ..head };
    let heads = [head("a", 1, 2), other(full("b", "TableReloaded", 3)), other(head("c", 3, 4))];
    let error = path(&heads, &heads[0], &heads[2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chain broke between a and c (TableReloaded); copy in full from a later full snapshot on"
    );
    let c = Delta { head: heads[2].clone(), runs: RunList::default() };
    let error = Delta::union([delta("a", 1, 3, "7"), c]).unwrap_err();
    assert!(matches!(error, DeltaError::OtherChain { reason: None, .. }), "{error}");
}

#[test]
fn what_differs_is_named() {
    let base = line();
    let lines = [
        ("volumeUID", Line { volume: "w".into(), ..base.clone() }),
        ("blockSizeBytes", Line { block: Granularity::MAX, ..base.clone() }),
        ("sizeBytes", Line { size: Bytes(4096), ..base }),
    ];
    for (field, line) in lines {
        let other = Delta { head: Head { line, ..head("b", 2, 3) }, runs: RunList::default() };
        let error = delta("a", 1, 2, "7").and(other).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains('a') && error.contains('b'), "{error}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let heads = [head("a", 1, 2), head("b", 2, 4)];
    let backwards = path(&heads, &heads[1], &heads[0]).unwrap_err();
    assert!(matches!(backwards, DeltaError::NotBefore { .. }), "{backwards}");
    assert!(path(&heads, &heads[0], &heads[0]).is_err());
    let twice = delta("a", 1, 2, "7").and(delta("b", 1, 2, "8")).unwrap_err();
    assert!(matches!(twice, DeltaError::SameEra { .. }), "{twice}");
    let empty = Delta::union([delta("a", 2, 2, "7")]).unwrap_err();
    assert!(matches!(empty, DeltaError::Backwards { .. }), "{empty}");
    assert_eq!(Delta::union([]), Err(DeltaError::Nothing));
}

#[test]
fn extents_end_where_the_volume_does() {
    let all = delta("a", 1, 2, "0,3-5,198-199");
    let found: Vec<_> = all.extents().map(|(offset, length)| (offset.0, length.0)).collect();
    assert_eq!(found, [(0, 4096), (3 * 4096, 3 * 4096), (198 * 4096, 2 * 4096 - 512)]);
    assert_eq!(all.listed(), Bytes(6 * 4096));
}
