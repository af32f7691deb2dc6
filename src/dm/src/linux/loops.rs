//! Loop devices over a metadata file, with direct I/O.
#![allow(unsafe_code, reason = "ioctls that no crate wraps; each block says why it is sound")]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use eratrack_model::units::DevNo;
use rustix::io::Errno;
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, ioctl};

use super::nodes::Nodes;
use super::raw;

/// `LOOP_MAJOR`, and the control node `/dev/loop-control` (linux/miscdevice.h).
const LOOP_MAJOR: u32 = 7;
const CONTROL: DevNo = DevNo { major: 10, minor: 237 };

// include/uapi/linux/loop.h
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How often a loop device is tried for, when others take the free one first.
const TRIES: u32 = 32;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<LoopInfo>() == 232);

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// A loop device that could not be set up, found or freed.
#[derive(Debug, thiserror::Error)]
#[error("loop device for {}: cannot {doing}", file.display())]
pub struct LoopError {
    /// The file behind it.
    pub file: PathBuf,
    /// What was tried.
    pub doing: &'static str,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// The machine's loop devices.
#[derive(Clone, Debug)]
pub struct Loops {
    nodes: Nodes,
    sys_block: PathBuf,
}

impl Loops {
    /// `sys` is where the machine's sysfs is mounted.
    pub fn new(nodes: Nodes, sys: &Path) -> Self {
        Self { nodes, sys_block: sys.join("block") }
    }

    /// The loop device over exactly this file, if there is one.
    pub fn find(&self, file: &Path) -> Result<Option<DevNo>, LoopError> {
        let wanted = match fs::metadata(file) {
            Ok(found) => (found.dev(), found.ino()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(file, "look for the file")(e)),
        };
        for dev in self.named_like(file).map_err(error(file, "list the loop devices"))? {
            if self.backing(dev).map_err(error(file, "ask a loop device for its file"))?
                == Some(wanted)
            {
                return Ok(Some(dev));
            }
        }
        Ok(None)
    }

    /// Puts a loop device over the file, with direct I/O where its file system can, or finds
    /// the one that is there.
    pub fn attach(&self, path: &Path) -> Result<DevNo, LoopError> {
        if let Some(there) = self.find(path)? {
            return Ok(there);
        }
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(error(path, "open the file"))?;
        for _ in 0..TRIES {
            let dev = self.free().map_err(error(path, "find a free loop device"))?;
            match self.configure(dev, &file) {
                Ok(()) => return self.warn_if_buffered(dev, path),
                Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
                Err(e) => return Err(error(path, "configure the loop device")(e)),
            }
        }
        Err(error(path, "get a free loop device before others do")(Errno::BUSY.into()))
    }

    /// Frees the loop device over this file; false if there is none.
    pub fn detach(&self, path: &Path) -> Result<bool, LoopError> {
        let found = self.find(path)?;
        found.map_or(Ok(()), |dev| self.free_if_bound(dev, path))?;
        Ok(found.is_some())
    }

    /// Frees this loop device, which was over that file, if it has any file still.
    pub fn free_if_bound(&self, dev: DevNo, path: &Path) -> Result<(), LoopError> {
        let file = match self.nodes.open_for_ioctl(dev) {
            Err(e) if is_gone(&e) => return Ok(()),
            file => file.map_err(error(path, "open the loop device"))?,
        };
        // SAFETY: LOOP_CLR_FD takes no argument.
        match unsafe { ioctl(&file, NoArg::<LOOP_CLR_FD>::new()) } {
            Ok(()) | Err(Errno::NXIO) => Ok(()),
            Err(e) => Err(error(path, "free the loop device")(e.into())),
        }
    }

    fn free(&self) -> io::Result<DevNo> {
        let control = self.nodes.open_char(CONTROL)?;
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number.
        let minor = unsafe { ioctl(&control, GetFree) }?;
        Ok(DevNo { major: LOOP_MAJOR, minor })
    }

    fn configure(&self, dev: DevNo, file: &File) -> io::Result<()> {
        // Opened for reading alone, the loop device would be read-only.
        let device = self.nodes.open_for_writing(dev)?;
        let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
        let info = LoopInfo { flags: LO_FLAGS_DIRECT_IO, ..NO_INFO };
        let config = LoopConfig { fd, block_size: 4096, info, reserved: [0; 8] };
        // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `LoopConfig` is.
        unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }?;
        Ok(())
    }

