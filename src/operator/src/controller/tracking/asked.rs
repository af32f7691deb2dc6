//! Part of step 3, pure: the snapshots that somebody asks for at once, by the annotation `eratrack.dev/snapshot-now`.
//!
//! Each value has one made of each claim that is tracked, by a name that the value gives, so that a restart makes no second
//! one. They are as those that are made by hand: theirs is no schedule, and nobody prunes them.

use eratrack_api::{EraSnapshot, EraTracking, names};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::build::metadata;
use super::dereference::Inputs;
use super::firing;
use super::validate::{Validated, Verdict};

/// At most this many are created in one go; the rest follows a second later.
const BATCH: usize = 20;
/// The longest value that is told as it is.
const TOLD: usize = 128;

/// What is asked for at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    /// The snapshots that are not there yet.
    pub(crate) create: Vec<EraSnapshot>,
    /// What the status says of the value, once these are there; nothing if there are more, or it is said.
    pub(crate) told: Option<String>,
    /// Whether some are left for the next go.
    pub(crate) more: bool,
}

/// Decides it.
pub(crate) fn asked(inputs: &Inputs, validated: &Validated) -> Asked {
    let tracking = &inputs.tracking;
    let value = tracking.annotations().get(names::ANNOTATION_SNAPSHOT_NOW);
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Asked::default() };
    let told = told(value);
    let before = tracking.status.as_ref().and_then(|status| status.snapshot_now.as_ref());
    let tracked = validated.claims.iter().filter(|(_, it)| matches!(it, Verdict::Track(_)));
    let claims: Vec<_> = tracked.map(|(claim, _)| claim).collect();
    // Without any claim it waits for one.
    if before == Some(&told) || claims.is_empty() {
        return Asked::default();
    }
    let all = claims.into_iter().map(|claim| snapshot(tracking, claim, value));
    let mut create: Vec<_> = all.filter(|it| !exists(inputs, &it.name_any())).collect();
    let more = create.len() > BATCH;
    create.truncate(BATCH);
    Asked { create, told: (!more).then_some(told), more }
}

fn exists(inputs: &Inputs, name: &str) -> bool {
    inputs.snapshots.iter().any(|it| it.metadata.name.as_deref() == Some(name))
}

fn told(value: &str) -> String {
    if value.len() <= TOLD {
        return value.to_owned();
    }
    let digest = Sha256::digest(value.as_bytes());
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn snapshot(tracking: &EraTracking, claim: &str, value: &str) -> EraSnapshot {
    let uid = tracking.metadata.uid.as_deref().unwrap_or_default();
    let name = names::asked_snapshot_name(claim, uid, value);
    let mut snapshot = EraSnapshot::new(&name, firing::wanted(tracking, claim));
    snapshot.metadata = metadata(tracking, &name);
    // As one made by hand it stays when the EraTracking goes.
    snapshot.metadata.owner_references = None;
    snapshot.labels_mut().insert(names::LABEL_MADE_BY.to_owned(), names::BY_HAND.to_owned());
    // Told, so that a long value is not stored once more for each claim.
    snapshot.annotations_mut().insert(names::ANNOTATION_SNAPSHOT_NOW.to_owned(), told(value));
    snapshot
}
