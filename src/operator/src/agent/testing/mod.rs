//! What tests have in common: objects, and a cluster and a machine in memory.

mod fleet;
mod machines;
pub(crate) mod memory;

use std::sync::Arc;

use eratrack_api::{Device, EraSnapshot, EraVolume, Granularity, ObjectRef, ReplicaTarget};
use eratrack_model::units::DevNo;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::{self, store::Writer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::memory::Memory;
use super::contact::Contact;
use super::metrics::Metrics;
use super::stacks::Tracked;
use super::volume::{Context, Holders};

/// A chain.
pub(crate) const CHAIN: &str = "44444444-4444-4444-8444-444444444444";
/// The uid of the PersistentVolume of claim `apps/data`.
pub(crate) const VOLUME_UID: &str = "22222222-2222-4222-8222-222222222222";
/// The uid of claim `apps/data`.
pub(crate) const CLAIM_UID: &str = "11111111-1111-4111-8111-111111111111";

/// So many seconds after every object's creation.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

/// An `EraSnapshot` of claim `apps/data`, created at second 0.
pub(crate) fn snapshot(name: &str, status: &Value) -> EraSnapshot {
    serde_json::from_value(json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot",
        "metadata": {"name": name, "namespace": "apps", "uid": format!("uid-of-{name}"), "generation": 1,
            "creationTimestamp": at(0).to_string()},
        "spec": {"claimName": "data", "deadlineSeconds": 600},
        "status": status,
    }))
    .expect("an EraSnapshot")
}

/// The `EraVolume` of claim `apps/data`.
pub(crate) fn era_volume() -> EraVolume {
    serde_json::from_value(json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraVolume",
        "metadata": {"name": "data", "namespace": "apps", "uid": "33333333-3333-4333-8333-333333333333", "generation": 1},
        "spec": {
            "claim": {"name": "data", "uid": CLAIM_UID},
            "volume": {"name": "pv-a", "uid": VOLUME_UID},
            "nodeName": "node1", "granularity": "256Ki",
        },
    }))
    .expect("an EraVolume")
}

/// Its PersistentVolume, with the fields of `spec` given put in or over the usual ones.
pub(crate) fn persistent_volume(overrides: &Value) -> PersistentVolume {
    let mut spec = json!({
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "claimRef": {"namespace": "apps", "name": "data", "uid": CLAIM_UID},
        "local": {"path": "/dev/vg/data"},
    });
    for (key, value) in overrides.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pv-a", "uid": VOLUME_UID}, "spec": spec,
    }))
    .expect("a PersistentVolume")
}

/// Claim `apps/copy`, which asks to be its replica.
pub(crate) fn replica_target() -> ReplicaTarget {
    let reference = |name: &str, digit: &str| ObjectRef {
        name: name.to_owned(),
        uid: "00000000-0000-4000-8000-000000000000".replace('0', digit),
    };
    ReplicaTarget {
        claim: reference("copy", "6"),
        volume: reference("pv-copy", "7"),
        max_bytes_per_second: None,
        verify: false,
    }
}

/// The stack of that volume: a device of 1000 blocks, the last of them cut short.
pub(crate) fn tracked() -> Tracked {
    Tracked {
        chain: CHAIN.to_owned(),
        number: DevNo { major: 253, minor: 3 },
        device: Device {
            name: Some("vg-data".to_owned()),
            number: Some("253:3".to_owned()),
            uuid: None,
        },
        granularity: Granularity::default(),
        size_bytes: 1000 * 262_144 - 4096,
    }
}

/// What volumes share, over a cluster and a machine in memory; and what fills its stores.
pub(crate) fn context(
    memory: &Memory,
) -> (Context<Memory, Memory, Memory>, Writer<EraVolume>, Writer<EraSnapshot>) {
    let (volumes, volumes_writer) = reflector::store();
    let (snapshots, snapshots_writer) = reflector::store();
    let context = Context {
        cluster: memory.clone(),
        stacks: Arc::new(memory.clone()),
        node: Arc::new(memory.clone()),
        node_name: "node1".to_owned(),
        boundaries: Arc::new(Semaphore::new(2)),
        seeds: Arc::new(Semaphore::new(1)),
        copies: Arc::new(Semaphore::new(2)),
        devices: std::sync::Mutex::default(),
        holders: Holders::default(),
        contact: Contact::default(),
        volumes,
        snapshots,
        metrics: Metrics::new(&mut crate::metrics::registry()),
        now,
    };
    (context, volumes_writer, snapshots_writer)
}

thread_local! {
    static STARTED: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// Half a minute after the objects' creation when first asked; from then on it goes as the runtime's time does.
fn now() -> Timestamp {
    let started = STARTED.get().unwrap_or_else(Instant::now);
    STARTED.set(Some(started));
    at(30) + started.elapsed()
}
