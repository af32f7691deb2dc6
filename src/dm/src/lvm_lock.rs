//! LVM's own lock on a volume group: an exclusive `flock` on `/run/lock/lvm/V_<group>`.
//!
//! Held from before X's table is read until its swap is verified, so that LVM neither reads our
//! table as its own nor changes extents in between. LVM unlinks the file when it gives the lock
//! back (`lib/locking/file_locking.c` and `lib/misc/lvm-flock.c` in lvm2), so whoever gets the lock
//! checks that the path still names the file that is locked, and opens it again if not.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eratrack_model::lvm::VgName;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The pause between two tries. `flock` has no deadline of its own and nothing to be told by,
/// and a signal to end a wait would be one for the whole process; so this asks again.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

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
    vg: VgName,
    path: PathBuf,
    file: File,
}

impl VolumeGroupLock {
    /// Takes the lock of the machine whose root is given, waiting no longer than `deadline`.
    pub fn take(root: &Path, vg: &VgName, deadline: Duration) -> Result<Self, LockError> {
        let dir = root.join("run/lock/lvm");
        let path = dir.join(format!("V_{vg}"));
        let failed = |source| LockError::Io { vg: vg.clone(), path: path.clone(), source };
        fs::create_dir_all(&dir).map_err(failed)?;
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(file) = try_once(&path).map_err(failed)? {
                return Ok(Self { vg: vg.clone(), path, file });
            }
            if start.elapsed() >= deadline {
                return Err(LockError::Deadline { vg: vg.clone(), waited: deadline, path });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Which group it is.
    pub fn group(&self) -> &VgName {
        &self.vg
    }
}

impl Drop for VolumeGroupLock {
    /// Unlinks the file, as LVM does, while it is still locked; closing it gives the lock back.
    fn drop(&mut self) {
        if same_file(&self.file, &self.path).unwrap_or(false) {
            // If it stays, LVM takes it as it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One try: the locked file, or none if somebody else has it or just unlinked it.
fn try_once(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(same_file(&file, path)?.then_some(file)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(30);

    fn group() -> VgName {
        VgName::new("vg.x").unwrap()
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for_until_the_deadline() {
        let root = tempfile::tempdir().unwrap();
        let held = VolumeGroupLock::take(root.path(), &group(), SOON).unwrap();
        let error = VolumeGroupLock::take(root.path(), &group(), SOON).unwrap_err();
        assert!(matches!(error, LockError::Deadline { .. }), "{error}");
        drop(held);
        assert!(VolumeGroupLock::take(root.path(), &group(), SOON).is_ok());
    }

    #[test]
    fn a_lock_on_a_file_that_was_unlinked_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let held = VolumeGroupLock::take(root.path(), &group(), SOON).unwrap();
        let path = root.path().join("run/lock/lvm/V_vg.x");
        // What LVM does: unlink while others wait on the old file.
        fs::remove_file(&path).unwrap();
        let second = VolumeGroupLock::take(root.path(), &group(), SOON).unwrap();
        // The first one's end must not take the second one's file away.
        drop(held);
        assert!(path.exists());
        let error = VolumeGroupLock::take(root.path(), &group(), SOON).unwrap_err();
        assert!(matches!(error, LockError::Deadline { .. }), "{error}");
        drop(second);
        assert!(!path.exists());
    }
}
