use std::io;
use std::path::PathBuf;

use eratrack_model::units::Bytes;

/// Why a target cannot be one. Nothing was written to it.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A directory, a pipe.
    #[error("{} is neither a regular file nor a block device", path.display())]
    Kind {
        /// The target.
        path: PathBuf,
    },
    /// A file would be made where devices are.
    #[error("there is no device {}; attach the disk, or name a file elsewhere", path.display())]
    NoDevice {
        /// The target.
        path: PathBuf,
    },
    /// Somebody mounts or maps it, or another replica is made in it.
    #[error("{} is in use; unmount it, or end what uses it", path.display())]
    InUse {
        /// The target.
        path: PathBuf,
    },
    /// It is the source, or what the source stands on.
    #[error("{} is the source itself, or what it lies on; name another target", path.display())]
    IsSource {
        /// The target.
        path: PathBuf,
    },
    /// It would grow by what is written to it.
    #[error("{} lies on the source itself; name a target on another disk", path.display())]
    OnSource {
        /// The target.
        path: PathBuf,
    },
    /// A part of somebody's stack.
    #[error("{} is part of a tracking stack; name another target", path.display())]
    PartOfStack {
        /// The target.
        path: PathBuf,
    },
    /// Not all of the source goes into it.
    #[error(
        "{} has {found}, less than the {needed} of the source; name a larger target, or a new file",
        path.display()
    )]
    TooSmall {
        /// The target.
        path: PathBuf,
        /// What it has.
        found: Bytes,
        /// What the source has.
        needed: Bytes,
    },
    /// It may hold what somebody wants to keep.
    #[error(
        "{} is not empty, and {because}: give --overwrite if what is in it may go",
        path.display()
    )]
    NotEmpty {
        /// The target.
        path: PathBuf,
        /// Why it is not known to be this replica.
        because: String,
    },
    /// The system refuses.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The target.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
