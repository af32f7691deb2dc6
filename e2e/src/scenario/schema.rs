//! What the API server makes of the definitions: every rule once satisfied and once broken, with the message a user sees.
//!
//! Needs the definitions installed, and no controller at work, which would write to the objects too.

use serde_json::{Value, json};

use super::schema_cases::{
    Created, Expectation, Transition, Write, created, headers, selected, transitions,
    written_defaults,
};
use crate::{
    cluster::{Kubectl, Output},
    failure::Outcome,
};

const NAMESPACE: &str = "schema-test";

/// Runs every case. All that failed are named at the end, not only the first.
pub(super) fn schema(admin: &Kubectl) -> Outcome {
    admin.run(&["create", "namespace", NAMESPACE])?;
    let kubectl = admin.in_namespace(NAMESPACE);
    let mut wrong = Vec::new();
    wrong.extend(check_selection(&kubectl)?);
    wrong.extend(check_defaults(&kubectl)?);
    wrong.extend(check_headers(&kubectl)?);
    wrong.extend(check_accepted(&kubectl)?);
    for case in created() {
        wrong.extend(check_refused(&kubectl, &case)?);
    }
    wrong.extend(check_transitions(&kubectl)?);
    admin.run(&["delete", "namespace", NAMESPACE, "--wait=false"])?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// What is wrong with the outcome, if anything.
fn judge(name: &str, output: &Output, expectation: &Expectation) -> Option<String> {
    let said = format!("{}{}", output.stdout, output.stderr);
    match expectation {
        Expectation::Accepted if output.success => None,
        Expectation::Accepted => Some(format!("{name}: must be accepted, but: {said}")),
        Expectation::Refused(_) if output.success => {
            Some(format!("{name}: must be refused, but was accepted"))
        }
        Expectation::Refused(message) if said.contains(message) => None,
        Expectation::Refused(message) => {
            Some(format!("{name}: must be refused with {message:?}, but: {said}"))
        }
    }
}

/// All that must be accepted, in one call: starting kubectl takes longer than the API server's answer.
fn check_accepted(kubectl: &Kubectl) -> Outcome<Option<String>> {
    let good: Vec<Value> = created()
        .into_iter()
        .filter(|case| matches!(case.expectation, Expectation::Accepted))
        .map(|case| case.object)
        .collect();
    let output = kubectl.kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&list(&good)))?;
    let count = output.stdout.lines().count();
    Ok((count != good.len())
        .then(|| format!("{count} of {} were accepted: {}", good.len(), output.stderr)))
}

fn check_refused(kubectl: &Kubectl, case: &Created) -> Outcome<Option<String>> {
    if matches!(case.expectation, Expectation::Accepted) {
        return Ok(None);
    }
    let manifest = case.object.to_string();
    let output = kubectl.kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&manifest))?;
    Ok(judge(case.name, &output, &case.expectation))
}

fn check_transitions(kubectl: &Kubectl) -> Outcome<Vec<String>> {
    let cases = transitions();
    let objects: Vec<Value> = cases.iter().map(|case| case.object.clone()).collect();
    kubectl.kubectl(&["create", "-f", "-"], Some(&list(&objects)))?.ok()?;
    let mut wrong = Vec::new();
    for case in cases {
        wrong.extend(check_transition(kubectl, &case)?);
    }
    Ok(wrong)
}

fn check_transition(kubectl: &Kubectl, case: &Transition) -> Outcome<Option<String>> {
    let object = target(&case.object);
    for before in &case.before {
        write(kubectl, &object, before)?
            .ok()
            .map_err(|error| format!("{}: before: {error}", case.name))?;
    }
    let output = write(kubectl, &object, &case.write)?;
    Ok(judge(case.name, &output, &case.expectation))
}

fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

fn write(kubectl: &Kubectl, object: &str, write: &Write) -> Outcome<Output> {
    let (patch, flags): (&Value, &[&str]) = match write {
        Write::Object(patch) => (patch, &[]),
        Write::Status(patch) => (patch, &["--subresource=status"]),
    };
    let patch = patch.to_string();
    kubectl.kubectl(&[&["patch", object, "--type=merge", "--patch", &patch], flags].concat(), None)
}

/// `kind/name`, as kubectl wants it.
fn target(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn check_defaults(kubectl: &Kubectl) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for (object, expected) in written_defaults() {
        let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let text = kubectl.kubectl(&arguments, Some(&object.to_string()))?.ok()?;
        let spec = serde_json::from_str::<Value>(&text)?["spec"].take();
        if spec != expected {
            wrong.push(format!("defaults: {spec} instead of {expected}"));
        }
    }
    Ok(wrong)
}

/// A selection by field finds the one object that has it, and not the other.
fn check_selection(kubectl: &Kubectl) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for (objects, selector) in selected() {
        let objects: Vec<(Value, Option<Write>)> = objects.into();
        for (object, status) in &objects {
            kubectl.kubectl(&["create", "-f", "-"], Some(&object.to_string()))?.ok()?;
            if let Some(status) = status {
                write(kubectl, &target(object), status)?.ok()?;
            }
        }
        let kind = objects[0].0["kind"].as_str().unwrap_or_default();
        let found = kubectl.run(&["get", kind, "--field-selector", selector, "-o", "name"])?;
        let name = objects[0].0["metadata"]["name"].as_str().unwrap_or_default();
        if found.lines().count() != 1 || !found.trim().ends_with(&format!("/{name}")) {
            wrong.push(format!("{kind} with {selector}: found {found:?} instead of {name}"));
        }
        for (object, _) in &objects {
            kubectl.run(&["delete", &target(object), "--wait=false"])?;
        }
    }
    Ok(wrong)
}

/// The first line of the tables, as users read it.
fn check_headers(kubectl: &Kubectl) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for (object, short_name, expected) in headers() {
        kubectl.kubectl(&["create", "-f", "-"], Some(&object.to_string()))?.ok()?;
        let table = kubectl.run(&["get", short_name])?;
        let header: Vec<&str> =
            table.lines().next().unwrap_or_default().split_whitespace().collect();
        if header.join(" ") != expected {
            wrong.push(format!("kubectl get {short_name}: {header:?} instead of {expected:?}"));
        }
        kubectl.run(&["delete", &target(&object), "--wait=false"])?;
    }
    Ok(wrong)
}
