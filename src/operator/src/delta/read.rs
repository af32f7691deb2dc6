//! Reading lists from the API server: slices by name, one at a time, never by list or watch.

use std::error::Error;

use eratrack_api::{ChangedBlockSlice, EraSnapshot};
use eratrack_model::delta::{Delta, DeltaError, path};
use kube::{Api, Client, ResourceExt};

use super::assemble::Assembly;
use super::error::{ListError, ReadError};
use super::head::{head, heads};

/// Where slices are read.
pub(crate) trait Slices: Sync {
    /// Why one could not be read.
    type Error: Error + Send + Sync + 'static;

    /// The slice, or none if the API server says that just this object does not exist.
    fn slice(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<ChangedBlockSlice>, Self::Error>> + Send;
}

/// The API server, through a client.
#[derive(Clone)]
pub(crate) struct KubeSlices(pub(crate) Client);

impl Slices for KubeSlices {
    type Error = kube::Error;

    async fn slice(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ChangedBlockSlice>, kube::Error> {
        match Api::<ChangedBlockSlice>::namespaced(self.0.clone(), namespace).get(name).await {
            Ok(slice) => Ok(Some(slice)),
            // A 404 also comes where the whole kind is missing.
            Err(kube::Error::Api(status))
                if status.reason == "NotFound"
                    && status.details.as_ref().is_some_and(|details| details.name == name) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The list of one snapshot, whole and as its status says. It takes the memory of the runs and of one slice.
pub(crate) async fn read<S: Slices>(
    slices: &S,
    snapshot: &EraSnapshot,
) -> Result<Delta, ReadError<S::Error>> {
    let namespace = snapshot.namespace().unwrap_or_default();
    let mut assembly = Assembly::new(snapshot)?;
    while let Some(name) = assembly.next() {
        let slice = slices
            .slice(&namespace, &name)
            .await
            .map_err(|source| ReadError::Slice { slice: name.clone(), source })?;
        assembly.add(&slice.ok_or(ListError::Missing { slice: name })?)?;
    }
    Ok(assembly.finish()?)
}

/// What changed after the boundary of `from` up to that of `to`. `all` are the snapshots of the claim; those that are
/// needed are read, and their lists are held one at a time beside what they say together.
pub(crate) async fn between<S: Slices>(
    slices: &S,
    all: &[EraSnapshot],
    from: &EraSnapshot,
    to: &EraSnapshot,
) -> Result<Delta, ReadError<S::Error>> {
    let (from, end, heads) = (head(from)?, head(to)?, heads(all));
    let mut joined: Option<Delta> = None;
    for needed in path(&heads, &from, &end)? {
        let snapshot = all.iter().find(|it| it.name_any() == needed.snapshot).unwrap_or(to);
        let next = read(slices, snapshot).await?;
        joined = Some(match joined {
            Some(before) => before.and(next)?,
            None => next,
        });
    }
    Ok(joined.ok_or(DeltaError::Nothing)?)
}
