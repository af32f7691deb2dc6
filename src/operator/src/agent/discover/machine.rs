//! The machine as its first process sees it: mounts, device nodes and sysfs, reached through `/proc/1/root`.
//!
//! Nothing of the machine is mounted into the agent's container: a mount that is held there could not be unmounted by
//! the kubelet. Paths are resolved as if the machine's root were ours, so that a symbolic link means what it means to
//! the kubelet.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use eratrack_model::units::DevNo;
use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, major, minor,
};
use rustix::io::Errno;

use super::mountinfo::{self, Mount, MountInfoError};

/// How often a path is walked again that changed on the way.
const OPEN_RETRIES: usize = 100;

/// Where the machine is seen.
#[derive(Debug)]
pub(crate) struct Machine {
    root: OwnedFd,
    mountinfo: PathBuf,
}

/// The machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// A file of it.
    #[error("cannot {operation} {path} of the machine: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path, as the machine names it.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The list of mounts.
    #[error("{path}: {source}")]
    Mounts {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        source: MountInfoError,
    },
}

impl Machine {
    /// `root` is `/proc/<pid>/root` of a process of the machine, or `/` when the agent runs on it directly.
    pub(crate) fn new(root: &Path) -> Result<Self, MachineError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: fs::openat(CWD, root, flags, Mode::empty()).map_err(io("open", root))?,
            mountinfo: mountinfo_of(root),
        })
    }

    /// The file that lists the machine's mounts, and tells of changes by `POLLPRI` (`proc_pid_mountinfo(5)`).
    pub(crate) fn mountinfo_path(&self) -> &Path {
        &self.mountinfo
    }

    /// The machine's mounts.
    pub(crate) fn mounts(&self) -> Result<Vec<Mount>, MachineError> {
        let path = &self.mountinfo;
        let text = std::fs::read(path).map_err(|source| MachineError::Io {
            operation: "read",
            path: path.clone(),
            source,
        })?;
        mountinfo::parse(&text)
            .map_err(|source| MachineError::Mounts { path: path.clone(), source })
    }

    /// The path without symbolic links; the path itself when it does not exist.
    pub(crate) fn real_path(&self, path: &Path) -> Result<PathBuf, MachineError> {
        let Some(fd) = self.find(path)? else { return Ok(path.to_owned()) };
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        std::fs::read_link(link).map_err(|source| MachineError::Io {
            operation: "resolve",
            path: path.to_owned(),
            source,
        })
    }

    /// The number of the mount that `path` is in; none when it does not exist.
    pub(crate) fn mount_id(&self, path: &Path) -> Result<Option<u64>, MachineError> {
        let Some(fd) = self.find(path)? else { return Ok(None) };
        let status = fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        Ok(Some(status.map_err(io("look at", path))?.stx_mnt_id))
    }

    /// The block device that a path leads to; none if it leads to none.
    pub(crate) fn device_at(&self, path: &Path) -> Result<Option<DevNo>, MachineError> {
        let Some(fd) = self.find(path)? else { return Ok(None) };
        let status = fs::statat(&fd, "", AtFlags::EMPTY_PATH).map_err(io("look at", path))?;
        let is_block = FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice;
        Ok(is_block.then(|| dev_no(status.st_rdev)))
    }

    /// The block devices among the entries of a directory; none when there is no such directory.
    pub(crate) fn device_nodes(&self, dir: &Path) -> Result<Vec<(PathBuf, DevNo)>, MachineError> {
        let fd = match self.open(dir, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            opened => opened.map_err(io("open", dir))?,
        };
        let mut nodes = Vec::new();
        for entry in Dir::read_from(&fd).map_err(io("list", dir))? {
            let entry = entry.map_err(io("list", dir))?;
            let status = match fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue, // unmapped since it was listed
                status => status.map_err(io("look into", dir))?,
            };
            if FileType::from_raw_mode(status.st_mode) == FileType::BlockDevice {
                let name = entry.file_name().to_string_lossy().into_owned();
                nodes.push((dir.join(name), dev_no(status.st_rdev)));
            }
        }
        Ok(nodes)
    }

    /// Whether the device is one of device mapper's.
    pub(crate) fn is_device_mapper(&self, device: DevNo) -> Result<bool, MachineError> {
        let path = Path::new("sys/dev/block").join(format!("{device}/dm"));
        self.find(&path).map(|found| found.is_some())
    }

    /// How much was written to the device or discarded since it came up: grows with each such request
    /// (Documentation/block/stat.rst: write I/Os, write sectors, discard I/Os, discard sectors).
    pub(crate) fn write_counters(&self, device: DevNo) -> Result<[u64; 4], MachineError> {
        let path = Path::new("sys/dev/block").join(format!("{device}/stat"));
        let fd = self.open(&path, OFlags::RDONLY).map_err(io("open", &path))?;
        let text = io::read_to_string(std::fs::File::from(fd))
            .map_err(|source| MachineError::Io { operation: "read", path: path.clone(), source })?;
        Ok(counters(&text))
    }

    /// The path, if it exists.
    fn find(&self, path: &Path) -> Result<Option<OwnedFd>, MachineError> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => Ok(None),
            opened => opened.map(Some).map_err(io("open", path)),
        }
    }

    /// The kernel gives up where something on the way is renamed or mounted meanwhile (openat2(2), EAGAIN).
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let once = || fs::openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let mut opened = once();
        for _ in 0..OPEN_RETRIES {
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                break;
            }
            opened = once();
        }
        opened
    }
}

