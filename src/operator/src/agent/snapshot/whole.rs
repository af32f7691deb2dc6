//! Whether the list of the base is still whole.
//!
//! Whoever follows the chain needs it to get from the snapshot before the base to the base. Where it is lost the next
//! snapshot is full, so that everybody learns it, and can go on from there. It is looked at once for each boundary, by name:
//! no list or watch, no timer; usually one request.

use eratrack_api::{ChangedBlockSlice, EraSnapshot};

use crate::agent::cluster::{Cluster, ClusterError, Key};
use crate::delta::{ListError, ReadError, Slices, read};

/// How often a base whose status changes meanwhile is looked at: pruning may rewrite a list.
const LOOKS: usize = 3;

struct OfCluster<'a, C>(&'a C);

impl<C: Cluster> Slices for OfCluster<'_, C> {
    type Error = ClusterError;

    async fn slice(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ChangedBlockSlice>, ClusterError> {
        self.0.slice(&Key { namespace: namespace.to_owned(), name: name.to_owned() }).await
    }
}

/// Why the list of this complete snapshot cannot be read any more; none if it can, or if it is on its way out with its
/// snapshot.
pub(crate) async fn lost<C: Cluster>(
    cluster: &C,
    base: &EraSnapshot,
) -> Result<Option<ListError>, ClusterError> {
    let mut base = base.clone();
    let mut found = None;
    for _ in 0..LOOKS {
        if base.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        found = match read(&OfCluster(cluster), &base).await {
            Ok(_) | Err(ReadError::Delta(_)) => return Ok(None),
            Err(ReadError::Slice { slice: _, source }) => return Err(source),
            Err(ReadError::List(error)) => Some(error),
        };
        match cluster.snapshot(&Key::of(&base)).await? {
            Some(now) if now.metadata.uid != base.metadata.uid => return Ok(None),
            None => return Ok(None),
            Some(now) if now.status == base.status && now.metadata.deletion_timestamp.is_none() => {
                return Ok(found);
            }
            Some(now) => base = now,
        }
    }
    Ok(found)
}
