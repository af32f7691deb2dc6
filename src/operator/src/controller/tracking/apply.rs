//! Step 4, the API server: carries out a plan, in the plan's order, and hands back what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use eratrack_api::{EraSnapshot, EraVolume, names};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::asked::Asked;
use super::build::{Doomed, Plan};
use super::dereference::Inputs;
use super::firing::Firing;
use crate::controller::api_error::{ApiError, ApiErrorKind};
use crate::controller::context::Context;
use crate::controller::merge::{Fold, FoldError, KubeStore, fold};

/// What came of a plan.
#[derive(Default)]
pub(crate) struct Applied {
    /// The EraVolumes of the namespace, as the API server has them.
    pub(crate) volumes: BTreeMap<String, Arc<EraVolume>>,
    /// What the schedule asked for.
    pub(crate) firing: Firing,
    /// How many EraVolumes were made.
    pub(crate) made: usize,
    /// How many snapshots were made that somebody asked for at once.
    pub(crate) asked_for: usize,
    /// What the status says of who asked, if all of that is done.
    pub(crate) told: Option<String>,
    /// Whether something is left to do at once.
    pub(crate) more: bool,
    /// Snapshots that could not be merged and stay: the claim, the name, and why.
    pub(crate) kept: Vec<(String, String, String)>,
    /// What of the plan was refused, but for scheduled snapshots.
    pub(crate) refused: Vec<ApiError>,
    /// Scheduled snapshots that were refused.
    pub(crate) refused_snapshots: Vec<ApiError>,
}

impl Applied {
    /// Of all that was refused, what is worth another try first.
    pub(crate) fn into_soonest(self) -> Option<ApiError> {
        let all = self.refused.into_iter().chain(self.refused_snapshots);
        all.min_by_key(ApiError::retry_after)
    }
}

/// Carries it out: first what is to be tracked, then the boundaries that are due, then what may go. What is refused for
/// one object holds up no other; without an API server there is no use in going on.
pub(crate) async fn apply(
    context: &Context,
    inputs: &Inputs,
    plan: Plan,
) -> Result<Applied, ApiError> {
    let Plan { apply, remove, create, prune, firing, asked } = plan;
    let namespace = inputs.tracking.namespace().unwrap_or_default();
    let volumes: Api<EraVolume> = Api::namespaced(context.client.clone(), &namespace);
    let snapshots: Api<EraSnapshot> = Api::namespaced(context.client.clone(), &namespace);

    let mut applied = Applied { volumes: inputs.volumes.clone(), firing, ..Applied::default() };
    for wish in apply {
        let Some(volume) = put_by(apply_volume(&volumes, &wish).await, &mut applied.refused)?
        else {
            continue;
        };
        applied.made += usize::from(wish.metadata.uid.is_none());
        applied.volumes.insert(volume.name_any(), Arc::new(volume));
    }
    for snapshot in &create {
        context.pacer.turn().await;
        let created = create_snapshot(&snapshots, snapshot).await;
        if put_by(created, &mut applied.refused_snapshots)?.is_some() {
            context.metrics.snapshots_created.inc();
        }
    }
    if !applied.refused_snapshots.is_empty() {
        applied.firing.stay_announced();
    }
    ask(context, &snapshots, asked, &mut applied).await?;
    for doomed in &remove {
        if put_by(delete(&volumes, doomed).await, &mut applied.refused)?.is_some() {
            applied.volumes.remove(&doomed.name);
        }
    }
    for doomed in &prune.drop {
        if put_by(delete(&snapshots, doomed).await, &mut applied.refused)?.is_some() {
            context.metrics.snapshots_pruned.inc();
        }
    }
    for (claim, folds) in &prune.fold {
        // It is large, and there is rarely one.
        Box::pin(merge(context, claim, folds, &mut applied)).await?;
    }
    Ok(applied)
}

/// Merges the first of a claim's that can be. What was decided of the others may be another by then.
async fn merge(
    context: &Context,
    claim: &str,
    folds: &[Fold],
    applied: &mut Applied,
) -> Result<(), ApiError> {
    let store = KubeStore(context.client.clone());
    for plan in folds {
        let why = match fold(&store, plan, (context.now)()).await {
            Ok(true) => {
                let (gone, into) = (titled(&plan.gone), titled(&plan.into));
                tracing::info!(gone, into, "merged");
                context.metrics.snapshots_pruned.inc();
                context.metrics.snapshots_merged.inc();
                return Ok(());
            }
            Ok(false) => return Ok(()),
            Err(FoldError::Api(error)) => {
                return put_by(Err::<(), _>(error), &mut applied.refused).map(drop);
            }
            Err(error @ (FoldError::List(_) | FoldError::Delta(_) | FoldError::Task)) => error,
        };
        tracing::warn!(gone = titled(&plan.gone), why = crate::exit::chain(&why), "not merged");
        applied.kept.push((claim.to_owned(), plan.gone.name_any(), crate::exit::chain(&why)));
    }
    Ok(())
}

/// Creates what somebody asked for at once, and says so once all of it is there.
async fn ask(
    context: &Context,
    snapshots: &Api<EraSnapshot>,
    asked: Asked,
    applied: &mut Applied,
) -> Result<(), ApiError> {
    let Asked { create, told, more } = asked;
    let refused = applied.refused.len();
    for snapshot in &create {
        context.pacer.turn().await;
        let created = create_snapshot(snapshots, snapshot).await;
        if put_by(created, &mut applied.refused)?.is_some() {
            context.metrics.snapshots_created.inc();
            applied.asked_for += 1;
        }
    }
    applied.more |= more;
    applied.told = told.filter(|_| applied.refused.len() == refused);
    Ok(())
}

/// Puts a refusal by, and fails only if there is no API server to refuse anything.
fn put_by<T>(
    result: Result<T, ApiError>,
    refused: &mut Vec<ApiError>,
) -> Result<Option<T>, ApiError> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.kind == ApiErrorKind::Unavailable => Err(error),
        Err(error) => {
            refused.push(error);
            Ok(None)
        }
    }
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
