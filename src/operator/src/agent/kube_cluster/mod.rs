//! [`Cluster`] over a real API server.

use std::future::Future;
use std::time::Duration;

use eratrack_api::{
    ChangedBlockSlice, ConditionType, EraSnapshot, EraSnapshotStatus, EraTracking, EraVolume,
    EraVolumeStatus, names,
};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{NamespaceResourceScope, Status};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::cluster::{Cluster, ClusterError, Key, Notice};
use crate::event_note::shortened;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The API server, through a client with the agent's own account.
#[derive(Clone)]
pub(crate) struct KubeCluster {
    client: Client,
    recorder: Recorder,
}

impl KubeCluster {
    /// `node` is told as the place that events come from.
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let reporter =
            Reporter { controller: names::AGENT.to_owned(), instance: Some(node.to_owned()) };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn get<K>(&self, key: &Key) -> Result<Option<K>, ClusterError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let what = format!("{} {key}", K::kind(&()));
        absent(request(&what, &key.name, self.api::<K>(&key.namespace).get(&key.name)).await)
    }

    async fn apply_status<K>(&self, object: &K, status: impl Serialize) -> Result<K, ClusterError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let key = Key::of(object);
        let what = format!("{} {key}", K::kind(&()));
        // With the uid, an object that was deleted and made again is a conflict, not a stranger that gets our status.
        let patch = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": key.name, "uid": object.meta().uid},
            "status": status,
        });
        let params = PatchParams::apply(names::AGENT).force();
        let api = self.api::<K>(&key.namespace);
        request(&what, &key.name, api.patch_status(&key.name, &params, &Patch::Apply(&patch))).await
    }

    /// Nobody waits for an event: the volume it is about must be looked after meanwhile. Events of the same word on one
    /// object are counted as one, unless they are `of` different ones.
    fn notice(&self, reference: ObjectReference, of: Option<ObjectReference>, notice: &Notice) {
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.as_str().to_owned(),
            note: Some(shortened(notice.message.clone())),
            action: notice.action.to_owned(),
            secondary: of,
        };
        let what = format!("Event of {}", reference.name.as_deref().unwrap_or_default());
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = request(&what, "", recorder.publish(&event, &reference)).await {
                tracing::warn!(error = crate::exit::chain(&error), "an event was lost");
            }
        });
    }
}

impl Cluster for KubeCluster {
    async fn volume(&self, key: &Key) -> Result<Option<EraVolume>, ClusterError> {
        self.get(key).await
    }

    async fn volumes(&self) -> Result<Vec<EraVolume>, ClusterError> {
        let api = Api::<EraVolume>::all(self.client.clone());
        let list = request("EraVolumes", "", api.list(&ListParams::default())).await?;
        Ok(list.items)
    }

    async fn persistent_volume(
        &self,
        name: &str,
    ) -> Result<Option<PersistentVolume>, ClusterError> {
        let api = Api::<PersistentVolume>::all(self.client.clone());
        absent(request(&format!("PersistentVolume {name}"), name, api.get(name)).await)
    }

    async fn snapshot(&self, key: &Key) -> Result<Option<EraSnapshot>, ClusterError> {
        self.get(key).await
    }

    async fn snapshots_of(&self, claim: &Key) -> Result<Vec<EraSnapshot>, ClusterError> {
        // No resourceVersion: the API server asks a quorum of the store, so that the base is never an old one.
        let params = ListParams::default().fields(&format!("spec.claimName={}", claim.name));
        let api = self.api::<EraSnapshot>(&claim.namespace);
        let list = request(&format!("EraSnapshots of {claim}"), "", api.list(&params)).await?;
        Ok(list.items)
    }

    async fn write_volume(
        &self,
        volume: &EraVolume,
        status: &EraVolumeStatus,
    ) -> Result<EraVolume, ClusterError> {
        let mut ours = status.clone();
        ours.conditions.retain(|condition| condition.type_ != ConditionType::Ready.as_str());
        self.apply_status(volume, ours).await
    }

    async fn write_snapshot(
        &self,
        snapshot: &EraSnapshot,
        status: &EraSnapshotStatus,
    ) -> Result<EraSnapshot, ClusterError> {
        let ours = EraSnapshotStatus { node_name: None, volume_uid: None, ..status.clone() };
        self.apply_status(snapshot, ours).await
    }

    async fn slice(&self, key: &Key) -> Result<Option<ChangedBlockSlice>, ClusterError> {
        self.get(key).await
    }

    async fn create_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ClusterError> {
        let key = Key::of(slice);
        let api = self.api::<ChangedBlockSlice>(&key.namespace);
        let params =
            PostParams { field_manager: Some(names::AGENT.to_owned()), ..PostParams::default() };
        let what = format!("ChangedBlockSlice {key}");
        request(&what, &key.name, api.create(&params, slice)).await.map(drop)
    }

    async fn delete_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ClusterError> {
        let key = Key::of(slice);
        let api = self.api::<ChangedBlockSlice>(&key.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: slice.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let what = format!("ChangedBlockSlice {key}");
        absent(request(&what, &key.name, api.delete(&key.name, &params)).await).map(drop)
    }

    fn notice_volume(&self, volume: &EraVolume, notice: &Notice) {
        self.notice(volume.object_ref(&()), None, notice);
        for owner in tracking_owners(volume) {
            let message = format!("volume {}: {}", volume.name_any(), notice.message);
            let of = Some(volume.object_ref(&()));
            self.notice(owner, of, &Notice { message, ..notice.clone() });
        }
    }

    fn notice_snapshot(&self, snapshot: &EraSnapshot, notice: &Notice) {
        self.notice(snapshot.object_ref(&()), None, notice);
    }
}

/// The objects that a user wrote, and will look at.
fn tracking_owners(volume: &EraVolume) -> Vec<ObjectReference> {
    volume
        .owner_references()
        .iter()
        .filter(|owner| owner.kind == EraTracking::kind(&()))
        .map(|owner| ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            namespace: volume.namespace(),
            uid: Some(owner.uid.clone()),
            ..ObjectReference::default()
        })
        .collect()
}

async fn request<T>(
    what: &str,
    name: &str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| classify(what, name, error)),
        Err(_) => {
            Err(ClusterError::Timeout { what: what.to_owned(), seconds: REQUEST_TIMEOUT.as_secs() })
        }
    }
}

fn absent<T>(answer: Result<T, ClusterError>) -> Result<Option<T>, ClusterError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(ClusterError::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn classify(what: &str, name: &str, error: kube::Error) -> ClusterError {
    let what = what.to_owned();
    let kube::Error::Api(status) = &error else {
        return ClusterError::Unavailable { what, source: Box::new(error) };
    };
    let message = status.message.clone();
    if names_the_absent(status, name) {
        ClusterError::Gone { what }
    } else if status.is_already_exists() {
        ClusterError::Exists { what }
    } else if status.is_conflict() {
        ClusterError::Conflict { what, message }
    } else if status.is_forbidden() && message.contains("exceeded quota") {
        ClusterError::Quota { what, message }
    } else if status.is_invalid() {
        ClusterError::Rejected { what, message }
    } else {
        ClusterError::Unavailable { what, source: Box::new(error) }
    }
}

/// A 404 also comes when the whole kind is missing; only one that names the object says that the object is gone.
fn names_the_absent(status: &Status, name: &str) -> bool {
    status.reason == "NotFound"
        && status.details.as_ref().is_some_and(|details| !name.is_empty() && details.name == name)
}

#[cfg(test)]
mod tests;
