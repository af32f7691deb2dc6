//! What is said of a replica. Pure.

use eratrack_api::{Reason, ReplicaPhase, ReplicaPoint, ReplicaStatus, Time};

use crate::agent::stacks::{Equal, ReplicaTrouble, Standing};

/// What is true of a replica.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReplicaFacts {
    /// The whole of its status.
    pub(crate) status: ReplicaStatus,
    /// Whether it follows, why or why not, and that for people.
    pub(crate) current: (bool, Reason, String),
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing, or only a look.
    Nothing,
    /// Everything is copied.
    Seeding,
    /// A point in time is copied.
    Copying,
}

/// A status of which nothing is known but the claim.
pub(super) fn unknown(claim: &str) -> ReplicaStatus {
    ReplicaStatus {
        claim_name: claim.to_owned(),
        phase: ReplicaPhase::Waiting,
        equals: None,
        since_era: None,
        copied_bytes: None,
        total_bytes: None,
        duration_milliseconds: None,
        verified_time: None,
        full_reason: None,
    }
}

/// The status once it is known how the replica stands. While something is copied it equals nothing.
pub(super) fn stands(before: &ReplicaStatus, standing: &Standing, doing: Doing) -> ReplicaStatus {
    let mut status = before.clone();
    (status.equals, status.since_era) = (None, None);
    status.phase = match (standing, doing) {
        (_, Doing::Copying) => ReplicaPhase::Copying,
        (_, Doing::Seeding) | (Standing::Seeding(_), Doing::Nothing) => ReplicaPhase::Seeding,
        (Standing::Unseeded(_), Doing::Nothing) => ReplicaPhase::Waiting,
        (Standing::Seeded(_), Doing::Nothing) => ReplicaPhase::Seeded,
        (Standing::Following(..), Doing::Nothing) => ReplicaPhase::Following,
    };
    match standing {
        Standing::Unseeded(why) => status.full_reason = Some(why.chars().take(256).collect()),
        Standing::Seeding(since) | Standing::Seeded(since) => status.since_era = Some(since.0),
        Standing::Following(since, equal) => {
            status.since_era = Some(since.0);
            if let (Some(Equal { name, uid, time }), Doing::Nothing) = (equal, doing) {
                let (name, uid) = (name.clone(), uid.clone());
                status.equals = Some(ReplicaPoint { name, uid, era: since.0, time: Time(*time) });
            }
        }
    }
    status
}

/// Whether it follows. A copy that was cut short is a trouble until the next one has succeeded.
pub(super) fn current(
    standing: Option<&Standing>,
    trouble: Option<&ReplicaTrouble>,
) -> (bool, Reason, String) {
    if let Some(ReplicaTrouble { reason, message, .. }) = trouble {
        return (false, *reason, message.clone());
    }
    let seeding = |message: String| (false, Reason::ReplicaSeeding, message);
    match standing {
        None => (false, Reason::ReplicaWaiting, "the agent is looking at the replica".to_owned()),
        Some(Standing::Unseeded(why)) => seeding(format!("everything is to be copied: {why}")),
        Some(Standing::Seeding(_)) => seeding("everything is being copied".to_owned()),
        Some(Standing::Seeded(_)) => {
            seeding("everything was copied; the next snapshot brings it to a point in time".to_owned())
        }
        Some(Standing::Following(_, Some(equal))) => {
            (true, Reason::ReplicaFollowing, format!("it equals EraSnapshot {}", equal.name))
        }
        Some(Standing::Following(_, None)) => (
            false,
            Reason::ReplicaFailed,
            "a copy was cut short, so the replica is a mix of two points in time; the next snapshot is copied from the same boundary".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::at;
    use eratrack_model::Era;

    fn following() -> Standing {
        let equal = Equal { name: "s".into(), uid: "uid-of-s".into(), time: at(5) };
        Standing::Following(Era(7), Some(equal))
    }

    #[test]
    fn while_something_is_copied_it_equals_nothing() {
        let before = stands(&unknown("copy"), &following(), Doing::Nothing);
        assert_eq!(before.phase, ReplicaPhase::Following);
        assert_eq!(before.equals.as_ref().map(|it| (it.name.as_str(), it.era)), Some(("s", 7)));
        for (doing, phase) in
            [(Doing::Copying, ReplicaPhase::Copying), (Doing::Seeding, ReplicaPhase::Seeding)]
        {
            let status = stands(&before, &following(), doing);
            assert_eq!((status.phase, status.equals), (phase, None));
        }
    }

    #[test]
    fn it_follows_only_when_it_equals_something_and_nothing_is_wrong() {
        let reason = |standing: Option<&Standing>, trouble: Option<&ReplicaTrouble>| {
            let (follows, reason, _) = current(standing, trouble);
            (follows, reason)
        };
        assert_eq!(reason(Some(&following()), None), (true, Reason::ReplicaFollowing));
        let cut = Standing::Following(Era(7), None);
        assert_eq!(reason(Some(&cut), None), (false, Reason::ReplicaFailed));
        assert_eq!(reason(None, None), (false, Reason::ReplicaWaiting));
        for standing in
            [Standing::Unseeded("new".into()), Standing::Seeding(Era(1)), Standing::Seeded(Era(1))]
        {
            assert_eq!(reason(Some(&standing), None), (false, Reason::ReplicaSeeding));
            assert_eq!(stands(&unknown("copy"), &standing, Doing::Nothing).equals, None);
        }
        let (message, stopped) = ("in use".to_owned(), false);
        let trouble = ReplicaTrouble { reason: Reason::ReplicaInUse, message, stopped };
        let said = reason(Some(&following()), Some(&trouble));
        assert_eq!(said, (false, Reason::ReplicaInUse), "a trouble comes first");
    }
}
