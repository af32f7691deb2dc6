//! Why a volume is not tracked, in words for the person who asked for it.

use std::path::PathBuf;

use eratrack_api::Reason;
use eratrack_model::units::DevNo;

/// Why a volume is not tracked, or not now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The PersistentVolume was made again.
    #[error("PersistentVolume {name} has uid {found}, not {wanted}: it was deleted and made again")]
    OtherVolume {
        /// Its name.
        name: String,
        /// The uid in the EraVolume.
        wanted: String,
        /// The uid it has.
        found: String,
    },
    /// The PersistentVolume is not there.
    #[error("PersistentVolume {name} does not exist")]
    NoVolume {
        /// Its name.
        name: String,
    },
    /// The PersistentVolume belongs to another claim.
    #[error("PersistentVolume {volume} is not bound to claim {claim} (spec.claimRef)")]
    OtherClaim {
        /// The PersistentVolume.
        volume: String,
        /// The claim, with its namespace.
        claim: String,
    },
    /// Several nodes may write, or none.
    #[error(
        "access modes [{modes}] of the PersistentVolume: only ReadWriteOnce and ReadWriteOncePod volumes \
         can be tracked, because another node's writes would go unseen"
    )]
    AccessMode {
        /// All of them.
        modes: String,
    },
    /// No block device at all.
    #[error("{what}: only volumes on a block device can be tracked")]
    NotBlockBacked {
        /// What it is instead.
        what: String,
    },
    /// A device that nobody looks for.
    #[error(
        "PersistentVolume {volume} is of the kind {kind}: only devices of the kinds csi and local are found and tracked"
    )]
    Kind {
        /// The PersistentVolume.
        volume: String,
        /// The field of its spec.
        kind: &'static str,
    },
    /// No pod on this node.
    #[error("no pod on this node uses the volume yet; tracking starts when one does")]
    NotInUse,
    /// Several devices.
    #[error(
        "the kubelet's mounts and maps of the volume lead to several devices: {}",
        list(devices)
    )]
    Ambiguous {
        /// All of them.
        devices: Vec<DevNo>,
    },
    /// Another volume has it.
    #[error("device {device} is already tracked for the volume with uid {by}")]
    Claimed {
        /// The device.
        device: DevNo,
        /// The other PersistentVolume's uid.
        by: String,
    },
    /// Mounted elsewhere.
    #[error(
        "device {device} is also mounted at {point}: a device that others use is not tracked; unmount it there"
    )]
    SharedFilesystem {
        /// The device.
        device: DevNo,
        /// The other mount point.
        point: PathBuf,
    },
    /// A directory of a larger filesystem.
    #[error(
        "{point} shows only the directory {root} of its filesystem: give the volume a device of its own"
    )]
    Directory {
        /// The directory within the filesystem.
        root: PathBuf,
        /// The kubelet's mount point.
        point: PathBuf,
    },
    /// A filesystem that goes around the device.
    #[error("the filesystem {fs_type} at {point} cannot be tracked: {why}")]
    Filesystem {
        /// The kubelet's mount point.
        point: PathBuf,
        /// The filesystem.
        fs_type: String,
        /// What stands against it.
        why: &'static str,
    },
    /// A plain disk or partition.
    #[error(
        "device {device} is not a device-mapper device: only those (LVM volumes, for instance) can be tracked \
         while they are in use"
    )]
    NotDeviceMapper {
        /// The device.
        device: DevNo,
    },
}

impl Refusal {
    /// The reason of the conditions.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::OtherVolume { .. } | Self::NoVolume { .. } | Self::OtherClaim { .. } => {
                Reason::DeviceNotFound
            }
            Self::AccessMode { .. } => Reason::AccessModeUnsupported,
            Self::NotBlockBacked { .. } => Reason::NotBlockBacked,
            Self::NotInUse => Reason::NotInUse,
            Self::Ambiguous { .. } => Reason::DeviceAmbiguous,
            Self::Claimed { .. } => Reason::DeviceClaimed,
            Self::SharedFilesystem { .. } | Self::Directory { .. } => Reason::SharedFilesystem,
            Self::Filesystem { .. } => Reason::FilesystemUnsupported,
            Self::Kind { .. } | Self::NotDeviceMapper { .. } => Reason::NotDeviceMapper,
        }
    }
}

fn list(devices: &[DevNo]) -> String {
    devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
