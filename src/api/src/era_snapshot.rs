//! `EraSnapshot`: one boundary of one volume, and the account of what changed up to it.
//!
//! `sinceEra` and `era` make its list self-contained: it stays answerable when its base object is gone, and
//! `next.sinceEra == this.era` proves a chain unbroken. Once it is complete that changes in one way only, which the schema
//! itself enforces: when the snapshot before it is merged into it, `sinceEra` falls, and list and digest with it. A reader
//! that has the digest has the list, and whoever wrote it twice would be refused.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::{Condition, ObjectRef, Time};

/// Of which claim a snapshot is wanted.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "eratrack.dev",
    version = "v1alpha1",
    kind = "EraSnapshot",
    plural = "erasnapshots",
    namespaced,
    status = "EraSnapshotStatus",
    derive = "PartialEq",
    shortname = "esnap",
    category = "eratrack",
    doc = "One boundary of one tracked volume: which blocks changed since the boundary before it. The blocks are listed in its ChangedBlockSlices.",
    validation = Rule::new("size(self.metadata.name) <= 243").message("metadata.name must be at most 243 characters because slices append their index"),
    selectable = ".spec.claimName",
    selectable = ".status.nodeName",
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claimName"),
    printcolumn(name = "Phase", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "Why Full", type_ = "string", json_path = ".status.fullReason"),
    printcolumn(name = "Changed", type_ = "string", json_path = ".status.changed"),
    printcolumn(name = "Blocks", type_ = "integer", json_path = ".status.changedBlocks"),
    printcolumn(name = "Since", type_ = "integer", json_path = ".status.sinceEra"),
    printcolumn(name = "Era", type_ = "integer", json_path = ".status.era"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Ranges", type_ = "integer", json_path = ".status.ranges", priority = 1),
    printcolumn(name = "Slices", type_ = "integer", json_path = ".status.slices.count", priority = 1),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device", priority = 1),
    printcolumn(name = "Base", type_ = "string", json_path = ".status.base.name", priority = 1),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[("self == oldSelf", "a snapshot is immutable; create another one"), ("!has(self.holdSeconds) || self.mode == 'Local'", "holdSeconds goes with mode Local: nothing is held otherwise")])))]
pub struct EraSnapshotSpec {
    /// The claim, of this object's own namespace. An EraTracking must name it.
    #[schemars(schema_with = "schema::object_name")]
    pub claim_name: String,
    /// How long the snapshot may take, in seconds, from its creation on; after that it has failed.
    #[serde(default = "deadline")]
    #[schemars(range(min = 10, max = 86400))]
    pub deadline_seconds: u32,
    /// Boundary: the list alone. Local: also the volume as it was, as a device on its node.
    #[serde(default)]
    pub mode: SnapshotMode,
    /// How long that device stays at most, in seconds from the boundary on; 3600 if nothing is said. Until then
    /// somebody may release it, by the annotation `eratrack.dev/release` or by deleting the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 86400))]
    pub hold_seconds: Option<u32>,
}

/// What a snapshot gives beside its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SnapshotMode {
    /// Nothing: which blocks changed, to be read from the volume itself.
    #[default]
    Boundary,
    /// A point in time on the volume's node, that can be read while the application goes on.
    Local,
}

/// What a point in time shows of the filesystem on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Consistency {
    /// The filesystem was frozen: nothing need be replayed.
    FilesystemConsistent,
    /// What a power cut at that moment would have left: a journal is replayed first.
    CrashConsistent,
}

