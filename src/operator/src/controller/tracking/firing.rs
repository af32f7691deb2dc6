//! Part of step 3, pure: the snapshots that the schedule asks for, and the claims that get none.
//!
//! A time stays announced until each claim has its snapshot of it: a volume that is not attached yet, or busy, gets it as
//! soon as it can, within the starting deadline. What cannot be made then is overdue.

use std::collections::BTreeSet;

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
    /// The times before that one that passed without the snapshot of some claim.
    pub(crate) missed: Missed,
    /// Whether that time itself will have passed so, once it is done.
    pub(crate) incomplete: bool,
}

/// Times that passed without the snapshot of some claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// How many.
    pub(crate) count: u64,
    /// The last of them.
    pub(crate) last: Option<Timestamp>,
}

impl Missed {
    fn and(self, at: Timestamp) -> Self {
        Self { count: self.count + 1, last: Some(at) }
    }
}

impl Firing {
    /// Something of it was not carried out: it is done again.
    pub(crate) fn stay_announced(&mut self) {
        self.done = false;
        self.next = self.fired.or(self.next);
    }

    /// All times that have passed for good without the snapshot of some claim.
    pub(crate) fn all_missed(&self) -> Missed {
        match self.fired.filter(|_| self.done && self.incomplete) {
            Some(at) => self.missed.and(at),
            None => self.missed,
        }
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
    /// It starts at this moment only, for the jitter.
    Later(Timestamp),
}

impl Skip {
    /// Whether it may get its snapshot soon.
    fn passes(&self) -> bool {
        match self {
            Self::NotAttached | Self::Pending(_) | Self::Later(_) => true,
            Self::Budget(_) => false,
        }
    }
}

/// What decides about a firing.
#[derive(Clone, Copy)]
struct Look<'a> {
    inputs: &'a Inputs,
    validated: &'a Validated,
    schedule: &'a Schedule,
    /// Snapshots that go now, and make room.
    pruned: &'a [Doomed],
}

/// What becomes of the snapshots of one time.
#[derive(Default)]
struct Round {
    create: Vec<EraSnapshot>,
    skipped: Vec<(String, Skip)>,
    /// Claims that have not got theirs within the starting deadline.
    late: Vec<Overdue>,
}

/// Decides what is made now, once what is pruned is gone.
pub(crate) fn fire(
    inputs: &Inputs,
    validated: &Validated,
    schedule: &Schedule,
    pruned: &[Doomed],
    now: Timestamp,
) -> (Vec<EraSnapshot>, Firing) {
    let look = Look { inputs, validated, schedule, pruned };
    let next = schedule.next_after(now);
    let idle = Firing { next, look: next, ..Firing::default() };
    let Some(announced) = announced(&inputs.tracking, schedule) else { return (Vec::new(), idle) };
    // What was announced is not done; everything before it is.
    let done = announced.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(announced);
    match schedule.due(done, now) {
        Due::Nothing => (Vec::new(), idle),
        Due::Missed(at) => {
            let missed = look.missed_from(announced, at.checked_add(REST).unwrap_or(at));
            (Vec::new(), Firing { overdue: look.missed(at), missed, ..idle })
        }
        Due::Fire(at) => look.fire_at((announced, at), now),
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
        (announced, at): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> (Vec<EraSnapshot>, Firing) {
        let Round { mut create, skipped, late } = self.round(at, now);
        let throttled = create.len() > BATCH;
        create.truncate(BATCH);
        let waits = skipped.iter().any(|(_, skip)| skip.passes());
        let done = !throttled && !waits;
        let next = self.schedule.next_after(now);
        let look =
            if throttled { now.checked_add(REST).ok() } else { self.look(&skipped, at, next) };
        let incomplete = !late.is_empty() || skipped.iter().any(|(_, skip)| !skip.passes());
        let missed = self.missed_from(announced, at);
        let mut overdue = self.superseded(&skipped, announced, at);
        overdue.extend(late);
        let next = if done { next } else { Some(at) };
        let fired = Some(at);
        let firing =
            Firing { fired, done, throttled, skipped, overdue, next, look, missed, incomplete };
        (create, firing)
    }

    /// When something about those that wait is another: one starts, one is too late, or the next time comes.
    fn look(
        self,
        skipped: &[(String, Skip)],
        at: Timestamp,
        next: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let moments = skipped.iter().filter_map(|(claim, skip)| match skip {
            Skip::Later(start) => Some(*start),
            Skip::NotAttached | Skip::Pending(_) => self.schedule.end_of(self.start(claim, at)),
            Skip::Budget(_) => None,
        });
        moments.chain(next).min()
    }

    /// The times from one to the other, without that, of which some claim has no snapshot.
    fn missed_from(self, from: Timestamp, to: Timestamp) -> Missed {
        let snapshots = self.inputs.snapshots.iter();
        let there: BTreeSet<_> = snapshots.filter_map(|it| it.metadata.name.as_deref()).collect();
        let lacks = |at: &Timestamp| {
            let minute = utc_minute(*at);
            self.tracked().any(|claim| {
                self.is_older(claim, *at)
                    && !there.contains(names::scheduled_snapshot_name(claim, &minute).as_str())
            })
        };
        self.schedule.times(from, to).filter(lacks).fold(Missed::default(), Missed::and)
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
        self.is_older(claim, at) && !self.exists(claim, at)
    }

    /// Whether a claim was tracked at that time.
    fn is_older(self, claim: &str, at: Timestamp) -> bool {
        let since = self.inputs.volumes.get(claim).and_then(|it| it.creation_timestamp());
        since.is_none_or(|since| since.0 <= at)
    }

    fn start(self, claim: &str, at: Timestamp) -> Timestamp {
        let uid = self.inputs.tracking.metadata.uid.as_deref().unwrap_or_default();
        self.schedule.start(at, uid, claim)
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
    fn round(self, at: Timestamp, now: Timestamp) -> Round {
        let mut round = Round::default();
        for claim in self.tracked().filter(|claim| !self.exists(claim, at)) {
            let start = self.start(claim, at);
            let too_late = self.schedule.end_of(start).is_some_and(|end| end <= now);
            match self.skip(claim) {
                _ if now < start => round.skipped.push((claim.clone(), Skip::Later(start))),
                skip if too_late => {
                    // One that was not tracked yet should have none.
                    let late = self.is_older(claim, at).then_some((claim.clone(), at, skip));
                    round.late.extend(late);
                }
                Some(skip) => round.skipped.push((claim.clone(), skip)),
                None => round.create.push(snapshot(&self.inputs.tracking, claim, at)),
            }
        }
        round
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

/// The spec of a snapshot that is made for it.
pub(super) fn wanted(tracking: &EraTracking, claim: &str) -> EraSnapshotSpec {
    let asked = tracking.spec.snapshots.as_ref();
    EraSnapshotSpec {
        claim_name: claim.to_owned(),
        deadline_seconds: DEADLINE_SECONDS,
        mode: asked.map(|asked| asked.mode).unwrap_or_default(),
        hold_seconds: asked.and_then(|asked| asked.hold_seconds),
    }
}

fn snapshot(tracking: &EraTracking, claim: &str, at: Timestamp) -> EraSnapshot {
    let name = names::scheduled_snapshot_name(claim, &utc_minute(at));
    let mut snapshot = EraSnapshot::new(&name, wanted(tracking, claim));
    snapshot.metadata = metadata(tracking, &name);
    snapshot
}
