use std::io;
use std::time::Duration;

use eratrack_model::lvm::VgName;
use eratrack_model::units::Bytes;

/// What LVM did not do. Nothing of ours is left half done by it.
#[derive(Debug, thiserror::Error)]
pub enum LvmError {
    /// There is no such command.
    #[error("this machine has no {0}; install LVM (lvm2), or keep the metadata elsewhere")]
    Absent(&'static str),
    /// The commands would work on another machine's files than the ones that are meant.
    #[error("volumes are made by `eratrack device` on the machine itself, not from a container")]
    NotHere,
    /// No such group.
    #[error("there is no volume group {0}; `vgs` shows those there are")]
    NoGroup(VgName),
    /// The group is full.
    #[error(
        "volume group {vg} has {free} free, and the metadata needs {needed}; make room, or choose a coarser granularity"
    )]
    NoRoom {
        /// The group.
        vg: VgName,
        /// What is free.
        free: Bytes,
        /// What is needed.
        needed: Bytes,
    },
    /// A volume of that name is somebody else's.
    #[error("there is a volume {lv} in group {vg} that eratrack did not make; rename it")]
    NameTaken {
        /// The group.
        vg: VgName,
        /// The volume.
        lv: String,
    },
    /// The volume that the metadata is in is not there.
    #[error("there is no volume {lv} in group {vg}: the metadata is lost")]
    NoVolume {
        /// The group.
        vg: VgName,
        /// The volume.
        lv: String,
    },
    /// It was not done in time.
    #[error("{command} was not done after {} s; let LVM finish what it is at", waited.as_secs())]
    Deadline {
        /// The command.
        command: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The command says why.
    #[error("{command} failed: {said}")]
    Failed {
        /// The command.
        command: &'static str,
        /// Its standard error.
        said: String,
    },
    /// The command could not be run, or what it printed is not understood.
    #[error("cannot run {command}")]
    Io {
        /// The command.
        command: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl LvmError {
    /// The reason for a condition, from the documented list of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "MetadataNoSpace",
            Self::NoVolume { .. } => "MetadataLost",
            Self::Deadline { .. } => "DeviceBusy",
            Self::Absent(_)
            | Self::NotHere
            | Self::NoGroup(_)
            | Self::NameTaken { .. }
            | Self::Failed { .. }
            | Self::Io { .. } => "OperationFailed",
        }
    }
}
