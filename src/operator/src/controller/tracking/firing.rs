//! Part of step 3, pure: the snapshots that the schedule asks for, and the claims that get none.
//!
//! A time stays announced until each claim has its snapshot of it: a volume that is not attached yet, or busy, gets it as
//! soon as it can, within the starting deadline. What cannot be made then is overdue.

use eratrack_api::{
    Condition, ConditionType, EraSnapshot, EraSnapshotSpec, EraTracking, EraVolume, condition,
    names,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::build::{Doomed, metadata};
use super::dereference::Inputs;
use super::validate::{Validated, Verdict};
use crate::controller::budget::Usage;
use crate::controller::outcome::is_in_the_way;
use crate::controller::schedule::{Due, Schedule, utc_minute};

/// At most this many snapshots are created in one go; the rest follows a second later.
const BATCH: usize = 20;
/// How long a scheduled snapshot may take, in seconds.
const DEADLINE_SECONDS: u32 = 600;
/// When the rest of many snapshots follows.
const REST: SignedDuration = SignedDuration::from_secs(1);

/// What the schedule asked for, and what comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Firing {
    /// The time it fired at.
    pub(crate) fired: Option<Timestamp>,
    /// Whether nothing of that time is left to do once the plan is carried out.
    pub(crate) done: bool,
    /// Whether snapshots are left for the next go.
    pub(crate) throttled: bool,
    /// Claims without a snapshot of that time, and why.
    pub(crate) skipped: Vec<(String, Skip)>,
    /// Claims whose snapshot of this earlier time is not made any more, and why.
    pub(crate) overdue: Vec<Overdue>,
    /// The time whose snapshots are announced.
    pub(crate) next: Option<Timestamp>,
    /// When the schedule is to be looked at again.
    pub(crate) look: Option<Timestamp>,
}

impl Firing {
    /// Something of it was not carried out: it is done again.
    pub(crate) fn stay_announced(&mut self) {
        self.done = false;
        self.next = self.fired.or(self.next);
    }
}

/// A claim, the time that it has no snapshot of, and why, if that can still be told.
pub(crate) type Overdue = (String, Timestamp, Option<Skip>);

/// Why a claim gets no snapshot now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// It is not attached, so there is nothing to make a boundary of.
    NotAttached,
    /// Another of its snapshots is under way.
    Pending(String),
    /// Its lists, or those of the cluster, take too much room; with the figures.
    Budget(String),
}

impl Skip {
    /// Whether it may get its snapshot soon.
    fn passes(&self) -> bool {
        match self {
            Self::NotAttached | Self::Pending(_) => true,
            Self::Budget(_) => false,
        }
    }
}

/// What decides about a firing.
#[derive(Clone, Copy)]
struct Look<'a> {
    inputs: &'a Inputs,
    validated: &'a Validated,
    /// Snapshots that go now, and make room.
    pruned: &'a [Doomed],
}

/// Decides what is made now, once what is pruned is gone.
pub(crate) fn fire(
    inputs: &Inputs,
    validated: &Validated,
    schedule: &Schedule,
    pruned: &[Doomed],
    now: Timestamp,
) -> (Vec<EraSnapshot>, Firing) {
    let look = Look { inputs, validated, pruned };
    let next = schedule.next_after(now);
    let idle = Firing { next, look: next, ..Firing::default() };
    let Some(announced) = announced(&inputs.tracking, schedule) else { return (Vec::new(), idle) };
    // What was announced is not done; everything before it is.
    let done = announced.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(announced);
    match schedule.due(done, now) {
        Due::Nothing => (Vec::new(), idle),
        Due::Missed(at) => (Vec::new(), Firing { overdue: look.missed(at), ..idle }),
        Due::Fire(at) => look.fire_at(schedule, (announced, at), now),
    }
}

/// The time that was announced, if the schedule, as it reads now, fires then: else another one was announced.
pub(super) fn announced(tracking: &EraTracking, schedule: &Schedule) -> Option<Timestamp> {
    let time = tracking.status.as_ref()?.next_snapshot_time.as_ref()?.0;
    schedule.fires_at(time).then_some(time)
}

