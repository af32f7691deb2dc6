//! One EraTracking: dereference → validate → build → apply → status.
//!
//! | step | file | client |
//! |---|---|---|
//! | what decides about it | `dereference` | caches |
//! | what becomes of each claim, what the schedule asks | `validate`, with `intent` and `replica` | none |
//! | what is to be written | `build`, with `firing`, `asked`, `replica` and `prune` | none |
//! | writing it | `apply` | required |
//! | what the user reads | `status` | required to write it |

mod apply;
mod asked;
mod build;
mod dereference;
mod firing;
mod intent;
mod prune;
mod replica;
mod status;
#[cfg(test)]
mod tests;
mod validate;

pub(crate) use intent::Intent;

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{EraTracking, EraTrackingStatus, names};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::api_error::ApiError;
use super::context::Context;
use super::error::ReconcileError;

/// However far the next scheduled time is, the clock is looked at this often: it may be set.
const LOOK: Duration = Duration::from_secs(300);
/// The soonest that it is looked at again.
const SOON: Duration = Duration::from_secs(1);

/// Brings everything made for an EraTracking to what it asks for.
pub(crate) async fn reconcile(
    tracking: Arc<EraTracking>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    // What was made for it goes by its owner references.
    if tracking.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = (context.now)();
    let inputs = dereference::dereference(&context.world, tracking);
    let validated = validate::validate(&inputs, context.settings, now);
    let plan = build::build(&inputs, &validated, now);
    let applied = apply::apply(&context, &inputs, plan).await.map_err(ReconcileError::Apply)?;
    let status = status::status(&inputs, &validated, &applied, now);
    let (again, made) = (again(look(&applied, now), now), applied.made);
    let (asked, missed) = (applied.asked_for, applied.firing.all_missed());
    write(&context, &inputs.tracking, status).await.map_err(ReconcileError::Status)?;
    let news = [
        (made, names::EVENT_VOLUMES_MADE, format!("{made} EraVolumes made")),
        (
            asked,
            names::EVENT_SNAPSHOTS_ASKED_FOR,
            format!("{asked} EraSnapshots made for {}", names::ANNOTATION_SNAPSHOT_NOW),
        ),
        (
            usize::try_from(missed.count).unwrap_or(usize::MAX),
            names::EVENT_RUNS_MISSED,
            format!("{} scheduled times passed without the snapshot of some claim", missed.count),
        ),
    ];
    for (count, reason, note) in news {
        if count > 0 {
            context.events.note(&inputs.tracking.object_ref(&()), reason, note).await;
        }
    }
    match applied.into_soonest() {
        Some(error) => Err(ReconcileError::Refused(error, again.unwrap_or(LOOK))),
        None => Ok(again.map_or_else(Action::await_change, Action::requeue)),
    }
}

/// When there is something to do without anything having changed.
fn look(applied: &apply::Applied, now: Timestamp) -> Option<Timestamp> {
    if applied.more { Some(now) } else { applied.firing.look }
}

fn again(look: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let wait = Duration::try_from(look?.duration_since(now)).unwrap_or(SOON);
    Some(wait.clamp(SOON, LOOK))
}

/// Writes the status if it is another, and sends events for what changed in it.
async fn write(
    context: &Context,
    tracking: &EraTracking,
    status: EraTrackingStatus,
) -> Result<(), ApiError> {
    if tracking.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let (namespace, name) = (tracking.namespace().unwrap_or_default(), tracking.name_any());
    let patch = json!({
        "apiVersion": EraTracking::api_version(&()),
        "kind": EraTracking::kind(&()),
        "metadata": { "name": name, "namespace": namespace, "uid": tracking.metadata.uid },
        "status": status,
    });
    let api: Api<EraTracking> = Api::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(names::CONTROLLER).force();
    let written = api.patch_status(&name, &params, &Patch::Apply(patch)).await;
    written.map_err(|error| {
        ApiError::new("write the status of", &format!("EraTracking {namespace}/{name}"), error)
    })?;
    let old = tracking.status.as_ref().map_or(&[][..], |status| &status.conditions);
    context.events.transitions(&tracking.object_ref(&()), old, &status.conditions).await;
    Ok(())
}
