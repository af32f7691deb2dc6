//! How long a point in time is held, and what is said at its end. Pure.

use eratrack_api::{
    ConditionStatus, ConditionType, EraSnapshot, HOLD_SECONDS, Reason, SnapshotMode, condition,
    names,
};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

use super::step::has;
use crate::agent::stacks::{HeldPoint, PointState};

/// What becomes of the point in time that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It stays.
    Keep,
    /// It ends, and nobody asks any more how it was.
    Drop,
    /// It ends with this said of it.
    End(Verdict),
}

/// What is said of a point in time at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Of Readable.
    pub(crate) reason: Reason,
    /// Before it was looked at: what was read until then is what is judged.
    pub(crate) at: Timestamp,
    /// For a person.
    pub(crate) message: String,
}

/// Whether a snapshot is to have a point in time.
pub(crate) fn is_local(snapshot: &EraSnapshot) -> bool {
    snapshot.spec.mode == SnapshotMode::Local
}

/// How long it is to be held at most.
pub(crate) fn hold(snapshot: &EraSnapshot) -> Duration {
    Duration::from_secs(snapshot.spec.hold_seconds.unwrap_or(HOLD_SECONDS).into())
}

/// Whether its status says that its device can be read.
pub(crate) fn is_readable(snapshot: &EraSnapshot) -> bool {
    has(snapshot, ConditionType::Readable)
}

/// Whether it will not be read (any more), whoever holds its device.
pub(crate) fn is_over(snapshot: &EraSnapshot) -> bool {
    let status = snapshot.status.as_ref();
    let readable = status
        .and_then(|status| condition::find(&status.conditions, ConditionType::Readable))
        .is_some_and(|readable| readable.status == ConditionStatus::False);
    readable
        || has(snapshot, ConditionType::Failed)
        || snapshot.metadata.deletion_timestamp.is_some()
}

/// Decides. `snapshot` is the one that it is of, as the watch has it: none if the API server says that it is gone, which
/// the absence from a watch does not say. `state` is how it was found after whatever a reader has read until
/// `now`. `copied` says that nothing is, or will be, copied from it into a replica.
pub(crate) fn next(
    held: &HeldPoint,
    snapshot: Option<&EraSnapshot>,
    state: &PointState,
    (now, copied): (Timestamp, bool),
) -> Hold {
    let Some(snapshot) = snapshot.filter(|snapshot| !is_over(snapshot)) else { return Hold::Drop };
    if !is_readable(snapshot) {
        // Its list is not complete yet; whoever completes it looks at the point in time once more.
        return if now >= held.until { Hold::Drop } else { Hold::Keep };
    }
    if let PointState::Lost(reason, message) = state {
        return Hold::End(Verdict { reason: *reason, at: now, message: message.clone() });
    }
    let annotated = |key| {
        let annotations = snapshot.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(key))
    };
    if copied && annotated(names::ANNOTATION_REPLICATE) {
        let message = format!(
            "good until {now}, when the agent had done with it; it was held for the replica"
        );
        return Hold::End(Verdict { reason: Reason::Released, at: now, message });
    }
    let released = annotated(names::ANNOTATION_RELEASE);
    if released {
        let message = format!("good until {now}, after its release; what was read later is not");
        return Hold::End(Verdict { reason: Reason::Released, at: now, message });
    }
    if now >= held.until {
        let message = format!(
            "good until {now}, when spec.holdSeconds were over; what was read later is not"
        );
        return Hold::End(Verdict { reason: Reason::HoldExpired, at: now, message });
    }
    Hold::Keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{at, snapshot};
    use serde_json::{Value, json};

    fn held() -> HeldPoint {
        HeldPoint {
            snapshot_uid: "uid-of-s".into(),
            device: "/dev/eratrack/uid-of-s".into(),
            until: at(100),
        }
    }

    fn local(conditions: &[(&str, &str, &str)]) -> EraSnapshot {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(type_, status, reason)| {
                json!({"type": type_, "status": status, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        let mut local = snapshot("s", &json!({ "conditions": conditions }));
        local.spec.mode = SnapshotMode::Local;
        local
    }

    fn readable() -> EraSnapshot {
        local(&[("Ready", "True", "Complete"), ("Readable", "True", "PointInTime")])
    }

    fn released(mut snapshot: EraSnapshot) -> EraSnapshot {
        let release = (names::ANNOTATION_RELEASE.to_owned(), String::new());
        snapshot.metadata.annotations = Some([release].into());
        snapshot
    }

    fn reason(hold: &Hold) -> Option<Reason> {
        match hold {
            Hold::End(verdict) => Some(verdict.reason),
            Hold::Keep | Hold::Drop => None,
        }
    }

    #[test]
    fn it_stays_until_it_is_released_or_its_time_is_over() {
        let decide = |snapshot: &EraSnapshot, second| {
            next(&held(), Some(snapshot), &PointState::Good, (at(second), true))
        };
        assert_eq!(decide(&readable(), 99), Hold::Keep);
        assert_eq!(reason(&decide(&released(readable()), 99)), Some(Reason::Released));
        assert_eq!(reason(&decide(&readable(), 100)), Some(Reason::HoldExpired));
        let Hold::End(verdict) = decide(&readable(), 107) else { panic!("it is over") };
        assert_eq!(verdict.at, at(107), "whenever it is said");
        let reading = local(&[("Ready", "False", "Reading")]);
        let reading = released(reading);
        assert_eq!(decide(&reading, 99), Hold::Keep, "its list is not complete yet");
        assert_eq!(decide(&reading, 100), Hold::Drop, "nobody has read it");
    }

    #[test]
    fn one_that_is_lost_never_counts_as_released() {
        let lost = PointState::Lost(Reason::CopiesFull, "full".into());
        let hold = next(&held(), Some(&released(readable())), &lost, (at(200), true));
        assert_eq!(reason(&hold), Some(Reason::CopiesFull));
    }

    #[test]
    fn one_that_nobody_reads_is_dropped() {
        let mut deleted = readable();
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        let failed = local(&[("Ready", "False", "ChainBroken"), ("Failed", "True", "ChainBroken")]);
        let over = local(&[("Ready", "True", "Complete"), ("Readable", "False", "Released")]);
        for snapshot in [Some(&deleted), Some(&failed), Some(&over), None] {
            assert_eq!(next(&held(), snapshot, &PointState::Good, (at(1), true)), Hold::Drop);
        }
    }

    #[test]
    fn one_that_is_held_for_a_replica_goes_when_it_is_copied_and_not_before() {
        let mut held_for = readable();
        let annotation = (names::ANNOTATION_REPLICATE.to_owned(), "true".to_owned());
        held_for.metadata.annotations = Some([annotation].into());
        let decide = |copied| next(&held(), Some(&held_for), &PointState::Good, (at(1), copied));
        assert_eq!(decide(false), Hold::Keep);
        assert_eq!(reason(&decide(true)), Some(Reason::Released));
        let for_a_reader = next(&held(), Some(&readable()), &PointState::Good, (at(1), true));
        assert_eq!(for_a_reader, Hold::Keep, "that of somebody else is none of the copier's");
    }

    #[test]
    fn it_is_held_for_an_hour_if_nobody_says_otherwise() {
        assert_eq!(hold(&readable()), Duration::from_secs(3600));
        let mut short = readable();
        short.spec.hold_seconds = Some(60);
        assert_eq!(hold(&short), Duration::from_secs(60));
    }
}
