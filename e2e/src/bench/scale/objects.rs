//! The objects of a large cluster: nodes, claims, and snapshots as if the schedule had run for a while. Pure.

use serde_json::{Value, json};

use crate::cluster::{NAMESPACE as PRODUCT, hex_digest};

/// The namespaces, each with an EraTracking of all its claims.
pub(super) const NAMESPACES: usize = 10;
pub(super) const NODES: usize = 20;
/// The snapshots of each claim that are there at the beginning: one less than are kept by default.
pub(super) const PAST: usize = 23;
/// So many of these, the oldest, have a list: more than are pruned while somebody counts.
pub(super) const WITH_LIST: usize = 10;

const BLOCK: u64 = 256 << 10;
const BLOCKS: u64 = (100 << 30) / BLOCK;
const RANGES: &str = "0-9";

/// A claim, and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: String,
}

/// So many claims, spread over namespaces and nodes.
pub(super) fn claims(count: usize) -> Vec<Claim> {
    let claim = |index: usize| Claim {
        namespace: namespace(index % NAMESPACES),
        name: format!("claim-{}", index / NAMESPACES),
        node: node(index / NAMESPACES % NODES),
    };
    (0..count).map(claim).collect()
}

pub(super) fn namespace(index: usize) -> String {
    format!("scale-{index}")
}

pub(super) fn node(index: usize) -> String {
    format!("virtual-{index}")
}

/// A list, as kubectl takes it.
pub(super) fn list(items: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// A node that is an object alone.
pub(super) fn node_object(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } })
}

/// A pod that stands for the agent of a node, and then its status.
pub(super) fn agent_pod(node: &str) -> (Value, Value) {
    let metadata = json!({ "name": format!("agent-of-{node}"), "namespace": PRODUCT,
        "labels": { "app.kubernetes.io/name": "eratrack", "app.kubernetes.io/component": "agent" } });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": { "nodeName": node, "containers": [{ "name": "agent", "image": "none" }] } });
    let ready = json!({ "type": "Ready", "status": "True" });
    let status = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": metadata["name"], "namespace": PRODUCT },
        "status": { "phase": "Running", "conditions": [ready] } });
    (pod, status)
}

/// The claim, bound already, and then its status.
pub(super) fn claim_object(claim: &Claim) -> (Value, Value) {
    let metadata = json!({ "name": claim.name, "namespace": claim.namespace });
    let size = json!({ "storage": "100Gi" });
    let object = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata,
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "volumeName": volume_name(claim),
                  "resources": { "requests": size } } });
    let status = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata,
        "status": { "phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": size } });
    (object, status)
}

/// The PersistentVolume of the claim with this uid.
pub(super) fn volume_object(claim: &Claim, uid: &str) -> Value {
    let expression =
        json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [claim.node] });
    json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": volume_name(claim) },
        "spec": {
            "capacity": { "storage": "100Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "claimRef": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace,
                          "name": claim.name, "uid": uid },
            "local": { "path": format!("/dev/data/{}", volume_name(claim)) },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } },
        } })
}

pub(super) fn volume_name(claim: &Claim) -> String {
    format!("{}-{}", claim.namespace, claim.name)
}

/// The EraTracking of all claims of a namespace.
pub(super) fn tracking(namespace: &str, snapshots: Option<&Value>) -> Value {
    let mut spec = json!({ "claims": { "selector": {} } });
    if let Some(snapshots) = snapshots {
        spec["snapshots"] = snapshots.clone();
    }
    json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking",
        "metadata": { "name": "all", "namespace": namespace }, "spec": spec })
}

/// A claim whose volume and EraTracking are there.
#[derive(Clone, Debug)]
pub(super) struct Tracked<'a> {
    pub(super) claim: &'a Claim,
    /// The PersistentVolume's, which also names its chain.
    pub(super) volume_uid: String,
    pub(super) tracking_uid: &'a str,
}

/// A snapshot that was scheduled for a minute, as `YYYYMMDDhhmm`.
pub(super) fn snapshot(of: &Tracked<'_>, minute: &str) -> Value {
    let owner = json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking", "name": "all",
        "uid": of.tracking_uid, "controller": true, "blockOwnerDeletion": true });
    json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot",
        "metadata": {
            "name": format!("{}-{minute}", of.claim.name), "namespace": of.claim.namespace, "ownerReferences": [owner],
            "labels": { "eratrack.dev/tracking": "all", "app.kubernetes.io/managed-by": "eratrack",
                        "velero.io/exclude-from-backup": "true" },
        },
        "spec": { "claimName": of.claim.name, "deadlineSeconds": 600 } })
}

