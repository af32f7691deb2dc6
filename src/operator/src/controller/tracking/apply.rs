//! Step 4, the API server: carries out a plan, in the plan's order, and hands back what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use eratrack_api::{EraSnapshot, EraVolume, names};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::build::{Doomed, Plan};
use super::dereference::Inputs;
use super::firing::Firing;
use crate::controller::api_error::{ApiError, ApiErrorKind};
use crate::controller::context::Context;

/// What came of a plan.
pub(crate) struct Applied {
    /// The EraVolumes of the namespace, as the API server has them.
    pub(crate) volumes: BTreeMap<String, Arc<EraVolume>>,
    /// What the schedule asked for.
    pub(crate) firing: Firing,
    /// How many EraVolumes were made.
    pub(crate) made: usize,
}

/// Carries it out: first what is to be tracked, then the boundaries that are due, then what may go.
pub(crate) async fn apply(
    context: &Context,
    inputs: &Inputs,
    plan: Plan,
) -> Result<Applied, ApiError> {
    let Plan { apply, remove, create, prune, firing } = plan;
    let namespace = inputs.tracking.namespace().unwrap_or_default();
    let volumes: Api<EraVolume> = Api::namespaced(context.client.clone(), &namespace);
    let snapshots: Api<EraSnapshot> = Api::namespaced(context.client.clone(), &namespace);

    let mut now = inputs.volumes.clone();
    let mut made = 0;
    for wish in apply {
        made += usize::from(wish.metadata.uid.is_none());
        let volume = apply_volume(&volumes, &wish).await?;
        now.insert(volume.name_any(), Arc::new(volume));
    }
    for snapshot in &create {
        context.pacer.turn().await;
        create_snapshot(&snapshots, snapshot).await?;
        context.metrics.snapshots_created.inc();
    }
    for doomed in &remove {
        delete(&volumes, doomed).await?;
        now.remove(&doomed.name);
    }
    for doomed in &prune {
        delete(&snapshots, doomed).await?;
        context.metrics.snapshots_pruned.inc();
    }
    Ok(Applied { volumes: now, firing, made })
}

async fn apply_volume(api: &Api<EraVolume>, wish: &EraVolume) -> Result<EraVolume, ApiError> {
    let name = wish.name_any();
    let params = PatchParams::apply(names::CONTROLLER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(wish)).await;
    let volume = applied.map_err(|error| ApiError::new("apply", &titled(wish), error))?;
    tracing::info!(volume = titled(wish), node = wish.spec.node_name, "applied");
    Ok(volume)
}

/// A snapshot of that minute may be there already: a former leader's, or one that the cache does not know yet.
async fn create_snapshot(api: &Api<EraSnapshot>, snapshot: &EraSnapshot) -> Result<(), ApiError> {
    let params =
        PostParams { field_manager: Some(names::CONTROLLER.to_owned()), ..PostParams::default() };
    match api.create(&params, snapshot).await {
        Ok(_) => {
            tracing::info!(snapshot = titled(snapshot), "created");
            Ok(())
        }
        Err(error) => match ApiError::new("create", &titled(snapshot), error) {
            known if known.kind == ApiErrorKind::Exists => Ok(()),
            other => Err(other),
        },
    }
}

/// Deletes an object, but no other that has its name by now.
async fn delete<K>(api: &Api<K>, doomed: &Doomed) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let preconditions = Preconditions { uid: Some(doomed.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let object = format!("{} {}", K::kind(&()), doomed.name);
    match api.delete(&doomed.name, &params).await {
        Ok(_) => {
            tracing::info!(object, "deleted");
            Ok(())
        }
        Err(error) => match ApiError::new("delete", &object, error) {
            known if matches!(known.kind, ApiErrorKind::Gone | ApiErrorKind::Conflict) => Ok(()),
            other => Err(other),
        },
    }
}

fn titled<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{} {namespace}/{}", K::kind(&()), object.name_any())
}
