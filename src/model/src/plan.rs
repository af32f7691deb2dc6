//! From observed and desired to steps, or to a refusal with its reason.
//!
//! A plan is data: the executor makes no choices. Each step may be the last one that happens;
//! observing and planning again then finishes or undoes what was begun.

mod boundary;
mod eligible;
mod insert;
mod member;
mod point;
mod remove;
mod shape;
mod show;
mod situation;

use crate::lvm::VgName;
use crate::names::{DmName, DmUuid, Role};
pub use crate::refusal::Refusal;
use crate::stack::{CopyStore, Desired, Observed};
use crate::table::Table;
use crate::units::{Bytes, DevNo, Granularity, Sectors};

pub use eligible::eligible;
pub use member::Member;
pub use point::CHUNK as POINT_CHUNK;
pub use shape::{era_table, is_live_table, live_table, origin_table};

/// A device in a plan: known by number, or by role because the plan itself makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceRef {
    /// A device that exists.
    Number(DevNo),
    /// This stack's device of that role; its number is known once it is created.
    Own(Role),
}

/// A table in a plan. [`Table::try_map`] turns it into the kernel's.
pub type PlannedTable = Table<DeviceRef>;

/// What a plan is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// To have what is desired.
    Reach(Desired),
    /// To separate what was written before from what is written after.
    Boundary,
    /// The same, and to keep what X held then for a reader.
    PointInTime(CopyStore),
    /// To keep it no longer.
    EndPointInTime,
}

/// Steps in order, and what was found to need none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it is for.
    pub goal: Goal,
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// What is not done, and why.
    pub skipped: Vec<Skipped>,
}

/// One thing to do. Every swap is one ioctl that drains and never freezes (skip-lockfs).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take LVM's own lock on the volume group, so that LVM does not change X meanwhile.
    LockVolumeGroup {
        /// The group.
        vg: VgName,
    },
    /// Give it back.
    UnlockVolumeGroup {
        /// The group.
        vg: VgName,
    },
    /// Fail unless X is active, its live table is this one and its inactive slot is empty.
    VerifyLive {
        /// X.
        x: DevNo,
        /// What its live table must be.
        table: PlannedTable,
    },
    /// Write zeroes over the start of the metadata, so that dm-era formats it.
    ZeroMetadata {
        /// The metadata device.
        device: DevNo,
        /// How much.
        length: Sectors,
    },
    /// Make a device of ours, without a table.
    Create {
        /// Its role.
        role: Role,
        /// Its name.
        name: DmName,
        /// Its uuid.
        uuid: DmUuid,
    },
    /// Load a table into the inactive slot of a device of ours that is not in use.
    Load {
        /// Which device.
        role: Role,
        /// The table.
        table: PlannedTable,
    },
    /// Make the loaded table of a device of ours live, which is not in use.
    Activate {
        /// Which device.
        role: Role,
    },
    /// Set `discard_max_bytes` of X-era unless it is no more than that already, and fail unless
    /// it then reads no more.
    LimitDiscards {
        /// The most that one discard may cover; 0 means no discards.
        bytes: Bytes,
    },
    /// Load a table into X, which is in use, and make it live in one ioctl. Fail, with the slot
    /// emptied, unless X's live table was `expect` just before.
    SwapIn {
        /// X.
        x: DevNo,
        /// What its live table must be before.
        expect: PlannedTable,
        /// What it is after.
        table: PlannedTable,
        /// Save `read_ahead_kb` before and set it again after: the swap resets it.
        keep_read_ahead: bool,
    },
    /// Empty X's inactive slot of a table that we left there. Fail if it holds another one.
    ClearSlot {
        /// X.
        x: DevNo,
        /// What is in the slot.
        table: PlannedTable,
    },
    /// Remove a device of ours that nobody has open.
    Remove {
        /// Which device.
        role: Role,
    },
    /// Tell X-era to begin a new era (message `checkpoint`).
    Checkpoint,
    /// Read X-era's status: the era that has just begun is the boundary's.
    ReadEra,
    /// Load X's own table into X again and make it live in one ioctl, which waits for every
    /// bio that is in flight.
    Drain {
        /// X.
        x: DevNo,
        /// What X's live table must be before, and is after.
        table: PlannedTable,
        /// As in [`Step::SwapIn`].
        keep_read_ahead: bool,
    },
}

/// Something that a plan does not do, because it need not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// X has no LVM lock to take.
    Lock,
    /// The metadata keeps its contents: X-era has read it, or shall go on in it.
    Zero,
    /// A device of ours is there with the right table.
    Build(Role),
    /// A device of ours is not there.
    Remove(Role),
    /// X-era takes no discards longer than this already.
    LimitDiscards(Bytes),
    /// X already goes through X-era with this granularity.
    Insert(Granularity),
    /// X does not go through X-era.
    Restore,
    /// X goes through X-origin: whoever reads that point in time ends it.
    PointInTime,
    /// X does not go through X-origin.
    EndPointInTime,
}

/// What to do so that the stack is as desired, or why it cannot be.
///
/// A refusal to track says nothing about what an earlier attempt left behind: plan for
/// [`Desired::Untracked`] to have that removed. A chain that shall go on ([`Contents::Kept`])
/// while X does not go through its X-era is [`Refusal::NotTracked`]: it has ended.
///
/// [`Contents::Kept`]: crate::stack::Contents::Kept
pub fn plan(observed: &Observed, desired: &Desired) -> Result<Plan, Refusal> {
    match desired {
        Desired::Tracked(tracked) => insert::plan(observed, tracked),
        Desired::Untracked => remove::plan(observed),
    }
}

/// What to do for a boundary of a tracked X, or why there can be none.
pub fn plan_boundary(observed: &Observed) -> Result<Plan, Refusal> {
    boundary::plan(observed)
}

/// What to do for a point in time of a tracked X that can be read, or why there can be none.
pub fn plan_point_in_time(observed: &Observed, store: &CopyStore) -> Result<Plan, Refusal> {
    point::begin(observed, store)
}

/// What to do so that nothing of a point in time is left, or why that must wait. Of a stack that X
/// does not go through, too.
pub fn plan_end_point_in_time(observed: &Observed) -> Result<Plan, Refusal> {
    point::end(observed)
}
