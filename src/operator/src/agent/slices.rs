//! The list as objects: slices found by name, made whole, never changed.

use eratrack_api::reference::SnapshotRef;
use eratrack_api::{ChangedBlockSlice, ChangedBlockSliceFields, Encoding, EraSnapshot, names};
use eratrack_model::slices::SliceText;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::cluster::{Cluster, ClusterError, Key};
use super::snapshot::list::List;

/// Brings the slices into being. Those of an earlier try are kept where they are the same, else replaced; with
/// `resumed`, those that this list has no place for are removed.
pub(crate) async fn publish<C: Cluster>(
    cluster: &C,
    snapshot: &EraSnapshot,
    list: &List,
    node: &str,
    resumed: bool,
) -> Result<(), ClusterError> {
    let slices = slices(snapshot, list, Some(node), 0);
    for slice in &slices {
        put(cluster, slice).await?;
    }
    if resumed {
        for index in slices.len()..names::SLICES_MAX as usize {
            remove(cluster, snapshot, index).await?;
        }
    }
    Ok(())
}

async fn put<C: Cluster>(cluster: &C, slice: &ChangedBlockSlice) -> Result<(), ClusterError> {
    match cluster.create_slice(slice).await {
        Err(ClusterError::Exists { .. }) => {}
        answer => return answer,
    }
    let there = cluster.slice(&Key::of(slice)).await?;
    match there {
        Some(there) if same(&there, slice) => Ok(()),
        Some(there) => {
            cluster.delete_slice(&there).await?;
            cluster.create_slice(slice).await
        }
        None => cluster.create_slice(slice).await,
    }
}

async fn remove<C: Cluster>(
    cluster: &C,
    snapshot: &EraSnapshot,
    index: usize,
) -> Result<(), ClusterError> {
    let index = u32::try_from(index).unwrap_or(names::SLICES_MAX);
    let key = Key {
        namespace: snapshot.namespace().unwrap_or_default(),
        name: names::slice_name(&snapshot.name_any(), index),
    };
    match cluster.slice(&key).await? {
        Some(stale) => cluster.delete_slice(&stale).await,
        None => Ok(()),
    }
}

/// The list is the same, and it is on its way to nowhere else.
pub(crate) fn same(there: &ChangedBlockSlice, wanted: &ChangedBlockSlice) -> bool {
    there.spec == wanted.spec && there.metadata.deletion_timestamp.is_none()
}

/// A list as slices, the index of the first of which is `first`, written by the agent of a node or by none.
pub(crate) fn slices(
    snapshot: &EraSnapshot,
    list: &List,
    node: Option<&str>,
    first: u32,
) -> Vec<ChangedBlockSlice> {
    let count = u32::try_from(list.parts().len()).unwrap_or(names::SLICES_MAX);
    (first..first.saturating_add(count))
        .zip(list.parts())
        .map(|(index, part)| slice(snapshot, part, node, index, count))
        .collect()
}

fn slice(
    snapshot: &EraSnapshot,
    part: &SliceText,
    node: Option<&str>,
    index: u32,
    count: u32,
) -> ChangedBlockSlice {
    let name = snapshot.name_any();
    let uid = snapshot.uid().unwrap_or_default();
    let block = snapshot.status.as_ref().and_then(|status| status.block_size_bytes);
    let fields = ChangedBlockSliceFields {
        snapshot: SnapshotRef { name: name.clone(), uid: uid.clone() },
        node_name: node.map(String::from),
        index,
        count,
        block_size_bytes: block.unwrap_or_default(),
        blocks: part.blocks,
        first: part.first,
        last: part.last,
        encoding: Encoding::List,
        ranges: part.ranges.clone(),
    };
    let mut slice = ChangedBlockSlice::new(&names::slice_name(&name, index), fields);
    slice.metadata = ObjectMeta {
        namespace: snapshot.namespace(),
        labels: Some(
            [
                (names::LABEL_MANAGED_BY, names::MANAGED_BY),
                (names::LABEL_EXCLUDE_FROM_BACKUP, names::EXCLUDE_FROM_BACKUP),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ),
        owner_references: Some(vec![owner(name, uid)]),
        ..slice.metadata
    };
    slice
}

fn owner(name: String, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: EraSnapshot::api_version(&()).into_owned(),
        kind: EraSnapshot::kind(&()).into_owned(),
        name,
        uid,
        // Not a controller reference, and not blocking: that would need rights on the snapshot's finalizers.
        controller: None,
        block_owner_deletion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::snapshot;
    use serde_json::json;

    /// Restored without their snapshot's status, slices would be a list of nothing.
    #[test]
    fn slices_go_with_their_snapshot_and_into_no_backup() {
        let snapshot = snapshot("s", &json!({"blockSizeBytes": 262_144}));
        let slices = slices(&snapshot, &List::full(1000), Some("node1"), 0);
        let slice = &slices[0];
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        assert_eq!(labels.get("velero.io/exclude-from-backup").map(String::as_str), Some("true"));
        let owner = slice.metadata.owner_references.as_ref().and_then(|it| it.first());
        assert_eq!(owner.map(|it| it.uid.as_str()), Some("uid-of-s"));
        assert_eq!(
            (slice.name_any().as_str(), slice.spec.node_name.as_deref()),
            ("s-0", Some("node1"))
        );
    }
}
