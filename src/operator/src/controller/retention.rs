//! Which scheduled snapshots of one claim have served their time.
//!
//! Each list is whole in itself; the way from one boundary to a later one is the union of the lists between. What goes from
//! the middle is merged into the next one first (`merge`); what goes from the beginning takes nothing along. Snapshots made
//! by hand are never pruned, and do not count.

mod rules;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

pub(crate) use rules::Rules;

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
    /// Its chain, and its era there.
    pub(crate) chain: Option<(&'a str, u32)>,
    /// What its list takes.
    pub(crate) bytes: u64,
}

/// What is kept of one claim.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    /// What the user wants kept.
    pub(crate) rules: Rules,
    /// So many complete snapshots at most.
    pub(crate) most: usize,
    /// Less than so many bytes of lists, but for the newest snapshot, which stays whatever it takes.
    pub(crate) bytes: u64,
}

/// A complete snapshot in its place among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed<'a> {
    /// No earlier than any before it in its chain, whatever the clock said.
    place: Timestamp,
    era: u32,
    name: &'a str,
    at: Timestamp,
    created: Timestamp,
    bytes: u64,
}

/// The complete snapshots to delete, the oldest first.
pub(crate) fn expired<'a>(items: &[Item<'a>], keep: &Keep, now: Timestamp) -> Vec<&'a str> {
    let ordered = newest_first(items);
    let times: Vec<_> = ordered.iter().map(|it| it.at).collect();
    let wanted = keep.rules.kept(&times, now);
    // By the API server's clock: it may be another one than by the boundary's.
    let made_last = ordered.iter().map(|it| (it.created, it.name)).max();
    let (mut count, mut bytes) = (0, 0_u64);
    let mut gone = Vec::new();
    for (index, (it, wanted)) in ordered.iter().zip(wanted).enumerate() {
        let newest = index == 0 || made_last == Some((it.created, it.name));
        let sum = bytes.saturating_add(it.bytes);
        if newest || (wanted && count < keep.most && sum < keep.bytes) {
            (count, bytes) = (count + 1, sum);
        } else {
            // What does not fit makes no room for what is older.
            bytes = if wanted { sum } else { bytes };
            gone.push(it.name);
        }
    }
    gone.reverse();
    gone
}

/// The failed snapshots to delete, the oldest first.
pub(crate) fn expired_failures<'a>(items: &[Item<'a>]) -> Vec<&'a str> {
    let failed = items.iter().filter(|item| item.outcome == Outcome::Failed);
    let mut failed: Vec<_> = failed.map(|item| (item.created, item.name)).collect();
    failed.sort_unstable();
    failed.truncate(failed.len().saturating_sub(KEEP_FAILED));
    failed.into_iter().map(|(_, name)| name).collect()
}

/// The complete ones. Within a chain eras tell which is newer, whatever the node's clock said at the time.
fn newest_first<'a>(items: &[Item<'a>]) -> Vec<Placed<'a>> {
    let mut placed: Vec<_> = items.iter().filter_map(placed).collect();
    placed.sort_unstable_by_key(|(_, it)| (it.era, it.at, it.name));
    let mut latest: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (chain, it) in &mut placed {
        if let Some(chain) = chain {
            let before = latest.entry(chain).or_insert(it.at);
            *before = it.place.max(*before);
            it.place = *before;
        }
    }
    let mut placed: Vec<_> = placed.into_iter().map(|(_, it)| it).collect();
    placed.sort_unstable_by_key(|it| Reverse(*it));
    placed
}

fn placed<'a>(item: &Item<'a>) -> Option<(Option<&'a str>, Placed<'a>)> {
    let Outcome::Complete(at) = item.outcome else { return None };
    let era = item.chain.map_or(0, |(_, era)| era);
    let Item { name, created, bytes, .. } = *item;
    Some((item.chain.map(|(chain, _)| chain), Placed { place: at, era, name, at, created, bytes }))
}

/// The newest of some snapshots by creation, then by name.
pub(crate) fn newest<'a, 'b>(items: &'b [Item<'a>]) -> Option<&'b Item<'a>> {
    items.iter().min_by_key(|item| Reverse((item.created, item.name)))
}
