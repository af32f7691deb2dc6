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
    /// Writes the policy: who asked what, nothing of what was in it, for eratrack's accounts, and for the garbage collector
    /// as far as it looks after what is eratrack's.
    pub(super) fn prepare(run: &Path, logs: &Path) -> Outcome<Self> {
        let audit = Self { policy: run.join("audit.yaml"), log: logs.join("audit.log") };
        let accounts = ["agent", "controller"].map(|it| format!("\"{}eratrack-{it}\"", prefix()));
        let policy = format!(
            "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {{level: Metadata, users: [{}]}}
- {{level: Metadata, users: [\"{COLLECTOR}\"], resources: [{{group: eratrack.dev}}]}}
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

    /// What eratrack asked since.
    pub(crate) fn since(&self, start: usize) -> Outcome<Requests> {
        let mut requests = self.with_collector_since(start)?;
        requests.retain(|request, _| request.account != collector());
        Ok(requests)
    }

    /// What eratrack asked since, and the garbage collector because of it.
    pub(crate) fn with_collector_since(&self, start: usize) -> Outcome<Requests> {
        let text = fs::read(&self.log)?;
        let text = String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        requests(whole)
    }
}

/// The garbage collector, when each controller of Kubernetes has an account of its own.
const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

fn collector() -> &'static str {
    COLLECTOR.rsplit(':').next().unwrap_or(COLLECTOR)
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
        let name = &self.user.username;
        let account = if name == COLLECTOR { collector() } else { name };
        let account = account.strip_prefix(&prefix()).unwrap_or(account);
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

    #[test]
    fn the_collector_is_counted_apart() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::prepare(directory.path(), directory.path()).unwrap();
        let ours = event("a", "get", r#","objectRef":{"resource":"erasnapshots"}"#);
        let theirs = ours.replace("\"a\"", "\"b\"");
        let theirs = theirs.replace(&format!("{}eratrack-agent", prefix()), COLLECTOR);
        fs::write(audit.log(), format!("{ours}\n{theirs}\nhalf a li")).unwrap();
        let accounts = |requests: Requests| -> Vec<String> {
            requests.into_keys().map(|request| request.account).collect()
        };
        let all = audit.with_collector_since(0).unwrap();
        assert_eq!(accounts(all), ["eratrack-agent", "generic-garbage-collector"]);
        assert_eq!(accounts(audit.since(0).unwrap()), ["eratrack-agent"]);
    }
}
