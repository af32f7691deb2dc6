//! An EraSnapshot as a reader of the API sees it, with its list put together from the slices and verified.

use std::time::Duration;

use serde_json::Value;

use crate::{
    cluster::{Blocks, Kubectl, condition, hex_digest},
    failure::Outcome,
};

/// A ready snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Its name.
    pub(crate) name: String,
    /// `Full` or `Incremental`.
    pub(crate) kind: String,
    /// Why it is full, if it is.
    pub(crate) full_reason: String,
    /// The chain within which its list is valid.
    pub(crate) chain: String,
    /// The first era after the boundary.
    pub(crate) era: u64,
    /// The first era of which the list holds the writes; none for a full one.
    pub(crate) since: Option<u64>,
    /// The snapshot that its list refers to.
    pub(crate) base: String,
    /// The list.
    pub(crate) blocks: Blocks,
}

/// Longer than a snapshot takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(150);

impl Snapshot {
    /// The manifest of a snapshot made by hand.
    pub(crate) fn manifest(name: &str, claim: &str) -> String {
        format!(
            "apiVersion: eratrack.dev/v1alpha1
kind: EraSnapshot
metadata: {{name: {name}}}
spec: {{claimName: {claim}}}
"
        )
    }

    /// Waits until the snapshot is ready and reads it with its list.
    pub(crate) fn ready(kubectl: &Kubectl, name: &str) -> Outcome<Self> {
        let object = format!("erasnapshot/{name}");
        let value = kubectl.until(&object, "Ready=True or Failed=True", DEADLINE, |value| {
            let is = |kind| condition(value, kind).is_some_and(|it| it["status"] == "True");
            (is("Ready") || is("Failed")).then(|| value.clone()).ok_or_else(String::new)
        })?;
        if let Some(failed) = condition(&value, "Failed").filter(|it| it["status"] == "True") {
            return Err(format!("{object} failed: {failed}").into());
        }
        let read = Self::read(kubectl, name, &value);
        if read.is_ok() {
            return read;
        }
        // Merged meanwhile: the status names other slices, and those of before are gone.
        let now = kubectl.json(&["get", &object])?;
        if now["status"]["slices"] == value["status"]["slices"] {
            return read;
        }
        Self::read(kubectl, name, &now)
    }

    /// The names of the snapshots that a schedule made and keeps.
    pub(crate) fn scheduled(kubectl: &Kubectl) -> Outcome<Vec<String>> {
        let list = kubectl.json(&["get", "erasnapshots"])?;
        let items = list["items"].as_array().ok_or("a list without items")?;
        let name = |it: &Value| it["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(items.iter().filter(|it| Self::is_scheduled(it)).map(name).collect())
    }

    /// Whether a schedule made it: then it belongs to an `EraTracking`.
    pub(crate) fn is_scheduled(snapshot: &Value) -> bool {
        let owners = snapshot["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "EraTracking"))
    }

    fn read(kubectl: &Kubectl, name: &str, value: &Value) -> Outcome<Self> {
        let status = &value["status"];
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            name: name.to_owned(),
            kind: text(&status["type"]),
            full_reason: text(&status["fullReason"]),
            chain: text(&status["chainID"]),
            era: status["era"].as_u64().ok_or("a ready snapshot has no era")?,
            since: status["sinceEra"].as_u64(),
            base: text(&status["base"]["name"]),
            blocks: read_list(kubectl, name, value)?,
        })
    }
}

/// Puts the slices together as a reader must: all of them, of this very snapshot, with the digest that its status names.
fn read_list(kubectl: &Kubectl, name: &str, snapshot: &Value) -> Outcome<Blocks> {
    let status = &snapshot["status"];
    let count =
        status["slices"]["count"].as_u64().ok_or("a ready snapshot has no count of slices")?;
    let first = status["slices"]["first"].as_u64().unwrap_or(0);
    let slices = (first..first + count)
        .map(|index| kubectl.json(&["get", "changedblockslice", &format!("{name}-{index}")]))
        .collect::<Outcome<Vec<Value>>>()?;
    let strangers = slices.iter().any(|it| it["snapshot"]["uid"] != snapshot["metadata"]["uid"]);
    if strangers {
        return Err(format!("a slice of {name} is of another snapshot").into());
    }
    let lists: Vec<&str> = slices.iter().filter_map(|slice| slice["ranges"].as_str()).collect();
    let list = lists.join(",");
    let digest = hex_digest(list.as_bytes());
    if status["slices"]["sha256"] != digest.as_str() {
        return Err(format!(
            "{name}: the slices' digest is {digest}, not {}",
            status["slices"]["sha256"]
        )
        .into());
    }
    let size = status["blockSizeBytes"].as_u64().ok_or("a ready snapshot has no block size")?;
    let blocks = Blocks::parse(&list, size)?;
    let told: u64 = slices.iter().filter_map(|slice| slice["blocks"].as_u64()).sum();
    if told != blocks.count() {
        return Err(format!(
            "{name}: the slices tell of {told} blocks and list {}",
            blocks.count()
        )
        .into());
    }
    Ok(blocks)
}
