//! What can go wrong with a snapshot, and what then.

use eratrack_api::Reason;

use crate::agent::cluster::ClusterError;
use crate::agent::stacks::{Hope, StackError};

/// A step of a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The boundary.
    #[error("cannot make the boundary: {0}")]
    Boundary(#[source] StackError),
    /// The list.
    #[error("cannot read what changed: {0}")]
    Read(#[source] StackError),
    /// The point in time, before the list was complete.
    #[error("the point in time is lost: {message}")]
    Lost {
        /// How.
        reason: Reason,
        /// With the values involved.
        message: String,
    },
    /// A write to the API server, or a read.
    #[error("cannot {step}: {source}")]
    Cluster {
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: ClusterError,
    },
}

/// What follows from an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Try again after a while; until then the snapshot says this.
    Retry { say: Option<(Reason, String)> },
    /// It will never be ready.
    Fail { reason: Reason, message: String },
    /// It will never be ready, and the volume's chain is broken.
    FailAndBreak { reason: Reason, message: String, chain: Reason },
    /// The volume's chain is broken; there is no boundary yet, so the snapshot can be the first of the next chain.
    Break { chain: Reason },
    /// The object is gone or another's; the watch will tell.
    Forget,
}

impl SnapshotError {
    /// What to do.
    pub(crate) fn remedy(&self) -> Remedy {
        let message = self.to_string();
        match self {
            Self::Boundary(error) => match error.hope {
                Hope::Soon | Hope::Later if error.reason == Reason::BoundaryTimeout => {
                    Remedy::Fail { reason: Reason::BoundaryTimeout, message }
                }
                Hope::Soon | Hope::Later => {
                    Remedy::Retry { say: Some((waiting(error.reason), message)) }
                }
                Hope::Broken => Remedy::Break { chain: error.reason },
            },
            Self::Read(error) => match error.hope {
                Hope::Soon | Hope::Later => {
                    Remedy::Retry { say: Some((waiting(error.reason), message)) }
                }
                Hope::Broken => Remedy::FailAndBreak {
                    reason: unreadable(error.reason),
                    message,
                    chain: error.reason,
                },
            },
            Self::Lost { reason, message: _ } => Remedy::Fail { reason: *reason, message },
            Self::Cluster { step: _, source } => match source {
                ClusterError::Quota { .. } => {
                    Remedy::Fail { reason: Reason::QuotaExceeded, message }
                }
                ClusterError::Gone { .. } | ClusterError::Conflict { .. } => Remedy::Forget,
                ClusterError::Exists { .. }
                | ClusterError::Rejected { .. }
                | ClusterError::Unavailable { .. }
                | ClusterError::Timeout { .. } => Remedy::Retry { say: None },
            },
        }
    }
}

/// A list that cannot be read is one thing, a volume that writes past era another.
fn unreadable(reason: Reason) -> Reason {
    match reason {
        Reason::MetadataLost | Reason::MetadataError | Reason::MetadataFull => {
            Reason::ListUnreadable
        }
        _ => Reason::ChainBroken,
    }
}

/// Only some reasons can stand in a snapshot's Ready.
fn waiting(reason: Reason) -> Reason {
    match reason {
        Reason::RateLimited
        | Reason::NotAttached
        | Reason::PointInTimeHeld
        | Reason::CopiesNoSpace => reason,
        _ => Reason::OperationFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(hope: Hope, reason: Reason) -> StackError {
        StackError { hope, reason, message: "device 253:3: no".to_owned() }
    }

    fn cluster(source: ClusterError) -> Remedy {
        SnapshotError::Cluster { step: "create a slice", source }.remedy()
    }

    #[test]
    fn remedies_of_the_machine() {
        let gone = SnapshotError::Boundary(stack(Hope::Later, Reason::NotAttached)).remedy();
        assert!(matches!(gone, Remedy::Retry { say: Some((Reason::NotAttached, _)) }));
        let busy = SnapshotError::Boundary(stack(Hope::Soon, Reason::DeviceBusy)).remedy();
        assert!(matches!(busy, Remedy::Retry { say: Some((Reason::OperationFailed, _)) }));
        let slow = SnapshotError::Boundary(stack(Hope::Soon, Reason::BoundaryTimeout)).remedy();
        assert!(matches!(slow, Remedy::Fail { reason: Reason::BoundaryTimeout, .. }));
        let reloaded = SnapshotError::Boundary(stack(Hope::Broken, Reason::TableReloaded)).remedy();
        assert_eq!(reloaded, Remedy::Break { chain: Reason::TableReloaded });
        let later = SnapshotError::Read(stack(Hope::Broken, Reason::TableReloaded)).remedy();
        assert!(matches!(later, Remedy::FailAndBreak { reason: Reason::ChainBroken, .. }));
        let torn = SnapshotError::Read(stack(Hope::Broken, Reason::MetadataLost)).remedy();
        assert!(matches!(
            torn,
            Remedy::FailAndBreak {
                reason: Reason::ListUnreadable,
                chain: Reason::MetadataLost,
                ..
            }
        ));
    }

    #[test]
    fn remedies_of_the_api_server() {
        let what = || "ChangedBlockSlice apps/s-0".to_owned();
        let quota =
            cluster(ClusterError::Quota { what: what(), message: "exceeded quota: q".to_owned() });
        assert!(
            matches!(&quota, Remedy::Fail { reason: Reason::QuotaExceeded, message } if message.contains("exceeded quota: q"))
        );
        assert_eq!(cluster(ClusterError::Gone { what: what() }), Remedy::Forget);
        assert_eq!(
            cluster(ClusterError::Timeout { what: what(), seconds: 30 }),
            Remedy::Retry { say: None }
        );
    }
}
