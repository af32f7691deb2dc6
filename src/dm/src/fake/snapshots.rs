//! dm-snapshot: what an origin overwrites, and what went past it.

use std::collections::BTreeSet;

use eratrack_model::table::{Segment, Table, Target};
use eratrack_model::units::{DevNo, Sectors};

use super::{FakeKernel, State};

/// A snapshot that is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeSnapshot {
    pub(super) of: DevNo,
    store: Sectors,
    chunk: Sectors,
    /// Chunks that were copied before they were overwritten.
    pub copied: BTreeSet<u64>,
    /// Chunks that were overwritten without that: the snapshot shows them as they are now.
    pub missed: BTreeSet<u64>,
}

impl FakeSnapshot {
    fn is_full(&self) -> bool {
        self.used() > self.store.0
    }

    fn used(&self) -> u64 {
        u64::try_from(self.copied.len()).unwrap_or(u64::MAX).saturating_mul(self.chunk.0)
    }

    fn chunks(&self, first: Sectors, length: Sectors) -> std::ops::RangeInclusive<u64> {
        first.0 / self.chunk.0..=(first.0 + length.0 - 1) / self.chunk.0
    }

    /// As the kernel prints it.
    pub(super) fn status(&self) -> String {
        if self.is_full() { "Invalid".into() } else { format!("{}/{} 0", self.used(), self.store) }
    }
}

impl FakeKernel {
    /// What a snapshot has kept.
    ///
    /// # Panics
    /// If no such snapshot is live.
    pub fn snapshot(&self, dev: DevNo) -> FakeSnapshot {
        self.state().snapshots.get(&dev).expect("the snapshot is live").clone()
    }
}

impl State {
    pub(super) fn snapshot_goes_live(&mut self, dev: DevNo, table: &Table) {
        self.snapshots.remove(&dev);
        if let [Segment { target: Target::Snapshot { origin, store, chunk }, .. }] =
            table.segments()
        {
            let cut = self.devices.values().any(|other| {
                let origins = other.live_table().into_iter().flat_map(Table::segments);
                origins.into_iter().any(|s| s.target == Target::SnapshotOrigin { origin: *origin })
            });
            assert!(!cut, "rule broken: an origin over {origin} is live before its snapshot");
            let length = self.length(*store).unwrap_or_default();
            let (copied, missed) = (BTreeSet::new(), BTreeSet::new());
            let snapshot =
                FakeSnapshot { of: *origin, store: length, chunk: *chunk, copied, missed };
            self.snapshots.insert(dev, snapshot);
        }
    }

    /// A write that comes through `snapshot-origin`.
    pub(super) fn copy_away(&mut self, origin: DevNo, first: Sectors, length: Sectors) {
        for snapshot in self.snapshots.values_mut().filter(|snapshot| snapshot.of == origin) {
            let chunks = snapshot.chunks(first, length);
            snapshot.copied.extend(chunks);
        }
    }

    /// Any write to a device.
    pub(super) fn note_missed(&mut self, dev: DevNo, first: Sectors, length: Sectors) {
        for snapshot in self.snapshots.values_mut().filter(|snapshot| snapshot.of == dev) {
            let chunks = snapshot.chunks(first, length);
            let missed: Vec<_> = chunks.filter(|chunk| !snapshot.copied.contains(chunk)).collect();
            snapshot.missed.extend(missed);
        }
    }
}
