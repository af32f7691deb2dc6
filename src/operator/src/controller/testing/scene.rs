//! A cluster at a moment: filled caches, a fake API server, a time.

use std::sync::Arc;

use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::fake_api::FakeApi;
use super::{NAMESPACE, bound_claim, local_volume, node, object};
use crate::controller::context::{Context, Settings};
use crate::controller::world::{World, Writers};

/// A cluster at a moment.
pub(crate) struct Scene {
    world: World,
    writers: Writers,
}

/// What the scene's clock says; its date is that of everything in `testing`.
pub(crate) fn noon() -> Timestamp {
    "2026-11-22T12:00:30Z".parse().expect("a time")
}

impl Scene {
    /// A cluster with node `n1`, whose hostname is not its name, and a ready agent on it.
    pub(crate) fn new() -> Self {
        let (world, writers) = World::new();
        let mut scene = Self { world, writers };
        scene.writers.nodes.apply_watcher_event(&Event::Apply(node(
            "n1",
            &[("kubernetes.io/hostname", "host-1")],
        )));
        scene.agent("n1", true)
    }

    pub(crate) fn tracking(mut self, it: EraTracking) -> Self {
        self.writers.trackings.apply_watcher_event(&Event::Apply(it));
        self
    }

    pub(crate) fn volume(mut self, it: EraVolume) -> Self {
        self.writers.volumes.apply_watcher_event(&Event::Apply(it));
        self
    }

    pub(crate) fn snapshot(mut self, it: EraSnapshot) -> Self {
        self.writers.snapshots.apply_watcher_event(&Event::Apply(it));
        self
    }

    pub(crate) fn claim(mut self, it: PersistentVolumeClaim) -> Self {
        self.writers.claims.apply_watcher_event(&Event::Apply(it));
        self
    }

    pub(crate) fn persistent(mut self, it: PersistentVolume) -> Self {
        self.writers.persistent.apply_watcher_event(&Event::Apply(it));
        self
    }

    pub(crate) fn attachment(mut self, it: VolumeAttachment) -> Self {
        self.writers.attachments.apply_watcher_event(&Event::Apply(it));
        self
    }

    /// Another node, without an agent.
    pub(crate) fn node(mut self, name: &str) -> Self {
        self.writers.nodes.apply_watcher_event(&Event::Apply(node(name, &[])));
        self
    }

    /// Claims that are bound to local volumes of node `n1`.
    pub(crate) fn bound(self, claims: &[&str]) -> Self {
        claims.iter().fold(self, |scene, claim| {
            let volume = format!("pv-{claim}");
            scene
                .claim(bound_claim(claim, &volume, &["ReadWriteOnce"]))
                .persistent(local_volume(&volume, claim, "host-1"))
        })
    }

    /// The agent's pod of a node.
    pub(crate) fn agent(mut self, node: &str, ready: bool) -> Self {
        let status = if ready { "True" } else { "False" };
        let pod: Pod = object(json!({
            "metadata": { "namespace": NAMESPACE, "name": format!("agent-{node}") },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "conditions": [{ "type": "Ready", "status": status }] },
        }));
        self.writers.agents.apply_watcher_event(&Event::Apply(pod));
        self
    }

    /// The node is gone, as far as the caches know.
    pub(crate) fn without_node(mut self, name: &str) -> Self {
        let gone: Node = node(name, &[]);
        self.writers.nodes.apply_watcher_event(&Event::Delete(gone));
        self
    }

    /// The caches alone.
    pub(crate) fn world(self) -> World {
        self.world
    }

    /// Everything a reconciliation needs. The clock stands at noon.
    pub(crate) fn context(self, api: &FakeApi) -> Arc<Context> {
        let context =
            crate::controller::context(api.client(), Arc::new(self.world), Settings::default());
        Arc::new(Context { now: noon, ..context })
    }
}
