//! Objects for tests, made from the few words that matter; and an API server that plays scenarios.

#![allow(clippy::needless_pass_by_value)] // a json! literal is handed over, not kept

pub(crate) mod fake_api;
pub(crate) mod scene;

use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The namespace of everything here.
pub(crate) const NAMESPACE: &str = "shop";
/// When everything here was created, unless it says otherwise.
pub(crate) const CREATED: &str = "2026-11-22T12:00:00Z";

/// A uid of the right length that tells kind and name.
pub(crate) fn uid(kind: &str, name: &str) -> String {
    let mut uid = format!("{kind}-{name}-");
    while uid.len() < 36 {
        uid.push('0');
    }
    uid
}

/// Reads an object from JSON.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of the kind")
}

/// Puts the fields of `over` into `base`, object by object.
pub(crate) fn merged(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(into), Value::Object(fields)) => {
            for (key, field) in fields {
                let old = into.remove(&key).unwrap_or(Value::Null);
                into.insert(key, merged(old, field));
            }
            base
        }
        (_, over) => over,
    }
}

pub(crate) fn node(name: &str, labels: &[(&str, &str)]) -> Node {
    let labels: serde_json::Map<_, _> =
        labels.iter().map(|(k, v)| ((*k).into(), json!(v))).collect();
    object(json!({ "metadata": { "name": name, "labels": labels } }))
}

/// A PersistentVolume with these fields of its spec.
pub(crate) fn volume_with(name: &str, spec: Value) -> PersistentVolume {
    let base = json!({ "metadata": { "name": name, "uid": uid("pv", name) }, "spec": {} });
    object(merged(base, json!({ "spec": spec })))
}

/// A PersistentVolume on one node, bound to a claim.
pub(crate) fn local_volume(name: &str, claim: &str, hostname: &str) -> PersistentVolume {
    let expression =
        json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [hostname] });
    volume_with(
        name,
        json!({
            "accessModes": ["ReadWriteOnce"],
            "claimRef": { "namespace": NAMESPACE, "name": claim, "uid": uid("claim", claim) },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } },
        }),
    )
}

/// A claim that says it is bound to a PersistentVolume.
pub(crate) fn bound_claim(name: &str, volume: &str, modes: &[&str]) -> PersistentVolumeClaim {
    object(json!({
        "metadata": { "namespace": NAMESPACE, "name": name, "uid": uid("claim", name) },
        "spec": { "volumeName": volume, "accessModes": modes },
        "status": { "phase": "Bound" },
    }))
}

pub(crate) fn attachment(volume: &str, node: &str, attached: bool) -> VolumeAttachment {
    object(json!({
        "metadata": { "name": format!("{volume}-{node}") },
        "spec": { "attacher": "lvm.example.com", "nodeName": node, "source": { "persistentVolumeName": volume } },
        "status": { "attached": attached },
    }))
}

/// An EraTracking with this spec.
pub(crate) fn tracking(name: &str, spec: Value) -> EraTracking {
    object(json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking",
        "metadata": { "namespace": NAMESPACE, "name": name, "uid": uid("et", name), "generation": 1,
                      "creationTimestamp": CREATED },
        "spec": spec,
    }))
}

/// The EraVolume of a claim on node `n1`, with what `over` says differently.
pub(crate) fn era_volume(claim: &str, over: Value) -> EraVolume {
    let base = json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraVolume",
        "metadata": { "namespace": NAMESPACE, "name": claim, "uid": uid("ev", claim), "generation": 1,
                      "creationTimestamp": CREATED, "finalizers": ["eratrack.dev/detach"] },
        "spec": {
            "claim": { "name": claim, "uid": uid("claim", claim) },
            "volume": { "name": format!("pv-{claim}"), "uid": uid("pv", &format!("pv-{claim}")) },
            "nodeName": "n1", "granularity": "256Ki",
        },
    });
    object(merged(base, over))
}

/// A condition in JSON.
pub(crate) fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": format!("because {reason}"),
            "lastTransitionTime": CREATED })
}

/// An EraSnapshot of a claim, with what `over` says differently.
pub(crate) fn snapshot(name: &str, claim: &str, over: Value) -> EraSnapshot {
    let base = json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot",
        "metadata": { "namespace": NAMESPACE, "name": name, "uid": uid("es", name), "generation": 1,
                      "creationTimestamp": CREATED, "resourceVersion": "7" },
        "spec": { "claimName": claim, "deadlineSeconds": 600 },
    });
    object(merged(base, over))
}
