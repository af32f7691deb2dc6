//! Step 3, pure: what is to be written for one EraTracking, as data. Step 4 makes no choices.

use eratrack_api::{EraSnapshot, EraTracking, EraVolume, EraVolumeSpec, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::asked::{Asked, asked};
use super::dereference::Inputs;
use super::firing::{Firing, fire};
use super::intent::{self, Intent};
use super::prune::{Pruning, prune};
use super::replica;
use super::validate::{Target, Timing, Validated, Verdict};
use crate::controller::place::Place;

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// EraVolumes to apply: new ones, and those that differ from what they should be.
    pub(crate) apply: Vec<EraVolume>,
    /// EraVolumes that nobody asks for any more.
    pub(crate) remove: Vec<Doomed>,
    /// Scheduled snapshots to create.
    pub(crate) create: Vec<EraSnapshot>,
    /// Snapshots that have served their time.
    pub(crate) prune: Pruning,
    /// What the schedule asked for.
    pub(crate) firing: Firing,
    /// What somebody asked for at once.
    pub(crate) asked: Asked,
}

/// An object to delete, and no other of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
}

/// Decides it.
pub(crate) fn build(inputs: &Inputs, validated: &Validated, now: Timestamp) -> Plan {
    let prune = prune(inputs, validated, now);
    let (mut create, firing) = match &validated.timing {
        Timing::Follow(schedule) => fire(inputs, validated, schedule, &prune.drop, now),
        Timing::ByHand | Timing::Suspended | Timing::Impossible(_) => Default::default(),
    };
    if let Some(first) = create.first()
        && !replica::holds_up(inputs, &first.spec.claim_name)
    {
        for snapshot in &mut create {
            replica::adopt(inputs, validated, snapshot);
        }
    }
    let mut asked = asked(inputs, validated);
    let mut first = replica::first(inputs, validated);
    for snapshot in first.iter_mut().chain(&mut asked.create) {
        replica::adopt(inputs, validated, snapshot);
    }
    create.extend(first);
    Plan {
        apply: wanted(inputs, validated),
        remove: unwanted(inputs, validated),
        create,
        prune,
        firing,
        asked,
    }
}

fn wanted(inputs: &Inputs, validated: &Validated) -> Vec<EraVolume> {
    let targets = validated.claims.values().filter_map(|verdict| match verdict {
        Verdict::Track(target) => Some(target),
        Verdict::NotFound | Verdict::NotBound(_) | Verdict::Taken(_) => None,
    });
    let objects = targets.filter_map(|target| {
        let existing = inputs.volumes.get(&target.claim.name).map(AsRef::as_ref);
        volume(&inputs.tracking, target, existing, validated)
    });
    objects.collect()
}

/// The EraVolume as it should be, unless it is so already or cannot be so yet.
fn volume(
    tracking: &EraTracking,
    target: &Target,
    existing: Option<&EraVolume>,
    validated: &Validated,
) -> Option<EraVolume> {
    let granularity = match (&validated.too_fine, existing) {
        (None, _) => validated.granularity,
        // What is tracked stays tracked as it is.
        (Some(_), Some(existing)) => existing.spec.granularity,
        (Some(_), None) => return None,
    };
    // Another claim's, or on its way out: its name is free again once it is gone.
    if existing.is_some_and(|it| it.metadata.deletion_timestamp.is_some() || !fits(it, target)) {
        return None;
    }
    let spec = EraVolumeSpec {
        claim: target.claim.clone(),
        volume: target.volume.clone(),
        // What fits keeps its node, whatever is known of the place by now.
        node_name: existing
            .and_then(|it| it.spec.node_name.as_deref())
            .or(target.place.node())
            .map(String::from),
        granularity,
        replica: replica::target_of(validated, &target.claim.name),
    };
    let mut wish = EraVolume::new(&target.claim.name, spec);
    wish.metadata = metadata(tracking, &target.claim.name);
    wish.metadata.finalizers = Some(vec![names::FINALIZER_DETACH.to_owned()]);
    // Without the uid, an apply would make again what was just deleted.
    wish.metadata.uid = existing.and_then(|it| it.metadata.uid.clone());
    (!existing.is_some_and(|it| satisfies(it, &wish))).then_some(wish)
}