    fn warn_if_buffered(&self, dev: DevNo, path: &Path) -> Result<DevNo, LoopError> {
        let info = self.info(dev).map_err(error(path, "ask the new loop device"))?;
        if info.is_none_or(|info| info.flags & LO_FLAGS_DIRECT_IO == 0) {
            tracing::warn!(
                file = %path.display(),
                "the file system of the metadata directory has no direct I/O; its page cache is used"
            );
        }
        Ok(dev)
    }

    /// The file's device and inode, as `stat` gives them; none when no file is bound.
    fn backing(&self, dev: DevNo) -> io::Result<Option<(u64, u64)>> {
        Ok(self.info(dev)?.map(|info| (stat_number(info.device), info.inode)))
    }

    /// What the driver says of it; none if it has no file, or is gone.
    fn info(&self, dev: DevNo) -> io::Result<Option<LoopInfo>> {
        let device = match self.nodes.open_for_ioctl(dev) {
            Err(e) if is_gone(&e) => return Ok(None),
            device => device?,
        };
        // SAFETY: LOOP_GET_STATUS64 fills one `struct loop_info64`, which `LoopInfo` is.
        match unsafe { ioctl(&device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) } {
            Ok(info) => Ok(Some(info)),
            Err(e) if is_gone(&e.into()) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Loop devices whose file has this one's name, by sysfs alone. The others are nobody's
    /// business: to open one may even free it, if its owner has asked for that at the last close.
    /// Directories are not compared: they are shown as another mount namespace may see them.
    fn named_like(&self, file: &Path) -> io::Result<Vec<DevNo>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.sys_block)? {
            let name = entry?.file_name();
            let dir = self.sys_block.join(&name);
            let is_loop = name.to_str().is_some_and(|name| name.starts_with("loop"));
            // Whatever cannot be read was freed or removed meanwhile.
            let backing = fs::read_to_string(dir.join("loop/backing_file")).unwrap_or_default();
            let backing = backing.trim_end_matches('\n');
            let backing = Path::new(backing.strip_suffix(" (deleted)").unwrap_or(backing));
            if is_loop && backing.file_name().is_some() && backing.file_name() == file.file_name() {
                let number = fs::read_to_string(dir.join("dev")).unwrap_or_default();
                found.extend(number.trim().parse::<DevNo>().ok());
            }
        }
        Ok(found)
    }
}

/// Nobody drives that number any more, or no file is bound to it.
fn is_gone(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    [Errno::NXIO, Errno::NODEV].into_iter().any(|gone| errno == Some(gone))
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `LOOP_CTL_GET_FREE`: the answer is the call's return value.
struct GetFree;

// SAFETY: no pointer is passed, and the output is the returned number alone.
unsafe impl rustix::ioctl::Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        output: rustix::ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<u32> {
        u32::try_from(output).map_err(|_| Errno::RANGE)
    }
}

/// The loop driver reports `huge_encode_dev`, `stat` the C library's encoding.
fn stat_number(kernel: u64) -> u64 {
    let number = raw::decode(kernel);
    rustix::fs::makedev(number.major, number.minor)
}

fn error<'a>(file: &'a Path, doing: &'static str) -> impl Fn(io::Error) -> LoopError + 'a {
    move |source| LoopError { file: file.to_owned(), doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_over_a_file_of_that_name_are_asked_at_all() {
        let sys = tempfile::tempdir().unwrap();
        let block = sys.path().join("block");
        for (name, number, backing) in [
            ("loop0", "7:0\n", Some("/proc/1/root/var/lib/eratrack/a/era-metadata\n")),
            ("loop1", "7:1\n", Some("/images/somebody.img\n")),
            ("loop2", "7:2\n", None),
            ("loop3", "7:3\n", Some("/era-metadata (deleted)\n")),
            ("loop4", "", Some("/gone/era-metadata\n")),
            ("dm-0", "253:0\n", Some("/era-metadata\n")),
        ] {
            fs::create_dir_all(block.join(name).join("loop")).unwrap();
            fs::write(block.join(name).join("dev"), number).unwrap();
            if let Some(backing) = backing {
                fs::write(block.join(name).join("loop/backing_file"), backing).unwrap();
            }
        }
        let loops = Loops::new(Nodes::new(sys.path().join("no-nodes")), sys.path());
        let mut found = loops.named_like(Path::new("/a/era-metadata")).unwrap();
        found.sort_unstable();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["7:0", "7:3"]);
    }
}
