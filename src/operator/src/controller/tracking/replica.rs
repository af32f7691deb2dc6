//! Parts of steps 2 and 3, pure: whether the claim that `spec.replica` names may be copied into, and the snapshots that are
//! copied.
//!
//! Whoever may write an EraTracking could name any claim of the namespace, so the target itself must ask for it, by its
//! annotation. What only the node can tell (in use, too small, not blank) its agent looks at.

use std::collections::BTreeMap;

use eratrack_api::{
    ConditionStatus, ConditionType, EraSnapshot, EraSnapshotSpec, EraTracking, EraVolume,
    ObjectRef, Reason, ReplicaPhase, ReplicaTarget, SnapshotMode, condition, names,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::build::metadata;
use super::dereference::Inputs;
use super::firing;
use super::validate::{Target, Validated, Verdict, bound, reference};

/// What becomes of `spec.replica`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// That claim follows that target.
    Follow {
        /// The claim that is copied.
        source: String,
        /// What it is copied into.
        target: ReplicaTarget,
    },
    /// Nothing is copied, and why.
    Refused(Reason, String),
}

/// Answers it; none if no replica is asked for.
pub(crate) fn wish(inputs: &Inputs, claims: &BTreeMap<String, Verdict>) -> Option<Wish> {
    let asked = inputs.tracking.spec.replica.as_ref()?;
    let name = &asked.claim_name;
    let found = the_source(claims).and_then(|(source, place)| {
        let (claim, volume) = the_target(inputs, name, source, place)?;
        Ok((source, claim, volume))
    });
    Some(match found {
        Ok((source, claim, volume)) => Wish::Follow {
            source: source.to_owned(),
            target: ReplicaTarget {
                claim,
                volume,
                max_bytes_per_second: asked.max_bytes_per_second,
                verify: asked.verify,
            },
        },
        Err((reason, message)) => Wish::Refused(reason, message),
    })
}

type Refusal = (Reason, String);

fn the_source(claims: &BTreeMap<String, Verdict>) -> Result<(&str, &Target), Refusal> {
    let mut all = claims.iter();
    match (all.next(), all.next()) {
        (Some((name, Verdict::Track(target))), None) => Ok((name, target)),
        (Some((name, _)), None) => {
            let message = format!("claim {name} is not tracked: see the condition Ready");
            Err((Reason::ReplicaWaiting, message))
        }
        _ => {
            let message = format!(
                "spec.claims selects {} claims: a replica follows one; make an EraTracking for it alone",
                claims.len()
            );
            Err((Reason::ReplicaNeedsOneClaim, message))
        }
    }
}

fn the_target(
    inputs: &Inputs,
    name: &str,
    source: &str,
    tracked: &Target,
) -> Result<(ObjectRef, ObjectRef), Refusal> {
    if name == source {
        let message = format!("spec.replica.claimName {name} is the claim that is to be copied");
        return Err((Reason::ReplicaIsSource, message));
    }
    let Some(claim) = inputs.claims.get(name) else {
        let namespace = inputs.tracking.namespace().unwrap_or_default();
        let message = format!(
            "claim {name} (spec.replica.claimName) is not in namespace {namespace}, or being deleted"
        );
        return Err((Reason::ReplicaClaimNotFound, message));
    };
    asks_for(claim, source)?;
    let volume = bound(claim, inputs)
        .map_err(|why| (Reason::ReplicaClaimNotBound, format!("claim {name}: {why}")))?;
    is_block(name, volume)?;
    is_here(inputs, (claim, volume), tracked)?;
    let volume: ObjectRef = reference(volume);
    if volume.uid == tracked.volume.uid {
        let message = format!("claim {name} has the volume that is to be copied");
        return Err((Reason::ReplicaIsSource, message));
    }
    Ok((reference(claim.as_ref()), volume))
}

fn asks_for(claim: &PersistentVolumeClaim, source: &str) -> Result<(), Refusal> {
    let (name, key) = (claim.name_any(), names::ANNOTATION_REPLICA_OF);
    let found = match claim.annotations().get(key) {
        Some(asked) if asked == source => return Ok(()),
        Some(other) => format!("its annotation {key} names {other:?}"),
        None => format!("it has no annotation {key}"),
    };
    let message = format!(
        "claim {name} does not ask to be overwritten: {found}; set it to {source:?} if what is in the claim may go"
    );
    Err((Reason::ReplicaNotAskedFor, message))
}