/// What has become of a snapshot. The controller writes `nodeName`, `volumeUID` and Failed; the agent of that node the
/// rest, and Ready in one write with count and digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[("!has(oldSelf.conditions) || !oldSelf.conditions.exists(c, c.type == 'Failed' && c.status == 'True') || self == oldSelf", "a failed snapshot stays failed"), ("!has(self.conditions) || !(self.conditions.exists(c, c.type == 'Failed' && c.status == 'True') && self.conditions.exists(c, c.type == 'Ready' && c.status == 'True'))", "a snapshot cannot be both Ready and Failed"), ("!has(self.era) || (has(self.chainID) && has(self.nodeName))", "a boundary needs chainID and nodeName beside era"), ("!has(oldSelf.conditions) || !oldSelf.conditions.exists(c, c.type == 'Readable' && c.status == 'False') || (has(self.conditions) && self.conditions.exists(c, c.type == 'Readable' && c.status == 'False'))", "a device that was given up is never readable again"), ("!has(oldSelf.era) || (has(self.era) && has(self.chainID) && has(self.nodeName) && self.era == oldSelf.era && self.chainID == oldSelf.chainID && self.nodeName == oldSelf.nodeName)", "era, chainID and nodeName of a boundary never change"), ("!has(self.sinceEra) || !has(self.era) || self.sinceEra <= self.era", "sinceEra must not be greater than era"), ("!has(oldSelf.sinceEra) || (has(self.sinceEra) && self.sinceEra <= oldSelf.sinceEra)", "a delta may only reach further back"), ("!has(self.conditions) || !self.conditions.exists(c, c.type == 'Ready' && c.status == 'True') || (has(self.era) && has(self.chainID) && has(self.type) && has(self.slices) && (self.type == 'Full' || has(self.sinceEra)))", "Ready needs era, chainID, type and slices, and sinceEra when Incremental"), ("!has(oldSelf.conditions) || !oldSelf.conditions.exists(c, c.type == 'Ready' && c.status == 'True') || (has(self.slices) == has(oldSelf.slices) && (!has(self.slices) || self.slices == oldSelf.slices) && has(self.sinceEra) == has(oldSelf.sinceEra) && (!has(self.sinceEra) || self.sinceEra == oldSelf.sinceEra) && has(self.base) == has(oldSelf.base) && (!has(self.base) || self.base == oldSelf.base)) || (has(self.slices) && has(self.sinceEra) && has(oldSelf.sinceEra) && self.sinceEra < oldSelf.sinceEra && has(self.type) && self.type == 'Incremental' && self.conditions.exists(c, c.type == 'Ready' && c.status == 'True'))", "slices, sinceEra and base of a complete snapshot never change, unless an earlier one is merged into it and sinceEra falls")])))]
pub struct EraSnapshotStatus {
    /// The node whose agent makes the boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// The uid of the PersistentVolume that the claim was bound to.
    #[serde(rename = "volumeUID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    pub volume_uid: Option<String>,
    /// Full: everything is listed. Incremental: what was written in an era not before `sinceEra`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<SnapshotType>,
    /// Why it is full: a reason of TrackingIntact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub full_reason: Option<String>,
    /// The point in time: everything acknowledged before it is in the list or in an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary_time: Option<Time>,
    /// The chain within which the eras count.
    #[serde(rename = "chainID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    pub chain_id: Option<String>,
    /// The first era after the boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::era")]
    pub era: Option<u32>,
    /// The list holds every block written in this era or a later one, up to the boundary: the era of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::era")]
    pub since_era: Option<u32>,
    /// The snapshot that the changes refer to; it may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ObjectRef>,
    /// The size of the volume at the boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The size of a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size_bytes: Option<u64>,
    /// How much changed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub changed: Option<String>,
    /// How much the kernel marked as changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_bytes: Option<u64>,
    /// How much the slices list: more than `changedBytes` once gaps were closed to make the list fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_bytes: Option<u64>,
    /// How many blocks the kernel marked as changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_blocks: Option<u64>,
    /// How many ranges the slices list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<u64>,
    /// How a reader knows that it has the whole list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<SliceSummary>,
    /// In mode Local: the block device on the node that shows the volume as it was, for reading alone. What was read
    /// from it counts once it was released and Readable says Released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub device: Option<String>,
    /// In mode Local: what that device shows of the filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// In mode Local: when the device goes, if nobody releases it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Time>,
    /// Ready, in mode Local Readable, and once it is hopeless Failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What a snapshot's list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SnapshotType {
    /// The whole volume.
    Full,
    /// What changed since another boundary of the same chain.
    Incremental,
}

/// How a reader knows that it has the whole list and nothing else: a mismatch means "no delta", never "a short delta".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceSummary {
    /// How many slices there are, named `<snapshot>-<first>` and so on; none when nothing changed.
    #[schemars(range(min = 0, max = 16))]
    pub count: u32,
    /// The index of the first slice: 0, or 16. Each merge writes its slices to the other place, so that those that are
    /// valid stay until the status names the new ones.
    /// Always written: what one writer leaves out, another that has applied it once still claims.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub first: u32,
    /// The length of the list: of all `ranges` together, joined by commas.
    pub bytes: u64,
    /// The SHA-256 of all `ranges` together, joined by commas, in hexadecimal digits.
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
}

impl SliceSummary {
    /// The indexes of the slices, in the order of the list.
    pub fn indexes(&self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// How long a device is held if nobody says how long, in seconds.
pub const HOLD_SECONDS: u32 = 3600;

fn deadline() -> u32 {
    600
}
