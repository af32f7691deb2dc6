//! What is kept of a stack beside its metadata.

use std::path::PathBuf;

use eratrack_model::discards::DiscardPolicy;
use eratrack_model::names::{DmName, DmUuid, StackId};
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, DevNo, Granularity, Sectors};
use serde::{Deserialize, Serialize};

/// The version that this program writes and reads.
pub const VERSION: u32 = 1;

/// A stack as it was built, written durably before it is relied upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The stack's name.
    pub stack: StackId,
    /// Names the chain: anything that could have written behind the tracking ends it.
    pub chain: String,
    /// `/proc/sys/kernel/random/boot_id` when it was built.
    pub boot: String,
    /// X's number.
    pub x: DevNo,
    /// X's device-mapper name then; LVM may have changed it since.
    pub name: DmName,
    /// X's device-mapper uuid, if it has one.
    pub uuid: Option<DmUuid>,
    /// X's own table, which X-base has now.
    pub original: Table,
    /// X's length.
    pub sectors: Sectors,
    /// How large a block is.
    pub granularity: Granularity,
    /// What becomes of discards.
    pub discards: DiscardPolicy,
    /// The metadata file, as seen from the machine's root.
    pub metadata: PathBuf,
    /// Its size.
    pub metadata_size: Bytes,
    /// How far it is.
    pub phase: Phase,
}

/// How far a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Being built: X may or may not go through it yet; no chain.
    Attaching,
    /// In place.
    Attached,
    /// Being removed: X may or may not have its table back; no chain.
    Detaching,
}
