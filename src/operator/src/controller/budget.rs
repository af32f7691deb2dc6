//! How much of the API server's store the lists may take: of a volume, of a namespace, of the cluster. What has no list
//! yet takes nothing here: how many objects a namespace may hold besides is for its ResourceQuota.

use eratrack_api::EraSnapshot;

/// The most that the lists of a cluster may take.
const CLUSTER: Usage = Usage { bytes: 256 << 20, objects: 100_000 };
/// The most that those of one namespace may take, so that it does not use up what others need.
const NAMESPACE: Usage = Usage { bytes: CLUSTER.bytes / 4, objects: CLUSTER.objects / 4 };
/// The most bytes of lists of one volume.
pub(crate) const VOLUME_BYTES: u64 = 4 << 20;

/// What a snapshot's list takes.
pub(crate) fn list_bytes(snapshot: &EraSnapshot) -> u64 {
    Usage::of([snapshot]).bytes
}

/// What some snapshots with lists and their slices take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    bytes: u64,
    objects: u64,
}

impl Usage {
    /// What these snapshots take.
    pub(crate) fn of<'a>(snapshots: impl IntoIterator<Item = &'a EraSnapshot>) -> Self {
        snapshots.into_iter().fold(Self::default(), Self::plus)
    }

    /// What all lists of the cluster may take.
    pub(crate) const fn of_cluster_at_most() -> Self {
        CLUSTER
    }

    /// Bytes and objects.
    pub(crate) fn figures(self) -> (u64, u64) {
        (self.bytes, self.objects)
    }

    fn plus(self, snapshot: &EraSnapshot) -> Self {
        match snapshot.status.as_ref().and_then(|status| status.slices.as_ref()) {
            None => self,
            Some(slices) => Self {
                bytes: self.bytes.saturating_add(slices.bytes),
                objects: self.objects + 1 + u64::from(slices.count),
            },
        }
    }

    fn full(self, whose: &str, limit: Self) -> Option<String> {
        (self.bytes >= limit.bytes || self.objects >= limit.objects).then(|| {
            format!(
                "the lists of the {whose} take {} of {} MiB in {} of {} objects; keep fewer (spec.snapshots.keep), \
                 or delete EraSnapshots",
                self.bytes >> 20,
                limit.bytes >> 20,
                self.objects,
                limit.objects
            )
        })
    }

    /// Why no more snapshots may be made of a volume that has so many.
    pub(crate) fn volume_full(self) -> Option<String> {
        (self.bytes >= VOLUME_BYTES).then(|| {
            format!(
                "its lists take {} KiB of {} KiB; delete EraSnapshots that were made by hand, or choose a coarser granularity",
                self.bytes >> 10,
                VOLUME_BYTES >> 10
            )
        })
    }
}

/// What is taken beside a volume's own part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    namespace: Usage,
    cluster: Usage,
}

impl Shared {
    /// Seen from a namespace, of all snapshots of the cluster.
    pub(crate) fn of<'a>(
        namespace: Option<&str>,
        all: impl IntoIterator<Item = &'a EraSnapshot>,
    ) -> Self {
        all.into_iter().fold(Self::default(), |sum, snapshot| {
            let here = snapshot.metadata.namespace.as_deref() == namespace;
            Self {
                namespace: if here { sum.namespace.plus(snapshot) } else { sum.namespace },
                cluster: sum.cluster.plus(snapshot),
            }
        })
    }

    /// Why no more snapshots may be made.
    pub(crate) fn full(self) -> Option<String> {
        let namespace = self.namespace.full("namespace", NAMESPACE);
        namespace.or_else(|| self.cluster.full("cluster", CLUSTER))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::{NAMESPACE as HERE, snapshot};

    fn with_list(bytes: u64, count: u32) -> EraSnapshot {
        let slices = json!({ "count": count, "bytes": bytes, "sha256": "0".repeat(64) });
        snapshot("s", "data", json!({ "status": { "slices": slices } }))
    }

    #[test]
    fn lists_and_objects_are_added_up_and_what_has_no_list_takes_nothing() {
        let some = [with_list(1000, 2), with_list(24, 1), snapshot("p", "data", json!({}))];
        assert_eq!(Usage::of(&some), Usage { bytes: 1024, objects: 5 });
        assert_eq!(Usage::of(&some).volume_full(), None);
        let empty = with_list(0, 0);
        assert_eq!(Usage::of([&empty]), Usage { bytes: 0, objects: 1 });
    }

    #[test]
    fn each_limit_counts() {
        let full = Usage { bytes: VOLUME_BYTES, objects: 3 }.volume_full().expect("full");
        assert!(full.contains("4096 KiB of 4096 KiB") && full.contains("by hand"), "{full}");
        for taken in [Usage { objects: 3, ..CLUSTER }, Usage { bytes: 0, ..CLUSTER }] {
            assert!(taken.full("cluster", CLUSTER).is_some(), "{taken:?}");
        }
        assert_eq!(Usage { bytes: 1, objects: 1 }.full("cluster", CLUSTER), None);
    }

    #[test]
    fn one_namespace_does_not_use_up_what_others_need() {
        let lists: Vec<_> = (0..65).map(|_| with_list(1 << 20, 11)).collect();
        let here = Shared::of(Some(HERE), &lists).full().expect("full");
        assert!(
            here.contains("the namespace take 65 of 64 MiB") && here.contains("snapshots.keep)"),
            "{here}"
        );
        assert_eq!(Shared::of(Some("elsewhere"), &lists).full(), None);
        let four: Vec<_> =
            lists.iter().chain(&lists).chain(&lists).chain(&lists).cloned().collect();
        let there = Shared::of(Some("elsewhere"), &four).full().expect("full");
        assert!(there.contains("the cluster take 260 of 256 MiB"), "{there}");
    }
}
