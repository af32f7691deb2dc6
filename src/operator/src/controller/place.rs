//! To which node a volume belongs, and whether writes of other nodes could go unseen.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim,
};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this node, and on no other.
    Node(String),
    /// Nobody can tell; with what was looked at.
    Unknown(String),
    /// It may be written from several nodes at once; with what says so.
    Shared(String),
}

impl Place {
    /// The node, if there is one.
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::Node(name) => Some(name),
            Self::Unknown(_) | Self::Shared(_) => None,
        }
    }
}

/// Everything that says where volumes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    /// All nodes.
    pub(crate) nodes: Vec<Arc<Node>>,
    /// All attachments.
    pub(crate) attachments: Vec<Arc<VolumeAttachment>>,
}

impl Map {
    /// Finds a bound volume's node: the only one that its affinity matches, else the one it is attached to, else the
    /// `current` one. An idle volume stays with its node, so that its tracking stays too.
    pub(crate) fn place(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
        current: Option<&str>,
    ) -> Place {
        let affinity = volume.spec.as_ref().and_then(|it| it.node_affinity.as_ref());
        let required = affinity.and_then(|it| it.required.as_ref());
        let matching = required.map(|it| self.matching(it));
        let pinned = match matching.as_deref() {
            Some([only]) => Some(only.clone()),
            _ => None,
        };
        if let Some(message) = shared(volume, claim, pinned.is_some()) {
            return Place::Shared(message);
        }
        pinned
            .or_else(|| self.attached(&volume.name_any()))
            .or_else(|| current.map(String::from))
            .map_or_else(|| Place::Unknown(unknown(volume, matching.as_deref())), Place::Node)
    }

    fn matching(&self, required: &NodeSelector) -> Vec<String> {
        let nodes = self.nodes.iter().filter(|node| selects(required, node));
        nodes.map(|node| node.name_any()).collect()
    }

    /// The node a volume is attached to, if it is one alone.
    fn attached(&self, volume: &str) -> Option<String> {
        let mut nodes = self.attachments.iter().filter_map(|it| {
            let of_volume = it.spec.source.persistent_volume_name.as_deref() == Some(volume);
            let attached = it.status.as_ref().is_some_and(|status| status.attached);
            (of_volume && attached).then_some(&it.spec.node_name)
        });
        let first = nodes.next()?;
        nodes.all(|node| node == first).then(|| first.clone())
    }
}

/// What lets several nodes write at once. The attach controller goes by the volume's modes, so the claim's
/// alone prove nothing; `ReadOnlyMany` lets a volume be attached to several nodes, unless only one can have it.
fn shared(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    pinned: bool,
) -> Option<String> {
    let of_volume = volume.spec.as_ref().and_then(|it| it.access_modes.as_deref());
    let of_claim = claim.spec.as_ref().and_then(|it| it.access_modes.as_deref());
    let sides =
        [("PersistentVolume", volume.name_any(), of_volume), ("claim", claim.name_any(), of_claim)];
    sides.into_iter().find_map(|(kind, name, modes)| {
        let mode = modes.unwrap_or_default().iter().find(|mode| match mode.as_str() {
            "ReadWriteOnce" | "ReadWriteOncePod" => false,
            "ReadOnlyMany" => !pinned,
            _ => true,
        })?;
        Some(format!(
            "{kind} {name} has accessModes {mode}: another node's writes would go unseen; use ReadWriteOnce"
        ))
    })
}

fn unknown(volume: &PersistentVolume, matching: Option<&[String]>) -> String {
    let name = volume.name_any();
    let affinity = match matching {
        None => "has no nodeAffinity".to_owned(),
        Some([]) => "has a nodeAffinity that no node matches".to_owned(),
        Some(nodes) => format!("has a nodeAffinity that {} nodes match", nodes.len()),
    };
    format!(
        "PersistentVolume {name} {affinity}, and no single VolumeAttachment names its node; \
         it is known once a pod uses the claim, if the driver attaches volumes"
    )
}

