//! The steps of a merge, each safe to do again.

use eratrack_api::{ChangedBlockSlice, EraSnapshot, names};
use eratrack_model::delta::{Delta, DeltaError};
use jiff::Timestamp;
use kube::ResourceExt;

use super::choose::Fold;
use super::joined::{Joined, joined, other_place};
use super::store::Store;
use crate::agent::slices::same;
use crate::controller::api_error::{ApiError, ApiErrorKind};
use crate::controller::outcome::outcome;
use crate::controller::retention::Outcome;
use crate::delta::{ListError, ReadError, read};

/// Why a snapshot was not merged. It stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A list is not whole.
    #[error(transparent)]
    List(ListError),
    /// The lists do not join.
    #[error(transparent)]
    Delta(DeltaError),
    /// The union could not be computed.
    #[error("the lists could not be joined: the task ended early")]
    Task,
}

impl From<ReadError<ApiError>> for FoldError {
    fn from(error: ReadError<ApiError>) -> Self {
        match error {
            ReadError::Slice { source, .. } => Self::Api(source),
            ReadError::List(error) => Self::List(error),
            ReadError::Delta(error) => Self::Delta(error),
        }
    }
}

/// Merges a snapshot into another and deletes it. Whether it did: if one of them is another by now, nothing is done.
pub(crate) async fn fold<S: Store>(
    store: &S,
    plan: &Fold,
    now: Timestamp,
) -> Result<bool, FoldError> {
    // The cache lags behind our own writes: a list that was merged already would seem to be lost.
    let (gone, into) = (current(store, &plan.gone).await?, current(store, &plan.into).await?);
    let (Some(gone), Some(into)) = (gone, into) else { return Ok(false) };
    let (era, since) = (reach(&gone), reach(&into));
    match (era, since) {
        ((Some(era), Some(from)), (_, Some(since))) if since == era && from < era => {
            let both = both(store, &gone, &into).await?;
            write(store, &gone, &into, both, now).await?;
            let valid = other_place(&into);
            clear(store, &into, names::SLICES_MAX - valid).await?;
        }
        // It has the list already.
        ((_, Some(from)), (_, Some(since))) if since <= from => {
            clear(store, &into, other_place(&into)).await?;
        }
        _ => return Ok(false),
    }
    store.delete_snapshot(&gone).await?;
    Ok(true)
}

/// Its era, and the era that it refers back to.
fn reach(snapshot: &EraSnapshot) -> (Option<u32>, Option<u32>) {
    snapshot.status.as_ref().map_or((None, None), |status| (status.era, status.since_era))
}

/// The snapshot as it is now, if it is that one still, and complete.
async fn current<S: Store>(
    store: &S,
    known: &EraSnapshot,
) -> Result<Option<EraSnapshot>, ApiError> {
    let namespace = known.namespace().unwrap_or_default();
    let found = store.snapshot(&namespace, &known.name_any()).await?;
    Ok(found.filter(|it| {
        it.uid() == known.uid()
            && it.metadata.deletion_timestamp.is_none()
            && matches!(outcome(it), Outcome::Complete(_))
    }))
}

async fn both<S: Store>(
    store: &S,
    gone: &EraSnapshot,
    into: &EraSnapshot,
) -> Result<Delta, FoldError> {
    let (before, after) = (read(store, gone).await?, read(store, into).await?);
    before.and(after).map_err(FoldError::Delta)
}

/// The slices, then the one write that makes them valid.
async fn write<S: Store>(
    store: &S,
    gone: &EraSnapshot,
    into: &EraSnapshot,
    both: Delta,
    now: Timestamp,
) -> Result<(), FoldError> {
    let (first, second) = (gone.clone(), into.clone());
    let work = move || joined(&first, &second, &both, now);
    let Joined { slices, status } =
        tokio::task::spawn_blocking(work).await.map_err(|_| FoldError::Task)?;
    let mut resumed = false;
    for slice in &slices {
        resumed |= put(store, slice).await?;
    }
    if resumed {
        // Of an earlier try that had more of them.
        let count = u32::try_from(slices.len()).unwrap_or(names::SLICES_MAX);
        remove(store, into, other_place(into), count..names::SLICES_MAX).await?;
    }
    Ok(store.write_status(into, &status).await?)
}

/// Makes a slice, or one that an earlier try left into this one. Whether there was one.
async fn put<S: Store>(store: &S, slice: &ChangedBlockSlice) -> Result<bool, ApiError> {
    match store.create_slice(slice).await {
        Err(error) if error.kind == ApiErrorKind::Exists => {}
        answer => return answer.map(|()| false),
    }
    let namespace = slice.namespace().unwrap_or_default();
    match store.slice(&namespace, &slice.name_any()).await? {
        Some(there) if same(&there, slice) => return Ok(true),
        Some(there) => store.delete_slice(&there).await?,
        None => {}
    }
    store.create_slice(slice).await.map(|()| true)
}

/// Deletes all slices of a snapshot in one of the two places.
async fn clear<S: Store>(store: &S, of: &EraSnapshot, place: u32) -> Result<(), ApiError> {
    // Made and deleted in order, the last one first: after a gap there is none.
    let namespace = of.namespace().unwrap_or_default();
    let mut count = 0;
    while count < names::SLICES_MAX {
        let name = names::slice_name(&of.name_any(), place + count);
        if store.slice(&namespace, &name).await?.is_none() {
            break;
        }
        count += 1;
    }
    remove(store, of, place, 0..count).await
}

/// Deletes slices of a snapshot in a place, the last one first.
async fn remove<S: Store>(
    store: &S,
    of: &EraSnapshot,
    place: u32,
    which: std::ops::Range<u32>,
) -> Result<(), ApiError> {
    let namespace = of.namespace().unwrap_or_default();
    for index in which.rev() {
        let name = names::slice_name(&of.name_any(), place + index);
        let found = store.slice(&namespace, &name).await?;
        if let Some(slice) = found.filter(|it| Some(&it.spec.snapshot.uid) == of.uid().as_ref()) {
            store.delete_slice(&slice).await?;
        }
    }
    Ok(())
}
