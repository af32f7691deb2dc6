//! One operation of a stack at a time, also of two processes: an agent and the one that replaces
//! it. And a note, beside the lock, that X's table is being swapped.
//!
//! Both are in `/run/eratrack`, which is ours alone: they do not outlive the boot, and they work
//! also when the disk of the metadata does not. Not in `/run/lock`, where everybody may write on
//! some distributions.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use eratrack_model::names::StackId;
use rustix::fs::Mode;
use rustix::process::geteuid;

use crate::executor::Swapping;
use crate::file_lock::FileLock;
use crate::machine::Machine;

/// A stack could not be had for ourselves.
#[derive(Debug, thiserror::Error)]
pub enum StackLockError {
    /// Another operation of ours was at work all the time.
    #[error(
        "another eratrack was at work on stack {stack} for {} s; let it finish, or end it ({})",
        waited.as_secs(),
        path.display()
    )]
    Deadline {
        /// The stack.
        stack: StackId,
        /// How long it was waited for.
        waited: Duration,
        /// The lock's file.
        path: PathBuf,
    },
    /// The lock's file cannot be opened or locked.
    #[error("cannot lock stack {stack} ({})", path.display())]
    Io {
        /// The stack.
        stack: StackId,
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A stack that no other operation changes until this is dropped.
#[derive(Debug)]
pub(crate) struct StackLock {
    held: FileLock,
    note: PathBuf,
}

impl StackLock {
    /// Takes the lock on that machine, waiting no longer than `deadline`.
    pub(crate) fn take(
        machine: &Machine,
        stack: &StackId,
        deadline: Duration,
    ) -> Result<Self, StackLockError> {
        let dir = directory_of(machine);
        let path = dir.join(stack.as_str());
        match make_private(&dir).and_then(|()| FileLock::take(&path, deadline)) {
            // A stack's name has no dot: this is nobody's lock.
            Ok(Some(held)) => Ok(Self { held, note: path.with_extension("swapping") }),
            Ok(None) => {
                Err(StackLockError::Deadline { stack: stack.clone(), waited: deadline, path })
            }
            Err(source) => Err(StackLockError::Io { stack: stack.clone(), path, source }),
        }
    }

    /// The lock as a child's standard input: the stack stays locked until the child has ended too.
    pub(crate) fn to_inherit(&self) -> io::Result<Stdio> {
        self.held.duplicate().map(Stdio::from)
    }

    /// Another handle of the lock, which is held until both are closed.
    pub(crate) fn duplicate(&self) -> io::Result<File> {
        self.held.duplicate()
    }

    /// The stack stays locked until every such child has ended.
    pub(crate) fn leave_to_children(&self) {
        self.held.leave_to_others();
    }

    /// Notes that X's table is being swapped, or that this is over. Without the note all works the
    /// same; only a kill in the wrong moment would then leave X suspended, or its read-ahead reset.
    pub(crate) fn note_swapping(&self, swap: Option<Swapping>) {
        let noted = match swap {
            Some(swap) => fs::write(&self.note, to_text(swap)),
            None => forget(&self.note),
        };
        if let Err(error) = noted {
            tracing::warn!(note = %self.note.display(), %error, "going on without it");
        }
    }

    /// The swap that an earlier process was at when it was killed.
    pub(crate) fn swap_cut_short(&self) -> Option<Swapping> {
        // A note that does not read was never finished: its swap had not begun.
        from_text(&fs::read_to_string(&self.note).ok()?)
    }
}

/// The lock of whoever reads a point in time of the stack; none if somebody has it. It is held for
/// as long as the point in time is, beside the stack's own.
pub(crate) fn take_point(
    machine: &Machine,
    stack: &StackId,
) -> Result<Option<FileLock>, StackLockError> {
    let dir = directory_of(machine);
    // A stack's name has no dot: this is nobody's lock.
    let path = dir.join(format!("{stack}.point"));
    let taken = make_private(&dir).and_then(|()| FileLock::take(&path, Duration::ZERO));
    taken.map_err(|source| StackLockError::Io { stack: stack.clone(), path, source })
}

/// The directory of our locks on the machine whose root this is: made if it is not there, and refused where somebody
/// else may write to it. Names with a dot in them are nobody's stack.
pub fn lock_directory(root: &Path) -> io::Result<PathBuf> {
    let dir = directory_of(&Machine::new(root.to_owned()));
    make_private(&dir)?;
    Ok(dir)
}

fn directory_of(machine: &Machine) -> PathBuf {
    machine.path(Path::new("/run")).join("eratrack")
}

/// A directory that nobody else can put anything into.
fn make_private(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    let others = Mode::from_raw_mode(found.mode()).intersects(Mode::RWXG | Mode::RWXO);
    if found.is_dir() && found.uid() == geteuid().as_raw() && !others {
        return Ok(());
    }
    let what = format!("{} is not a directory of root's alone (mode 0700)", dir.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

fn to_text(swap: Swapping) -> String {
    let Swapping { x, read_ahead } = swap;
    format!("{x} {}\n", read_ahead.map_or_else(|| "-".to_owned(), |kib| kib.to_string()))
}

fn from_text(text: &str) -> Option<Swapping> {
    let (x, read_ahead) = text.strip_suffix('\n')?.split_once(' ')?;
    let read_ahead = match read_ahead {
        "-" => None,
        kib => Some(kib.parse().ok()?),
    };
    Some(Swapping { x: x.parse().ok()?, read_ahead })
}

fn forget(note: &Path) -> io::Result<()> {
    match fs::remove_file(note) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use eratrack_model::units::DevNo;

    const SOON: Duration = Duration::from_millis(30);

    #[test]
    fn a_stack_is_one_operations_at_a_time_and_the_note_outlives_it() {
        let root = tempfile::tempdir().unwrap();
        let (machine, stack) = (Machine::new(root.path()), "pv-1".parse().unwrap());
        let first = StackLock::take(&machine, &stack, SOON).unwrap();
        let error = StackLock::take(&machine, &stack, SOON).unwrap_err().to_string();
        assert!(error.contains("pv-1") && error.contains("run/eratrack"), "{error}");
        assert!(StackLock::take(&machine, &"pv-2".parse().unwrap(), SOON).is_ok());
        let x = DevNo { major: 253, minor: 3 };
        let swap = Swapping { x, read_ahead: Some(384) };
        first.note_swapping(Some(swap));
        drop(first);
        let second = StackLock::take(&machine, &stack, SOON).unwrap();
        assert_eq!(second.swap_cut_short(), Some(swap));
        let without = Swapping { x, read_ahead: None };
        second.note_swapping(Some(without));
        assert_eq!(second.swap_cut_short(), Some(without));
        fs::write(&second.note, "253:3 38").unwrap();
        assert_eq!(second.swap_cut_short(), None, "half a note");
        second.note_swapping(None);
        second.note_swapping(None);
        assert_eq!(second.swap_cut_short(), None);
        drop(second);
        let left = fs::read_dir(root.path().join("run/eratrack")).unwrap().count();
        assert_eq!(left, 0);
    }

    /// Whoever else could write there could have us open, create and remove files elsewhere.
    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (machine, stack) = (Machine::new(root.path()), "pv-1".parse().unwrap());
        let dir = root.path().join("run/eratrack");
        drop(StackLock::take(&machine, &stack, SOON).unwrap());
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        let error = StackLock::take(&machine, &stack, SOON).unwrap_err();
        assert!(matches!(error, StackLockError::Io { .. }), "{error}");
        fs::remove_dir(&dir).unwrap();
        let elsewhere = root.path().join("elsewhere");
        DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        symlink(&elsewhere, &dir).unwrap();
        assert!(StackLock::take(&machine, &stack, SOON).is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
