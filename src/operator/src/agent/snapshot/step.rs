//! What to do next for an `EraSnapshot`: one pure function of what the API server has, what the volume is, and the time.
//!
//! The status is the only memory: it is written ahead of what relies on it, so that whoever starts next goes on from it.

use std::time::Duration;

use eratrack_api::{ConditionType, EraSnapshot, Reason, SnapshotType, condition};
use eratrack_model::Era;
use k8s_openapi::jiff::Timestamp;

use super::hold::is_local;

/// The least time between two boundaries of a volume: each makes writers wait for a moment.
pub(crate) const BOUNDARY_INTERVAL: Duration = Duration::from_secs(10);

/// The volume, as far as its snapshots must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volume<'a> {
    /// The PersistentVolume that the claim is bound to.
    pub(crate) uid: &'a str,
    /// What is in its data path.
    pub(crate) chain: InForce<'a>,
    /// Of any of its snapshots.
    pub(crate) last_boundary: Option<Timestamp>,
    /// The uid of the snapshot whose point in time this process holds.
    pub(crate) held: Option<&'a str>,
}

/// The chain in a volume's data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InForce<'a> {
    /// Era is not in the data path.
    Nothing,
    /// What is in it is not known yet.
    Unknown,
    /// This one.
    Chain(&'a str),
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, ever.
    Settled,
    /// Nothing yet: say why, and look again at `until`, or when the volume changes.
    Wait { reason: Reason, message: String, until: Option<Timestamp> },
    /// Make the boundary and write it down.
    Boundary,
    /// The boundary is written down: read the list, publish it, and be ready.
    Publish(Recorded),
    /// It will never be ready.
    Fail { reason: Reason, message: String },
}

/// A boundary, as the status has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The first era after it.
    pub(crate) era: Era,
    /// What is to be listed.
    pub(crate) scope: Scope,
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    Full,
    /// What was written in this era or later.
    Since(Era),
}

/// Decides.
pub(crate) fn next_step(snapshot: &EraSnapshot, volume: Volume<'_>, now: Timestamp) -> Step {
    if snapshot.metadata.deletion_timestamp.is_some() || is_settled(snapshot) {
        return Step::Settled;
    }
    if let Some(message) = other_volume(snapshot, volume.uid) {
        return Step::Fail { reason: Reason::VolumeChanged, message };
    }
    if deadline(snapshot).is_some_and(|deadline| now >= deadline) {
        return late(snapshot);
    }
    match recorded(snapshot) {
        Some((chain, boundary)) if volume.chain == InForce::Chain(chain) => {
            if is_local(snapshot) && volume.held != snapshot.metadata.uid.as_deref() {
                return lost();
            }
            Step::Publish(boundary)
        }
        Some(_) if volume.chain == InForce::Unknown => not_attached(),
        Some((chain, boundary)) => Step::Fail {
            reason: Reason::ChainBroken,
            message: format!(
                "the boundary was made at era {} of chain {chain}, which has ended since",
                boundary.era
            ),
        },
        None => before_boundary(snapshot, volume, now),
    }
}

/// It was held by an earlier process, or until its time was over.
fn lost() -> Step {
    Step::Fail {
        reason: Reason::PointInTimeLost,
        message: "the point in time ended before the list was complete".to_owned(),
    }
}

/// When the snapshot has failed for being late.
pub(crate) fn deadline(snapshot: &EraSnapshot) -> Option<Timestamp> {
    let created = snapshot.metadata.creation_timestamp.as_ref()?.0;
    created.checked_add(Duration::from_secs(snapshot.spec.deadline_seconds.into())).ok()
}

/// Whether it is complete or has failed.
pub(crate) fn is_settled(snapshot: &EraSnapshot) -> bool {
    is_ready(snapshot) || has(snapshot, ConditionType::Failed)
}

/// Whether its list is complete.
pub(crate) fn is_ready(snapshot: &EraSnapshot) -> bool {
    has(snapshot, ConditionType::Ready)
}

pub(super) fn has(snapshot: &EraSnapshot, type_: ConditionType) -> bool {
    snapshot.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, type_))
}

