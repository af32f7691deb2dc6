//! The list of two snapshots in one, and what the status of the later one says then. Pure.

use eratrack_api::{
    ChangedBlockSlice, Condition, ConditionType, EraSnapshot, EraSnapshotStatus, Reason, Time,
    condition, names, size,
};
use eratrack_model::delta::Delta;
use jiff::Timestamp;

use crate::agent::slices::slices;
use crate::agent::snapshot::list::List;

/// What is to be written.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    /// The slices, in the place that is not valid now.
    pub(super) slices: Vec<ChangedBlockSlice>,
    /// The status of the later one.
    pub(super) status: EraSnapshotStatus,
}

/// The index of the first slice in the place that is not valid now.
pub(super) fn other_place(snapshot: &EraSnapshot) -> u32 {
    let status = snapshot.status.as_ref();
    let first = status.and_then(|status| status.slices.as_ref()).map_or(0, |it| it.first);
    if first == 0 { names::SLICES_MAX } else { 0 }
}

/// `both` is what both lists say together. Passes over it many times: call it where one may block.
pub(super) fn joined(
    gone: &EraSnapshot,
    into: &EraSnapshot,
    both: &Delta,
    now: Timestamp,
) -> Joined {
    let old = into.status.clone().unwrap_or_default();
    let before = gone.status.clone().unwrap_or_default();
    // What the kernel marked is known of each; together it is no more than both, nor than what both list.
    let blocks = |status: &EraSnapshotStatus| status.changed_blocks.unwrap_or(u64::MAX);
    let marked = blocks(&old).saturating_add(blocks(&before)).min(both.runs.blocks());
    let list = List::joined(&both.runs, marked);
    let first = other_place(into);
    let bytes = |count: u64| {
        let block = old.block_size_bytes.unwrap_or_default();
        count.saturating_mul(block).min(old.size_bytes.unwrap_or(u64::MAX))
    };
    let mut summary = list.summary();
    summary.first = first;
    let mut conditions = old.conditions.clone();
    condition::set(&mut conditions, complete(into, bytes(marked), now));
    let status = EraSnapshotStatus {
        since_era: before.since_era,
        base: before.base,
        changed: Some(size::for_people(bytes(marked))),
        changed_bytes: Some(bytes(marked)),
        listed_bytes: Some(bytes(list.listed_blocks())),
        changed_blocks: Some(marked),
        ranges: Some(list.ranges()),
        slices: Some(summary),
        conditions,
        ..old
    };
    Joined { slices: slices(into, &list, None, first), status }
}

fn complete(snapshot: &EraSnapshot, changed: u64, now: Timestamp) -> Condition {
    let all = snapshot.status.as_ref().and_then(|status| status.size_bytes).unwrap_or_default();
    let message = format!(
        "{} of {} changed, with what earlier snapshots had that are gone",
        size::for_people(changed),
        size::for_people(all)
    );
    Condition::new(ConditionType::Ready, true, Reason::Complete, message, Time(now))
        .of_generation(snapshot.metadata.generation)
}
