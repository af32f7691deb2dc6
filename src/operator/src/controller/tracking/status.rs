//! Step 5, pure: what a user reads on an EraTracking, from what was applied.

use std::sync::Arc;

use eratrack_api::{
    Condition, ConditionStatus, ConditionType, EraSnapshot, EraTrackingStatus, EraVolume, Reason,
    Time, condition, size,
};
use jiff::Timestamp;
use kube::ResourceExt;

use super::apply::Applied;
use super::dereference::Inputs;
use super::firing::{Skip, announced};
use super::replica::Wish;
use super::validate::{Timing, Validated, Verdict};
use crate::controller::api_error::ApiError;
use crate::controller::outcome::{item, outcome};
use crate::controller::place::Place;
use crate::controller::retention::{Outcome, newest};
use crate::controller::schedule::Schedule;

/// At most this many claims are named in a message.
const NAMED: usize = 3;

/// Something that keeps an EraTracking from being as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    reason: Reason,
    message: String,
}

impl Problem {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn of(claim: &str, reason: Reason, message: &str) -> Self {
        Self::new(reason, format!("{claim}: {message}"))
    }
}

/// What a condition says before it gets its type and time.
struct Word(ConditionStatus, Reason, String);

/// Derives the whole status. Conditions keep the time of their last transition.
pub(crate) fn status(
    inputs: &Inputs,
    validated: &Validated,
    applied: &Applied,
    now: Timestamp,
) -> EraTrackingStatus {
    let old = inputs.tracking.status.clone().unwrap_or_default();
    let volumes = tracked_volumes(validated, applied);
    let count = |type_| volumes.iter().filter(|it| is_true(it, type_)).count();
    let last = volumes.iter().filter_map(|it| it.status.as_ref()?.last_snapshot.as_ref());
    let changed_bytes = last
        .clone()
        .filter_map(|it| it.changed_bytes)
        .fold(None, |sum: Option<u64>, bytes| Some(sum.unwrap_or(0).saturating_add(bytes)));
    let existing = validated.claims.values().filter(|it| !matches!(it, Verdict::NotFound));
    let current = current(inputs, validated, applied, &volumes);
    let missed = applied.firing.all_missed();
    let replica = replica(validated, &volumes);
    let mut conditions = old.conditions;
    if replica.is_none() {
        conditions.retain(|it| it.type_ != ConditionType::ReplicaCurrent.as_str());
    }
    let others = replica.as_ref().and_then(of_replica);
    let words = [
        (ConditionType::Ready, ready(inputs, validated, applied, &volumes, (&current, others))),
        (ConditionType::TrackingIntact, intact(validated, &volumes)),
        (ConditionType::SnapshotCurrent, current),
    ];
    let replica = replica.map(|word| (ConditionType::ReplicaCurrent, word));
    for (type_, Word(status, reason, message)) in words.into_iter().chain(replica) {
        let condition = Condition::new(type_, status, reason, message, Time(now))
            .of_generation(inputs.tracking.metadata.generation);
        condition::set(&mut conditions, condition);
    }
    EraTrackingStatus {
        observed_generation: inputs
            .tracking
            .metadata
            .generation
            .and_then(|it| u64::try_from(it).ok()),
        matched: Some(number(existing.count())),
        tracked: Some(number(count(ConditionType::Attached))),
        intact: Some(number(count(ConditionType::TrackingIntact))),
        changed: changed_bytes.map(size::for_people),
        changed_bytes,
        last_schedule_time: applied.firing.fired.map(Time).or(old.last_schedule_time),
        last_snapshot_time: last.map(|it| it.time.clone()).max_by_key(|time| time.0),
        next_snapshot_time: applied.firing.next.map(Time),
        missed_runs: match missed.count {
            0 => old.missed_runs,
            more => Some(old.missed_runs.unwrap_or(0).saturating_add(more)),
        },
        last_missed_time: missed.last.map(Time).or(old.last_missed_time),
        snapshot_now: applied.told.clone().or(old.snapshot_now),
        conditions,
    }
}

