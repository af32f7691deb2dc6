//! The API server, through a client.

use eratrack_api::{ChangedBlockSlice, EraSnapshot, EraSnapshotStatus, names};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::store::Store;
use crate::controller::api_error::{ApiError, ApiErrorKind};
use crate::delta::Slices;

/// The API server.
#[derive(Clone)]
pub(crate) struct KubeStore(pub(crate) Client);

impl Slices for KubeStore {
    type Error = ApiError;

    async fn slice(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ChangedBlockSlice>, ApiError> {
        self.get(namespace, name).await
    }
}

impl Store for KubeStore {
    async fn snapshot(&self, namespace: &str, name: &str) -> Result<Option<EraSnapshot>, ApiError> {
        self.get(namespace, name).await
    }

    async fn create_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ApiError> {
        let params = PostParams {
            field_manager: Some(names::CONTROLLER.to_owned()),
            ..PostParams::default()
        };
        let created = self.api(slice).create(&params, slice).await;
        created.map(drop).map_err(|error| ApiError::new("create", &titled(slice), error))
    }

    async fn delete_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ApiError> {
        match self.delete(slice, None).await {
            Err(error) if error.kind == ApiErrorKind::Conflict => Ok(()),
            deleted => deleted,
        }
    }

    async fn write_status(
        &self,
        snapshot: &EraSnapshot,
        status: &EraSnapshotStatus,
    ) -> Result<(), ApiError> {
        let metadata = &snapshot.metadata;
        // All of it: what an apply leaves out of what it said before, it takes away.
        let patch = json!({
            "apiVersion": EraSnapshot::api_version(&()),
            "kind": EraSnapshot::kind(&()),
            "metadata": { "name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid,
                          "resourceVersion": metadata.resource_version },
            "status": status,
        });
        let params = PatchParams::apply(names::CONTROLLER).force();
        let api = self.api(snapshot);
        let written = api.patch_status(&snapshot.name_any(), &params, &Patch::Apply(patch)).await;
        let failed = |error| ApiError::new("write the status of", &titled(snapshot), error);
        written.map(drop).map_err(failed)
    }

    async fn delete_snapshot(&self, snapshot: &EraSnapshot) -> Result<(), ApiError> {
        self.delete(snapshot, snapshot.resource_version()).await
    }
}

impl KubeStore {
    fn api<K>(&self, like: &K) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.0.clone(), &like.namespace().unwrap_or_default())
    }

    async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let object = format!("{} {namespace}/{name}", K::kind(&()));
        match Api::<K>::namespaced(self.0.clone(), namespace).get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) => match ApiError::new("read", &object, error) {
                gone if gone.kind == ApiErrorKind::Gone => Ok(None),
                other => Err(other),
            },
        }
    }

    /// It, and no other that has its name by now; of that version alone, if one is given.
    async fn delete<K>(&self, object: &K, version: Option<String>) -> Result<(), ApiError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let preconditions = Preconditions { uid: object.uid(), resource_version: version };
        let params =
            DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api(object).delete(&object.name_any(), &params).await {
            Ok(_) => Ok(()),
            Err(error) => match ApiError::new("delete", &titled(object), error) {
                gone if gone.kind == ApiErrorKind::Gone => Ok(()),
                other => Err(other),
            },
        }
    }
}

fn titled<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{} {namespace}/{}", K::kind(&()), object.name_any())
}