/// Whether an EraVolume can be made what it should be. A claim, a volume or a node that is set cannot change: what other
/// nodes may write is not recorded, so the chain must not go on when the volume comes back. Its agent gives it up first.
/// A node that is not known now is the former one still: an attachment goes with its pod.
fn fits(volume: &EraVolume, target: &Target) -> bool {
    let stays = match (&target.place, &volume.spec.node_name) {
        (_, None) | (Place::Unknown(_), Some(_)) => true,
        (Place::Node(now), Some(node)) => now == node,
        (Place::Shared(_), Some(_)) => false,
    };
    volume.spec.claim == target.claim && volume.spec.volume == target.volume && stays
}

/// What everything made for an EraTracking carries.
pub(super) fn metadata(tracking: &EraTracking, name: &str) -> ObjectMeta {
    let labels = [
        (names::LABEL_TRACKING, tracking.name_any()),
        (names::LABEL_MANAGED_BY, names::MANAGED_BY.to_owned()),
        (names::LABEL_EXCLUDE_FROM_BACKUP, names::EXCLUDE_FROM_BACKUP.to_owned()),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: tracking.metadata.namespace.clone(),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        owner_references: tracking.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn satisfies(existing: &EraVolume, wish: &EraVolume) -> bool {
    let labelled =
        wish.labels().iter().all(|(key, value)| existing.labels().get(key) == Some(value));
    let held = wish.finalizers().iter().all(|it| existing.finalizers().contains(it));
    existing.spec == wish.spec && labelled && held && owners(existing) == owners(wish)
}

fn owners(object: &impl ResourceExt) -> Vec<&str> {
    object.owner_references().iter().map(|owner| owner.uid.as_str()).collect()
}

pub(super) fn owned_by(object: &impl ResourceExt, tracking: &EraTracking) -> bool {
    let mine = |owner: &OwnerReference| Some(&owner.uid) == tracking.metadata.uid.as_ref();
    object.owner_references().iter().any(mine)
}

/// The EraVolumes that nobody asks for any more, and those that must be made anew, whoever had them before. What another
/// EraTracking now has the right to is left for it to take over, with its chain.
fn unwanted(inputs: &Inputs, validated: &Validated) -> Vec<Doomed> {
    let intents: Vec<Intent> = inputs.trackings.iter().map(|it| Intent::of(it)).collect();
    // What cannot be read, since a newer version wrote it, may select any claim.
    let all_readable = intents.iter().all(Intent::is_readable);
    let mine = inputs.volumes.values().filter(|it| {
        let wanted = matches!(validated.claims.get(&it.name_any()), Some(Verdict::Track(_)));
        it.metadata.deletion_timestamp.is_none()
            && (wanted || owned_by(it.as_ref(), &inputs.tracking))
    });
    let gone = mine.filter(|volume| {
        let name = volume.name_any();
        let claim = inputs
            .claims
            .get(&name)
            .filter(|it| it.metadata.uid.as_ref() == Some(&volume.spec.claim.uid));
        match (validated.claims.get(&name), claim) {
            (_, None) | (Some(Verdict::NotFound), _) => true,
            (Some(Verdict::Track(target)), Some(_)) => !fits(volume, target),
            // A claim that lost its volume for a moment is no wish to end.
            (Some(Verdict::Taken(_) | Verdict::NotBound(_)), Some(_)) => false,
            (None, Some(claim)) => all_readable && intent::first(claim, &intents).is_none(),
        }
    });
    gone.map(|volume| doomed(volume.as_ref())).collect()
}

pub(super) fn doomed(object: &impl ResourceExt) -> Doomed {
    Doomed { name: object.name_any(), uid: object.uid().unwrap_or_default() }
}
