//! Which scheduled snapshots of one claim have served their time.
//!
//! Each list is whole in itself; the way from one boundary to a later one is the union of the lists between. So the
//! oldest go first, and what remains is an unbroken end of the chain, whenever the deleting stops. Snapshots made by
//! hand are never pruned, and do not count.

use std::cmp::Reverse;

use jiff::Timestamp;

/// How many failed snapshots stay, for whoever wants to see why.
pub(crate) const KEEP_FAILED: usize = 3;

/// What has become of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Complete, with its boundary at this time.
    Complete(Timestamp),
    /// Never to be complete.
    Failed,
    /// Under way.
    Pending,
}

/// A scheduled snapshot, as far as retention goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    /// Its name, which ends in the minute it was scheduled for.
    pub(crate) name: &'a str,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// What has become of it.
    pub(crate) outcome: Outcome,
    /// What its list takes.
    pub(crate) bytes: u64,
}

/// What is kept of one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    /// So many complete snapshots, and at least one.
    pub(crate) last: usize,
    /// Less than so many bytes of lists, but for the newest snapshot, which stays whatever it takes.
    pub(crate) bytes: u64,
}

/// The snapshots to delete, in the order to delete them in.
pub(crate) fn expired<'a>(items: &[Item<'a>], keep: Keep) -> Vec<&'a str> {
    let mut complete = by_age(items, |outcome| match outcome {
        Outcome::Complete(at) => Some(at),
        Outcome::Failed | Outcome::Pending => None,
    });
    let fitting = fitting(&complete, keep.bytes);
    let mut failed = items
        .iter()
        .filter(|item| item.outcome == Outcome::Failed)
        .map(|item| (item.created, item.name))
        .collect::<Vec<_>>();
    failed.sort_unstable();
    drop_newest(&mut complete, keep.last.min(fitting).max(1));
    drop_newest(&mut failed, KEEP_FAILED);
    complete
        .into_iter()
        .map(|(_, name, _)| name)
        .chain(failed.into_iter().map(|(_, name)| name))
        .collect()
}

/// How many of the newest take less than so much together.
fn fitting(oldest_first: &[(Timestamp, &str, u64)], bytes: u64) -> usize {
    let sums = oldest_first.iter().rev().scan(0_u64, |sum, (_, _, bytes)| {
        *sum = sum.saturating_add(*bytes);
        Some(*sum)
    });
    sums.take_while(|sum| *sum < bytes).count()
}

fn by_age<'a>(
    items: &[Item<'a>],
    time: impl Fn(Outcome) -> Option<Timestamp>,
) -> Vec<(Timestamp, &'a str, u64)> {
    let mut aged: Vec<_> = items
        .iter()
        .filter_map(|item| Some((time(item.outcome)?, item.name, item.bytes)))
        .collect();
    aged.sort_unstable();
    aged
}

fn drop_newest<T>(oldest_first: &mut Vec<T>, count: usize) {
    oldest_first.truncate(oldest_first.len().saturating_sub(count));
}

