//! An exclusive `flock` on a file that is there only while it is locked: whoever gives the lock
//! back unlinks the file, as LVM does. So whoever gets the lock checks that the path still names
//! the file that is locked, and opens it again if not.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// The pause between two tries. `flock` has no deadline of its own and nothing to be told by,
/// and a signal to end a wait would be one for the whole process; so this asks again.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    file: File,
    left: AtomicBool,
}

impl FileLock {
    /// Takes the lock; none if somebody else has it until the deadline. The directory is made if
    /// it is not there.
    pub(crate) fn take(path: &Path, deadline: Duration) -> io::Result<Option<Self>> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(file) = try_once(path)? {
                return Ok(Some(Self {
                    path: path.to_owned(),
                    file,
                    left: AtomicBool::new(false),
                }));
            }
            if start.elapsed() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl FileLock {
    /// Another handle of the lock, which is held until both are closed.
    pub(crate) fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// From now on the end of this handle alone does not give the lock back: it is held until
    /// every [`FileLock::duplicate`] of it is closed. What the end of a process does to it, too.
    pub(crate) fn leave_to_others(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

impl Drop for FileLock {
    /// Unlinks the file while it is still locked; closing it gives the lock back.
    fn drop(&mut self) {
        let left = self.left.load(Ordering::Relaxed);
        if !left && same_file(&self.file, &self.path).unwrap_or(false) {
            // If it stays, the next one takes it as it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One try: the locked file, or none if somebody else has it or just unlinked it.
fn try_once(path: &Path) -> io::Result<Option<File>> {
    let mut how = OpenOptions::new();
    how.read(true).append(true).create(true).mode(0o600).custom_flags(no_follow());
    let file = how.open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(same_file(&file, path)?.then_some(file)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A lock's directory may be one that everybody may write to: nobody shall lead us elsewhere.
fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
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

    #[test]
    fn a_lock_that_is_held_is_waited_for_until_the_deadline() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/lock/a");
        let held = FileLock::take(&path, SOON).unwrap();
        assert!(held.is_some());
        assert!(FileLock::take(&path, SOON).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        assert!(FileLock::take(&path, SOON).unwrap().is_some());
    }

    #[test]
    fn a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (root.path().join("a"), root.path().join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(FileLock::take(&path, SOON).is_err());
        assert!(!elsewhere.exists());
    }

    #[test]
    fn a_lock_on_a_file_that_was_unlinked_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let held = FileLock::take(&path, SOON).unwrap();
        // What LVM does: unlink while others wait on the old file.
        fs::remove_file(&path).unwrap();
        let second = FileLock::take(&path, SOON).unwrap();
        assert!(second.is_some());
        // The first one's end must not take the second one's file away.
        drop(held);
        assert!(path.exists());
        assert!(FileLock::take(&path, SOON).unwrap().is_none());
        drop(second);
        assert!(!path.exists());
    }
}
