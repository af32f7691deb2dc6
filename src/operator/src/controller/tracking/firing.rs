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

use super::build::metadata;
use super::dereference::Inputs;
use super::validate::{Validated, Verdict};
use crate::controller::budget::Usage;
use crate::controller::outcome::outcome;
use crate::controller::retention::Outcome;
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
    pub(crate) overdue: Vec<(String, Timestamp, Option<Skip>)>,
    /// The time whose snapshots are announced.
    pub(crate) next: Option<Timestamp>,
    /// When the schedule is to be looked at again.
    pub(crate) look: Option<Timestamp>,
}

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

/// Decides what is made now.
pub(crate) fn fire(
    inputs: &Inputs,
    validated: &Validated,
    schedule: &Schedule,
    now: Timestamp,
) -> (Vec<EraSnapshot>, Firing) {
    let next = schedule.next_after(now);
    let idle = Firing { next, look: next, ..Firing::default() };
    let Some(announced) = announced(&inputs.tracking) else { return (Vec::new(), idle) };
    // What was announced is not done; everything before it is.
    let done = announced.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(announced);
    match schedule.due(done, now) {
        Due::Nothing => (Vec::new(), idle),
        Due::Missed(at) => (Vec::new(), Firing { overdue: missed(inputs, validated, at), ..idle }),
        Due::Fire(at) => fire_at(inputs, validated, schedule, (announced, at), now),
    }
}

/// The time that the schedule was announced for, if nothing of the spec changed since: nobody asked for one before.
fn announced(tracking: &EraTracking) -> Option<Timestamp> {
    let status = tracking.status.as_ref()?;
    let generation = tracking.metadata.generation.and_then(|it| u64::try_from(it).ok());
    let current = status.observed_generation == generation;
    status.next_snapshot_time.as_ref().filter(|_| current).map(|time| time.0)
}

fn fire_at(
    inputs: &Inputs,
    validated: &Validated,
    schedule: &Schedule,
    (announced, at): (Timestamp, Timestamp),
    now: Timestamp,
) -> (Vec<EraSnapshot>, Firing) {
    let (mut create, skipped) = snapshots(inputs, validated, at);
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
    let overdue = superseded(inputs, &skipped, announced, at);
    let next = if done { next } else { Some(at) };
    (create, Firing { fired: Some(at), done, throttled, skipped, overdue, next, look })
}

/// The claims that still wait, and have not got their snapshot of the time that was announced before this one either.
fn superseded(
    inputs: &Inputs,
    skipped: &[(String, Skip)],
    announced: Timestamp,
    at: Timestamp,
) -> Vec<(String, Timestamp, Option<Skip>)> {
    let waiting = skipped.iter().filter(|(_, skip)| announced < at && skip.passes());
    waiting
        .filter(|(claim, _)| lacks(inputs, claim, announced))
        .map(|(claim, skip)| (claim.clone(), announced, Some(skip.clone())))
        .collect()
}

/// The claims without a snapshot of a time that is too long ago now.
fn missed(
    inputs: &Inputs,
    validated: &Validated,
    at: Timestamp,
) -> Vec<(String, Timestamp, Option<Skip>)> {
    let claims = tracked(validated).filter(|claim| lacks(inputs, claim, at));
    claims.map(|claim| (claim.clone(), at, skip(inputs, claim, None))).collect()
}

fn tracked(validated: &Validated) -> impl Iterator<Item = &String> {
    let tracked = |verdict: &Verdict| matches!(verdict, Verdict::Track(_));
    validated.claims.iter().filter(move |(_, verdict)| tracked(verdict)).map(|(claim, _)| claim)
}

/// Whether a claim should have a snapshot of that time, and has none. One that was not tracked yet should not.
fn lacks(inputs: &Inputs, claim: &str, at: Timestamp) -> bool {
    let since = inputs.volumes.get(claim).and_then(|it| it.creation_timestamp());
    since.is_none_or(|since| since.0 <= at) && !exists(inputs, claim, at)
}

fn exists(inputs: &Inputs, claim: &str, at: Timestamp) -> bool {
    let name = names::scheduled_snapshot_name(claim, &utc_minute(at));
    inputs.snapshots.iter().any(|it| it.spec.claim_name == claim && it.name_any() == name)
}

/// The snapshots of one time that are not there yet, and the claims that get none now.
fn snapshots(
    inputs: &Inputs,
    validated: &Validated,
    at: Timestamp,
) -> (Vec<EraSnapshot>, Vec<(String, Skip)>) {
    let (mut create, mut skipped) = (Vec::new(), Vec::new());
    let cluster_full = inputs.usage.cluster_full();
    for claim in tracked(validated).filter(|claim| !exists(inputs, claim, at)) {
        match skip(inputs, claim, cluster_full.as_ref()) {
            Some(skip) => skipped.push((claim.clone(), skip)),
            None => create.push(snapshot(&inputs.tracking, claim, at)),
        }
    }
    (create, skipped)
}

fn skip(inputs: &Inputs, claim: &str, cluster_full: Option<&String>) -> Option<Skip> {
    if !inputs.volumes.get(claim).is_some_and(|volume| attached(volume)) {
        return Some(Skip::NotAttached);
    }
    let theirs = || inputs.snapshots.iter().filter(|it| it.spec.claim_name == claim);
    let under_way = theirs()
        .find(|it| it.metadata.deletion_timestamp.is_none() && outcome(it) == Outcome::Pending);
    if let Some(pending) = under_way {
        return Some(Skip::Pending(pending.name_any()));
    }
    cluster_full
        .cloned()
        .or_else(|| Usage::of(theirs().map(AsRef::as_ref)).volume_full())
        .map(Skip::Budget)
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
