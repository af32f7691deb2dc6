//! Part of step 3, pure: the snapshots that have served their time.

use std::collections::BTreeMap;

use eratrack_api::EraSnapshot;
use jiff::{SignedDuration, Timestamp};

use super::build::{Doomed, doomed, owned_by};
use super::dereference::Inputs;
use super::validate::{Validated, Verdict};
use crate::controller::budget::list_bytes;
use crate::controller::merge::{Fate, Fold, fates};
use crate::controller::outcome::{created, is_scheduled, item};
use crate::controller::retention::{Item, Keep, expired, expired_failures};

/// How long a failed snapshot that was made by hand stays at least, for whoever waits for it.
const FAILED_STAY: SignedDuration = SignedDuration::from_hours(1);

/// What has served its time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pruning {
    /// Goes as it is, the oldest of each claim first.
    pub(crate) drop: Vec<Doomed>,
    /// Is merged into the next one first: of each claim one at a time, the first of these that can be.
    pub(crate) fold: BTreeMap<String, Vec<Fold>>,
}

/// Scheduled snapshots of this EraTracking that have served their time; none while it has no schedule. Of those made by
/// hand, old failures of the claims it tracks, and never one that is complete.
pub(crate) fn prune(inputs: &Inputs, validated: &Validated, now: Timestamp) -> Pruning {
    let mut all = Pruning::default();
    for (claim, snapshots) in by_claim(inputs) {
        if let Some(keep) = &validated.keep {
            prune_claim(inputs, keep, (claim, &snapshots), now, &mut all);
        }
        if matches!(validated.claims.get(claim), Some(Verdict::Track(_))) {
            all.drop.extend(prune_failures(&snapshots, now));
        }
    }
    all
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
fn prune_claim(
    inputs: &Inputs,
    keep: &Keep,
    (claim, all): (&str, &[&EraSnapshot]),
    now: Timestamp,
    pruning: &mut Pruning,
) {
    let ours = |it: &&EraSnapshot| is_scheduled(it) && owned_by(*it, &inputs.tracking);
    let (mine, others): (Vec<_>, Vec<_>) = all.iter().copied().partition(ours);
    let taken: u64 = others.iter().map(|it| list_bytes(it)).fold(0, u64::saturating_add);
    let keep = Keep { bytes: keep.bytes.saturating_sub(taken), ..keep.clone() };
    let items = items(&mine);
    let gone = found(&mine, expired(&items, &keep, now));
    for (snapshot, fate) in fates(all, &gone) {
        match fate {
            Fate::Drop => pruning.drop.push(doomed(snapshot)),
            Fate::Fold(fold) => pruning.fold.entry(claim.to_owned()).or_default().push(*fold),
            Fate::Stay => {}
        }
    }
    pruning.drop.extend(found(&mine, expired_failures(&items)).into_iter().map(doomed));
}

fn prune_failures(all: &[&EraSnapshot], now: Timestamp) -> Vec<Doomed> {
    let old = |it: &EraSnapshot| now.duration_since(created(it)) >= FAILED_STAY;
    let by_hand: Vec<_> = all.iter().copied().filter(|it| !is_scheduled(it) && old(it)).collect();
    found(&by_hand, expired_failures(&items(&by_hand))).into_iter().map(doomed).collect()
}

fn items<'a>(of: &[&'a EraSnapshot]) -> Vec<Item<'a>> {
    of.iter().map(|it| item(it)).collect()
}

fn found<'a>(of: &[&'a EraSnapshot], names: Vec<&str>) -> Vec<&'a EraSnapshot> {
    let find = |name: &str| of.iter().find(|it| it.metadata.name.as_deref() == Some(name));
    names.into_iter().filter_map(find).copied().collect()
}
