//! How much of the API server's store the lists may take.

use eratrack_api::EraSnapshot;

/// The most bytes of lists in a cluster.
const CLUSTER_BYTES: u64 = 256 << 20;
/// The most snapshots and slices in a cluster.
const CLUSTER_OBJECTS: u64 = 100_000;
/// The most bytes of lists of one volume.
pub(crate) const VOLUME_BYTES: u64 = 4 << 20;

/// What a snapshot's list takes.
pub(crate) fn list_bytes(snapshot: &EraSnapshot) -> u64 {
    let slices = snapshot.status.as_ref().and_then(|status| status.slices.as_ref());
    slices.map_or(0, |it| it.bytes)
}

/// What some snapshots and their slices take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    bytes: u64,
    objects: u64,
}

impl Usage {
    /// What these snapshots take.
    pub(crate) fn of<'a>(snapshots: impl IntoIterator<Item = &'a EraSnapshot>) -> Self {
        snapshots.into_iter().fold(Self::default(), |sum, snapshot| {
            let slices = snapshot.status.as_ref().and_then(|status| status.slices.as_ref());
            Self {
                bytes: sum.bytes.saturating_add(list_bytes(snapshot)),
                objects: sum.objects + 1 + slices.map_or(0, |it| u64::from(it.count)),
            }
        })
    }

    /// Why no more snapshots may be made in a cluster that holds so much.
    pub(crate) fn cluster_full(self) -> Option<String> {
        let Self { bytes, objects } = self;
        let full = bytes >= CLUSTER_BYTES || objects >= CLUSTER_OBJECTS;
        full.then(|| {
            format!(
                "the cluster's lists take {} of {} MiB in {objects} of {CLUSTER_OBJECTS} objects; lower spec.snapshots.keep.last",
                bytes >> 20,
                CLUSTER_BYTES >> 20
            )
        })
    }

    /// Why no more snapshots may be made of a volume that has so many.
    pub(crate) fn volume_full(self) -> Option<String> {
        (self.bytes >= VOLUME_BYTES).then(|| {
            format!(
                "its lists take {} KiB of {} KiB; lower spec.snapshots.keep.last, delete snapshots, or choose a coarser granularity",
                self.bytes >> 10,
                VOLUME_BYTES >> 10
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::snapshot;

    fn with_list(bytes: u64, count: u32) -> EraSnapshot {
        let slices = json!({ "count": count, "bytes": bytes, "sha256": "0".repeat(64) });
        snapshot("s", "data", json!({ "status": { "slices": slices } }))
    }

    #[test]
    fn lists_and_objects_are_added_up() {
        let some = [with_list(1000, 2), with_list(24, 1), snapshot("p", "data", json!({}))];
        assert_eq!(Usage::of(&some), Usage { bytes: 1024, objects: 6 });
        assert_eq!(Usage::of(&some).cluster_full(), None);
        assert_eq!(Usage::of(&some).volume_full(), None);
    }

    #[test]
    fn each_limit_counts() {
        assert!(Usage { bytes: VOLUME_BYTES, objects: 3 }.volume_full().is_some());
        assert!(Usage { bytes: CLUSTER_BYTES, objects: 3 }.cluster_full().is_some());
        let full = Usage { bytes: 0, objects: CLUSTER_OBJECTS }.cluster_full().expect("full");
        assert!(full.contains("100000 of 100000") && full.contains("keep.last"), "{full}");
    }
}
