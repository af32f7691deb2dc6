//! What a merge asks of the API server.

use eratrack_api::{ChangedBlockSlice, EraSnapshot, EraSnapshotStatus};

use crate::controller::api_error::ApiError;
use crate::delta::Slices;

/// What a merge asks of the API server: objects by name, one at a time. Reading a slice is [`Slices`]'.
pub(crate) trait Store: Slices<Error = ApiError> {
    /// A snapshot as it is now, or none if the API server says that it does not exist.
    fn snapshot(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<EraSnapshot>, ApiError>> + Send;

    /// Makes a slice; of kind `Exists` if one of that name is there.
    fn create_slice(
        &self,
        slice: &ChangedBlockSlice,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a slice, and no other of its name. One that is gone is deleted.
    fn delete_slice(
        &self,
        slice: &ChangedBlockSlice,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Writes a snapshot's status, if it was not written since.
    fn write_status(
        &self,
        snapshot: &EraSnapshot,
        status: &EraSnapshotStatus,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a snapshot, if it was not written since; else of kind `Conflict`: another may have been merged into it.
    /// One that is gone is deleted.
    fn delete_snapshot(
        &self,
        snapshot: &EraSnapshot,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
}
