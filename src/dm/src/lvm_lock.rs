//! LVM's own lock on a volume group: an exclusive `flock` on `/run/lock/lvm/V_<group>`.
//!
//! Held from before X's table is read until its swap is verified, so that LVM neither reads our
//! table as its own nor changes extents in between. LVM unlinks the file when it gives the lock
//! back (`lib/locking/file_locking.c` and `lib/misc/lvm-flock.c` in lvm2).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eratrack_model::lvm::VgName;

use crate::file_lock::FileLock;
use crate::machine::Machine;

/// LVM's lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// LVM was at work all the time.
    #[error(
        "volume group {vg} was locked by LVM for {} s; let that operation finish ({})",
        waited.as_secs(),
        path.display()
    )]
    Deadline {
        /// The group.
        vg: VgName,
        /// How long it was waited for.
        waited: Duration,
        /// The lock's file.
        path: PathBuf,
    },
    /// The lock's file cannot be opened or locked.
    #[error("cannot lock volume group {vg} ({})", path.display())]
    Io {
        /// The group.
        vg: VgName,
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A volume group that LVM leaves alone until this is dropped.
#[derive(Debug)]
pub struct VolumeGroupLock {
    held: FileLock,
}

impl VolumeGroupLock {
    /// Takes the lock on that machine, waiting no longer than `deadline`.
    pub fn take(machine: &Machine, vg: &VgName, deadline: Duration) -> Result<Self, LockError> {
        let path = machine.path(Path::new("/run/lock/lvm")).join(format!("V_{vg}"));
        match FileLock::take(&path, deadline) {
            Ok(Some(held)) => Ok(Self { held }),
            Ok(None) => Err(LockError::Deadline { vg: vg.clone(), waited: deadline, path }),
            Err(source) => Err(LockError::Io { vg: vg.clone(), path, source }),
        }
    }

    /// Another handle of the lock, which is held until both are closed.
    pub(crate) fn duplicate(&self) -> io::Result<File> {
        self.held.duplicate()
    }
}
