use std::io;
use std::path::PathBuf;

use eratrack_dm::HostError;
use eratrack_dm::machine::MachineError;
use eratrack_dm::store::StoreError;
use eratrack_model::units::Bytes;

use crate::checkpoint::State;
use crate::target_error::TargetError;

/// Why there is no replica of a new point in time. What was begun is made again by the same call.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The target cannot be one.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The tracked device, or its point in time.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file of the machine's cannot be read.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The checkpoint cannot be written.
    #[error("the checkpoint cannot be written; the copy up to now counts for nothing")]
    Checkpoint(#[source] StoreError),
    /// The source cannot be read.
    #[error("cannot read {length} bytes at {offset} of the source")]
    Read {
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The target cannot be written or read.
    #[error("cannot {doing} {length} bytes at {offset} of {}", path.display())]
    Write {
        /// What was tried.
        doing: &'static str,
        /// The target.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The wish to end came.
    #[error("ended as asked to; {}", standing(*.0))]
    Stopped(State),
    /// Somebody else writes to the target.
    #[error(
        "somebody else has written to {} while it was copied to; the next call copies in full",
        path.display()
    )]
    Written {
        /// The target.
        path: PathBuf,
    },
    /// What was read of the source does not count.
    #[error("{0}")]
    Source(String),
    /// Compared in full, the target is not what was copied.
    #[error(
        "{} differs from the source in {} places, {bytes} in all: something else writes to it, or its disk is at fault; the next call copies in full",
        path.display(),
        ranges.len()
    )]
    Differs {
        /// The target.
        path: PathBuf,
        /// First byte and length of what differs.
        ranges: Vec<(u64, u64)>,
        /// How much that is.
        bytes: Bytes,
    },
}

fn standing(state: State) -> &'static str {
    match state {
        State::Seeding => "the first copy goes on where it was with the next call",
        State::Copying | State::Differs => {
            "the target holds a mix of two points in time until the next call has finished"
        }
        State::Consistent => "the target is consistent",
    }
}

impl ReplicaError {
    /// Whether the same may succeed a little later, although nobody changed anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Host(HostError::PointInTimeLost { .. }) => true,
            Self::Host(error) => error.is_transient(),
            _ => false,
        }
    }
}
