//! Pure: what the controller does with an EraSnapshot. It tells which node's agent is to make it, and ends it when nobody
//! can any more; everything between is the agent's.

use eratrack_api::{
    ConditionStatus, ConditionType, EraSnapshot, EraVolume, Reason, SnapshotMode, condition,
};
use jiff::{SignedDuration, Timestamp};

use kube::ResourceExt;

use crate::controller::outcome::{created, is_pending, is_scheduled, outcome};
use crate::controller::retention::Outcome;

/// What is done with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It has ended, or is being deleted.
    Nothing,
    /// Its agent is at work; at this time it has had enough.
    Wait(Timestamp),
    /// It can be given to nobody yet; why, and when it has had enough.
    Say(Reason, String, Timestamp),
    /// It is given to the agent of a node.
    Assign(Assignment, Timestamp),
    /// It will never be complete.
    Fail(Reason, String),
}

/// Who makes a snapshot, and of which volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The node.
    pub(crate) node: String,
    /// The PersistentVolume's uid.
    pub(crate) volume_uid: String,
}

/// What may keep a snapshot from being made now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Obstacles {
    /// Why there is no room for its list.
    pub(crate) full: Option<String>,
    /// The snapshot of the claim whose turn it is instead.
    pub(crate) turn: Option<String>,
    /// The snapshot of the claim whose point in time is read, if this one would be another.
    pub(crate) held: Option<String>,
}

/// Decides it. `volume` is the EraVolume of the claim's name; `node_gone` tells of a node whether it is not there;
/// `obstacles` is asked for only if the snapshot could be given to an agent.
pub(crate) fn decide(
    snapshot: &EraSnapshot,
    volume: Option<&EraVolume>,
    obstacles: impl FnOnce() -> Obstacles,
    node_gone: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Decision {
    if snapshot.metadata.deletion_timestamp.is_some() || outcome(snapshot) != Outcome::Pending {
        return Decision::Nothing;
    }
    let deadline = deadline(snapshot);
    if deadline <= now {
        return Decision::Fail(Reason::DeadlineExceeded, exceeded(snapshot));
    }
    let status = snapshot.status.clone().unwrap_or_default();
    match status.node_name {
        Some(node) if node_gone(&node) => {
            Decision::Fail(Reason::NodeGone, format!("node {node} is gone; create another one"))
        }
        Some(_) => match volume.map(|it| &it.spec.volume) {
            Some(now) if status.volume_uid.as_ref().is_some_and(|uid| *uid != now.uid) => {
                let message =
                    format!("the claim is bound to another PersistentVolume, {}, by now", now.name);
                Decision::Fail(Reason::VolumeChanged, message)
            }
            _ => Decision::Wait(deadline),
        },
        None => assign(snapshot, volume, obstacles, deadline),
    }
}

fn assign(
    snapshot: &EraSnapshot,
    volume: Option<&EraVolume>,
    obstacles: impl FnOnce() -> Obstacles,
    deadline: Timestamp,
) -> Decision {
    let claim = &snapshot.spec.claim_name;
    let Some(volume) = volume.filter(|it| it.metadata.deletion_timestamp.is_none()) else {
        let message =
            format!("claim {claim} is not tracked; name it in an EraTracking of this namespace");
        return Decision::Say(Reason::NotTracked, message, deadline);
    };
    let Some(node) = volume.spec.node_name.clone() else {
        let message = format!("the node of claim {claim} is not known; see its EraVolume");
        return Decision::Say(Reason::Pending, message, deadline);
    };
    let Obstacles { full, turn, held } = obstacles();
    if let Some(message) = full {
        return Decision::Say(Reason::StorageBudget, message, deadline);
    }
    if let Some(other) = held {
        let message = format!(
            "EraSnapshot {other} of the claim is held for a reader; it is made once that is released"
        );
        return Decision::Say(Reason::PointInTimeHeld, message, deadline);
    }
    if let Some(other) = turn {
        let message =
            format!("EraSnapshot {other} of the claim comes first; one is made at a time");
        return Decision::Say(Reason::RateLimited, message, deadline);
    }
    Decision::Assign(Assignment { node, volume_uid: volume.spec.volume.uid.clone() }, deadline)
}

/// The snapshot of the claim that comes before this one: one that an agent is at, then those of the schedule, then the
/// oldest. `all` are the claim's snapshots. One that waits for a reader of another lets those pass that need no device.
pub(crate) fn turn<'a>(
    snapshot: &EraSnapshot,
    all: &(impl Iterator<Item = &'a EraSnapshot> + Clone),
) -> Option<String> {
    let rank = |it: &EraSnapshot| (!is_given(it), !is_scheduled(it), created(it), it.name_any());
    let waits = |it: &EraSnapshot| held(it, all.clone()).is_some();
    let first = all.clone().filter(|it| is_pending(it) && !waits(it)).min_by_key(|it| rank(it))?;
    (rank(first) < rank(snapshot)).then(|| first.name_any())
}

/// The snapshot whose point in time is read, if this one would be another of the same claim: a volume has one at a time.
pub(crate) fn held<'a>(
    snapshot: &EraSnapshot,
    mut all: impl Iterator<Item = &'a EraSnapshot>,
) -> Option<String> {
    if snapshot.spec.mode != SnapshotMode::Local || is_given(snapshot) {
        return None;
    }
    let read = |it: &EraSnapshot| {
        let conditions = it.status.as_ref().map_or(&[][..], |status| &status.conditions);
        condition::find(conditions, ConditionType::Readable)
            .is_some_and(|it| it.status == ConditionStatus::True)
    };
    all.find(|it| read(it)).map(ResourceExt::name_any)
}

