//! Part of step 3, pure: the snapshots that have served their time.

use std::collections::BTreeMap;

use eratrack_api::EraSnapshot;

use super::build::{Doomed, doomed, owned_by};
use super::dereference::Inputs;
use super::validate::Validated;
use crate::controller::budget::{VOLUME_BYTES, list_bytes};
use crate::controller::outcome::item;
use crate::controller::retention::{Keep, expired};

/// Scheduled snapshots of this EraTracking that have served their time; none while it has no schedule.
pub(crate) fn prune(inputs: &Inputs, validated: &Validated) -> Vec<Doomed> {
    if inputs.tracking.spec.snapshots.is_none() {
        return Vec::new();
    }
    by_claim(inputs).values().flat_map(|all| prune_claim(inputs, validated, all)).collect()
}

/// The snapshots of the namespace that stay, by claim.
fn by_claim(inputs: &Inputs) -> BTreeMap<&str, Vec<&EraSnapshot>> {
    let mut by_claim: BTreeMap<&str, Vec<&EraSnapshot>> = BTreeMap::new();
    for snapshot in inputs.snapshots.iter().map(AsRef::as_ref) {
        if snapshot.metadata.deletion_timestamp.is_none() {
            by_claim.entry(&snapshot.spec.claim_name).or_default().push(snapshot);
        }
    }
    by_claim
}

/// Of all snapshots of one claim. Those of others take room, but are not ours to prune.
fn prune_claim(inputs: &Inputs, validated: &Validated, all: &[&EraSnapshot]) -> Vec<Doomed> {
    let (mine, others): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|it| owned_by(*it, &inputs.tracking));
    let taken: u64 = others.iter().map(|it| list_bytes(it)).fold(0, u64::saturating_add);
    let keep = Keep { last: validated.keep, bytes: VOLUME_BYTES.saturating_sub(taken) };
    let items: Vec<_> = mine.iter().map(|it| item(it)).collect();
    let names = expired(&items, keep);
    let find = |name: &str| mine.iter().find(|it| it.metadata.name.as_deref() == Some(name));
    names.into_iter().filter_map(find).map(|snapshot| doomed(*snapshot)).collect()
}
