//! Which worker has which stack. A PersistentVolume that is bound anew has two `EraVolumes` for a while, and one stack.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::agent::cluster::Key;

/// The workers by the uid of their PersistentVolume.
#[derive(Debug, Default)]
pub(crate) struct Holders(Mutex<HashMap<String, Key>>);

impl Holders {
    /// The stack is this worker's, from now on or already; else whose it is.
    pub(crate) fn take(&self, volume_uid: &str, key: &Key) -> Result<(), Key> {
        let mut holders = self.lock();
        let holder = holders.entry(volume_uid.to_owned()).or_insert_with(|| key.clone());
        if holder == key { Ok(()) } else { Err(holder.clone()) }
    }

    /// The stack is nobody's, if it was this worker's.
    pub(crate) fn give_back(&self, volume_uid: &str, key: &Key) {
        self.lock().retain(|uid, holder| uid != volume_uid || holder != key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Key>> {
        // Nothing can panic while it is held, so it cannot be poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
