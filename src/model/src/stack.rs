//! What is there (`Observed`) and what shall be there (`Desired`).
//!
//! Only what a plan depends on. Everything is read under LVM's lock or proven again by the
//! plan's own first step; nothing here is older than the operation it is for.

use crate::discards::{DiscardLimits, DiscardPolicy};
use crate::kernel::KernelRelease;
use crate::lvm::{LvmName, LvmUuid, VgName};
use crate::names::{DmName, DmUuid, Role, StackId};
use crate::table::Table;
use crate::units::{Bytes, DevNo, Granularity, Sectors};

/// One stack as the machine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whose stack.
    pub stack: StackId,
    /// The kernel's abilities.
    pub kernel: Kernel,
    /// The user's device.
    pub x: Subject,
    /// X-era: the device whose uuid is this stack's `Role::Era`.
    pub era: Option<Device>,
    /// X-base: the device whose uuid is this stack's `Role::Base`.
    pub base: Option<Device>,
    /// X-origin: the device whose uuid is this stack's `Role::Origin`.
    pub origin: Option<Device>,
    /// X-snap: the device whose uuid is this stack's `Role::Snapshot`.
    pub snapshot: Option<Device>,
}

/// What the running kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: KernelRelease,
    /// The target `era` is there or can be loaded.
    pub has_era: bool,
    /// The target `switch` is there or can be loaded; needed for thin volumes alone.
    pub has_switch: bool,
}

/// The user's device, X.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// No such device: it was removed or deactivated.
    Gone,
    /// A block device that device mapper does not run.
    NotDeviceMapper(DevNo),
    /// A device-mapper device.
    Mapped(Volume),
}

/// X, a device-mapper device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// As device mapper has it.
    pub device: Device,
    /// The chunk of the thin pool that it is a volume of.
    pub pool_chunk: Option<Sectors>,
    /// Its logical block size.
    pub logical_block: Bytes,
    /// `queue/dax` is 1, or a mount uses DAX.
    pub dax: bool,
    /// `queue/zoned` is not `none`.
    pub zoned: bool,
    /// The devices that X's live table names, with their uuids: era of another stack shows here.
    pub beneath: Vec<Beneath>,
}

/// One device-mapper device: X, X-era or X-base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub number: DevNo,
    /// Its name.
    pub name: DmName,
    /// Its uuid; a device made by hand may have none.
    pub uuid: Option<DmUuid>,
    /// The live table; none before the first resume.
    pub live: Option<Table>,
    /// The table in the inactive slot.
    pub inactive: Option<Table>,
    /// I/O is held back. A device without a live table counts as suspended to the kernel; that
    /// is not meant here.
    pub suspended: bool,
    /// The live table is read-only.
    pub read_only: bool,
    /// Mounts, openers, and devices that map it.
    pub open_count: u32,
    /// Discards as its queue takes them; all zero if it takes none.
    pub discards: DiscardLimits,
}

/// The device below era that keeps its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataArea {
    /// The device that dm-era opens, such as a loop device.
    pub number: DevNo,
    /// Its length.
    pub length: Sectors,
    /// Whether what is in it counts.
    pub contents: Contents,
    /// Every block device that its bytes pass through, down to the disks.
    pub beneath: Vec<Beneath>,
}

/// Whether the metadata in an area counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// No chain relies on it: a new area. The plan zeroes its superblock.
    Fresh,
    /// A chain goes on in it, and X goes through era with it. Never put in: nobody recorded
    /// what was written to X while era was not there (invariant I2).
    Kept,
    /// A chain goes on in it after a reboot, because nothing was written to X while era was not
    /// there: somebody holds a [`Proof`](crate::continuity::Proof).
    Proven,
}

/// The device that takes what X held at a point in time, before it is overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStore {
    /// The device that dm-snapshot opens, such as a loop device.
    pub number: DevNo,
    /// Every block device that its bytes pass through, down to the disks.
    pub beneath: Vec<Beneath>,
}

/// A block device below another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beneath {
    /// Its number.
    pub number: DevNo,
    /// Its uuid, if it is a device-mapper device with one.
    pub uuid: Option<DmUuid>,
}

/// What shall be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Desired {
    /// X goes through X-era over X-base.
    Tracked(Tracked),
    /// X has its own table; nothing of ours is left.
    Untracked,
}

/// How X shall be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// How large a block is.
    pub granularity: Granularity,
    /// Where the metadata goes.
    pub metadata: MetadataArea,
    /// What becomes of discards, as far as X's queue allows it.
    pub discards: DiscardPolicy,
}

impl Observed {
    /// The device of ours with that role, if it is there.
    pub fn own(&self, role: Role) -> Option<&Device> {
        match role {
            Role::Era => self.era.as_ref(),
            Role::Base => self.base.as_ref(),
            Role::Origin => self.origin.as_ref(),
            Role::Snapshot => self.snapshot.as_ref(),
        }
    }
}

impl Volume {
    /// The volume group whose lock must be held while X's table changes, if LVM made X.
    pub fn volume_group(&self) -> Option<VgName> {
        let name = self.is_lvm().then(|| LvmName::parse(&self.device.name))?;
        name.map(|name| name.vg)
    }

    /// Whether LVM made X.
    pub fn is_lvm(&self) -> bool {
        self.device.uuid.as_ref().is_some_and(|uuid| LvmUuid::parse(uuid).is_some())
    }
}
