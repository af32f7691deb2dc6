//! Objects for tests, made from the few words that matter.

use clap::Parser;
use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use serde_json::{Value, json};

use super::{KubectlCommand, Plugin};

/// The command that a user's words are.
pub(super) fn parse(words: &[&str]) -> KubectlCommand {
    let plugin = Plugin::try_parse_from([&["kubectl-era"], words].concat()).unwrap();
    plugin.asked().unwrap().command
}

/// A condition as it stands in a manifest.
pub(super) fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

pub(super) fn tracking(namespace: &str, name: &str, status: &Value) -> EraTracking {
    object(&json!({"kind": "EraTracking", "apiVersion": "eratrack.dev/v1alpha1",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"claims": {"selector": {}}}, "status": status}))
}

pub(super) fn volume(namespace: &str, claim: &str, tracking: &str, status: &Value) -> EraVolume {
    object(&json!({"kind": "EraVolume", "apiVersion": "eratrack.dev/v1alpha1",
        "metadata": {"namespace": namespace, "name": claim, "labels": {"eratrack.dev/tracking": tracking}},
        "spec": {"claim": {"name": claim, "uid": "c"}, "volume": {"name": format!("pv-{claim}"), "uid": "v"},
            "nodeName": "node1", "granularity": "256Ki"},
        "status": status}))
}

pub(super) fn snapshot(namespace: &str, claim: &str, name: &str, status: &Value) -> EraSnapshot {
    object(&json!({"kind": "EraSnapshot", "apiVersion": "eratrack.dev/v1alpha1",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-of-{name}")},
        "spec": {"claimName": claim}, "status": status}))
}

fn object<K: serde::de::DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}
