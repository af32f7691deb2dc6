//! The custom resources of `eratrack.dev/v1alpha1`: what the API server stores, what kubectl shows, and the contract
//! between the controller and the agents.
//!
//! - A file a kind: [`era_tracking`], [`era_volume`], [`era_snapshot`], [`changed_block_slice`].
//! - Every name that more than one program must agree on is in [`names`].
//! - Every reason of every condition is in [`reason`]; `docs/reasons.md` is generated from it.
//! - [`crd`] turns the types into the manifests under `crds/`.
//!
//! This crate knows nothing of devices, and does no I/O.

pub mod changed_block_slice;
pub mod condition;
pub mod crd;
pub mod era_snapshot;
pub mod era_tracking;
pub mod era_volume;
pub mod generated;
pub mod granularity;
pub mod names;
pub mod reason;
pub mod reason_table;
pub mod reference;
mod schema;
pub mod size;

pub use changed_block_slice::{ChangedBlockSlice, ChangedBlockSliceFields, Encoding};
pub use condition::{Condition, ConditionStatus, ConditionType};
pub use era_snapshot::{
    Consistency, EraSnapshot, EraSnapshotSpec, EraSnapshotStatus, HOLD_SECONDS, SliceSummary,
    SnapshotMode, SnapshotType,
};
pub use era_tracking::{
    Claims, ConcurrencyPolicy, EraTracking, EraTrackingSpec, EraTrackingStatus, Keep, Replica,
    Snapshots,
};
pub use era_volume::{
    Chain, Device, EraVolume, EraVolumeSpec, EraVolumeStatus, LastSnapshot, MetadataUse,
    ReplicaPhase, ReplicaPoint, ReplicaStatus, ReplicaTarget,
};
pub use granularity::Granularity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use reason::Reason;
pub use reference::{ObjectRef, SnapshotRef};
