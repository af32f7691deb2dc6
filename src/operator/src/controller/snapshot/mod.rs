//! One EraSnapshot, the controller's side: observe → decide → write.
//!
//! | step | file | client |
//! |---|---|---|
//! | its claim's EraVolume, the node | here | caches |
//! | what is to be done | `decide` | none |
//! | writing it | here | required |
//!
//! Every write names the resource version it was decided on: the agent writes the same object, and what it has completed
//! must not be declared pending or failed by somebody who has not seen it yet.

mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{
    Condition, ConditionType, EraSnapshot, EraSnapshotStatus, Reason, Time, condition, names,
};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::api_error::ApiError;
use super::budget::Usage;
use super::context::Context;
use super::error::ReconcileError;
use super::volume::node_is_gone;
use super::world::World;
use decide::{Assignment, Decision, Obstacles};

/// How soon one that waits is looked at again.
const LOOK: SignedDuration = SignedDuration::from_secs(60);

/// Gives a snapshot to an agent, or ends it.
pub(crate) async fn reconcile(
    snapshot: Arc<EraSnapshot>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let now = (context.now)();
    let world = &context.world;
    let namespace = snapshot.namespace().unwrap_or_default();
    let volume = world.volumes.get(&ObjectRef::new(&snapshot.spec.claim_name).within(&namespace));
    let gone = |node: &str| world.nodes.get(&ObjectRef::new(node)).is_none();
    let obstacles = || obstacles(world, &snapshot);
    match decide::decide(&snapshot, volume.as_deref(), obstacles, gone, now) {
        Decision::Nothing => Ok(Action::await_change()),
        Decision::Wait(deadline) => Ok(until(deadline, now)),
        Decision::Say(reason, message, deadline) => {
            let status = with(&snapshot, reason, message, now);
            write(&context, &snapshot, status).await?;
            // Room may come from where no event leads here.
            Ok(until(deadline.min(now.checked_add(LOOK).unwrap_or(deadline)), now))
        }
        Decision::Assign(Assignment { node, volume_uid }, deadline) => {
            let message = format!("waits for the agent of node {node}");
            let status = EraSnapshotStatus {
                node_name: Some(node),
                volume_uid: Some(volume_uid),
                ..with(&snapshot, Reason::Pending, message, now)
            };
            write(&context, &snapshot, status).await?;
            Ok(until(deadline, now))
        }
        Decision::Fail(reason, message) => fail(&context, &snapshot, reason, message, now).await,
    }
}

fn obstacles(world: &World, snapshot: &EraSnapshot) -> Obstacles {
    let of_claim = world.snapshots.state_filter(|it| {
        it.metadata.namespace == snapshot.metadata.namespace
            && it.spec.claim_name == snapshot.spec.claim_name
    });
    let of_claim = || of_claim.iter().map(AsRef::as_ref);
    let shared = world.shared(snapshot.metadata.namespace.as_deref());
    Obstacles {
        full: shared.full().or_else(|| Usage::of(of_claim()).volume_full()),
        turn: decide::turn(snapshot, &of_claim()),
        held: decide::held(snapshot, of_claim()),
    }
}

fn until(deadline: Timestamp, now: Timestamp) -> Action {
    Action::requeue(
        Duration::try_from(deadline.duration_since(now)).unwrap_or(Duration::from_secs(1)),
    )
}

/// All that the controller has ever to say of a snapshot: what it leaves out of an apply, it would take away.
fn with(
    snapshot: &EraSnapshot,
    reason: Reason,
    message: String,
    now: Timestamp,
) -> EraSnapshotStatus {
    let old = snapshot.status.clone().unwrap_or_default();
    let mut conditions: Vec<_> =
        old.conditions.into_iter().filter(|it| it.type_ == ConditionType::Ready.as_str()).collect();
    let ready = Condition::new(ConditionType::Ready, false, reason, message, Time(now));
    condition::set(&mut conditions, ready.of_generation(snapshot.metadata.generation));
    EraSnapshotStatus {
        node_name: old.node_name,
        volume_uid: old.volume_uid,
        conditions,
        ..EraSnapshotStatus::default()
    }
}

async fn fail(
    context: &Context,
    snapshot: &EraSnapshot,
    reason: Reason,
    message: String,
    now: Timestamp,
) -> Result<Action, ReconcileError> {
    let node = snapshot.status.as_ref().and_then(|status| status.node_name.as_deref());
    if let (Reason::NodeGone, Some(node)) = (reason, node)
        && !node_is_gone(&context.client, node).await.map_err(ReconcileError::Confirm)?
    {
        return Ok(Action::requeue(Duration::from_secs(5)));
    }
    let mut status = with(snapshot, reason, message.clone(), now);
    let failed = Condition::new(ConditionType::Failed, true, reason, message, Time(now));
    status.conditions.push(failed.of_generation(snapshot.metadata.generation));
    write(context, snapshot, status).await?;
    context.metrics.snapshots_failed.inc();
    Ok(Action::await_change())
}

/// Writes what the controller has to say, if it is not said already, and sends events for what changed.
async fn write(
    context: &Context,
    snapshot: &EraSnapshot,
    status: EraSnapshotStatus,
) -> Result<(), ReconcileError> {
    let old = snapshot.status.clone().unwrap_or_default();
    let said = status.conditions.iter().all(|it| old.conditions.contains(it));
    if said && status.node_name == old.node_name && status.volume_uid == old.volume_uid {
        return Ok(());
    }
    let (namespace, name) = (snapshot.namespace().unwrap_or_default(), snapshot.name_any());
    let metadata = &snapshot.metadata;
    let patch = json!({
        "apiVersion": EraSnapshot::api_version(&()),
        "kind": EraSnapshot::kind(&()),
        "metadata": { "name": name, "namespace": namespace, "uid": metadata.uid, "resourceVersion": metadata.resource_version },
        "status": status,
    });
    let api: Api<EraSnapshot> = Api::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(names::CONTROLLER).force();
    let written = api.patch_status(&name, &params, &Patch::Apply(patch)).await;
    written.map_err(|error| {
        let object = format!("EraSnapshot {namespace}/{name}");
        ReconcileError::Status(ApiError::new("write the status of", &object, error))
    })?;
    // One that failed is not ready either, for the same reason: that is said once.
    let failed = condition::is_true(&status.conditions, ConditionType::Failed);
    // That an agent was told is what happens to each.
    if status.node_name.is_some() && !failed {
        return Ok(());
    }
    let type_ = if failed { ConditionType::Failed } else { ConditionType::Ready };
    let news: Vec<_> =
        status.conditions.into_iter().filter(|it| it.type_ == type_.as_str()).collect();
    context.events.transitions(&snapshot.object_ref(&()), &old.conditions, &news).await;
    Ok(())
}