fn is_block(claim: &str, volume: &PersistentVolume) -> Result<(), Refusal> {
    let mode = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    if mode == Some("Block") {
        return Ok(());
    }
    let mode = mode.unwrap_or("Filesystem");
    let message = format!(
        "claim {claim} has volumeMode {mode}: a replica is a device; use a claim with volumeMode Block"
    );
    Err((Reason::ReplicaNotBlock, message))
}

fn is_here(
    inputs: &Inputs,
    (claim, volume): (&PersistentVolumeClaim, &PersistentVolume),
    tracked: &Target,
) -> Result<(), Refusal> {
    let place = inputs.map.place(volume, claim, None);
    // What is not known of the source yet its own conditions say.
    let Some(node) = tracked.place.node() else {
        let message = format!("the node of claim {} is not known", tracked.claim.name);
        return Err((Reason::ReplicaWaiting, message));
    };
    if place.node() == Some(node) {
        return Ok(());
    }
    let there = place.node().map_or("on no single node".to_owned(), |it| format!("on node {it}"));
    let message = format!(
        "the volume of claim {} is {there}, that of {} on node {node}: nothing is copied between nodes",
        claim.name_any(),
        tracked.claim.name
    );
    Err((Reason::ReplicaElsewhere, message))
}

/// The target of a tracked claim.
pub(super) fn target_of(validated: &Validated, claim: &str) -> Option<ReplicaTarget> {
    match &validated.replica {
        Some(Wish::Follow { source, target }) if source == claim => Some(target.clone()),
        Some(Wish::Follow { .. } | Wish::Refused(..)) | None => None,
    }
}

/// Has a snapshot that is made of a claim copied, if its agent is ready to copy it: a point in time that nobody reads
/// costs the application something.
pub(super) fn adopt(inputs: &Inputs, validated: &Validated, snapshot: &mut EraSnapshot) {
    let claim = snapshot.spec.claim_name.clone();
    let ready = |phase| {
        matches!(phase, ReplicaPhase::Seeded | ReplicaPhase::Copying | ReplicaPhase::Following)
    };
    let phase = inputs.volumes.get(&claim).and_then(|it| phase(it));
    if target_of(validated, &claim).is_some() && phase.is_some_and(ready) {
        snapshot.spec.mode = SnapshotMode::Local;
        snapshot
            .annotations_mut()
            .insert(names::ANNOTATION_REPLICATE.to_owned(), "true".to_owned());
    }
}

/// Whether a scheduled point in time would have to wait: lists go on whatever the replica does. So while one is read or
/// copied, and straight after one that failed, the schedule makes plain ones.
pub(super) fn holds_up(inputs: &Inputs, claim: &str) -> bool {
    let of_claim = || inputs.snapshots.iter().filter(|it| it.spec.claim_name == claim);
    let is = |it: &EraSnapshot, kind| {
        let conditions = it.status.as_ref().map_or(&[][..], |status| &status.conditions);
        condition::find(conditions, kind).is_some_and(|it| it.status == ConditionStatus::True)
    };
    let last = of_claim().max_by_key(|it| it.creation_timestamp());
    let failed = last.is_some_and(|it| {
        it.annotations().contains_key(names::ANNOTATION_REPLICATE) && is(it, ConditionType::Failed)
    });
    failed || of_claim().any(|it| is(it, ConditionType::Readable))
}

fn phase(volume: &EraVolume) -> Option<ReplicaPhase> {
    Some(volume.status.as_ref()?.replica.as_ref()?.phase)
}

/// The snapshot that brings a replica to its first point in time, once everything was copied: nobody has to wait
/// for the schedule.
pub(super) fn first(inputs: &Inputs, validated: &Validated) -> Option<EraSnapshot> {
    let Some(Wish::Follow { source, .. }) = &validated.replica else { return None };
    let status = inputs.volumes.get(source)?.status.as_ref()?;
    let replica = status.replica.as_ref().filter(|it| it.phase == ReplicaPhase::Seeded)?;
    let (chain, era) = (&status.chain.as_ref()?.id, replica.since_era?);
    let name = names::seeded_snapshot_name(source, chain, era);
    let there = inputs.snapshots.iter().any(|it| it.metadata.name.as_ref() == Some(&name));
    (!there).then(|| made(&inputs.tracking, &name, firing::wanted(&inputs.tracking, source)))
}

fn made(tracking: &EraTracking, name: &str, spec: EraSnapshotSpec) -> EraSnapshot {
    let mut snapshot = EraSnapshot::new(name, spec);
    snapshot.metadata = metadata(tracking, name);
    snapshot
}