/// The boundary that was written down, and its chain.
pub(crate) fn recorded(snapshot: &EraSnapshot) -> Option<(&str, Recorded)> {
    let status = snapshot.status.as_ref()?;
    let chain = status.chain_id.as_deref()?;
    let scope = match (status.type_?, status.since_era) {
        (SnapshotType::Incremental, Some(since)) => Scope::Since(Era(since)),
        (SnapshotType::Incremental, None) | (SnapshotType::Full, _) => Scope::Full,
    };
    Some((chain, Recorded { era: Era(status.era?), scope }))
}

fn other_volume(snapshot: &EraSnapshot, uid: &str) -> Option<String> {
    let asked = snapshot.status.as_ref()?.volume_uid.as_deref()?;
    (asked != uid).then(|| {
        format!("asked for while the claim was bound to the PersistentVolume with uid {asked}; now it is {uid}")
    })
}

fn late(snapshot: &EraSnapshot) -> Step {
    let waited = snapshot
        .status
        .as_ref()
        .and_then(|status| condition::find(&status.conditions, ConditionType::Ready))
        .map_or_else(|| Reason::Pending.as_str().to_owned(), |ready| ready.reason.clone());
    Step::Fail {
        reason: Reason::DeadlineExceeded,
        message: format!(
            "not complete within spec.deadlineSeconds ({}); it was {waited}",
            snapshot.spec.deadline_seconds
        ),
    }
}

fn not_attached() -> Step {
    Step::Wait {
        reason: Reason::NotAttached,
        message: "era is not in the volume's data path; see the EraVolume of the claim's name"
            .to_owned(),
        until: None,
    }
}

