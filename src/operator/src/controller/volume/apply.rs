//! The API server: writes the conditions, confirms that a node is gone, lets the finalizer go.

use eratrack_api::{Condition, EraVolume, names};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::controller::api_error::{ApiError, ApiErrorKind};

fn api(client: &Client, volume: &EraVolume) -> Api<EraVolume> {
    Api::namespaced(client.clone(), &volume.namespace().unwrap_or_default())
}

fn titled(volume: &EraVolume) -> String {
    format!("EraVolume {}/{}", volume.namespace().unwrap_or_default(), volume.name_any())
}

/// Writes the controller's conditions; those of the agent stay.
pub(crate) async fn write(
    client: &Client,
    volume: &EraVolume,
    conditions: &[Condition],
) -> Result<(), ApiError> {
    let patch = json!({
        "apiVersion": EraVolume::api_version(&()),
        "kind": EraVolume::kind(&()),
        "metadata": { "name": volume.name_any(), "namespace": volume.namespace(), "uid": volume.metadata.uid },
        "status": { "conditions": conditions },
    });
    let params = PatchParams::apply(names::CONTROLLER).force();
    let written =
        api(client, volume).patch_status(&volume.name_any(), &params, &Patch::Apply(patch)).await;
    written.map(drop).map_err(|error| ApiError::new("write the status of", &titled(volume), error))
}

/// Whether the API server itself says that there is no node of this name: a cache may lag behind, or be of another time.
pub(crate) async fn node_is_gone(client: &Client, node: &str) -> Result<bool, ApiError> {
    let api: Api<Node> = Api::all(client.clone());
    match api.get(node).await {
        Ok(_) => Ok(false),
        Err(error) => match ApiError::new("get", &format!("Node {node}"), error) {
            known if known.kind == ApiErrorKind::Gone => Ok(true),
            other => Err(other),
        },
    }
}

/// Deletes it, but no other that has its name by now.
pub(crate) async fn delete(client: &Client, volume: &EraVolume) -> Result<(), ApiError> {
    let preconditions = Preconditions { uid: volume.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match api(client, volume).delete(&volume.name_any(), &params).await {
        Ok(_) => {
            tracing::info!(volume = titled(volume), "deleted, since no EraTracking asks for it");
            Ok(())
        }
        Err(error) => match ApiError::new("delete", &titled(volume), error) {
            known if matches!(known.kind, ApiErrorKind::Gone | ApiErrorKind::Conflict) => Ok(()),
            other => Err(other),
        },
    }
}

/// Lets the finalizer go. Nothing may have changed since the decision: the resource version is part of the request.
pub(crate) async fn let_go(client: &Client, volume: &EraVolume) -> Result<(), ApiError> {
    let others: Vec<_> =
        volume.finalizers().iter().filter(|it| *it != names::FINALIZER_DETACH).collect();
    let patch = json!({
        "metadata": {
            "uid": volume.metadata.uid,
            "resourceVersion": volume.metadata.resource_version,
            "finalizers": others,
        },
    });
    let params =
        PatchParams { field_manager: Some(names::CONTROLLER.to_owned()), ..PatchParams::default() };
    match api(client, volume).patch(&volume.name_any(), &params, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) => match ApiError::new("remove the finalizer of", &titled(volume), error) {
            known if known.kind == ApiErrorKind::Gone => Ok(()),
            other => Err(other),
        },
    }
}
