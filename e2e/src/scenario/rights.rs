//! What each account may ask of the API server, for everything it does: the chart's roles grant this and nothing else.
//!
//! Whoever adds a request to the controller or the agent adds its row here; the audit log of a cluster (`cluster::audit`)
//! has what was really asked.
#![cfg(test)]

use std::{collections::BTreeSet, fs};

use crate::paths;

/// A role, what it may do, on what.
type Row = (&'static str, &'static str, &'static str);

const CONTROLLER: &str = "eratrack-controller";
const AGENT: &str = "eratrack-agent";

const RIGHTS: [Row; 25] = [
    // The caches.
    (CONTROLLER, "list watch", "eratrack.dev/eratrackings"),
    (CONTROLLER, "list watch", "eratrack.dev/eravolumes"),
    (CONTROLLER, "list watch", "eratrack.dev/erasnapshots"),
    (CONTROLLER, "list watch", "/persistentvolumeclaims"),
    (CONTROLLER, "list watch", "/persistentvolumes"),
    (CONTROLLER, "list watch", "storage.k8s.io/volumeattachments"),
    (CONTROLLER, "list watch", "/pods"),
    // Whether a node is gone is asked of the API server itself.
    (CONTROLLER, "get list watch", "/nodes"),
    // An apply that makes an object needs both.
    (CONTROLLER, "create patch delete", "eratrack.dev/eravolumes"),
    (CONTROLLER, "create delete", "eratrack.dev/erasnapshots"),
    // A merge reads both snapshots and their lists, and writes the list of both; never by list or watch.
    (CONTROLLER, "get", "eratrack.dev/erasnapshots"),
    (CONTROLLER, "get create delete", "eratrack.dev/changedblockslices"),
    (CONTROLLER, "patch", "eratrack.dev/eratrackings/status"),
    (CONTROLLER, "patch", "eratrack.dev/eravolumes/status"),
    (CONTROLLER, "patch", "eratrack.dev/erasnapshots/status"),
    (CONTROLLER, "create", "coordination.k8s.io/leases"),
    (CONTROLLER, "get update", "coordination.k8s.io/leases eratrack-controller"),
    // An event that is sent again is patched.
    (CONTROLLER, "create patch", "events.k8s.io/events"),
    (AGENT, "get list watch", "eratrack.dev/eravolumes"),
    (AGENT, "get list watch", "eratrack.dev/erasnapshots"),
    (AGENT, "patch", "eratrack.dev/eravolumes/status"),
    (AGENT, "patch", "eratrack.dev/erasnapshots/status"),
    (AGENT, "get create delete", "eratrack.dev/changedblockslices"),
    (AGENT, "get", "/persistentvolumes"),
    (AGENT, "create patch", "events.k8s.io/events"),
];

/// Role, verb, group and resource, one by one.
type Rights = BTreeSet<(String, String, String)>;

fn needed() -> Rights {
    let rows = RIGHTS.iter().flat_map(|(role, verbs, resource)| {
        verbs.split(' ').map(|verb| (role.to_string(), verb.to_owned(), resource.to_string()))
    });
    rows.collect()
}

/// The rules of a rendered role, as the chart writes them: a list on a line.
fn granted(manifest: &str) -> Rights {
    let mut rights = Rights::new();
    for document in manifest.split("\n---\n") {
        let kinds = ["\nkind: ClusterRole\n", "\nkind: Role\n"];
        let name = document.lines().find_map(|line| line.strip_prefix("  name: "));
        let ours = name.filter(|name| [CONTROLLER, AGENT].contains(name));
        let (Some(role), true) = (ours, kinds.iter().any(|kind| document.contains(kind))) else {
            continue;
        };
        for rule in document.split("\n- apiGroups: ").skip(1) {
            rights.extend(of_rule(role, rule));
        }
    }
    rights
}

fn of_rule(role: &str, text: &str) -> Rights {
    let list = |words: &str| -> Vec<String> {
        let inside = words.trim().trim_start_matches('[').trim_end_matches(']');
        inside.split(", ").map(|word| word.trim_matches('"').to_owned()).collect()
    };
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(list);
    let groups = list(text.lines().next().unwrap_or_default());
    let (resources, verbs) = (field("  resources: "), field("  verbs: "));
    let name =
        field("  resourceNames: ").map(|it| format!(" {}", it.join(","))).unwrap_or_default();
    let mut rights = Rights::new();
    for group in &groups {
        for resource in resources.iter().flatten() {
            let resource = format!("{group}/{resource}{name}");
            let each =
                verbs.iter().flatten().map(|it| (role.to_owned(), it.clone(), resource.clone()));
            rights.extend(each);
        }
    }
    rights
}

#[test]
fn the_roles_grant_what_is_needed_and_nothing_else() {
    let manifest = fs::read_to_string(paths::workspace().join("manifests/install.yaml")).unwrap();
    let (granted, needed) = (granted(&manifest), needed());
    let superfluous: Vec<_> = granted.difference(&needed).collect();
    let missing: Vec<_> = needed.difference(&granted).collect();
    assert!(
        superfluous.is_empty() && missing.is_empty(),
        "too much: {superfluous:?}\ntoo little: {missing:?}"
    );
}
