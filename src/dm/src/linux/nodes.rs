//! Opening block devices by number, with no help from udev.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use eratrack_model::units::DevNo;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;

use super::raw;

/// Makes device nodes in one directory, for as long as it takes to open them.
#[derive(Clone, Debug)]
pub struct Nodes {
    dir: PathBuf,
}

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Nodes {
    /// In this directory, which must be writable and not mounted `nodev`; usually `/dev`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Opens a block device around the page cache, for reading. Never exclusively: a device
    /// that a target holds would answer EBUSY.
    pub fn open_direct(&self, dev: DevNo) -> io::Result<File> {
        self.open(dev, FileType::BlockDevice, File::options().read(true).custom_flags(direct()))
    }

    /// Opens a block device for reading if nobody has claimed it: EBUSY if somebody has.
    pub(crate) fn open_alone(&self, dev: DevNo) -> io::Result<File> {
        let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
        self.open(dev, FileType::BlockDevice, File::options().read(true).custom_flags(exclusive))
    }

    /// Opens a block device for writing, through the page cache: to be followed by a sync.
    pub(crate) fn open_for_writing(&self, dev: DevNo) -> io::Result<File> {
        self.open(dev, FileType::BlockDevice, File::options().read(true).write(true))
    }

    /// Opens a block device for reading and writing around the page cache.
    pub(crate) fn open_direct_for_writing(&self, dev: DevNo) -> io::Result<File> {
        let how = &mut File::options();
        self.open(dev, FileType::BlockDevice, how.read(true).write(true).custom_flags(direct()))
    }

    /// The same, claimed as a mount would claim it: EBUSY if somebody has.
    pub(crate) fn open_direct_claimed(&self, dev: DevNo) -> io::Result<File> {
        let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
        let how = &mut File::options();
        how.read(true).write(true).custom_flags(direct() | exclusive);
        self.open(dev, FileType::BlockDevice, how)
    }

    /// Opens a block device for ioctls.
    pub(super) fn open_for_ioctl(&self, dev: DevNo) -> io::Result<File> {
        self.open(dev, FileType::BlockDevice, File::options().read(true))
    }

    /// Opens a character device for ioctls.
    pub(super) fn open_char(&self, dev: DevNo) -> io::Result<File> {
        self.open(dev, FileType::CharacterDevice, File::options().read(true).write(true))
    }

    /// Makes a node at that path, in the place of whatever is there.
    pub(crate) fn make_lasting(path: &Path, dev: DevNo) -> io::Result<()> {
        let made = path.with_extension("new");
        make_node(&made, FileType::BlockDevice, dev)?;
        fs::rename(&made, path)
    }

    /// From now on nobody can open the device for writing, until its table changes.
    pub(crate) fn forbid_writes(&self, dev: DevNo) -> io::Result<()> {
        raw::forbid_writes(&self.open_for_ioctl(dev)?)
    }

    fn open(&self, dev: DevNo, kind: FileType, how: &OpenOptions) -> io::Result<File> {
        let path = self.free_name();
        make_node(&path, kind, dev)?;
        let opened = how.open(&path);
        fs::remove_file(&path)?;
        opened
    }

    fn free_name(&self) -> PathBuf {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!(".eratrack-{}-{count}", std::process::id()))
    }
}

/// `O_DIRECT`, whose value differs between architectures.
fn direct() -> i32 {
    i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0)
}

fn make_node(path: &Path, kind: FileType, dev: DevNo) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    let rdev = makedev(dev.major, dev.minor);
    match mknodat(CWD, path, kind, mode, rdev) {
        Err(Errno::EXIST) => {
            // A process with our number was killed between making and unlinking.
            fs::remove_file(path)?;
            Ok(mknodat(CWD, path, kind, mode, rdev)?)
        }
        result => Ok(result?),
    }
}

/// Makes device mapper's control node when it is not there, as in a container from scratch.
pub(super) fn ensure_control(path: &Path, number: DevNo) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    make_node(path, FileType::CharacterDevice, number)
}