/// The newest of some snapshots by creation, then by name.
pub(crate) fn newest<'a, 'b>(items: &'b [Item<'a>]) -> Option<&'b Item<'a>> {
    items.iter().min_by_key(|item| Reverse((item.created, item.name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn complete(name: &str, at: i64) -> Item<'_> {
        Item { name, created: second(at), outcome: Outcome::Complete(second(at)), bytes: 0 }
    }

    fn last(last: usize) -> Keep {
        Keep { last, bytes: u64::MAX }
    }

    fn other(name: &str, at: i64, outcome: Outcome) -> Item<'_> {
        Item { name, created: second(at), outcome, bytes: 0 }
    }

    #[test]
    fn the_oldest_go_first() {
        let items = [complete("c", 3), complete("a", 1), complete("b", 2)];
        assert_eq!(expired(&items, last(1)), ["a", "b"]);
        assert_eq!(expired(&items, last(3)), [""; 0]);
        assert_eq!(
            expired(&items, last(0)),
            ["a", "b"],
            "never the last one, which is the next one's base"
        );
    }

    #[test]
    fn three_failed_stay_and_pending_ones_always() {
        let mut items: Vec<_> = [("f1", 1), ("f2", 2), ("f3", 3), ("f4", 4)]
            .map(|(n, t)| other(n, t, Outcome::Failed))
            .into();
        items.push(other("p", 0, Outcome::Pending));
        items.push(complete("c", 5));
        assert_eq!(expired(&items, last(1)), ["f1"]);
    }

    #[test]
    fn lists_that_take_too_much_go_first_and_the_newest_never() {
        let of = |name, at, bytes| Item { bytes, ..complete(name, at) };
        let items = [of("a", 1, 10), of("b", 2, 500), of("c", 3, 400), of("d", 4, 99)];
        let table: [(u64, &[&str]); 5] = [
            (1010, &[]),
            (1009, &["a"]),
            (999, &["a", "b"]),
            (99, &["a", "b", "c"]),
            (0, &["a", "b", "c"]),
        ];
        for (bytes, expected) in table {
            assert_eq!(expired(&items, Keep { last: 9, bytes }), expected, "{bytes}");
        }
    }

    #[test]
    fn the_newest_is_found_whatever_became_of_it() {
        let items = [complete("b", 2), other("c", 3, Outcome::Failed), complete("a", 1)];
        assert_eq!(newest(&items).map(|item| item.name), Some("c"));
        assert_eq!(newest(&[]), None);
    }

    /// A boundary in a made-up chain: its list reaches from `since` to `era`.
    #[derive(Clone, Debug)]
    struct Link {
        name: String,
        since: Option<u32>,
        era: u32,
        scheduled: bool,
        at: i64,
    }

    fn chain() -> impl Strategy<Value = Vec<Link>> {
        // Each boundary: how far the era moves, whether it was scheduled, whether a new chain begins.
        let step = (1_u32..5, prop::bool::weighted(0.8), prop::bool::weighted(0.1));
        prop::collection::vec(step, 0..40).prop_map(|steps| {
            let mut era = 0;
            let links = steps.into_iter().enumerate().map(|(i, (gap, scheduled, breaks))| {
                let since = (i > 0 && !breaks).then_some(era);
                era += gap;
                Link {
                    name: format!("s{i:03}"),
                    since,
                    era,
                    scheduled,
                    at: i64::try_from(i).unwrap_or(0),
                }
            });
            links.collect()
        })
    }

    /// Whether each boundary from the oldest scheduled one on still joins the one before it.
    fn whole(links: &[Link]) -> bool {
        let from = links.iter().position(|link| link.scheduled).unwrap_or(links.len());
        links[from..].windows(2).all(|pair| pair[1].since.is_none_or(|since| since == pair[0].era))
    }

    proptest! {
        #[test]
        fn pruning_never_breaks_a_remaining_chain(links in chain(), keep in 1_usize..10, stop in 0_usize..40) {
            let items: Vec<_> = links.iter().filter(|l| l.scheduled).map(|l| complete(&l.name, l.at)).collect();
            let gone: Vec<String> = expired(&items, last(keep)).into_iter().take(stop).map(String::from).collect();
            let left: Vec<_> = links.iter().filter(|l| !gone.contains(&l.name)).cloned().collect();
            prop_assert!(whole(&links));
            prop_assert!(whole(&left), "after {gone:?}: {left:?}");
            prop_assert_eq!(links.iter().filter(|l| !l.scheduled).count(), left.iter().filter(|l| !l.scheduled).count());
            if stop == 39 {
                prop_assert_eq!(left.iter().filter(|l| l.scheduled).count(), items.len().min(keep));
            }
            prop_assert_eq!(links.last().map(|l| &l.name), left.last().map(|l| &l.name), "the next one's base stays");
        }
    }
}