/// What became of one of these, the era of which is `index + 1`; the first one is full. `time` is its boundary's.
pub(super) fn snapshot_status(
    of: &Tracked<'_>,
    (index, name): (usize, &str),
    time: &str,
    base: Option<(&str, &str)>,
) -> Value {
    let (listed, blocks) = if index < WITH_LIST { (RANGES, 10) } else { ("", 0) };
    let ready = json!({ "type": "Ready", "status": "True", "reason": "Complete", "message": "some of 100Gi changed",
        "lastTransitionTime": time, "observedGeneration": 1 });
    let slices = json!({ "count": usize::from(!listed.is_empty()), "first": 0, "bytes": listed.len(),
        "sha256": hex_digest(listed.as_bytes()) });
    let mut status = json!({ "nodeName": of.claim.node, "volumeUID": of.volume_uid, "chainID": of.volume_uid,
        "boundaryTime": time, "era": index + 1, "type": "Full", "fullReason": "NoBaseline",
        "sizeBytes": BLOCKS * BLOCK, "blockSizeBytes": BLOCK, "changed": "some", "changedBytes": blocks * BLOCK,
        "changedBlocks": blocks, "listedBytes": blocks * BLOCK, "ranges": blocks / 10, "slices": slices, "conditions": [ready] });
    if let (Some((name, uid)), Some(fields)) = (base, status.as_object_mut()) {
        fields.remove("fullReason");
        fields.insert("type".into(), json!("Incremental"));
        fields.insert("sinceEra".into(), json!(index));
        fields.insert("base".into(), json!({ "name": name, "uid": uid }));
    }
    json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot",
        "metadata": { "name": name, "namespace": of.claim.namespace }, "status": status })
}

/// Its list.
pub(super) fn slice(of: &Tracked<'_>, name: &str, uid: &str) -> Value {
    let owner = json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot", "name": name, "uid": uid });
    json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": "ChangedBlockSlice",
        "metadata": {
            "name": format!("{name}-0"), "namespace": of.claim.namespace, "ownerReferences": [owner],
            "labels": { "app.kubernetes.io/managed-by": "eratrack", "velero.io/exclude-from-backup": "true" },
        },
        "snapshot": { "name": name, "uid": uid }, "nodeName": of.claim.node, "index": 0, "count": 1,
        "blockSizeBytes": BLOCK, "blocks": 10, "first": 0, "last": 9, "encoding": "List", "ranges": RANGES })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_spread_over_namespaces_and_nodes() {
        let all = claims(1000);
        let here: Vec<_> = all.iter().filter(|it| it.namespace == namespace(3)).collect();
        assert_eq!(here.len(), 100);
        assert_eq!(here.iter().filter(|it| it.node == node(7)).count(), 5);
        assert_eq!(all.iter().filter(|it| it.node == node(0)).count(), 50);
    }

    #[test]
    fn the_first_snapshot_is_full_and_each_later_one_joins_on() {
        let claim = claims(1).remove(0);
        let of = Tracked { claim: &claim, volume_uid: "v".into(), tracking_uid: "t" };
        let first = snapshot_status(&of, (0, "a"), "2026-01-01T00:00:00Z", None);
        assert_eq!(
            (&first["status"]["type"], &first["status"]["era"]),
            (&json!("Full"), &json!(1))
        );
        let second = snapshot_status(&of, (1, "b"), "2026-01-01T00:01:00Z", Some(("a", "u")));
        let status = &second["status"];
        assert_eq!((&status["sinceEra"], &status["era"]), (&json!(1), &json!(2)));
        assert_eq!((&status["fullReason"], &status["base"]["uid"]), (&Value::Null, &json!("u")));
        let late = snapshot_status(&of, (WITH_LIST, "c"), "2026-01-01T00:20:00Z", Some(("b", "u")));
        let status = &late["status"];
        assert_eq!((&status["slices"]["count"], &status["changedBlocks"]), (&json!(0), &json!(0)));
    }
}
