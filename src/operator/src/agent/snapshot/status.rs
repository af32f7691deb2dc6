//! The agent's part of an `EraSnapshot`'s status, step by step. Pure.
//!
//! Each function takes the status as the API server has it and gives the one to apply: what was written stays.

use eratrack_api::{
    Condition, ConditionType, Consistency, EraSnapshot, EraSnapshotStatus, Reason, SnapshotType,
    Time, condition, size,
};
use k8s_openapi::jiff::Timestamp;

use super::base::Origin;
use super::hold::{Verdict, is_readable};
use super::list::List;
use crate::agent::stacks::{Boundary, HeldPoint, Tracked};

/// It waits, and says for what; none if it says so already.
pub(crate) fn waiting(
    snapshot: &EraSnapshot,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> Option<EraSnapshotStatus> {
    let mut status = current(snapshot);
    let change = set(&mut status, snapshot, ConditionType::Ready, false, reason, message, now);
    (change != condition::Change::None).then_some(status)
}

/// The boundary is made. From here on the list can be read again by whoever comes next.
pub(crate) fn with_boundary(
    snapshot: &EraSnapshot,
    boundary: Boundary,
    tracked: &Tracked,
    origin: &Origin,
    now: Timestamp,
) -> EraSnapshotStatus {
    let mut status = current(snapshot);
    status.chain_id = Some(tracked.chain.clone());
    status.era = Some(boundary.era.0);
    status.boundary_time = Some(Time(boundary.time));
    status.size_bytes = Some(tracked.size_bytes);
    status.block_size_bytes = Some(tracked.granularity.bytes());
    let full = |status: &mut EraSnapshotStatus, reason: Reason| {
        status.type_ = Some(SnapshotType::Full);
        status.full_reason = Some(reason.as_str().to_owned());
    };
    match origin {
        Origin::Base(base) => {
            status.type_ = Some(SnapshotType::Incremental);
            status.since_era = Some(base.era.0);
            status.base = Some(base.snapshot.clone());
        }
        Origin::Nothing(reason) => full(&mut status, *reason),
        Origin::Lost { .. } => full(&mut status, Reason::SlicesLost),
    }
    let message = format!("boundary made at era {}; reading what changed", boundary.era);
    set(&mut status, snapshot, ConditionType::Ready, false, Reason::Reading, &message, now);
    status
}

/// The same of a point in time, which is held from here on.
pub(crate) fn with_point(mut status: EraSnapshotStatus, held: &HeldPoint) -> EraSnapshotStatus {
    status.device = Some(held.device.clone());
    // The swap does not freeze what is mounted.
    status.consistency = Some(Consistency::CrashConsistent);
    status.held_until = Some(Time(held.until));
    status
}

/// The point in time has ended, or is about to.
pub(crate) fn with_verdict(snapshot: &EraSnapshot, verdict: &Verdict) -> EraSnapshotStatus {
    let mut status = current(snapshot);
    status.device = None;
    let Verdict { reason, at, message } = verdict;
    set(&mut status, snapshot, ConditionType::Readable, false, *reason, message, *at);
    status
}

/// The list is complete: the one write that a reader relies on. A point in time is good, and can be read from now on.
pub(crate) fn complete(snapshot: &EraSnapshot, list: &List, now: Timestamp) -> EraSnapshotStatus {
    let mut status = current(snapshot);
    if let Some(device) = status.device.clone() {
        let reason = Reason::PointInTime;
        set(&mut status, snapshot, ConditionType::Readable, true, reason, &device, now);
    }
    let size = status.size_bytes.unwrap_or(u64::MAX);
    let block = status.block_size_bytes.unwrap_or_default();
    let bytes = |blocks: u64| blocks.saturating_mul(block).min(size);
    status.changed_blocks = Some(list.marked_blocks);
    status.changed_bytes = Some(bytes(list.marked_blocks));
    status.changed = Some(size::for_people(bytes(list.marked_blocks)));
    status.listed_bytes = Some(bytes(list.listed_blocks()));
    status.ranges = Some(list.ranges());
    status.slices = Some(list.summary());
    let message = format!(
        "{} of {} changed",
        size::for_people(bytes(list.marked_blocks)),
        size::for_people(status.size_bytes.unwrap_or_default())
    );
    set(&mut status, snapshot, ConditionType::Ready, true, Reason::Complete, &message, now);
    status
}

/// It will never be complete.
pub(crate) fn failed(
    snapshot: &EraSnapshot,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> EraSnapshotStatus {
    let mut status = current(snapshot);
    status.device = None;
    if is_readable(snapshot) {
        // A failed snapshot stays as it is: its reader would never hear of it.
        let lost = Reason::PointInTimeLost;
        set(&mut status, snapshot, ConditionType::Readable, false, lost, message, now);
    }
    set(&mut status, snapshot, ConditionType::Ready, false, reason, message, now);
    set(&mut status, snapshot, ConditionType::Failed, true, reason, message, now);
    status
}

/// Why it is not ready, as it was said last.
pub(crate) fn phase(snapshot: &EraSnapshot) -> Option<Reason> {
    let status = snapshot.status.as_ref()?;
    condition::find(&status.conditions, ConditionType::Ready)?.known_reason()
}

fn current(snapshot: &EraSnapshot) -> EraSnapshotStatus {
    snapshot.status.clone().unwrap_or_default()
}

fn set(
    status: &mut EraSnapshotStatus,
    snapshot: &EraSnapshot,
    type_: ConditionType,
    holds: bool,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> condition::Change {
    let new = Condition::new(type_, holds, reason, message, Time(now))
        .of_generation(snapshot.metadata.generation);
    condition::set(&mut status.conditions, new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::snapshot::base::Base;
    use crate::agent::stacks::Changes;
    use crate::agent::testing::{CHAIN, at, snapshot, tracked};
    use eratrack_api::ObjectRef;
    use eratrack_model::Era;
    use eratrack_model::extents::ChangedBlocks;
    use serde_json::json;

    fn boundary() -> Boundary {
        Boundary { era: Era(7), time: at(20), used_percent: 1 }
    }

    #[test]
    fn waiting_is_written_once() {
        let mut snapshot = snapshot("s", &json!({}));
        let status = waiting(&snapshot, Reason::NotAttached, "not yet", at(1)).expect("written");
        snapshot.status = Some(status);
        assert_eq!(waiting(&snapshot, Reason::NotAttached, "not yet", at(9)), None);
        assert!(waiting(&snapshot, Reason::RateLimited, "soon", at(9)).is_some());
    }

    #[test]
    fn a_failed_snapshot_can_be_read_no_more() {
        let readable = json!({"type": "Readable", "status": "True", "reason": "PointInTime", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let snapshot = snapshot("s", &json!({"device": "/dev/x", "conditions": [readable]}));
        let status = failed(&snapshot, Reason::SlicesLost, "gone", at(9));
        let told = condition::find(&status.conditions, ConditionType::Readable).expect("told");
        assert_eq!((told.is_true(), told.reason.as_str()), (false, "PointInTimeLost"));
        assert_eq!((status.device, status.conditions.len()), (None, 3));
        let status = failed(&snapshot_without_point(), Reason::SlicesLost, "gone", at(9));
        assert_eq!(status.conditions.len(), 2);
    }

    fn snapshot_without_point() -> EraSnapshot {
        snapshot("s", &json!({}))
    }

    #[test]
    fn a_delta_from_boundary_to_complete() {
        let mut snapshot = snapshot("s", &json!({"nodeName": "node1"}));
        let base = Base { snapshot: ObjectRef { name: "b".into(), uid: "u".into() }, era: Era(4) };
        let status = with_boundary(&snapshot, boundary(), &tracked(), &Origin::Base(base), at(21));
        assert_eq!(status.chain_id.as_deref(), Some(CHAIN));
        assert_eq!((status.era, status.since_era), (Some(7), Some(4)));
        assert_eq!(status.conditions[0].reason, "Reading");
        snapshot.status = Some(status);
        let runs = ChangedBlocks::new([2, 3].into_iter().collect(), 0, 4);
        let list = List::incremental(&Changes { runs, marked_blocks: 2 });
        let status = complete(&snapshot, &list, at(22));
        assert_eq!(status.changed_bytes, Some(2 * 262_144));
        assert_eq!(status.changed.as_deref(), Some("1Mi"));
        assert_eq!((status.ranges, status.slices.map(|it| it.count)), (Some(1), Some(1)));
        assert!(status.conditions[0].is_true());
        assert_eq!(status.node_name.as_deref(), Some("node1"), "what others wrote stays");
    }

    #[test]
    fn a_full_one_says_why_and_never_exceeds_the_device() {
        let mut snapshot = snapshot("s", &json!({}));
        let origin = Origin::Nothing(Reason::NodeRebooted);
        let status = with_boundary(&snapshot, boundary(), &tracked(), &origin, at(21));
        assert_eq!(status.full_reason.as_deref(), Some("NodeRebooted"));
        assert_eq!((status.type_, status.since_era), (Some(SnapshotType::Full), None));
        snapshot.status = Some(status);
        let list = List::full(tracked().size_bytes.div_ceil(262_144));
        let status = complete(&snapshot, &list, at(22));
        assert_eq!(status.changed_bytes, Some(tracked().size_bytes));
    }

    #[test]
    fn failing_says_it_twice() {
        let status = failed(&snapshot("s", &json!({})), Reason::ChainBroken, "gone", at(3));
        let said: Vec<_> = status
            .conditions
            .iter()
            .map(|it| (it.type_.as_str(), it.is_true(), it.reason.as_str()))
            .collect();
        assert_eq!(said, [("Ready", false, "ChainBroken"), ("Failed", true, "ChainBroken")]);
    }
}
