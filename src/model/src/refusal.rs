//! Why a stack cannot be as desired. Each refusal names the device, the value and the remedy,
//! and has one reason of the API's documented list.

use thiserror::Error;

use crate::kernel::KernelRelease;
use crate::names::{DmName, DmUuid, Role};
use crate::units::{Bytes, DevNo, Granularity, Sectors};

/// Why nothing is done. No step of a refused plan has happened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// dm-era before these fixes forgets what it recorded.
    #[error(
        "kernel {found} cannot track safely; dm-era is durable in 5.15.51 and later 5.15, and from 6.1 on"
    )]
    KernelTooOld {
        /// What runs.
        found: KernelRelease,
    },
    /// A target that the stack is made of is missing.
    #[error(
        "the kernel has no device-mapper target {target:?}; load or install the module dm-{target}"
    )]
    TargetMissing {
        /// `era` or `switch`.
        target: &'static str,
    },
    /// Nothing of that number is there any more.
    #[error("the device is gone; activate the volume again")]
    Gone,
    /// Only device-mapper devices can be put on another table while in use.
    #[error(
        "device {number} is no device-mapper device; use a volume of LVM, or a linear device over it"
    )]
    NotDeviceMapper {
        /// The device.
        number: DevNo,
    },
    /// X is X-era or X-base of some stack.
    #[error("device {name} is part of a tracking stack itself; name the volume above it")]
    OwnDevice {
        /// X.
        name: DmName,
    },
    /// X is a hidden part of a logical volume.
    #[error(
        "device {name} is the inner layer {layer:?} of a logical volume; name the volume itself"
    )]
    InnerLvmDevice {
        /// X.
        name: DmName,
        /// What follows the ids in its uuid.
        layer: String,
    },
    /// LVM's lock cannot be named.
    #[error(
        "device {name} has a uuid of LVM's, but its name is not LVM's <group>-<volume>; rename it back with lvrename or lvchange --refresh"
    )]
    LvmNameUnreadable {
        /// X.
        name: DmName,
    },
    /// X has no table at all.
    #[error("device {name} has no live table; finish or remove what is being set up there")]
    NoTable {
        /// X.
        name: DmName,
    },
    /// A target that cannot be copied into X-base.
    #[error("device {name} maps through {kind:?}, which cannot be tracked: {remedy}")]
    TargetUnsupported {
        /// X.
        name: DmName,
        /// The target.
        kind: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// LVM could not remove the last snapshot any more.
    #[error("volume {name} has LVM snapshots; remove them first")]
    HasSnapshots {
        /// X.
        name: DmName,
    },
    /// X-base would hold LVM's temporary mirror, which pvmove must remove in the end.
    #[error("volume {name} is being moved by pvmove; wait until it has finished")]
    BeingMoved {
        /// X.
        name: DmName,
    },
    /// dm-era has no DAX.
    #[error("device {name} is in use with DAX, which bypasses tracking; mount without dax")]
    Dax {
        /// X.
        name: DmName,
    },
    /// dm-era has no zones.
    #[error(
        "device {name} is zoned, which dm-era does not support; use a volume on a conventional disk"
    )]
    Zoned {
        /// X.
        name: DmName,
    },
    /// A swap would make X writable.
    #[error("device {name} is read-only; there is nothing to track until it is writable")]
    ReadOnly {
        /// X.
        name: DmName,
    },
    /// Somebody is at work on X.
    #[error(
        "device {name} is suspended by somebody else; let that operation finish, or resume it with dmsetup resume"
    )]
    Suspended {
        /// X.
        name: DmName,
    },
    /// Somebody is at work on X.
    #[error(
        "device {name} has a table of somebody else's loaded but not live ({table:?}); let that operation finish, or clear it with dmsetup clear"
    )]
    SlotTaken {
        /// X.
        name: DmName,
        /// What is in the slot.
        table: String,
    },
    /// Too small to be worth it, or to be split.
    #[error(
        "device {name} has {length} sectors, fewer than the least of {least}; use a larger volume or a finer granularity"
    )]
    TooSmall {
        /// X.
        name: DmName,
        /// Its length.
        length: Sectors,
        /// The least.
        least: Sectors,
    },
    /// The parts of the stack would not be aligned.
    #[error(
        "device {name} has {length} sectors, no multiple of its logical block of {block} bytes; resize the volume"
    )]
    OddLength {
        /// X.
        name: DmName,
        /// Its length.
        length: Sectors,
        /// Its logical block in bytes.
        block: u64,
    },
    /// Blocks must be whole logical blocks.
    #[error(
        "granularity {granularity} is finer than the logical block of {name}, {block} bytes; choose a coarser one"
    )]
    FinerThanLogicalBlock {
        /// X.
        name: DmName,
        /// What was asked for.
        granularity: Granularity,
        /// X's logical block in bytes.
        block: u64,
    },
    /// dm-era counts blocks in 31 bits.
    #[error(
        "device {name} has {blocks} blocks of {granularity}, more than the limit of {limit}; choose a coarser granularity"
    )]
    TooManyBlocks {
        /// X.
        name: DmName,
        /// What was asked for.
        granularity: Granularity,
        /// Blocks at that granularity.
        blocks: u64,
        /// The most there may be.
        limit: u64,
    },
    /// Draining X would wait for its own metadata.
    #[error(
        "the metadata for {name} lies on {beneath}, which is tracked; keep metadata on a disk of its own, or on a volume that is not tracked"
    )]
    MetadataOnTrackedVolume {
        /// X.
        name: DmName,
        /// The device in question.
        beneath: DevNo,
    },
    /// A write to X would wait for itself.
    #[error(
        "the store for a point in time of {name} lies on {beneath}, which is tracked; keep it on a disk of its own, or on a volume that is not tracked"
    )]
    CopiesOnTrackedVolume {
        /// X.
        name: DmName,
        /// The device in question.
        beneath: DevNo,
    },
    /// One at a time.
    #[error("a point in time of {name} is held already; let its reader finish")]
    PointInTimeHeld {
        /// X.
        name: DmName,
    },
    /// X is tracked in another way than asked.
    #[error(
        "device {name} is tracked already, at {granularity} with metadata on {metadata}; detach it first"
    )]
    TrackedOtherwise {
        /// X.
        name: DmName,
        /// The granularity in force, in sectors.
        granularity: Sectors,
        /// The metadata device in force.
        metadata: DevNo,
    },
    /// Another stack has X.
    #[error("device {name} is tracked by another stack ({uuid}); detach that one first")]
    TrackedElsewhere {
        /// X.
        name: DmName,
        /// The other stack's device.
        uuid: DmUuid,
    },
    /// X is not tracked, so it has no boundaries.
    #[error("device {name} does not go through its era device; attach it first")]
    NotTracked {
        /// X.
        name: DmName,
    },
    /// Tables that name our devices in a way that we never make.
    #[error(
        "the stack of {name} is not as it was made: {what}; nothing was changed, look at dmsetup table"
    )]
    Inconsistent {
        /// X.
        name: DmName,
        /// What is wrong.
        what: String,
    },
    /// A device of ours that somebody else uses.
    #[error(
        "device {name} (the stack's {role}) is held open {open_count} times by others; end what uses it"
    )]
    Busy {
        /// Which.
        name: DmName,
        /// Its role.
        role: Role,
        /// By how many, besides our own devices.
        open_count: u32,
    },
}