fn before_boundary(snapshot: &EraSnapshot, volume: Volume<'_>, now: Timestamp) -> Step {
    if !matches!(volume.chain, InForce::Chain(_)) {
        return not_attached();
    }
    let by_another = volume.held.is_some_and(|held| snapshot.metadata.uid.as_deref() != Some(held));
    if is_local(snapshot) && by_another {
        return Step::Wait {
            reason: Reason::PointInTimeHeld,
            message: "another point in time of the volume is held for its reader".to_owned(),
            until: None,
        };
    }
    let next = volume.last_boundary.and_then(|last| last.checked_add(BOUNDARY_INTERVAL).ok());
    match next {
        // A last boundary that lies ahead was written by another clock; it must not hold anybody up.
        Some(next) if now < next && volume.last_boundary <= Some(now) => Step::Wait {
            reason: Reason::RateLimited,
            message: format!(
                "the volume's last boundary was less than {} s ago",
                BOUNDARY_INTERVAL.as_secs()
            ),
            until: Some(next),
        },
        _ => Step::Boundary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{CHAIN, VOLUME_UID, at, snapshot};
    use serde_json::json;

    const OTHER: &str = "99999999-9999-4999-8999-999999999999";

    fn attached() -> Volume<'static> {
        let chain = InForce::Chain(CHAIN);
        Volume { uid: VOLUME_UID, chain, last_boundary: None, held: None }
    }

    fn boundary(scope: Scope) -> Recorded {
        Recorded { era: Era(7), scope }
    }

    #[test]
    fn a_new_snapshot_gets_its_boundary() {
        let new = snapshot("s", &json!({"nodeName": "node1", "volumeUID": VOLUME_UID}));
        assert_eq!(next_step(&new, attached(), at(1)), Step::Boundary);
        assert_eq!(next_step(&snapshot("s", &json!({})), attached(), at(1)), Step::Boundary);
    }

    #[test]
    fn it_waits_for_the_volume_and_for_its_turn() {
        let new = snapshot("s", &json!({"volumeUID": VOLUME_UID}));
        let detached = Volume { chain: InForce::Nothing, ..attached() };
        let step = next_step(&new, detached, at(1));
        assert!(
            matches!(step, Step::Wait { reason: Reason::NotAttached, until: None, .. }),
            "{step:?}"
        );
        let busy = Volume { last_boundary: Some(at(5)), ..attached() };
        let step = next_step(&new, busy, at(14));
        assert!(
            matches!(step, Step::Wait { reason: Reason::RateLimited, until: Some(until), .. } if until == at(15)),
            "{step:?}"
        );
        assert_eq!(next_step(&new, busy, at(15)), Step::Boundary);
        assert_eq!(next_step(&new, busy, at(3)), Step::Boundary, "a clock ahead holds nobody up");
    }

    #[test]
    fn a_recorded_boundary_is_finished() {
        let full = json!({"volumeUID": VOLUME_UID, "chainID": CHAIN, "era": 7, "type": "Full"});
        let step = next_step(&snapshot("s", &full), attached(), at(1));
        assert_eq!(step, Step::Publish(boundary(Scope::Full)));
        let delta = json!({"chainID": CHAIN, "era": 7, "type": "Incremental", "sinceEra": 4});
        let step = next_step(&snapshot("s", &delta), attached(), at(1));
        assert_eq!(step, Step::Publish(boundary(Scope::Since(Era(4)))));
    }

    #[test]
    fn points_in_time_are_held_one_at_a_time() {
        let mut new = snapshot("s", &json!({"volumeUID": VOLUME_UID}));
        let held = |uid| Volume { held: uid, ..attached() };
        assert_eq!(next_step(&new, held(Some("uid-of-t")), at(1)), Step::Boundary, "a list alone");
        new.spec.mode = eratrack_api::SnapshotMode::Local;
        assert_eq!(next_step(&new, held(None), at(1)), Step::Boundary);
        let again = next_step(&new, held(Some("uid-of-s")), at(1));
        assert_eq!(again, Step::Boundary, "of an attempt that nobody heard of");
        let step = next_step(&new, held(Some("uid-of-t")), at(1));
        assert!(matches!(step, Step::Wait { reason: Reason::PointInTimeHeld, .. }), "{step:?}");
    }

    #[test]
    fn a_point_in_time_that_is_held_no_more_fails_its_snapshot() {
        let made = json!({"volumeUID": VOLUME_UID, "chainID": CHAIN, "era": 7, "type": "Full"});
        let mut made = snapshot("s", &made);
        made.spec.mode = eratrack_api::SnapshotMode::Local;
        let held = Volume { held: Some("uid-of-s"), ..attached() };
        assert_eq!(next_step(&made, held, at(1)), Step::Publish(boundary(Scope::Full)));
        let unknown = Volume { chain: InForce::Unknown, ..attached() };
        let step = next_step(&made, unknown, at(1));
        assert!(matches!(step, Step::Wait { reason: Reason::NotAttached, .. }), "{step:?}");
        for volume in [attached(), Volume { held: Some("uid-of-t"), ..attached() }] {
            let step = next_step(&made, volume, at(1));
            assert!(matches!(step, Step::Fail { reason: Reason::PointInTimeLost, .. }), "{step:?}");
        }
    }

    #[test]
    fn a_recorded_boundary_of_a_broken_chain_fails() {
        let delta = json!({"chainID": OTHER, "era": 7, "type": "Incremental", "sinceEra": 4});
        for volume in [attached(), Volume { chain: InForce::Nothing, ..attached() }] {
            let step = next_step(&snapshot("s", &delta), volume, at(1));
            assert!(matches!(step, Step::Fail { reason: Reason::ChainBroken, .. }), "{step:?}");
        }
        let unknown = Volume { chain: InForce::Unknown, ..attached() };
        let step = next_step(&snapshot("s", &delta), unknown, at(1));
        assert!(matches!(step, Step::Wait { reason: Reason::NotAttached, .. }), "{step:?}");
    }

    #[test]
    fn the_deadline_counts_before_and_after_the_boundary() {
        for status in [json!({}), json!({"chainID": CHAIN, "era": 7, "type": "Full"})] {
            let snapshot = snapshot("s", &status);
            assert!(!matches!(next_step(&snapshot, attached(), at(599)), Step::Fail { .. }));
            let step = next_step(&snapshot, attached(), at(600));
            assert!(
                matches!(step, Step::Fail { reason: Reason::DeadlineExceeded, .. }),
                "{step:?}"
            );
        }
    }

    #[test]
    fn what_is_settled_stays() {
        let condition = |type_: &str| {
            json!({"conditions": [{"type": type_, "status": "True", "reason": "Complete", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
        };
        for type_ in ["Ready", "Failed"] {
            let settled = snapshot("s", &condition(type_));
            assert_eq!(next_step(&settled, attached(), at(9999)), Step::Settled);
        }
        let mut deleted = snapshot("s", &json!({}));
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        assert_eq!(next_step(&deleted, attached(), at(1)), Step::Settled);
    }

    #[test]
    fn another_volume_under_the_claim() {
        let status = json!({"volumeUID": OTHER});
        let step = next_step(&snapshot("s", &status), attached(), at(1));
        assert!(matches!(step, Step::Fail { reason: Reason::VolumeChanged, .. }), "{step:?}");
    }
}