/// What the volume's agent says of its replica, or why there is nothing to say it of.
fn replica(validated: &Validated, volumes: &[Arc<EraVolume>]) -> Option<Word> {
    let source = match validated.replica.as_ref()? {
        Wish::Follow { source, .. } => source,
        Wish::Refused(reason, message) => {
            return Some(Word(ConditionStatus::False, *reason, message.clone()));
        }
    };
    let said = volumes
        .iter()
        .filter(|it| it.name_any() == *source && it.spec.replica.is_some())
        .find_map(|it| condition::find(conditions(it), ConditionType::ReplicaCurrent));
    let known = said.and_then(|it| Some(Word(it.status, it.known_reason()?, it.message.clone())));
    Some(known.unwrap_or_else(|| {
        let message = format!("the agent of claim {source} has not looked at the replica yet");
        Word(ConditionStatus::False, Reason::ReplicaWaiting, message)
    }))
}

/// Whether somebody must act before anything is copied again.
fn of_replica(word: &Word) -> Option<Problem> {
    let Word(status, reason, message) = word;
    let passes = matches!(reason, Reason::ReplicaSeeding | Reason::ReplicaWaiting);
    (*status == ConditionStatus::False && !passes).then(|| Problem::new(*reason, message))
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The EraVolumes of the claims that are this EraTracking's.
fn tracked_volumes(validated: &Validated, applied: &Applied) -> Vec<Arc<EraVolume>> {
    let mine = validated.claims.iter().filter_map(|(claim, verdict)| match verdict {
        Verdict::Track(target) => {
            applied.volumes.get(claim).filter(|it| it.spec.claim.uid == target.claim.uid).cloned()
        }
        Verdict::NotFound | Verdict::NotBound(_) | Verdict::Taken(_) => None,
    });
    mine.collect()
}

fn conditions(volume: &EraVolume) -> &[Condition] {
    volume.status.as_ref().map_or(&[], |status| &status.conditions)
}

fn is_true(volume: &EraVolume, type_: ConditionType) -> bool {
    condition::is_true(conditions(volume), type_)
}

fn ready(
    inputs: &Inputs,
    validated: &Validated,
    applied: &Applied,
    volumes: &[Arc<EraVolume>],
    (current, others): (&Word, Option<Problem>),
) -> Word {
    let mut problems: Vec<Problem> = applied.refused.iter().filter_map(of_refusal).collect();
    problems
        .extend(validated.unreadable.iter().map(|it| Problem::new(Reason::NoClaimsMatched, it)));
    problems.extend(validated.too_fine.iter().map(|it| Problem::new(Reason::LimitExceeded, it)));
    if validated.claims.is_empty() && validated.unreadable.is_none() {
        let message = "no claim of the namespace matches spec.claims.selector";
        problems.push(Problem::new(Reason::NoClaimsMatched, message));
    }
    problems.extend(
        validated.claims.iter().filter_map(|(claim, verdict)| of_claim(claim, verdict, inputs)),
    );
    problems.extend(validated.claims.iter().filter_map(|(claim, verdict)| {
        let Verdict::Track(target) = verdict else { return None };
        let volume = volumes.iter().find(|it| it.name_any() == *claim);
        of_volume(claim, &target.place, volume.map(AsRef::as_ref), validated)
    }));
    problems.extend(volumes.iter().filter_map(|volume| of_chain(volume)));
    problems.extend(applied.kept.iter().map(|(claim, name, why)| {
        let message = format!(
            "EraSnapshot {name} is not merged into the next one, and stays: {why}; delete it by hand"
        );
        Problem::of(claim, Reason::NotMerged, &message)
    }));
    if current.0 == ConditionStatus::False {
        problems.push(Problem::new(current.1, &current.2));
    }
    problems.extend(others);
    if let Some((reason, message)) = said(&problems) {
        return Word(ConditionStatus::False, reason, message);
    }
    let message = format!("{} of {} claims tracked", volumes.len(), validated.claims.len());
    Word(ConditionStatus::True, Reason::AllTracked, message)
}

/// What cannot succeed before somebody acts; the rest is tried again and cures itself.
fn of_refusal(error: &ApiError) -> Option<Problem> {
    Some(Problem::new(error.reason()?, crate::exit::chain(error)))
}

fn of_claim(claim: &str, verdict: &Verdict, inputs: &Inputs) -> Option<Problem> {
    match verdict {
        Verdict::Track(_) => None,
        Verdict::NotFound => {
            let namespace = inputs.tracking.namespace().unwrap_or_default();
            let message = format!("not found in namespace {namespace}, or being deleted");
            Some(Problem::of(claim, Reason::ClaimNotFound, &message))
        }
        Verdict::NotBound(message) => Some(Problem::of(claim, Reason::ClaimNotBound, message)),
        Verdict::Taken(other) => {
            let message = format!("tracked for the older EraTracking {other}");
            Some(Problem::of(claim, Reason::ClaimTaken, &message))
        }
    }
}

fn of_volume(
    claim: &str,
    place: &Place,
    volume: Option<&EraVolume>,
    validated: &Validated,
) -> Option<Problem> {
    let problem = |message: &str| Some(Problem::of(claim, Reason::VolumeNotReady, message));
    let Some(volume) = volume else {
        // The granularity is named already.
        return validated.too_fine.is_none().then(|| problem("its EraVolume is being replaced"))?;
    };
    if volume.metadata.deletion_timestamp.is_some() {
        return problem("its EraVolume is being deleted, and is made again afterwards");
    }
    match (place, condition::find(conditions(volume), ConditionType::Ready)) {
        (_, Some(ready)) if ready.is_true() => None,
        (_, Some(ready)) => problem(&format!("{} ({})", ready.reason, ready.message)),
        (Place::Unknown(message), None) => problem(&format!("{} ({message})", Reason::NodeUnknown)),
        (Place::Shared(message), None) => {
            problem(&format!("{} ({message})", Reason::AccessModeUnsupported))
        }
        (Place::Node(node), None) => problem(&format!("waits for the agent of node {node}")),
    }
}

/// A volume whose next snapshot will be full, although there was a snapshot before.
fn of_chain(volume: &EraVolume) -> Option<Problem> {
    let intact = condition::find(conditions(volume), ConditionType::TrackingIntact)?;
    let told_otherwise = !is_true(volume, ConditionType::Attached) || intact.is_true();
    if told_otherwise || intact.known_reason() == Some(Reason::NoBaseline) {
        return None;
    }
    let message = format!("{} ({})", intact.reason, intact.message);
    Some(Problem::of(&volume.name_any(), Reason::VolumeNotIntact, &message))
}

/// The first problem's reason, and as many of that reason as fit; then how many there are besides.
fn said(problems: &[Problem]) -> Option<(Reason, String)> {
    let reason = problems.first()?.reason;
    let named: Vec<&str> = problems
        .iter()
        .filter(|it| it.reason == reason)
        .take(NAMED)
        .map(|it| it.message.as_str())
        .collect();
    let more = problems.len() - named.len();
    let tail = if more == 0 { String::new() } else { format!("; and {more} more") };
    Some((reason, format!("{}{tail}", named.join("; "))))
}

fn intact(validated: &Validated, volumes: &[Arc<EraVolume>]) -> Word {
    let whole = volumes.iter().filter(|it| is_true(it, ConditionType::TrackingIntact)).count();
    let all = validated.claims.len();
    let message = format!("the next snapshot of {whole} of {all} claims is incremental");
    if whole == all && all > 0 {
        return Word(ConditionStatus::True, Reason::ChainIntact, message);
    }
    let why = volumes.iter().find_map(|volume| {
        let intact = condition::find(conditions(volume), ConditionType::TrackingIntact)?;
        (!intact.is_true()).then(|| format!("; {}: {}", volume.name_any(), intact.reason))
    });
    let message = format!("{message}{}", why.unwrap_or_default());
    Word(ConditionStatus::False, Reason::VolumeNotIntact, message)
}

fn current(
    inputs: &Inputs,
    validated: &Validated,
    applied: &Applied,
    volumes: &[Arc<EraVolume>],
) -> Word {
    match &validated.timing {
        Timing::ByHand => {
            Word(ConditionStatus::Unknown, Reason::NoSchedule, "spec.snapshots is not set".into())
        }
        Timing::Suspended => {
            let message = "spec.snapshots.suspend is true; tracking goes on";
            Word(ConditionStatus::Unknown, Reason::ScheduleSuspended, message.into())
        }
        Timing::Impossible(error) => {
            Word(ConditionStatus::False, error.reason(), crate::exit::chain(error))
        }
        Timing::Follow(schedule) => match said(&overdue(inputs, applied, volumes)) {
            Some((reason, message)) => Word(ConditionStatus::False, reason, message),
            None => kept(inputs, schedule, applied).unwrap_or_else(|| on_schedule(applied)),
        },
    }
}

fn on_schedule(applied: &Applied) -> Word {
    if applied.firing.throttled {
        let message = "more snapshots are due than may be created at once; they follow one by one";
        return Word(ConditionStatus::True, Reason::Throttled, message.to_owned());
    }
    let waiting =
        applied.firing.skipped.iter().map(|(claim, skip)| format!("{claim}: {}", worded(skip)));
    let waiting: Vec<String> = waiting.take(NAMED).collect();
    let message = if waiting.is_empty() {
        "the snapshots that were due are complete or under way".to_owned()
    } else {
        format!(
            "snapshots that are due wait, within spec.snapshots.startingDeadlineSeconds: {}",
            waiting.join("; ")
        )
    };
    Word(ConditionStatus::True, Reason::OnSchedule, message)
}

fn worded(skip: &Skip) -> String {
    match skip {
        Skip::NotAttached => "its volume is not attached".to_owned(),
        Skip::Pending(other) => format!("{other} is still under way"),
        Skip::Budget(message) => message.clone(),
        Skip::Later(start) => format!("it starts at {start} (spec.snapshots.jitterSeconds)"),
    }
}

fn overdue(inputs: &Inputs, applied: &Applied, volumes: &[Arc<EraVolume>]) -> Vec<Problem> {
    let firing = &applied.firing;
    let mut problems = Vec::new();
    problems.extend(firing.overdue.iter().map(|(claim, at, skip)| {
        let why = skip.as_ref().map_or("it was not created in time".to_owned(), worded);
        let message =
            format!("no snapshot of {at} in time (spec.snapshots.startingDeadlineSeconds): {why}");
        Problem::of(claim, Reason::SnapshotOverdue, &message)
    }));
    problems.extend(applied.refused_snapshots.iter().filter_map(of_refusal));
    problems.extend(firing.skipped.iter().filter_map(|(claim, skip)| match skip {
        // It may still come in time.
        Skip::NotAttached | Skip::Pending(_) | Skip::Later(_) => None,
        Skip::Budget(message) => Some(Problem::of(claim, Reason::StorageBudget, message)),
    }));
    problems.extend(volumes.iter().filter_map(|volume| failed(inputs, &volume.name_any())));
    problems
}

/// The newest scheduled snapshot of a claim, if it failed.
fn failed(inputs: &Inputs, claim: &str) -> Option<Problem> {
    let owned = |it: &EraSnapshot| {
        it.owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == inputs.tracking.metadata.uid.as_ref())
    };
    let theirs = inputs.snapshots.iter().filter(|it| it.spec.claim_name == claim && owned(it));
    // One under way says nothing yet.
    let ended: Vec<_> =
        theirs.filter(|it| outcome(it) != Outcome::Pending).map(|it| item(it)).collect();
    let last = newest(&ended).filter(|it| it.outcome == Outcome::Failed)?;
    let snapshot =
        inputs.snapshots.iter().find(|it| it.metadata.name.as_deref() == Some(last.name))?;
    let status = snapshot.status.as_ref()?;
    let why = condition::find(&status.conditions, ConditionType::Failed)
        .or_else(|| condition::find(&status.conditions, ConditionType::Ready))?;
    let message = format!("EraSnapshot {}: {}", last.name, why.reason);
    Some(Problem::of(claim, Reason::SnapshotFailed, &message))
}

/// What went wrong at the last scheduled time stays said until the schedule has fired again, or is another one.
fn kept(inputs: &Inputs, schedule: &Schedule, applied: &Applied) -> Option<Word> {
    announced(&inputs.tracking, schedule)?;
    let status = inputs.tracking.status.as_ref()?;
    let old = condition::find(&status.conditions, ConditionType::SnapshotCurrent)?;
    let reason = old.known_reason()?;
    let of_a_firing = matches!(reason, Reason::SnapshotOverdue | Reason::StorageBudget);
    let stays = of_a_firing && old.status == ConditionStatus::False && !applied.firing.done;
    stays.then(|| Word(ConditionStatus::False, reason, old.message.clone()))
}
