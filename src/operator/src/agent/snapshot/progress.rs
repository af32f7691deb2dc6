//! What a volume's worker remembers of its snapshots between two tries. To lose it costs time, never data: what counts is
//! what the API server has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;

use super::list::List;
use super::step::Recorded;

/// The memory of one volume.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_boundary: Option<Timestamp>,
    read: Option<Read>,
    /// Those of the watch's unsettled snapshots that were looked at, and whether they are complete by now.
    begun: BTreeMap<String, bool>,
}

/// A list that was read and is not published yet: at most what its slices hold, 1.5 MiB.
#[derive(Debug)]
struct Read {
    snapshot_uid: String,
    boundary: Recorded,
    list: List,
}

impl Progress {
    /// When the volume's last boundary was made, or tried.
    pub(crate) fn last_boundary(&self) -> Option<Timestamp> {
        self.lock().last_boundary
    }

    /// A boundary was made, or is about to be tried.
    pub(crate) fn boundary(&self, time: Option<Timestamp>) {
        let mut inner = self.lock();
        inner.last_boundary = inner.last_boundary.max(time);
    }

    /// Whether nothing was done yet for the snapshot of this uid, so that it is what the watch shows. Afterwards the watch
    /// may lag behind what was done.
    pub(crate) fn begin(&self, snapshot_uid: &str) -> bool {
        self.lock().begun.insert(snapshot_uid.to_owned(), false).is_none()
    }

    /// The snapshot was completed by this process.
    pub(crate) fn complete(&self, snapshot_uid: &str) {
        self.lock().begun.insert(snapshot_uid.to_owned(), true);
    }

    /// Whether it was.
    pub(crate) fn is_complete(&self, snapshot_uid: &str) -> bool {
        self.lock().begun.get(snapshot_uid) == Some(&true)
    }

    /// The watch shows all but these as settled, or no more.
    pub(crate) fn unsettled(&self, uids: &BTreeSet<String>) {
        self.lock().begun.retain(|uid, _| uids.contains(uid));
    }

    /// The list of this snapshot at this boundary, if it was read already. Whatever was written since the boundary may
    /// be missing in it, which belongs to the next one.
    pub(crate) fn list(&self, snapshot_uid: &str, boundary: Recorded) -> Option<List> {
        let inner = self.lock();
        let read = inner.read.as_ref()?;
        let same = read.snapshot_uid == snapshot_uid && read.boundary == boundary;
        same.then(|| read.list.clone())
    }

    /// The list was read.
    pub(crate) fn keep(&self, snapshot_uid: &str, boundary: Recorded, list: &List) {
        let read = Read { snapshot_uid: snapshot_uid.to_owned(), boundary, list: list.clone() };
        self.lock().read = Some(read);
    }

    /// The snapshot is settled.
    pub(crate) fn settled(&self, snapshot_uid: &str) {
        let mut inner = self.lock();
        inner.read.take_if(|read| read.snapshot_uid == snapshot_uid);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic while it is held, so it cannot be poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::snapshot::step::Scope;
    use crate::agent::testing::at;
    use eratrack_model::Era;

    #[test]
    fn a_list_is_of_one_snapshot_at_one_boundary() {
        let progress = Progress::default();
        let boundary = Recorded { era: Era(7), scope: Scope::Since(Era(4)) };
        progress.keep("u", boundary, &List::full(8));
        assert_eq!(progress.list("u", boundary), Some(List::full(8)));
        assert_eq!(progress.list("v", boundary), None);
        assert_eq!(progress.list("u", Recorded { scope: Scope::Full, ..boundary }), None);
        progress.settled("v");
        assert!(progress.list("u", boundary).is_some());
        progress.settled("u");
        assert_eq!(progress.list("u", boundary), None);
    }

    #[test]
    fn a_snapshot_is_new_once_for_as_long_as_the_watch_shows_it_so() {
        let progress = Progress::default();
        assert!(progress.begin("u"));
        progress.settled("u");
        progress.unsettled(&BTreeSet::from(["u".to_owned()]));
        assert!(!progress.begin("u"), "the watch lags behind");
        assert!(!progress.is_complete("u"));
        progress.complete("u");
        assert!(progress.is_complete("u"));
        progress.unsettled(&BTreeSet::new());
        assert!(progress.lock().begun.is_empty());
    }

    #[test]
    fn the_last_boundary_is_the_latest() {
        let progress = Progress::default();
        progress.boundary(Some(at(5)));
        progress.boundary(Some(at(3)));
        progress.boundary(None);
        assert_eq!(progress.last_boundary(), Some(at(5)));
    }
}
