//! What the controller does not read it does not keep: a cached object is cut down to what decides something here.
//! It also makes a heartbeat, which changes nothing of that, no reason to look again.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use eratrack_api::{EraSnapshot, EraTracking, EraVolume, names};

/// Cuts an object down, in place.
pub(crate) trait Trim {
    /// Removes what the controller never reads.
    fn trim(&mut self);
}

/// For our own kinds: all but the history. The resource version stays, for writes that must not overtake another.
fn trim_history(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
}

/// For the kinds of others: identity and labels.
fn trim_metadata(metadata: &mut ObjectMeta) {
    *metadata = ObjectMeta {
        name: metadata.name.take(),
        namespace: metadata.namespace.take(),
        uid: metadata.uid.take(),
        labels: metadata.labels.take(),
        deletion_timestamp: metadata.deletion_timestamp.take(),
        ..ObjectMeta::default()
    };
}

impl Trim for EraTracking {
    fn trim(&mut self) {
        let mut annotations = self.metadata.annotations.take().unwrap_or_default();
        annotations.retain(|key, _| key == names::ANNOTATION_SNAPSHOT_NOW);
        trim_history(&mut self.metadata);
        self.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    }
}

impl Trim for EraVolume {
    fn trim(&mut self) {
        trim_history(&mut self.metadata);
    }
}

impl Trim for EraSnapshot {
    fn trim(&mut self) {
        trim_history(&mut self.metadata);
    }
}

impl Trim for PersistentVolumeClaim {
    fn trim(&mut self) {
        let mut annotations = self.metadata.annotations.take().unwrap_or_default();
        annotations.retain(|key, _| key == names::ANNOTATION_REPLICA_OF);
        trim_metadata(&mut self.metadata);
        self.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        if let Some(spec) = &mut self.spec {
            let (volume_name, access_modes) = (spec.volume_name.take(), spec.access_modes.take());
            *spec = k8s_openapi::api::core::v1::PersistentVolumeClaimSpec {
                volume_name,
                access_modes,
                ..Default::default()
            };
        }
        if let Some(status) = &mut self.status {
            let phase = status.phase.take();
            *status = k8s_openapi::api::core::v1::PersistentVolumeClaimStatus {
                phase,
                ..Default::default()
            };
        }
    }
}

impl Trim for PersistentVolume {
    fn trim(&mut self) {
        trim_metadata(&mut self.metadata);
        self.status = None;
        if let Some(spec) = &mut self.spec {
            *spec = k8s_openapi::api::core::v1::PersistentVolumeSpec {
                access_modes: spec.access_modes.take(),
                claim_ref: spec.claim_ref.take(),
                node_affinity: spec.node_affinity.take(),
                volume_mode: spec.volume_mode.take(),
                ..Default::default()
            };
        }
    }
}

impl Trim for Node {
    fn trim(&mut self) {
        trim_metadata(&mut self.metadata);
        self.status = None;
        let taints = self.spec.take().and_then(|spec| spec.taints);
        self.spec = Some(k8s_openapi::api::core::v1::NodeSpec { taints, ..Default::default() });
    }
}

impl Trim for Pod {
    fn trim(&mut self) {
        trim_metadata(&mut self.metadata);
        let node_name = self.spec.take().and_then(|spec| spec.node_name);
        self.spec = Some(k8s_openapi::api::core::v1::PodSpec { node_name, ..Default::default() });
        let mut conditions = self.status.take().and_then(|status| status.conditions);
        if let Some(list) = &mut conditions {
            list.retain(|condition| condition.type_ == "Ready");
            // The kubelet may write this anew with every probe.
            for condition in list {
                condition.last_probe_time = None;
            }
        }
        self.status =
            Some(k8s_openapi::api::core::v1::PodStatus { conditions, ..Default::default() });
    }
}

impl Trim for VolumeAttachment {
    fn trim(&mut self) {
        trim_metadata(&mut self.metadata);
        if let Some(status) = &mut self.status {
            status.attachment_metadata = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::object;

    #[test]
    fn a_heartbeat_of_a_node_changes_nothing_that_is_kept() {
        let beat = |version: &str, time: &str| -> Node {
            let mut node = object::<Node>(json!({
                "metadata": { "name": "n1", "resourceVersion": version, "labels": { "zone": "1" },
                              "managedFields": [{ "manager": "kubelet" }] },
                "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }], "podCIDR": "10.0.0.0/24" },
                "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": time }] },
            }));
            node.trim();
            node
        };
        let (one, two) = (beat("1", "2026-11-22T12:00:00Z"), beat("2", "2026-11-22T12:05:00Z"));
        assert_eq!(one, two);
        assert_eq!(one.metadata.labels.as_ref().map(|it| it["zone"].as_str()), Some("1"));
        assert_eq!(one.spec.and_then(|it| it.taints).map(|it| it.len()), Some(1));
    }

    #[test]
    fn our_own_lose_their_history_only() {
        let mut volume = crate::controller::testing::era_volume(
            "data",
            json!({ "metadata": { "resourceVersion": "5", "managedFields": [{ "manager": "x" }], "labels": { "a": "b" } } }),
        );
        volume.trim();
        assert_eq!(volume.metadata.managed_fields, None);
        assert_eq!(volume.metadata.resource_version.as_deref(), Some("5"));
        assert!(volume.metadata.finalizers.is_some() && volume.metadata.labels.is_some());
    }
}