impl Refusal {
    /// The reason for a condition, from the API's documented list.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::KernelTooOld { .. } | Self::TargetMissing { .. } => "KernelUnsupported",
            Self::Gone => "DeviceNotFound",
            Self::NotDeviceMapper { .. } => "NotDeviceMapper",
            Self::InnerLvmDevice { .. }
            | Self::TargetUnsupported { .. }
            | Self::Zoned { .. }
            | Self::OddLength { .. } => "TableUnsupported",
            Self::HasSnapshots { .. } => "VolumeHasSnapshots",
            Self::Dax { .. } => "FilesystemUnsupported",
            Self::ReadOnly { .. } => "DeviceReadOnly",
            Self::OwnDevice { .. } | Self::TrackedElsewhere { .. } => "DeviceClaimed",
            Self::NoTable { .. }
            | Self::Suspended { .. }
            | Self::BeingMoved { .. }
            | Self::SlotTaken { .. }
            | Self::Busy { .. } => "DeviceBusy",
            Self::PointInTimeHeld { .. } => "PointInTimeHeld",
            Self::TooSmall { .. } => "DeviceTooSmall",
            Self::FinerThanLogicalBlock { .. } | Self::TooManyBlocks { .. } => "LimitExceeded",
            Self::MetadataOnTrackedVolume { .. } | Self::CopiesOnTrackedVolume { .. } => {
                "MetadataOnTrackedVolume"
            }
            Self::TrackedOtherwise { .. }
            | Self::LvmNameUnreadable { .. }
            | Self::Inconsistent { .. } => "OperationFailed",
            Self::NotTracked { .. } => "NotTracked",
        }
    }

    /// Whether asking again later may succeed although nobody changed the volume: somebody else
    /// is at work on it just now.
    pub fn is_transient(&self) -> bool {
        matches!(self.reason(), "DeviceBusy" | "PointInTimeHeld")
    }
}

/// The least that X must have. Below that a full copy costs less than keeping a list.
pub const LEAST_LENGTH: Bytes = Bytes(8 << 20);

/// dm-era takes fewer than 2^31 blocks (`valid_nr_blocks`, drivers/md/dm-era-target.c).
pub const MOST_BLOCKS: u64 = (1 << 31) - 1;
