//! How a reconciliation fails, and when it is tried again: one enum for each step that can, one mapping.

use std::time::Duration;

use super::api_error::{ApiError, ApiErrorKind};

/// A reconciliation that failed, by the step it failed in. Steps that only compute cannot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The plan could not be carried out.
    #[error(transparent)]
    Apply(ApiError),
    /// All of the plan was carried out but this, and perhaps more; it would have been looked at again after this time.
    #[error("{0}")]
    Refused(#[source] ApiError, Duration),
    /// It took too long.
    #[error(transparent)]
    TimedOut(ApiError),
    /// The status could not be written.
    #[error(transparent)]
    Status(ApiError),
    /// What the caches say could not be confirmed.
    #[error(transparent)]
    Confirm(ApiError),
}

impl ReconcileError {
    /// When to try again.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Apply(error)
            | Self::TimedOut(error)
            | Self::Status(error)
            | Self::Confirm(error) => error.retry_after(),
            Self::Refused(error, again) => error.retry_after().min(*again),
        }
    }

    /// The step's name, for metrics.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::Apply(_) | Self::Refused(..) => "apply",
            Self::TimedOut(_) => "deadline",
            Self::Status(_) => "status",
            Self::Confirm(_) => "confirm",
        }
    }

    /// Whether it is what happens all the time when caches lag behind, and cures itself.
    pub(crate) fn is_routine(&self) -> bool {
        match self {
            Self::Apply(error)
            | Self::Refused(error, _)
            | Self::TimedOut(error)
            | Self::Status(error)
            | Self::Confirm(error) => {
                matches!(
                    error.kind,
                    ApiErrorKind::Conflict | ApiErrorKind::Gone | ApiErrorKind::Exists
                )
            }
        }
    }
}
