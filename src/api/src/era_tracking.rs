//! `EraTracking`: what a user wants tracked, and when snapshots are to be made.
//!
//! Whoever may edit a namespace may write one, so it names claims, granularity and times, and nothing of a node: no path,
//! device, volume group or store.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::{Condition, Granularity, SnapshotMode, Time};

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
    /// A copy that follows the claim: another claim of the namespace, whose volume is made equal to each snapshot. Exactly
    /// one claim must be selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
}

/// What the selected claim is copied into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// A claim of volumeMode Block on the same node, that no pod uses. Its annotation `eratrack.dev/replica-of` must name the
    /// selected claim, and what is in it is overwritten.
    #[schemars(schema_with = "schema::object_name")]
    pub claim_name: String,
    /// Not more than so many bytes are copied a second; as fast as the disks are, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65536, max = 1_099_511_627_776_i64))]
    pub max_bytes_per_second: Option<u64>,
    /// Compares everything after each copy, before the replica is said to equal a snapshot.
    #[serde(default)]
    pub verify: bool,
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
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[("!has(self.holdSeconds) || self.mode == 'Local'", "holdSeconds goes with mode Local: nothing is held otherwise")])))]
pub struct Snapshots {
    /// Minute, hour, day of month, month and day of week, as in a crontab: `*/15 * * * *`.
    #[schemars(schema_with = "schema::schedule")]
    pub schedule: String,
    /// The time zone of the schedule, by its IANA name.
    #[serde(default = "utc")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Z][A-Za-z0-9_+/-]*$"))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[("self != 'Local'", "must be an IANA name such as Europe/Berlin")])))]
    pub time_zone: String,
    /// Boundary: lists alone. Local: each snapshot is also a point in time, readable on the volume's node.
    #[serde(default)]
    pub mode: SnapshotMode,
    /// How long, in seconds, the device of a Local snapshot stays at most; 3600 if nothing is said. The next Local
    /// snapshot of the claim waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 86400))]
    pub hold_seconds: Option<u32>,
    /// Stops the schedule only: tracking goes on, and the chain stays whole.
    #[serde(default)]
    pub suspend: bool,
    /// How late, in seconds, a snapshot may start after its time; later than that it is left out, and counted as missed.
    #[serde(default = "starting_deadline")]
    #[schemars(range(min = 10, max = 86400))]
    pub starting_deadline_seconds: u32,
    /// Spreads the snapshots of many claims: each starts so many seconds after its time at most, always as many for one
    /// claim, and before the next time. Its name keeps the minute of the schedule.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub jitter_seconds: u32,
    /// What happens while another snapshot of the claim is under way.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Which are kept.
    #[serde(default)]
    pub keep: Keep,
}

/// What happens when a snapshot is due while another of its claim is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConcurrencyPolicy {
    /// It waits for the other, within the starting deadline or until the next time; then it is missed.
    #[default]
    Forbid,
}

/// Which complete scheduled snapshots of a volume are kept: those that any of the rules keeps, and always the newest. Rules
/// that are left out, or 0, keep none; without any rule the newest 24 are kept. Days, weeks and months are those of the
/// schedule's time zone. What goes from the middle is merged into the next snapshot first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("(!has(self.last) && !has(self.hourly) && !has(self.daily) && !has(self.weekly) && !has(self.monthly) && !has(self.within)) || (has(self.last) && self.last > 0) || (has(self.hourly) && self.hourly > 0) || (has(self.daily) && self.daily > 0) || (has(self.weekly) && self.weekly > 0) || (has(self.monthly) && self.monthly > 0) || (has(self.within) && self.within.matches('[1-9]'))", "keeps nothing: give at least one of last, hourly, daily, weekly, monthly and within that is not 0"),
    ("(has(self.last) ? self.last : 0) + (has(self.hourly) ? self.hourly : 0) + (has(self.daily) ? self.daily : 0) + (has(self.weekly) ? self.weekly : 0) + (has(self.monthly) ? self.monthly : 0) <= 128", "last, hourly, daily, weekly and monthly together must be at most 128"),
])))]
pub struct Keep {
    /// The newest, so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub last: Option<u32>,
    /// The newest of each hour, for the last so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub hourly: Option<u32>,
    /// The newest of each day, for the last so many days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub daily: Option<u32>,
    /// The newest of each week from Monday to Sunday (ISO 8601), for the last so many weeks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub weekly: Option<u32>,
    /// The newest of each month, for the last so many months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub monthly: Option<u32>,
    /// All that are not older than the newest by this: years, months, days and hours, such as `1y6m`, `14d` or `2d12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 24),
        regex(pattern = r"^([0-9]{1,2}y)?([0-9]{1,3}m)?([0-9]{1,4}d)?([0-9]{1,5}h)?$")
    )]
    pub within: Option<String>,
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
    /// How many scheduled times passed without the snapshot of some claim: too late, or without room for its list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_runs: Option<u64>,
    /// The last of these times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_missed_time: Option<Time>,
    /// The last value of the annotation `eratrack.dev/snapshot-now` whose snapshots were created; of one that is longer
    /// than 128 bytes, `sha256:` and its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub snapshot_now: Option<String>,
    /// Ready, TrackingIntact, SnapshotCurrent, and with a replica `ReplicaCurrent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

fn utc() -> String {
    "Etc/UTC".to_owned()
}

fn starting_deadline() -> u32 {
    300
}
