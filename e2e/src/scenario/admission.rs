//! Who may write what: the chart's roles and its admission policy, tried with impersonated users.
//!
//! Needs the chart installed, and no controller at work, which would write to the objects too.

use serde_json::{Value, json};

use super::admission_rights::check_rights;
use crate::{
    cluster::{Kubectl, NAMESPACE as SYSTEM, Output},
    failure::Outcome,
};

pub(super) const NAMESPACE: &str = "admission-test";
const UID: &str = "0b5c1a52-6f0e-4b3f-9d6e-0c64d7c1a001";

/// Runs every case. All that failed are named at the end, not only the first.
pub(super) fn admission(admin: &Kubectl) -> Outcome {
    prepare(admin)?;
    let mut wrong = Vec::new();
    for case in cases() {
        wrong.extend(check(admin, &case)?);
    }
    wrong.extend(check_rights(admin)?);
    admin.run(&["delete", "namespace", NAMESPACE, "--wait=false"])?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// A user who may do everything in the namespace.
    Owner,
    /// Users with the cluster's own roles.
    Editor,
    Viewer,
    /// The agent with a token of that node, or with a token of none.
    Agent(&'static str),
    Controller,
    /// The part of the controller manager that deletes what belongs to deleted objects.
    GarbageCollector,
    /// The part of it that empties namespaces.
    NamespaceController,
}

impl Who {
    fn name(self) -> String {
        match self {
            Self::Owner => "owner".to_owned(),
            Self::Editor => "editor".to_owned(),
            Self::Viewer => "viewer".to_owned(),
            Self::Agent(_) => format!("system:serviceaccount:{SYSTEM}:eratrack-agent"),
            Self::Controller => format!("system:serviceaccount:{SYSTEM}:eratrack-controller"),
            Self::GarbageCollector => {
                "system:serviceaccount:kube-system:generic-garbage-collector".to_owned()
            }
            Self::NamespaceController => {
                "system:serviceaccount:kube-system:namespace-controller".to_owned()
            }
        }
    }

    pub(super) fn kubectl(self, admin: &Kubectl) -> Kubectl {
        let mut flags =
            vec![format!("--as={}", self.name()), "--as-group=system:authenticated".to_owned()];
        if let Self::Agent(node) = self
            && !node.is_empty()
        {
            flags.push(format!("--as-user-extra=authentication.kubernetes.io/node-name={node}"));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        admin.in_namespace(NAMESPACE).with_identity(&flags)
    }
}

/// What is asked.
enum Ask {
    Create(Value),
    /// A merge patch of the named object.
    Patch(&'static str, Value),
    /// A server-side apply, as the controller does it: it may not even read what it writes.
    Apply(Value),
    /// A server-side apply to the status of the named object, as ours do it.
    ApplyStatus(&'static str, Value),
    Delete(&'static str),
}

struct Case {
    who: Who,
    ask: Ask,
    /// Part of the refusal; nothing when it must be granted.
    refusal: Option<String>,
}

fn granted(who: Who, ask: Ask) -> Case {
    Case { who, ask, refusal: None }
}

fn refused(who: Who, ask: Ask, message: &str) -> Case {
    Case { who, ask, refusal: Some(message.to_owned()) }
}

const ON_NODE1: &str = "EraVolume/on-one";
const ON_NODE2: &str = "EraVolume/on-two";

fn cases() -> Vec<Case> {
    [agent_statuses(), agent_slices(), owner(), our_own()].into_iter().flatten().collect()
}

fn era(era: u32) -> Value {
    json!({ "era": era })
}

fn changed(text: &str) -> Value {
    json!({ "changed": text })
}

/// An agent writes the status of what is on its own node.
fn agent_statuses() -> Vec<Case> {
    let other = "the agent of node \"one\" may not write an object of node \"two\"";
    let nobody = "the agent of node \"one\" may not write an object of node \"\"";
    let unbound = "the agent of node \"\" may not write an object of node \"one\"";
    let agent = Who::Agent("one");
    let take = json!({ "spec": { "nodeName": "one" } });
    let assign = json!({ "nodeName": "one" });
    vec![
        granted(agent, Ask::ApplyStatus(ON_NODE1, era(1))),
        refused(agent, Ask::ApplyStatus(ON_NODE2, era(1)), other),
        refused(Who::Agent(""), Ask::ApplyStatus(ON_NODE1, era(2)), unbound),
        refused(agent, Ask::ApplyStatus("EraVolume/on-no-node", era(1)), nobody),
        granted(agent, Ask::ApplyStatus("EraSnapshot/on-one", changed("1Mi"))),
        refused(agent, Ask::ApplyStatus("EraSnapshot/on-two", changed("1Mi")), other),
        // It cannot give itself what nobody assigned to it.
        refused(agent, Ask::ApplyStatus("EraSnapshot/unassigned", assign.clone()), nobody),
        refused(agent, Ask::ApplyStatus("EraSnapshot/on-two", assign), other),
        // Even with the right to, which its role does not give it.
        refused(
            agent,
            Ask::Patch(ON_NODE1, json!({ "spec": { "granularity": "1Mi" } })),
            "an agent writes status and slices only",
        ),
        refused(agent, Ask::Patch("EraVolume/on-no-node", take), nobody),
        refused(
            agent,
            Ask::ApplyStatus("EraTracking/all", json!({ "matched": 1 })),
            "the agent of node \"one\"",
        ),
    ]
}

/// An agent writes slices in the name of its own node.
fn agent_slices() -> Vec<Case> {
    let agent = Who::Agent("one");
    vec![
        granted(agent, Ask::Create(slice("new-0", Some("one")))),
        refused(
            agent,
            Ask::Create(slice("other-0", Some("two"))),
            "may not write an object of node \"two\"",
        ),
        refused(agent, Ask::Create(slice("none-0", None)), "may not write an object of node \"\""),
        refused(
            Who::Agent(""),
            Ask::Create(slice("unbound-0", Some("one"))),
            "the agent of node \"\" may not write",
        ),
        granted(agent, Ask::Delete("changedblockslice/new-0")),
        refused(
            agent,
            Ask::Delete("changedblockslice/on-two-0"),
            "may not write an object of node \"two\"",
        ),
    ]
}

/// Whoever may do everything in a namespace still writes nothing of ours.
fn owner() -> Vec<Case> {
    let who = Who::Owner;
    let ours = |what: &str| {
        format!(
            "only the eratrack controller and agents write {what}; write an EraTracking or an EraSnapshot instead"
        )
    };
    vec![
        granted(who, Ask::Create(tracking("mine"))),
        granted(who, Ask::Create(snapshot("mine"))),
        granted(who, Ask::Delete("erasnapshot/mine")),
        granted(who, Ask::Patch("eratracking/mine", json!({ "spec": { "granularity": "1Mi" } }))),
        refused(who, Ask::Create(volume("mine", Some("one"))), &ours("eravolumes")),
        refused(
            who,
            Ask::Patch("EraVolume/on-no-node", json!({ "spec": { "nodeName": "two" } })),
            &ours("eravolumes"),
        ),
        refused(who, Ask::ApplyStatus(ON_NODE1, era(9)), &ours("eravolumes/status")),
        refused(
            who,
            Ask::ApplyStatus("EraTracking/mine", json!({ "matched": 9 })),
            &ours("eratrackings/status"),
        ),
        refused(
            who,
            Ask::ApplyStatus("EraSnapshot/on-one", changed("9Mi")),
            &ours("erasnapshots/status"),
        ),
        refused(who, Ask::Create(slice("mine-0", Some("one"))), &ours("changedblockslices")),
        refused(
            who,
            Ask::Delete("changedblockslice/on-two-0"),
            "only eratrack deletes changedblockslices; delete or edit the EraSnapshot instead",
        ),
        refused(
            who,
            Ask::Delete("eravolume/on-one"),
            "only eratrack deletes eravolumes; delete or edit the EraTracking instead",
        ),
        granted(who, Ask::Patch(ON_NODE1, json!({ "metadata": { "labels": { "a": "b" } } }))),
        // A finalizer may have to be taken off by hand, and is never put on.
        refused(
            who,
            Ask::Patch("eravolume/held", finalizers(&["a.example.com/x", "b.example.com/y"])),
            &ours("eravolumes"),
        ),
        granted(who, Ask::Patch("eravolume/held", finalizers(&[]))),
    ]
}

fn finalizers(list: &[&str]) -> Value {
    json!({ "metadata": { "finalizers": list } })
}

/// The controller, and the cluster itself.
fn our_own() -> Vec<Case> {
    let who = Who::Controller;
    vec![
        granted(who, Ask::Create(volume("new", None))),
        granted(who, Ask::Apply(volume("new", Some("two")))),
        granted(who, Ask::Apply(volume("newer", Some("two")))),
        granted(who, Ask::ApplyStatus("EraVolume/new", era(1))),
        granted(who, Ask::ApplyStatus("EraTracking/all", json!({ "matched": 1 }))),
        granted(who, Ask::ApplyStatus("EraSnapshot/unassigned", json!({ "nodeName": "one" }))),
        granted(who, Ask::Create(snapshot("new"))),
        granted(who, Ask::Delete("erasnapshot/new")),
        granted(who, Ask::Create(slice("merged-0", None))),
        granted(who, Ask::Delete("changedblockslice/merged-0")),
        granted(who, Ask::Delete("eravolume/new")),
        granted(Who::GarbageCollector, Ask::Delete("changedblockslice/on-two-0")),
        granted(Who::GarbageCollector, Ask::Delete("eravolume/on-two")),
        granted(Who::NamespaceController, Ask::Delete("eravolume/on-no-node")),
    ]
}

fn check(admin: &Kubectl, case: &Case) -> Outcome<Option<String>> {
    let kubectl = case.who.kubectl(admin);
    let output = match &case.ask {
        Ask::Create(object) => kubectl.kubectl(&["create", "-f", "-"], Some(&object.to_string())),
        Ask::Patch(object, patch) => {
            kubectl.kubectl(&["patch", object, "--type=merge", "--patch", &patch.to_string()], None)
        }
        Ask::Apply(object) => {
            let arguments =
                ["apply", "--server-side", "--force-conflicts", "--field-manager=test", "-f", "-"];
            kubectl.kubectl(&arguments, Some(&object.to_string()))
        }
        Ask::ApplyStatus(name, status) => apply_status(&kubectl, name, status),
        Ask::Delete(object) => kubectl.kubectl(&["delete", object, "--wait=false"], None),
    }?;
    Ok(match &case.refusal {
        None if output.success => None,
        None => Some(format!("`{}` must be granted, but: {}", output.command, output.stderr)),
        Some(_) if output.success => {
            Some(format!("`{}` must be refused, but was granted", output.command))
        }
        Some(message) if output.stderr.contains(message) => None,
        Some(message) => Some(format!(
            "`{}` must be refused with {message:?}, but: {}",
            output.command, output.stderr
        )),
    })
}

fn apply_status(kubectl: &Kubectl, name: &str, status: &Value) -> Outcome<Output> {
    let (kind, name) = name.split_once('/').unwrap_or_default();
    let mut manifest = object(kind, name);
    manifest["status"] = status.clone();
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--subresource=status",
        "--field-manager=test",
        "-f",
        "-",
    ];
    kubectl.kubectl(&arguments, Some(&manifest.to_string()))
}

/// The objects and the roles that the cases need.
fn prepare(admin: &Kubectl) -> Outcome {
    admin.run(&["create", "namespace", NAMESPACE])?;
    let kubectl = admin.in_namespace(NAMESPACE);
    let roles =
        [("all", "owner", "cluster-admin"), ("edit", "editor", "edit"), ("view", "viewer", "view")];
    for (name, user, role) in roles {
        kubectl.run(&[
            "create",
            "rolebinding",
            name,
            &format!("--clusterrole={role}"),
            &format!("--user={user}"),
        ])?;
    }
    // More than its own role gives the agent, so that the policy has to answer.
    let agent = format!("--serviceaccount={SYSTEM}:eratrack-agent");
    kubectl.run(&["create", "rolebinding", "agent", "--clusterrole=cluster-admin", &agent])?;
    let mut held = volume("held", Some("one"));
    held["metadata"]["finalizers"] = json!(["a.example.com/x"]);
    let objects = [
        volume("on-one", Some("one")),
        volume("on-two", Some("two")),
        volume("on-no-node", None),
        held,
        snapshot("on-one"),
        snapshot("on-two"),
        snapshot("unassigned"),
        slice("on-two-0", Some("two")),
        tracking("all"),
    ];
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    kubectl.kubectl(&["create", "-f", "-"], Some(&list.to_string()))?.ok()?;
    for node in ["one", "two"] {
        let status = json!({ "status": { "nodeName": node } }).to_string();
        let object = format!("erasnapshot/on-{node}");
        kubectl.run(&[
            "patch",
            &object,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &status,
        ])?;
    }
    Ok(())
}

fn object(kind: &str, name: &str) -> Value {
    json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": kind, "metadata": { "name": name } })
}

fn tracking(name: &str) -> Value {
    let mut it = object("EraTracking", name);
    it["spec"] = json!({ "claims": { "names": ["no-such-claim"] } });
    it
}

fn volume(name: &str, node: Option<&str>) -> Value {
    let mut it = object("EraVolume", name);
    it["spec"] = json!({
        "claim": { "name": name, "uid": UID },
        "volume": { "name": "pv", "uid": UID },
        "granularity": "256Ki",
    });
    if let Some(node) = node {
        it["spec"]["nodeName"] = node.into();
    }
    it
}

fn snapshot(name: &str) -> Value {
    let mut it = object("EraSnapshot", name);
    it["spec"] = json!({ "claimName": "no-such-claim" });
    it
}

/// A slice by its own name, `<snapshot>-0`.
fn slice(name: &str, node: Option<&str>) -> Value {
    let mut it = object("ChangedBlockSlice", name);
    let fields = json!({
        "snapshot": { "name": name.trim_end_matches("-0"), "uid": UID },
        "index": 0, "count": 1, "blockSizeBytes": 4096,
        "blocks": 1, "first": 7, "last": 7, "encoding": "List", "ranges": "7",
    });
    for (field, value) in fields.as_object().into_iter().flatten() {
        it[field] = value.clone();
    }
    if let Some(node) = node {
        it["nodeName"] = node.into();
    }
    it
}