/// Whether one term of a node selector matches; a term without any requirement matches nothing.
fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_name = BTreeMap::from([("metadata.name".to_owned(), node.name_any())]);
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|it| requirement_holds(it, node.labels()))
        && fields.iter().all(|it| requirement_holds(it, &by_name))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, on: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let found = on.get(&requirement.key);
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| {
        let wanted = values.first().and_then(number);
        found.and_then(number).zip(wanted).is_some_and(|(have, wanted)| holds(have, wanted))
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|it| values.contains(it)),
        "NotIn" => !found.is_some_and(|it| values.contains(it)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|have, wanted| have > wanted),
        "Lt" => compare(|have, wanted| have < wanted),
        // An operator of a later Kubernetes: matching nothing is the careful answer.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::testing::{attachment, bound_claim, node, volume_with};

    fn map() -> Map {
        let nodes = [
            node("a", &[("kubernetes.io/hostname", "host-a"), ("zone", "1"), ("disks", "4")]),
            node("b", &[("kubernetes.io/hostname", "host-b"), ("zone", "1")]),
        ];
        Map { nodes: nodes.map(Arc::new).into(), attachments: Vec::new() }
    }

    fn affinity(terms: &Value) -> Value {
        json!({ "nodeAffinity": { "required": { "nodeSelectorTerms": terms } } })
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }])
    }

    fn placed(map: &Map, spec: Value, modes: &[&str], current: Option<&str>) -> Place {
        map.place(&volume_with("pv", spec), &bound_claim("c", "pv", modes), current)
    }

    #[test]
    fn affinity_goes_by_labels_not_by_names() {
        let table = [
            (expression("kubernetes.io/hostname", "In", &["host-a"]), Some("a")),
            (expression("kubernetes.io/hostname", "In", &["a"]), None),
            (expression("kubernetes.io/hostname", "NotIn", &["host-a"]), Some("b")),
            (expression("zone", "In", &["1"]), None),
            (expression("disks", "Exists", &[]), Some("a")),
            (expression("disks", "DoesNotExist", &[]), Some("b")),
            (expression("disks", "Gt", &["3"]), Some("a")),
            (expression("disks", "Lt", &["3"]), None),
            (expression("disks", "About", &["4"]), None),
            (json!([{}]), None),
            (
                json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["b"] }] }]),
                Some("b"),
            ),
        ];
        for (terms, expected) in table {
            let place = placed(&map(), affinity(&terms), &["ReadWriteOnce"], None);
            assert_eq!(place.node(), expected, "{terms}");
        }
    }

    #[test]
    fn an_attachment_decides_when_the_affinity_does_not() {
        let mut map = map();
        let zone = affinity(&expression("zone", "In", &["1"]));
        map.attachments =
            vec![Arc::new(attachment("pv", "b", true)), Arc::new(attachment("other", "a", true))];
        assert_eq!(
            placed(&map, zone.clone(), &["ReadWriteOnce"], Some("a")),
            Place::Node("b".into())
        );
        map.attachments = vec![Arc::new(attachment("pv", "b", false))];
        assert_eq!(
            placed(&map, zone.clone(), &["ReadWriteOnce"], Some("a")),
            Place::Node("a".into()),
            "it stays"
        );
        map.attachments =
            vec![Arc::new(attachment("pv", "a", true)), Arc::new(attachment("pv", "b", true))];
        let Place::Unknown(message) = placed(&map, zone, &["ReadWriteOnce"], None) else {
            panic!("two nodes")
        };
        assert!(message.contains("pv") && message.contains("2 nodes"), "{message}");
    }

    #[test]
    fn what_several_nodes_may_write_is_refused() {
        let pinned = affinity(&expression("disks", "Exists", &[]));
        let table = [
            (pinned.clone(), &["ReadWriteOncePod"][..], true),
            (pinned.clone(), &["ReadWriteOnce", "ReadOnlyMany"], true),
            (pinned, &["ReadWriteMany"], false),
            (json!({}), &["ReadWriteOnce"], true),
            (json!({}), &["ReadWriteOnce", "ReadOnlyMany"], false),
            (
                json!({ "accessModes": ["ReadWriteOnce", "ReadWriteMany"] }),
                &["ReadWriteOnce"],
                false,
            ),
        ];
        for (spec, modes, allowed) in table {
            let place = placed(&map(), spec.clone(), modes, Some("a"));
            assert_eq!(place.node().is_some(), allowed, "{spec} {modes:?}: {place:?}");
        }
    }
}
