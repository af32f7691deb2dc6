//! `EraVolume`: one tracked claim, and the contract between the controller and the agent of the volume's node.
//!
//! The controller writes the spec, which is a pointer and never a path; the agent finds the device itself. The agent
//! writes the status, when something changes and after each boundary, never on a timer.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::{Condition, Granularity, ObjectRef, Time};

/// Which volume the agent of which node shall track, and how finely.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "eratrack.dev",
    version = "v1alpha1",
    kind = "EraVolume",
    plural = "eravolumes",
    namespaced,
    status = "EraVolumeStatus",
    derive = "PartialEq",
    shortname = "evol",
    category = "eratrack",
    doc = "One tracked volume, named like its claim: where it is, how far its tracking is, and why it is not intact. Written by eratrack; make an EraTracking instead.",
    validation = Rule::new("self.metadata.name == self.spec.claim.name").message("metadata.name must equal spec.claim.name"),
    selectable = ".spec.nodeName",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Era", type_ = "integer", json_path = ".status.era"),
    printcolumn(name = "Block", type_ = "string", json_path = ".status.granularity"),
    printcolumn(name = "Changed", type_ = "string", json_path = ".status.lastSnapshot.changed"),
    printcolumn(name = "Meta%", type_ = "integer", json_path = ".status.metadata.usedPercent"),
    printcolumn(name = "Intact", type_ = "string", json_path = r#".status.conditions[?(@.type=="TrackingIntact")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="TrackingIntact")].reason"#),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device.name", priority = 1),
    printcolumn(name = "Chain", type_ = "string", json_path = ".status.chain.id", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[("!has(oldSelf.nodeName) || (has(self.nodeName) && self.nodeName == oldSelf.nodeName)", "nodeName never changes once it is set; delete the EraVolume, and the controller makes it anew for the node where the volume is")])))]
pub struct EraVolumeSpec {
    /// The claim. A claim made again under its name has another uid, and gets another EraVolume.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[("self == oldSelf", "is immutable")])))]
    pub claim: ObjectRef,
    /// The PersistentVolume that the claim is bound to.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[("self == oldSelf", "is immutable")])))]
    pub volume: ObjectRef,
    /// The node whose agent tracks the volume; absent while it is not known, and fixed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// The wished size of a block.
    pub granularity: Granularity,
    /// What the volume is copied into, once the controller has found nothing against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaTarget>,
}

/// Another claim's volume, which has asked to be a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaTarget {
    /// The claim.
    pub claim: ObjectRef,
    /// The PersistentVolume that it is bound to.
    pub volume: ObjectRef,
    /// Not more than so many bytes are copied a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_second: Option<u64>,
    /// Everything is compared after each copy.
    #[serde(default)]
    pub verify: bool,
}

/// How a volume's tracking is. Written by the agent of `spec.nodeName`; the condition Ready by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[("!has(oldSelf.era) || !has(self.era) || !has(oldSelf.chain) || !has(self.chain) || self.chain.id != oldSelf.chain.id || self.era >= oldSelf.era", "an era never goes back within a chain")])))]
pub struct EraVolumeStatus {
    /// The generation of the spec that the agent has acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
    /// The size of a block that is in force, which a new wish changes later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// The size of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The volume's own device, which the stack was put beneath.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The current era, as of the last boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub era: Option<u32>,
    /// The chain within which deltas are valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// How full the metadata is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataUse>,
    /// The last complete snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot: Option<LastSnapshot>,
    /// How far its replica is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaStatus>,
    /// Attached, TrackingIntact and, with a replica, `ReplicaCurrent`, by the agent; Ready, by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A device of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its device-mapper name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 129))]
    pub name: Option<String>,
    /// Its number, as `major:minor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub number: Option<String>,
    /// Its device-mapper uuid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 129))]
    pub uuid: Option<String>,
}

/// An unbroken span of tracking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chain {
    /// A uuid that no other chain has.
    #[schemars(length(min = 36, max = 36))]
    pub id: String,
    /// When it began.
    pub start_time: Time,
    /// Why it began, and so why its first snapshot is full: a reason of TrackingIntact.
    #[schemars(length(min = 1, max = 64))]
    pub start_reason: String,
}

/// How much of a metadata device is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetadataUse {
    /// In use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// In use, of a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub used_percent: Option<u32>,
}

/// A complete snapshot, as far as it matters to the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastSnapshot {
    /// The EraSnapshot's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The EraSnapshot's uid.
    #[schemars(length(min = 36, max = 36))]
    pub uid: String,
    /// The first era after its boundary.
    #[schemars(schema_with = "schema::era")]
    pub era: u32,
    /// When the boundary was.
    pub time: Time,
    /// How much it says has changed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub changed: Option<String>,
    /// How much it says has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_bytes: Option<u64>,
}

/// How far a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The claim that is copied into.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// What is done.
    pub phase: ReplicaPhase,
    /// The snapshot that the replica equals, byte for byte over the size of the source; absent while it equals none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<ReplicaPoint>,
    /// Whatever was written in this era or later is still to be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::era")]
    pub since_era: Option<u32>,
    /// How much of what is being copied, or was copied last, is copied. While it goes on it is said now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_bytes: Option<u64>,
    /// How much there is, or was, to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// How long the last copy took that came to its end, with its comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_milliseconds: Option<u64>,
    /// When everything was last compared, and found equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_time: Option<Time>,
    /// Why everything was, or is being, copied the last time that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub full_reason: Option<String>,
}

/// What is done for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ReplicaPhase {
    /// Nothing can be copied now: the condition `ReplicaCurrent` says why.
    Waiting,
    /// Everything is copied.
    Seeding,
    /// Everything was copied, and what changed meanwhile is fetched with the next snapshot.
    Seeded,
    /// What changed is copied: the replica is a mix of two points in time.
    Copying,
    /// Each snapshot is copied when it is made.
    Following,
}

/// A point in time that a replica equals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaPoint {
    /// The EraSnapshot's name; it may be gone.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The EraSnapshot's uid.
    #[schemars(length(min = 36, max = 36))]
    pub uid: String,
    /// The first era after its boundary.
    #[schemars(schema_with = "schema::era")]
    pub era: u32,
    /// When its boundary was.
    pub time: Time,
}
