//! What [`Host`](super::Host) takes and gives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eratrack_model::Era;
use eratrack_model::discards::DiscardPolicy;
use eratrack_model::extents::ChangedBlocks;
use eratrack_model::names::StackId;
use eratrack_model::place::MetadataRequest;
use eratrack_model::record::{Keeper, Record};
use eratrack_model::table::Table;
use eratrack_model::units::{DevNo, Granularity};

use super::StageRequest;
use crate::port::DeviceMapper;
use crate::store::StoreConfig;

/// Where a host's things are.
#[derive(Clone)]
pub struct HostConfig {
    /// The machine's own root: `/`, or `/proc/1/root` in a container that shares the
    /// machine's process namespace.
    pub root: PathBuf,
    /// The device mapper to use; [`linux::Kernel`](crate::linux::Kernel) on a real machine.
    pub dm: Arc<dyn DeviceMapper>,
    /// Where metadata files go.
    pub store: StoreConfig,
    /// A directory of this process where device nodes may be made: usually `/dev`.
    pub nodes: PathBuf,
    /// How long to wait for LVM to give its lock back.
    pub lock_deadline: Duration,
    /// For whom this host works: what it attaches is theirs, and only theirs is recovered unasked.
    pub keeper: Keeper,
}

/// What shall be tracked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The stack's name: the PersistentVolume's uid, or a person's choice.
    pub stack: StackId,
    /// The device to track.
    pub x: DevNo,
    /// How large a block is.
    pub granularity: Granularity,
    /// What becomes of discards; none lets the device decide
    /// ([`DiscardPolicy::decide`]).
    pub discards: Option<DiscardPolicy>,
    /// Whether X is a device that device mapper does not run, and is to be put over it.
    pub stage: Option<StageRequest>,
    /// Whether to make a second way to the metadata, for tools that insist on opening it
    /// exclusively.
    pub access: bool,
    /// Where the metadata goes.
    pub metadata: MetadataRequest,
}

impl AttachRequest {
    /// With what most want of the rest.
    pub fn new(stack: StackId, x: DevNo, granularity: Granularity) -> Self {
        let metadata = MetadataRequest::Store;
        Self { stack, x, granularity, discards: None, stage: None, access: false, metadata }
    }
}

/// A stack that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What it is, as it is kept beside the metadata.
    pub record: Record,
    /// A new chain began with this call; false when all was there already.
    pub created: bool,
}

/// Whether X still goes through its X-era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// X's live table is ours.
    Intact,
    /// Somebody gave X another table: writes since then are not recorded.
    Reloaded {
        /// What X's live table is now.
        live: Option<Table>,
    },
    /// There is no X any more, or it came back as another device.
    Gone,
    /// The machine has booted since: the record is of an earlier boot.
    Rebooted,
}

/// A line between what was written before and what is written after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Blocks written after the boundary have this era or a later one.
    pub era: Era,
    /// When the drain ended: the point in time.
    pub time: SystemTime,
    /// How long the drain took: the longest a write can have waited for it.
    pub drained_in: Duration,
    /// Metadata blocks of 4 KiB in use. Act early: where there are none left, writes fail.
    pub metadata_used: u64,
    /// Metadata blocks of 4 KiB there are.
    pub metadata_total: u64,
}

/// What may differ since a boundary: always a superset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The blocks, as runs that ascend with gaps between them.
    pub runs: ChangedBlocks,
    /// Blocks the device has.
    pub blocks: u64,
    /// Sectors a block.
    pub granularity: Granularity,
    /// How many blocks the kernel marked; `runs` may hold more, never fewer.
    pub marked: u64,
    /// The era the metadata snapshot was taken in.
    pub read_at: Era,
    /// Blocks added after each run, because of discards.
    pub dilation: u64,
    /// Metadata blocks of 4 KiB in use.
    pub metadata_used: u64,
    /// Metadata blocks of 4 KiB there are.
    pub metadata_total: u64,
}

impl Changes {
    /// How many blocks are listed.
    pub fn changed_blocks(&self) -> u64 {
        self.runs.blocks()
    }
}

/// What a detach found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// X has its own table back, and all of ours is gone.
    Restored,
    /// X went on without us, or is gone; our remains were removed.
    RemainsRemoved,
    /// X is a device of ours, with the plain table that it would have had without era, and stays
    /// while somebody uses it: detach again afterwards.
    TopStays,
    /// There was nothing.
    NothingThere,
}

/// What was done about one stack that an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The stack.
    pub stack: StackId,
    /// What became of it.
    pub outcome: Recovery,
}

/// What [`Host::recover`](super::Host::recover) did about a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It is in place and works: taken over with its chain.
    Adopted(Record),
    /// It was half built; undone.
    Undone,
    /// It was half removed; finished.
    Finished,
    /// Its chain is broken; the remains were removed, and it may be attached anew.
    Broken {
        /// The record as it was.
        record: Record,
        /// How X was found.
        found: Liveness,
        /// dm-era reported `Error`.
        era_failed: bool,
    },
    /// There were remains without a record that can be read; the device has its own table, and
    /// the remains are gone.
    OrphansRemoved,
    /// It could not be cleared up now; the message says why. Try again.
    Failed(String),
}
