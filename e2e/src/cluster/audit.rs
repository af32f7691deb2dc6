//! What eratrack asks of the API server, as the API server's own audit log has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::NAMESPACE;
use crate::failure::Outcome;

/// The log of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    policy: PathBuf,
    log: PathBuf,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    /// The account without its prefix: `eratrack-agent`, `eratrack-controller`.
    pub(crate) account: String,
    /// `get`, `watch`, `patch`, …
    pub(crate) verb: String,
    /// The resource with its subresource: `eravolumes/status`.
    pub(crate) resource: String,
}

impl Request {
    /// Whether somebody who only waits makes it: the leader renews its Lease, a watch is opened again when its time is up.
    pub(crate) fn rests(&self) -> bool {
        self.verb == "watch" || self.resource == "leases"
    }
}

/// Which requests were made, and how often.
pub(crate) type Requests = BTreeMap<Request, usize>;

impl Audit {
    /// Writes the policy: who asked what, nothing of what was in it, for eratrack's accounts alone.
    pub(super) fn prepare(run: &Path, logs: &Path) -> Outcome<Self> {
        let audit = Self { policy: run.join("audit.yaml"), log: logs.join("audit.log") };
        let accounts = ["agent", "controller"].map(|it| format!("\"{}eratrack-{it}\"", prefix()));
        let policy = format!(
            "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {{level: Metadata, users: [{}]}}
- {{level: None}}
",
            accounts.join(", ")
        );
        fs::write(&audit.policy, policy)?;
        // That of an earlier cluster would be counted too.
        fs::write(&audit.log, "")?;
        Ok(audit)
    }

    /// The API server's policy file.
    pub(super) fn policy(&self) -> &Path {
        &self.policy
    }

    /// The API server's log file.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Where the log ends now: what is asked later stands behind it.
    pub(crate) fn now(&self) -> Outcome<usize> {
        Ok(usize::try_from(fs::metadata(&self.log)?.len())?)
    }

    /// What was asked since.
    pub(crate) fn since(&self, start: usize) -> Outcome<Requests> {
        let text = fs::read(&self.log)?;
        let text = String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        requests(whole)
    }
}

/// Service accounts as the API server calls them.
fn prefix() -> String {
    format!("system:serviceaccount:{NAMESPACE}:")
}

fn requests(log: &str) -> Outcome<Requests> {
    let mut seen = BTreeSet::new();
    let mut requests = Requests::new();
    for line in log.lines() {
        let event: Event = serde_json::from_str(line)?;
        // A watch is told of when it begins and when it ends.
        if seen.insert(event.audit_id.clone()) {
            *requests.entry(event.request()).or_default() += 1;
        }
    }
    Ok(requests)
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    verb: String,
    user: User,
    #[serde(rename = "objectRef", default)]
    object: Object,
    #[serde(rename = "requestURI")]
    uri: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
}

impl Event {
    fn request(&self) -> Request {
        let Object { resource, subresource } = &self.object;
        let resource = match (resource.as_str(), subresource.as_str()) {
            ("", _) => self.uri.clone(),
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        let account = self.user.username.strip_prefix(&prefix()).unwrap_or(&self.user.username);
        Request { account: account.to_owned(), verb: self.verb.clone(), resource }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, verb: &str, object: &str) -> String {
        format!(
            r#"{{"auditID":"{id}","verb":"{verb}","requestURI":"/version","user":{{"username":"system:serviceaccount:eratrack-system:eratrack-agent"}}{object}}}"#
        )
    }

    #[test]
    fn each_request_is_counted_once_by_account_verb_and_resource() {
        let watch = event("a", "watch", r#","objectRef":{"resource":"eravolumes"}"#);
        let status =
            r#","objectRef":{"resource":"eravolumes","subresource":"status","name":"data"}"#;
        let log = [
            watch.clone(),
            watch,
            event("b", "patch", status),
            event("c", "patch", status),
            event("d", "get", ""),
        ];
        let requests = requests(&log.join("\n")).unwrap();
        let request = |verb: &str, resource: &str| Request {
            account: "eratrack-agent".into(),
            verb: verb.into(),
            resource: resource.into(),
        };
        let expected = [
            (request("watch", "eravolumes"), 1),
            (request("patch", "eravolumes/status"), 2),
            (request("get", "/version"), 1),
        ];
        assert_eq!(requests, Requests::from(expected));
    }
}