impl Look<'_> {
    fn fire_at(
        self,
        schedule: &Schedule,
        (announced, at): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> (Vec<EraSnapshot>, Firing) {
        let (mut create, skipped) = self.snapshots(at);
        let throttled = create.len() > BATCH;
        create.truncate(BATCH);
        let waits = skipped.iter().any(|(_, skip)| skip.passes());
        let done = !throttled && !waits;
        let next = schedule.next_after(now);
        let look = match (throttled, waits) {
            (true, _) => now.checked_add(REST).ok(),
            (false, true) => next.into_iter().chain(schedule.end_of(at)).min(),
            (false, false) => next,
        };
        let overdue = self.superseded(&skipped, announced, at);
        let next = if done { next } else { Some(at) };
        (create, Firing { fired: Some(at), done, throttled, skipped, overdue, next, look })
    }

    /// The claims that still wait, and have not got their snapshot of the time that was announced before this one either.
    fn superseded(
        self,
        skipped: &[(String, Skip)],
        announced: Timestamp,
        at: Timestamp,
    ) -> Vec<Overdue> {
        let waiting = skipped.iter().filter(|(_, skip)| announced < at && skip.passes());
        waiting
            .filter(|(claim, _)| self.lacks(claim, announced))
            .map(|(claim, skip)| (claim.clone(), announced, Some(skip.clone())))
            .collect()
    }

    /// The claims without a snapshot of a time that is too long ago now.
    fn missed(self, at: Timestamp) -> Vec<Overdue> {
        let claims = self.tracked().filter(|claim| self.lacks(claim, at));
        claims.map(|claim| (claim.clone(), at, self.skip(claim))).collect()
    }

    fn tracked(&self) -> impl Iterator<Item = &String> {
        let tracked = |verdict: &Verdict| matches!(verdict, Verdict::Track(_));
        let claims = self.validated.claims.iter();
        claims.filter(move |(_, verdict)| tracked(verdict)).map(|(claim, _)| claim)
    }

    /// Whether a claim should have a snapshot of that time, and has none. One that was not tracked yet should not.
    fn lacks(self, claim: &str, at: Timestamp) -> bool {
        let since = self.inputs.volumes.get(claim).and_then(|it| it.creation_timestamp());
        since.is_none_or(|since| since.0 <= at) && !self.exists(claim, at)
    }

    fn exists(self, claim: &str, at: Timestamp) -> bool {
        let name = names::scheduled_snapshot_name(claim, &utc_minute(at));
        self.of_claim(claim).any(|it| it.name_any() == name)
    }

    fn of_claim(&self, claim: &str) -> impl Iterator<Item = &EraSnapshot> {
        let all = self.inputs.snapshots.iter().map(AsRef::as_ref);
        all.filter(move |it: &&EraSnapshot| it.spec.claim_name == claim)
    }

    /// The snapshots of one time that are not there yet, and the claims that get none now.
    fn snapshots(self, at: Timestamp) -> (Vec<EraSnapshot>, Vec<(String, Skip)>) {
        let (mut create, mut skipped) = (Vec::new(), Vec::new());
        for claim in self.tracked().filter(|claim| !self.exists(claim, at)) {
            match self.skip(claim) {
                Some(skip) => skipped.push((claim.clone(), skip)),
                None => create.push(snapshot(&self.inputs.tracking, claim, at)),
            }
        }
        (create, skipped)
    }

    fn skip(self, claim: &str) -> Option<Skip> {
        if !self.inputs.volumes.get(claim).is_some_and(|volume| attached(volume)) {
            return Some(Skip::NotAttached);
        }
        if let Some(pending) = self.of_claim(claim).find(|it| is_in_the_way(it)) {
            return Some(Skip::Pending(pending.name_any()));
        }
        let pruned = |it: &&EraSnapshot| self.pruned.iter().any(|gone| gone.name == it.name_any());
        let kept = self.of_claim(claim).filter(|it| !pruned(it));
        self.inputs.shared.full().or_else(|| Usage::of(kept).volume_full()).map(Skip::Budget)
    }
}

/// By the agent's last word: an agent that is away for a moment comes back before the snapshot's deadline.
fn attached(volume: &EraVolume) -> bool {
    let conditions: &[Condition] = volume.status.as_ref().map_or(&[], |status| &status.conditions);
    volume.metadata.deletion_timestamp.is_none()
        && condition::is_true(conditions, ConditionType::Attached)
}

fn snapshot(tracking: &EraTracking, claim: &str, at: Timestamp) -> EraSnapshot {
    let name = names::scheduled_snapshot_name(claim, &utc_minute(at));
    let spec = EraSnapshotSpec { claim_name: claim.to_owned(), deadline_seconds: DEADLINE_SECONDS };
    let mut snapshot = EraSnapshot::new(&name, spec);
    snapshot.metadata = metadata(tracking, &name);
    snapshot
}