fn io(operation: &'static str, path: &Path) -> impl Fn(Errno) -> MachineError {
    move |errno| MachineError::Io { operation, path: path.to_owned(), source: errno.into() }
}

fn dev_no(device: u64) -> DevNo {
    DevNo { major: major(device), minor: minor(device) }
}

fn mountinfo_of(root: &Path) -> PathBuf {
    match root.strip_prefix("/proc").ok().and_then(|rest| rest.parent()) {
        Some(process) if root.ends_with("root") => {
            Path::new("/proc").join(process).join("mountinfo")
        }
        _ => PathBuf::from("/proc/self/mountinfo"),
    }
}

fn counters(stat: &str) -> [u64; 4] {
    let fields: Vec<u64> =
        stat.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    // Kernels before 4.18 have no discard fields; a field that is absent never grows.
    [4, 6, 11, 13].map(|index| fields.get(index).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_the_process_whose_root_it_is() {
        assert_eq!(mountinfo_of(Path::new("/proc/1/root")), Path::new("/proc/1/mountinfo"));
        assert_eq!(mountinfo_of(Path::new("/")), Path::new("/proc/self/mountinfo"));
        assert_eq!(mountinfo_of(Path::new("/srv/root")), Path::new("/proc/self/mountinfo"));
    }

    #[test]
    fn links_mean_what_they_mean_below_the_root() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("srv/kubelet")).expect("made");
        std::os::unix::fs::symlink("/srv/kubelet", root.path().join("kubelet")).expect("linked");
        let machine = Machine::new(root.path()).expect("opened");
        let real = |path: &str| machine.real_path(Path::new(path)).expect("resolved");
        assert!(real("/kubelet").ends_with("srv/kubelet"));
        assert_eq!(real("/absent"), Path::new("/absent"));
        assert!(machine.mount_id(Path::new("/kubelet")).expect("told").is_some());
        assert_eq!(machine.mount_id(Path::new("/absent")).expect("told"), None);
        assert_eq!(machine.device_nodes(Path::new("/kubelet")).expect("listed"), []);
        assert_eq!(machine.device_nodes(Path::new("/absent")).expect("nothing"), []);
    }

    /// An error that is taken for a "no" would refuse a volume for a reason that is none.
    #[test]
    fn only_what_is_not_there_is_not_there() {
        let root = tempfile::tempdir().expect("a directory");
        let block = root.path().join("sys/dev/block");
        std::fs::create_dir_all(block.join("253:1/dm")).expect("made");
        std::fs::create_dir_all(block.join("253:3")).expect("made");
        std::os::unix::fs::symlink("253:2", block.join("253:2")).expect("linked");
        let machine = Machine::new(root.path()).expect("opened");
        let ask = |minor| machine.is_device_mapper(DevNo { major: 253, minor });
        assert!(ask(1).expect("told"));
        assert!(!ask(3).expect("told") && !ask(4).expect("told"));
        let error = ask(2).expect_err("a link to itself").to_string();
        assert!(error.contains("sys/dev/block/253:2/dm"), "{error}");
        let around = Path::new("/sys/dev/block/253:2/x");
        assert!(machine.real_path(around).is_err() && machine.mount_id(around).is_err());
    }

    #[test]
    fn write_counters_are_picked() {
        let stat = "  1 2 3 4 105 6 107 8 9 10 11 112 13 114 15 16 17\n";
        assert_eq!(counters(stat), [105, 107, 112, 114]);
        assert_eq!(counters("1 2 3 4 5 6 7 8 9 10 11"), [5, 7, 0, 0]);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::new(Path::new("/")).expect("opened");
        assert!(
            machine.mounts().expect("mounts").iter().any(|mount| mount.point == Path::new("/proc"))
        );
    }
}
