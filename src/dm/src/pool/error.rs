use std::io;
use std::path::PathBuf;
use std::time::Duration;

use eratrack_model::names::StackId;
use eratrack_model::pool::{AllocateError, LEAST_DISK, PoolId, ReadError};
use eratrack_model::units::{Bytes, DevNo};

/// Why nothing can be done with a pool. Its table is as it was, or as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// There is no such device.
    #[error("there is no block device {}; name the pool's disk by a path below /dev", path.display())]
    NoDevice {
        /// As it was named.
        path: PathBuf,
    },
    /// The disk holds no pool, or none that can be understood.
    #[error("block device {device}: {source}")]
    Table {
        /// The disk.
        device: DevNo,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// It is nowhere.
    #[error(
        "the pool {pool} is not on {} nor on a disk that says it is {}; attach its disk",
        path.display(),
        identity.as_deref().unwrap_or("the same")
    )]
    Missing {
        /// The pool.
        pool: PoolId,
        /// Where it was.
        path: PathBuf,
        /// What its disk said of itself.
        identity: Option<String>,
    },
    /// Somebody else uses the disk.
    #[error("block device {device} is in use ({by}); stop what uses it, or use another disk")]
    Busy {
        /// The disk.
        device: DevNo,
        /// By whom, as far as it can be told.
        by: String,
    },
    /// Another operation of ours is at work on it.
    #[error("another eratrack was at work on the pool on {device} for {} s; let it finish", waited.as_secs())]
    Locked {
        /// The disk.
        device: DevNo,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Not made a pool: there is something on it.
    #[error(
        "block device {device} is not blank: {holds}; if all of it may be lost, say so with --serial {}",
        identity.as_deref().map_or_else(
            || "(it has none: make its first and last MiB zero instead)".to_owned(),
            |it| format!("{it:?}")
        )
    )]
    NotBlank {
        /// The disk.
        device: DevNo,
        /// What is on it.
        holds: String,
        /// What must be given to `--serial`.
        identity: Option<String>,
    },
    /// Not made a pool: it is another disk that is meant.
    #[error(
        "block device {device} says it is {}, not {given:?}; nothing was changed",
        identity.as_ref().map_or_else(|| "nothing".to_owned(), |it| format!("{it:?}"))
    )]
    OtherSerial {
        /// The disk.
        device: DevNo,
        /// What was given.
        given: String,
        /// What it says.
        identity: Option<String>,
    },
    /// Not made a pool: it cannot be one.
    #[error("block device {device} cannot be a pool: {why}")]
    Unfit {
        /// The disk.
        device: DevNo,
        /// Why, and what would help.
        why: String,
    },
    /// Not made a pool: it is too small.
    #[error("block device {device} has {length}, and a pool needs {LEAST_DISK} at least")]
    TooSmall {
        /// The disk.
        device: DevNo,
        /// Its length.
        length: Bytes,
    },
    /// No area given, taken or found.
    #[error(transparent)]
    Area(#[from] AllocateError),
    /// The area is not to be freed.
    #[error("the area of stack {stack} in the pool stays: {why}")]
    AreaInUse {
        /// Whose.
        stack: StackId,
        /// Why.
        why: String,
    },
    /// The disk cannot be read or written.
    #[error("cannot {doing} block device {device}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The disk.
        device: DevNo,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was written is not what is read.
    #[error(
        "block device {0} does not read back what was written to it; do not use it for metadata"
    )]
    ReadBack(DevNo),
}

impl PoolError {
    /// The reason for a condition, from the documented list of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoDevice { .. } | Self::Missing { .. } => "DeviceNotFound",
            Self::Busy { .. } | Self::Locked { .. } => "DeviceBusy",
            Self::Area(AllocateError::NoRoom { .. } | AllocateError::TableFull) => {
                "MetadataNoSpace"
            }
            Self::Table { .. } => "MetadataLost",
            Self::NotBlank { .. }
            | Self::OtherSerial { .. }
            | Self::Unfit { .. }
            | Self::TooSmall { .. }
            | Self::Area(_)
            | Self::AreaInUse { .. }
            | Self::Io { .. }
            | Self::ReadBack(_) => "OperationFailed",
        }
    }

    /// Whether there is a pool, and its table is not to be used.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Table { source, .. } => *source != ReadError::NoPool,
            _ => false,
        }
    }

    /// Whether the pool is not there, or has no table to go by: what a stack had in it is lost, or
    /// elsewhere.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NoDevice { .. } | Self::Table { .. })
    }
}
