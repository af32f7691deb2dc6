//! What the chart's roles grant, and what they do not: `kubectl auth can-i`.

use super::admission::{NAMESPACE, Who};
use crate::{cluster::Kubectl, failure::Outcome};

/// A verb, and the resources it is asked of.
type Verbs = &'static [(&'static str, &'static [&'static str])];

/// Who has a role, what it grants, and what it does not.
struct Role {
    who: Who,
    grants: Verbs,
    refuses: Verbs,
}

const ROLES: [Role; 4] = [
    Role {
        who: Who::Viewer,
        grants: &[("list", &["eratrackings", "eravolumes", "erasnapshots", "changedblockslices"])],
        refuses: &[
            ("create", &["erasnapshots"]),
            ("patch", &["eratrackings"]),
            ("delete", &["erasnapshots"]),
        ],
    },
    Role {
        who: Who::Editor,
        grants: &[
            ("create", &["eratrackings", "erasnapshots"]),
            ("patch", &["eratrackings", "erasnapshots"]),
            ("delete", &["eratrackings", "erasnapshots"]),
            ("get", &["changedblockslices"]),
        ],
        refuses: &[
            ("create", &["eravolumes", "changedblockslices"]),
            ("patch", &["eravolumes", "erasnapshots/status", "eratrackings/status"]),
            ("delete", &["eravolumes", "changedblockslices"]),
        ],
    },
    Role {
        who: Who::Controller,
        grants: &[
            ("watch", &["eratrackings", "eravolumes", "erasnapshots", "persistentvolumeclaims"]),
            ("watch", &["persistentvolumes", "nodes", "volumeattachments.storage.k8s.io"]),
            (
                "patch",
                &["eravolumes", "eratrackings/status", "eravolumes/status", "erasnapshots/status"],
            ),
            ("delete", &["eravolumes", "erasnapshots"]),
            ("create", &["events.events.k8s.io"]),
            // Merging.
            ("get", &["erasnapshots", "changedblockslices"]),
            ("create", &["changedblockslices"]),
            ("delete", &["changedblockslices"]),
        ],
        refuses: &[
            ("get", &["secrets"]),
            // Pods it sees in its own namespace only.
            ("list", &["pods"]),
            // By name alone.
            ("list", &["changedblockslices"]),
            ("watch", &["changedblockslices"]),
            ("patch", &["changedblockslices"]),
            ("create", &["pods", "eratrackings"]),
            (
                "patch",
                &["persistentvolumes", "persistentvolumeclaims", "eratrackings", "erasnapshots"],
            ),
            ("deletecollection", &["eravolumes"]),
        ],
    },
    Role {
        who: Who::Agent("one"),
        grants: &[
            ("watch", &["eravolumes", "erasnapshots"]),
            ("patch", &["eravolumes/status", "erasnapshots/status"]),
            ("get", &["persistentvolumes", "changedblockslices"]),
            ("create", &["changedblockslices", "events.events.k8s.io"]),
            ("delete", &["changedblockslices"]),
        ],
        refuses: &[
            ("get", &["pods", "persistentvolumeclaims", "nodes", "secrets"]),
            ("list", &["changedblockslices", "persistentvolumes"]),
            ("patch", &["eravolumes", "erasnapshots", "eratrackings/status"]),
            ("create", &["eravolumes", "erasnapshots"]),
            ("delete", &["eravolumes", "erasnapshots"]),
        ],
    },
];

/// Which of them the cluster sees otherwise.
pub(super) fn check_rights(admin: &Kubectl) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for role in ROLES {
        // In the test's own namespace the agent has been given more than its role.
        let namespace = if matches!(role.who, Who::Agent(_)) { "default" } else { NAMESPACE };
        let kubectl = role.who.kubectl(admin).in_namespace(namespace);
        for (verbs, granted) in [(role.grants, true), (role.refuses, false)] {
            for (verb, resources) in verbs {
                for resource in *resources {
                    wrong.extend(check(&kubectl, verb, resource, granted)?);
                }
            }
        }
    }
    Ok(wrong)
}

fn check(kubectl: &Kubectl, verb: &str, resource: &str, granted: bool) -> Outcome<Option<String>> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let subresource = format!("--subresource={subresource}");
    let output = kubectl.kubectl(&["auth", "can-i", verb, resource, &subresource], None)?;
    let differs = (output.stdout.trim() == "yes") != granted;
    Ok(differs.then(|| format!("`{}`: {}{}", output.command, output.stdout, output.stderr)))
}
