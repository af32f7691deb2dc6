//! How a reconciliation fails, and when it is tried again: one enum for each step that can, one mapping.

use std::time::Duration;

use super::api_error::{ApiError, ApiErrorKind};

/// A reconciliation that failed, by the step it failed in. Steps that only compute cannot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The plan could not be carried out.
    #[error(transparent)]
    Apply(ApiError),
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
            Self::Apply(error) | Self::Status(error) | Self::Confirm(error) => error.retry_after(),
        }
    }

    /// The step's name, for metrics.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
            Self::Confirm(_) => "confirm",
        }
    }

    /// Whether it is what happens all the time when caches lag behind, and cures itself.
    pub(crate) fn is_routine(&self) -> bool {
        match self {
            Self::Apply(error) | Self::Status(error) | Self::Confirm(error) => {
                matches!(
                    error.kind,
                    ApiErrorKind::Conflict | ApiErrorKind::Gone | ApiErrorKind::Exists
                )
            }
        }
    }
}
