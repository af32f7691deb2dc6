//! Volumes that LVM puts back to an earlier snapshot while they are not tracked: `lvconvert --merge` takes the device
//! away or refuses us a table of its own first, and what is there afterwards looks like any volume.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eratrack_dm::HostError;
use eratrack_model::refusal::Refusal;
use eratrack_model::table::{SNAPSHOT_MERGE, Table};

/// More volumes than a node has without era between two looks; what is beyond them is called by another name.
const MOST: usize = 1024;

/// What was seen of volumes since era was last in, by PersistentVolume uid. A process that is new has seen nothing: then
/// the chain ends as well, but as one that was attached again.
#[derive(Debug, Default)]
pub(crate) struct Rollbacks(Mutex<HashMap<String, Seen>>);

#[derive(Debug)]
enum Seen {
    /// It had this table, and went away.
    Gone(Table),
    /// A snapshot was being merged into it.
    Merging,
}

impl Rollbacks {
    /// The volume went away; it had this table.
    pub(crate) fn gone(&self, volume_uid: &str, original: &Table) {
        self.note(volume_uid, Seen::Gone(original.clone()));
    }

    /// Era could not be put in.
    pub(crate) fn refused(&self, volume_uid: &str, error: &HostError) {
        if let HostError::Refused(Refusal::TargetUnsupported { kind, .. }) = error
            && kind == SNAPSHOT_MERGE
        {
            self.note(volume_uid, Seen::Merging);
        }
    }

    /// Era is in, over this table: whether the volume was put back since. What was seen is forgotten.
    pub(crate) fn seen(&self, volume_uid: &str, original: &Table) -> bool {
        match self.inner().remove(volume_uid) {
            Some(Seen::Gone(before)) => original.is_rolled_back_from(&before),
            Some(Seen::Merging) => true,
            None => false,
        }
    }

    fn note(&self, volume_uid: &str, seen: Seen) {
        let mut inner = self.inner();
        if inner.len() < MOST || inner.contains_key(volume_uid) {
            inner.insert(volume_uid.to_owned(), seen);
        }
    }

    fn inner(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        // Nothing can panic while it is held, so it cannot be poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().expect("a table")
    }

    #[test]
    fn a_thin_volume_that_comes_back_as_another_was_rolled_back() {
        let (before, after) = (table("0 1024 thin 254:2 1"), table("0 1024 thin 254:2 7"));
        let rollbacks = Rollbacks::default();
        rollbacks.gone("a", &before);
        assert!(!rollbacks.seen("b", &after), "another volume");
        assert!(rollbacks.seen("a", &after));
        assert!(!rollbacks.seen("a", &after), "it is told once");
        rollbacks.gone("a", &before);
        assert!(!rollbacks.seen("a", &before), "it was merely away");
    }

    #[test]
    fn a_thick_volume_that_was_refused_for_a_merge_was_rolled_back() {
        let refused = |kind: &str| {
            let name = "data-x".parse().expect("a name");
            HostError::Refused(Refusal::TargetUnsupported {
                name,
                kind: kind.to_owned(),
                remedy: "",
            })
        };
        let (rollbacks, thick) = (Rollbacks::default(), table("0 1024 linear 254:0 0"));
        rollbacks.refused("a", &refused("cache"));
        assert!(!rollbacks.seen("a", &thick));
        rollbacks.refused("a", &refused(SNAPSHOT_MERGE));
        assert!(rollbacks.seen("a", &thick));
    }
}
