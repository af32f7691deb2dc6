//! One EraVolume: observe → decide → write.
//!
//! | step | file | client |
//! |---|---|---|
//! | its node, the node's agent | here | caches |
//! | whether the finalizer may go | `release` | none |
//! | what Ready says | `ready` | none |
//! | writing either | `apply` | required |

mod apply;
mod ready;
mod release;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{Condition, EraTracking, EraVolume, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::context::Context;
use super::error::ReconcileError;
use super::outcome::is_made_for_a_tracking;
use super::place::Place;
use super::tracking::Intent;
use super::world::World;
use ready::Watcher;
pub(crate) use release::{Cause, Patience, Release, is_held};

pub(crate) use apply::node_is_gone;

/// What the caches say of a volume's surroundings.
pub(crate) struct Surroundings {
    node: Option<Arc<Node>>,
    watcher: Watcher,
}

/// Keeps an EraVolume's Ready condition, and lets it go once it may.
pub(crate) async fn reconcile(
    volume: Arc<EraVolume>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    if context.patience == Patience::Bounded && is_nobodys(&context.world, &volume) {
        apply::delete(&context.client, &volume).await.map_err(ReconcileError::Apply)?;
        return Ok(Action::await_change());
    }
    let now = (context.now)();
    let around = observe(&context.world, &volume);
    let release = decide(&volume, &around, context.patience, now);
    if let Release::Free(cause) = &release
        && is_held(&volume)
    {
        return free(&context, &volume, cause).await;
    }
    write(&context, &volume, &around, now).await?;
    Ok(match release {
        Release::Hold(Some(until), _) => Action::requeue(
            Duration::try_from(until.duration_since(now)).unwrap_or(Duration::from_secs(1)),
        ),
        Release::Hold(None, _) | Release::NotAsked | Release::Free(_) => Action::await_change(),
    })
}

/// Whether no EraTracking made it or could take it over: what it was made for was deleted, and it was not.
fn is_nobodys(world: &World, volume: &EraVolume) -> bool {
    let may_be_whose = |it: &EraTracking| {
        it.metadata.namespace == volume.metadata.namespace
            && it.metadata.deletion_timestamp.is_none()
            && may_select(it, world, volume)
    };
    volume.metadata.deletion_timestamp.is_none()
        && !is_made_for_a_tracking(volume)
        && world.trackings.find(may_be_whose).is_none()
}

fn may_select(tracking: &EraTracking, world: &World, volume: &EraVolume) -> bool {
    let intent = Intent::of(tracking);
    let claim =
        ObjectRef::new(&volume.spec.claim.name).within(&volume.namespace().unwrap_or_default());
    !intent.is_readable() || world.claims.get(&claim).is_some_and(|claim| intent.selects(&claim))
}

/// What becomes of the finalizer, by what is around the volume.
pub(crate) fn decide(
    volume: &EraVolume,
    around: &Surroundings,
    patience: Patience,
    now: Timestamp,
) -> Release {
    let agent_ready = matches!(around.watcher, Watcher::Ready(_));
    release::release(volume, around.node.as_deref(), agent_ready, patience, now)
}

/// Looks around.
pub(crate) fn observe(world: &World, volume: &EraVolume) -> Surroundings {
    let Some(name) = volume.spec.node_name.clone() else {
        return Surroundings { node: None, watcher: Watcher::None(place(world, volume)) };
    };
    let node = world.nodes.get(&ObjectRef::new(&name));
    let watcher = match &node {
        None => Watcher::NodeGone(name),
        Some(_) if world.agents.find(|pod| watches(pod, &name)).is_some() => Watcher::Ready(name),
        Some(_) => Watcher::Away(name),
    };
    Surroundings { node, watcher }
}

/// Whether a pod is a ready agent of the node.
fn watches(pod: &Pod, node: &str) -> bool {
    let on_node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let conditions =
        pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
    on_node && ready && pod.metadata.deletion_timestamp.is_none()
}

/// Why a volume has no node.
fn place(world: &World, volume: &EraVolume) -> Place {
    let spec = &volume.spec;
    let persistent = world.persistent.get(&ObjectRef::new(&spec.volume.name));
    let namespace = volume.namespace().unwrap_or_default();
    let claim = world.claims.get(&ObjectRef::new(&spec.claim.name).within(&namespace));
    match (persistent, claim) {
        (Some(persistent), Some(claim)) => world.map().place(&persistent, &claim, None),
        _ => Place::Unknown(format!(
            "PersistentVolume {} or its claim is not there",
            spec.volume.name
        )),
    }
}

async fn write(
    context: &Context,
    volume: &EraVolume,
    around: &Surroundings,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let old = volume.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let new = ready::conditions(volume, &around.watcher, now);
    if new.iter().all(|it| old.contains(it)) {
        return Ok(());
    }
    apply::write(&context.client, volume, &new).await.map_err(ReconcileError::Status)?;
    let sent: Vec<Condition> = new.into_iter().take(1).collect();
    context.events.transitions(&volume.object_ref(&()), old, &sent).await;
    Ok(())
}

async fn free(
    context: &Context,
    volume: &EraVolume,
    cause: &Cause,
) -> Result<Action, ReconcileError> {
    if let Cause::NodeGone(node) = cause
        && !node_is_gone(&context.client, node).await.map_err(ReconcileError::Confirm)?
    {
        // The cache will learn of it.
        return Ok(Action::requeue(Duration::from_secs(5)));
    }
    apply::let_go(&context.client, volume).await.map_err(ReconcileError::Apply)?;
    context.metrics.let_go(cause.label()).inc();
    tracing::info!(
        volume = volume.name_any(),
        namespace = volume.namespace(),
        cause = cause.message(),
        "let go"
    );
    context.events.note(&volume.object_ref(&()), names::EVENT_LET_GO, cause.message()).await;
    Ok(Action::await_change())
}
