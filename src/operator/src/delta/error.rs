//! Why a list cannot be had.

use eratrack_model::delta::DeltaError;
use eratrack_model::extents::RangesError;

/// What was found is not the list that the snapshot's status speaks of. It does not pass by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    /// It has no list yet, or never will.
    #[error("EraSnapshot {snapshot} has no list: it is {phase}")]
    NotReady {
        /// The snapshot.
        snapshot: String,
        /// The reason of its Ready condition.
        phase: String,
    },
    /// Its status lacks a figure, or has one that cannot be.
    #[error(
        "EraSnapshot {snapshot} has no usable status.{field}, so its list cannot be vouched for"
    )]
    Status {
        /// The snapshot.
        snapshot: String,
        /// The field.
        field: &'static str,
    },
    /// A slice is not there.
    #[error("ChangedBlockSlice {slice} is gone: a part of the list is lost")]
    Missing {
        /// The slice.
        slice: String,
    },
    /// A slice is of another list.
    #[error(
        "ChangedBlockSlice {slice} says {field} {found}, expected {expected}: it was changed or is of another list"
    )]
    Field {
        /// The slice.
        slice: String,
        /// The field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should.
        expected: String,
    },
    /// A slice's ranges are none.
    #[error("ChangedBlockSlice {slice}: {source}")]
    Ranges {
        /// The slice.
        slice: String,
        /// Why.
        source: RangesError,
    },
    /// The parts together are not what was written.
    #[error(
        "the slices of EraSnapshot {snapshot} together have {field} {found}, but its status says {expected}: one was changed"
    )]
    Summary {
        /// The snapshot.
        snapshot: String,
        /// The field.
        field: &'static str,
        /// What they have.
        found: String,
        /// What the status says.
        expected: String,
    },
}

/// Why a list, or a union of lists, could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError<E: std::error::Error + 'static> {
    /// The API server did not answer; it may pass.
    #[error("cannot read ChangedBlockSlice {slice}")]
    Slice {
        /// The slice.
        slice: String,
        /// What came instead.
        source: E,
    },
    /// The list is not whole.
    #[error(transparent)]
    List(#[from] ListError),
    /// The lists do not join.
    #[error(transparent)]
    Delta(#[from] DeltaError),
}
