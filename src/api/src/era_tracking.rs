//! `EraTracking`: what a user wants tracked, and when snapshots are to be made.
//!
//! Whoever may edit a namespace may write one, so it names claims, granularity and times, and nothing of a node: no path,
//! device, volume group or store.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::{Condition, Granularity, Time};

/// Which claims of the namespace are tracked, how finely, and when their snapshots are made.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "eratrack.dev",
    version = "v1alpha1",
    kind = "EraTracking",
    plural = "eratrackings",
    namespaced,
    status = "EraTrackingStatus",
    derive = "PartialEq",
    shortname = "et",
    category = "eratrack",
    doc = "What is tracked: the claims of a namespace whose changed blocks are recorded, and when snapshots are made of them.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("must be at most 63 characters because it is used as a label value"),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.matched"),
    printcolumn(name = "Tracked", type_ = "integer", json_path = ".status.tracked"),
    printcolumn(name = "Intact", type_ = "integer", json_path = ".status.intact"),
    printcolumn(name = "Changed", type_ = "string", json_path = ".status.changed"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastSnapshotTime"),
    // A date column would print a time that lies ahead as <invalid>.
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextSnapshotTime"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EraTrackingSpec {
    /// The claims, always of this object's own namespace.
    pub claims: Claims,
    /// The size of a block: the finest change that is told apart. Finer granularity needs more room on the node.
    #[serde(default)]
    pub granularity: Granularity,
    /// When snapshots are made. Without it, only those made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Snapshots>,
}

/// Which claims are tracked: by name or by label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[("has(self.names) != has(self.selector)", "give exactly one of names and selector (selector: {} means every claim of the namespace)")])))]
pub struct Claims {
    /// The claims' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::claim_names")]
    pub names: Option<Vec<String>>,
    /// The claims' labels; an empty selector means every claim of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// When snapshots are made, and how many of them are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshots {
    /// Minute, hour, day of month, month and day of week, as in a crontab: `*/15 * * * *`.
    #[schemars(schema_with = "schema::schedule")]
    pub schedule: String,
    /// The time zone of the schedule, by its IANA name.
    #[serde(default = "utc")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Z][A-Za-z0-9_+/-]*$"))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[("self != 'Local'", "must be an IANA name such as Europe/Berlin")])))]
    pub time_zone: String,
    /// Stops the schedule only: tracking goes on, and the chain stays whole.
    #[serde(default)]
    pub suspend: bool,
    /// How late, in seconds, a snapshot may start after its time; later than that it is left out.
    #[serde(default = "starting_deadline")]
    #[schemars(range(min = 10, max = 86400))]
    pub starting_deadline_seconds: u32,
    /// How many are kept.
    #[serde(default)]
    pub keep: Keep,
}

/// How many scheduled snapshots of a volume are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// The newest complete ones.
    #[serde(default = "keep_last")]
    #[schemars(range(min = 1, max = 128))]
    pub last: u32,
}

/// How the claims are tracked, and how current their snapshots are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EraTrackingStatus {
    /// The generation of the spec that the rest was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
    /// How many claims are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
    /// How many of them have era in their data path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked: Option<u64>,
    /// How many of them have an intact chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intact: Option<u64>,
    /// How much changed in the last snapshots of the volumes, added up, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub changed: Option<String>,
    /// How much changed in the last snapshots of the volumes, added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_bytes: Option<u64>,
    /// The last time the schedule fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// The boundary of the newest complete snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot_time: Option<Time>,
    /// The next time the schedule fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_snapshot_time: Option<Time>,
    /// Ready, TrackingIntact and SnapshotCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: keep_last() }
    }
}

fn utc() -> String {
    "Etc/UTC".to_owned()
}

fn starting_deadline() -> u32 {
    300
}

fn keep_last() -> u32 {
    24
}
