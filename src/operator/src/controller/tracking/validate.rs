//! Step 2, pure: what becomes of each claim that an EraTracking names, and what its schedule asks for.

use std::collections::BTreeMap;

use eratrack_api::{Granularity, ObjectRef, Snapshots};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::dereference::Inputs;
use super::intent::{self, Intent, Selection};
use super::replica;
use crate::controller::budget::VOLUME_BYTES;
use crate::controller::context::Settings;
use crate::controller::place::Place;
use crate::controller::retention::{Keep, Rules};
use crate::controller::schedule::{Schedule, ScheduleError, time_zone};

/// A claim that an EraTracking asks for, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is tracked for this EraTracking.
    Track(Target),
    /// There is no such claim.
    NotFound,
    /// It has no PersistentVolume yet; with what is seen.
    NotBound(String),
    /// It is tracked for this older EraTracking.
    Taken(String),
}

/// A bound claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The claim.
    pub(crate) claim: ObjectRef,
    /// Its PersistentVolume.
    pub(crate) volume: ObjectRef,
    /// Where the volume is.
    pub(crate) place: Place,
}

/// What is asked of the schedule.
#[derive(Debug)]
pub(crate) enum Timing {
    /// No schedule.
    ByHand,
    /// A schedule that is suspended.
    Suspended,
    /// A schedule that cannot be followed.
    Impossible(ScheduleError),
    /// A schedule.
    Follow(Box<Schedule>),
}

/// What an EraTracking asks for, with every question about it answered.
#[derive(Debug)]
pub(crate) struct Validated {
    /// Each claim it asks for, by name.
    pub(crate) claims: BTreeMap<String, Verdict>,
    /// How finely.
    pub(crate) granularity: Granularity,
    /// Why nothing new may be tracked so; with the remedy.
    pub(crate) too_fine: Option<String>,
    /// Why the selection cannot be read.
    pub(crate) unreadable: Option<String>,
    /// When snapshots are made.
    pub(crate) timing: Timing,
    /// Which complete ones are kept; all, if that cannot be read.
    pub(crate) keep: Option<Keep>,
    /// What becomes of `spec.replica`.
    pub(crate) replica: Option<replica::Wish>,
}

/// Answers them.
pub(crate) fn validate(inputs: &Inputs, settings: Settings, now: Timestamp) -> Validated {
    let spec = &inputs.tracking.spec;
    let mine = Intent::of(&inputs.tracking);
    let intents: Vec<Intent> = inputs.trackings.iter().map(|it| Intent::of(it)).collect();
    let claims = names(&mine, inputs)
        .into_iter()
        .map(|name| (name.clone(), verdict(&name, &mine, &intents, inputs)))
        .collect();
    Validated {
        replica: replica::wish(inputs, &claims),
        claims,
        granularity: spec.granularity,
        too_fine: too_fine(spec.granularity, settings.min_granularity),
        unreadable: match mine.selection {
            Selection::Unreadable(message) => Some(message),
            Selection::Names(_) | Selection::Labels(_) => None,
        },
        timing: timing(inputs, now),
        keep: spec.snapshots.as_ref().and_then(|it| keep(it, settings)),
    }
}

fn keep(spec: &Snapshots, settings: Settings) -> Option<Keep> {
    let rules = Rules::read(&spec.keep, time_zone(spec).ok()?)?;
    let most = usize::try_from(settings.keep_max).unwrap_or(usize::MAX);
    Some(Keep { rules, most, bytes: VOLUME_BYTES })
}

fn names(mine: &Intent, inputs: &Inputs) -> Vec<String> {
    match &mine.selection {
        Selection::Names(names) => names.iter().cloned().collect(),
        Selection::Labels(_) => {
            inputs.claims.values().filter(|it| mine.selects(it)).map(|it| it.name_any()).collect()
        }
        Selection::Unreadable(_) => Vec::new(),
    }
}

fn verdict(name: &str, mine: &Intent, all: &[Intent], inputs: &Inputs) -> Verdict {
    let Some(claim) = inputs.claims.get(name) else { return Verdict::NotFound };
    match intent::first(claim, all) {
        Some(first) if first.uid != mine.uid => return Verdict::Taken(first.name.clone()),
        _ => {}
    }
    match bound(claim, inputs) {
        Ok(volume) => {
            let current = inputs.volumes.get(name).and_then(|it| it.spec.node_name.as_deref());
            Verdict::Track(Target {
                claim: reference(claim.as_ref()),
                volume: reference(volume),
                place: inputs.map.place(volume, claim, current),
            })
        }
        Err(message) => Verdict::NotBound(message),
    }
}

pub(super) fn reference(object: &impl ResourceExt) -> ObjectRef {
    ObjectRef { name: object.name_any(), uid: object.uid().unwrap_or_default() }
}

/// The PersistentVolume of a claim, if both say so: a claim's word alone could name a volume of another namespace.
pub(super) fn bound<'a>(
    claim: &PersistentVolumeClaim,
    inputs: &'a Inputs,
) -> Result<&'a PersistentVolume, String> {
    let phase =
        claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if phase != "Bound" || name.is_empty() {
        return Err(format!("its phase is {phase}; start a pod that uses it, or see its events"));
    }
    let Some(volume) = inputs.persistent.get(name) else {
        return Err(format!("PersistentVolume {name} is not there"));
    };
    let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let agrees = owner.is_some_and(|it| {
        it.namespace == claim.metadata.namespace
            && it.name == claim.metadata.name
            && it.uid == claim.metadata.uid
    });
    if agrees { Ok(volume) } else { Err(format!("PersistentVolume {name} is not bound to it")) }
}

fn too_fine(wished: Granularity, least: Granularity) -> Option<String> {
    (wished < least).then(|| {
        format!(
            "spec.granularity {wished} is finer than the administrator allows; choose {least} or coarser, \
             or have the controller's --min-granularity lowered"
        )
    })
}

fn timing(inputs: &Inputs, now: Timestamp) -> Timing {
    let Some(spec) = &inputs.tracking.spec.snapshots else { return Timing::ByHand };
    match Schedule::read(spec, now) {
        Err(error) => Timing::Impossible(error),
        Ok(_) if spec.suspend => Timing::Suspended,
        Ok(schedule) => Timing::Follow(Box::new(schedule)),
    }
}