fn is_given(snapshot: &EraSnapshot) -> bool {
    snapshot.status.as_ref().is_some_and(|status| status.node_name.is_some())
}

fn deadline(snapshot: &EraSnapshot) -> Timestamp {
    let allowed = SignedDuration::from_secs(snapshot.spec.deadline_seconds.into());
    created(snapshot).checked_add(allowed).unwrap_or(Timestamp::MAX)
}

fn exceeded(snapshot: &EraSnapshot) -> String {
    let seconds = snapshot.spec.deadline_seconds;
    let conditions = snapshot.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let last = condition::find(conditions, ConditionType::Ready);
    let waited =
        last.map_or("nobody took it up".to_owned(), |it| format!("{}: {}", it.reason, it.message));
    format!("not complete within spec.deadlineSeconds of {seconds} s; last: {waited}")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // a json! literal is handed over, not kept
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::testing::{CREATED, condition, era_volume, snapshot, uid};

    fn decided(status: Value, volume: Option<Value>, gone: bool, time: &str) -> Decision {
        let snapshot = snapshot("s", "data", json!({ "status": status }));
        let volume = volume.map(|over| era_volume("data", over));
        let now = format!("2026-11-22T{time}Z").parse().expect("a time");
        decide(&snapshot, volume.as_ref(), Obstacles::default, |_| gone, now)
    }

    #[test]
    fn without_room_or_out_of_turn_it_waits_and_says_so() {
        let volume = era_volume("data", json!({}));
        let waiting = snapshot("s", "data", json!({}));
        let now = "2026-11-22T12:00:01Z".parse().expect("a time");
        let full = Obstacles {
            full: Some("the lists take too much".into()),
            turn: Some("x".into()),
            held: None,
        };
        let behind = Obstacles { turn: Some("other".into()), ..Obstacles::default() };
        let held = Obstacles { held: Some("nightly".into()), ..Obstacles::default() };
        for (obstacles, expected, word) in [
            (full, Reason::StorageBudget, "too much"),
            (behind, Reason::RateLimited, "other"),
            (held, Reason::PointInTimeHeld, "nightly"),
        ] {
            let decided = decide(&waiting, Some(&volume), || obstacles, |_| false, now);
            let Decision::Say(reason, message, until) = decided else { panic!("{expected}") };
            assert_eq!((reason, until), (expected, deadline()));
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn one_at_a_time_and_the_schedule_before_what_was_made_by_hand() {
        let owner = json!([{ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking", "name": "all",
                             "uid": uid("et", "all"), "controller": true }]);
        let at = |second: u32| json!(format!("2026-11-22T12:00:{second:02}Z"));
        let old = snapshot("old", "data", json!({ "metadata": { "creationTimestamp": at(1) } }));
        let new = snapshot("new", "data", json!({ "metadata": { "creationTimestamp": at(2) } }));
        let scheduled =
            json!({ "metadata": { "creationTimestamp": at(3), "ownerReferences": owner } });
        let scheduled = snapshot("scheduled", "data", scheduled);
        let given = snapshot(
            "given",
            "data",
            json!({ "metadata": { "creationTimestamp": at(4) }, "status": { "nodeName": "n1" } }),
        );
        let ended = snapshot(
            "ended",
            "data",
            json!({ "metadata": { "creationTimestamp": at(0) }, "status": { "nodeName": "n1",
            "conditions": [condition("Failed", "True", "NodeGone")] } }),
        );
        let first = |it: &EraSnapshot, all: &[&EraSnapshot]| turn(it, &all.iter().copied());
        assert_eq!(first(&old, &[&new, &old, &ended]), None);
        assert_eq!(first(&new, &[&new, &old, &ended]).as_deref(), Some("old"));
        assert_eq!(first(&old, &[&new, &old, &scheduled]).as_deref(), Some("scheduled"));
        assert_eq!(first(&scheduled, &[&new, &old, &scheduled]), None);
        assert_eq!(first(&scheduled, &[&given, &scheduled]).as_deref(), Some("given"));
    }

    #[test]
    fn one_that_waits_for_a_reader_lets_those_pass_that_need_no_device() {
        let local = |name: &str, over: Value| {
            let mut local = snapshot(name, "data", over);
            local.spec.mode = SnapshotMode::Local;
            local
        };
        let read = json!({ "status": { "nodeName": "n1", "conditions": [
            condition("Ready", "True", "Complete"), condition("Readable", "True", "Held")] } });
        let read = local("read", read);
        let waits = local("a", json!({}));
        let plain = snapshot("b", "data", json!({}));
        let all = [&read, &waits, &plain];
        assert_eq!(held(&waits, all.into_iter()).as_deref(), Some("read"));
        assert_eq!(held(&plain, all.into_iter()), None, "it needs no device");
        assert_eq!(turn(&plain, &all.into_iter()), None);
        assert_eq!(held(&waits, [&waits, &plain].into_iter()), None);
        assert_eq!(turn(&plain, &[&waits, &plain].into_iter()).as_deref(), Some("a"));
    }

    fn deadline() -> Timestamp {
        "2026-11-22T12:10:00Z".parse().expect("a time")
    }

    #[test]
    fn it_is_given_to_the_node_of_its_volume() {
        let volume_uid = uid("pv", "pv-data");
        let assigned = decided(json!(null), Some(json!({})), false, "12:00:01");
        let assignment = Assignment { node: "n1".into(), volume_uid };
        assert_eq!(assigned, Decision::Assign(assignment, deadline()));
    }

    #[test]
    fn what_nobody_can_make_says_why() {
        let deleted = json!({ "metadata": { "deletionTimestamp": CREATED } });
        let nowhere = json!({ "spec": { "nodeName": null } });
        let table = [
            (None, Reason::NotTracked),
            (Some(deleted), Reason::NotTracked),
            (Some(nowhere), Reason::Pending),
        ];
        for (volume, expected) in table {
            let Decision::Say(reason, message, until) =
                decided(json!(null), volume, false, "12:00:01")
            else {
                panic!("{expected}")
            };
            assert_eq!((reason, until), (expected, deadline()));
            assert!(message.contains("data"), "{message}");
        }
    }

    #[test]
    fn an_assigned_one_is_left_to_its_agent_until_it_cannot_be_made() {
        let assigned = || {
            json!({ "nodeName": "n1", "volumeUID": uid("pv", "pv-data"),
                                  "conditions": [condition("Ready", "False", "Reading")] })
        };
        let rebound = json!({ "spec": { "volume": { "name": "pv-2", "uid": uid("pv", "pv-2") } } });
        assert_eq!(
            decided(assigned(), Some(json!({})), false, "12:09:59"),
            Decision::Wait(deadline())
        );
        assert_eq!(
            decided(assigned(), None, false, "12:09:59"),
            Decision::Wait(deadline()),
            "absence is no wish"
        );
        let failures = [
            (Some(json!({})), true, "12:00:01", Reason::NodeGone, "n1"),
            (Some(rebound), false, "12:00:01", Reason::VolumeChanged, "pv-2"),
            (Some(json!({})), false, "12:10:00", Reason::DeadlineExceeded, "Reading"),
        ];
        for (volume, gone, time, expected, word) in failures {
            let Decision::Fail(reason, message) = decided(assigned(), volume, gone, time) else {
                panic!("{expected}")
            };
            assert_eq!(reason, expected);
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn what_has_ended_is_never_touched() {
        for status in [
            json!({ "nodeName": "n1", "conditions": [condition("Ready", "True", "Complete")] }),
            json!({ "conditions": [condition("Failed", "True", "NodeGone"), condition("Ready", "False", "NodeGone")] }),
        ] {
            assert_eq!(
                decided(status.clone(), None, true, "23:00:00"),
                Decision::Nothing,
                "{status}"
            );
        }
    }
}
