//! A file or a block device that a replica is made in: ours alone while it is open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use eratrack_dm::machine::{Machine, MachineError};
use eratrack_model::names::DmUuid;
use eratrack_model::units::{Bytes, DevNo};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, SeekFrom, fallocate, flock, seek};
use rustix::io::Errno;

use crate::buffer::{Buffer, is_zero};
use crate::checkpoint::TargetId;
use crate::error::ReplicaError;
use crate::target_error::TargetError;

/// What is looked at of a device to find out whether it is blank: so much at either end.
const END: u64 = 1 << 20;

/// An open target.
#[derive(Debug)]
pub struct Target {
    file: File,
    kind: Kind,
    id: TargetId,
    /// Zeroes are written as any other bytes. What a device makes zero by itself it may count as written twice: when it
    /// was told to, and when that was not supported after all.
    plain_zeroes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Device(DevNo),
}

impl Target {
    /// Opens a target for a source of that size, or makes a file for it. Refused is whatever is in
    /// use, too small, or has to do with the source.
    pub fn open(
        machine: &Machine,
        path: &Path,
        (source, needed): (DevNo, Bytes),
    ) -> Result<Self, ReplicaError> {
        let path = without_links(path)?;
        let kind = kind_of(&path)?;
        match kind {
            Some(Kind::Device(device)) => check_device(machine, &path, device, source)?,
            Some(Kind::File) => check_file(machine, &path, &path, source)?,
            None if path.starts_with("/dev") => return Err(TargetError::NoDevice { path }.into()),
            None => check_file(machine, &path, path.parent().unwrap_or(&path), source)?,
        }
        let kind = kind.unwrap_or(Kind::File);
        let file = open_for_ourselves(&path, kind)?;
        let size = grown(&path, &file, kind, needed)?;
        let id = identify(machine, &path, &file, kind, size)?;
        Ok(Self { file, kind, id, plain_zeroes: false })
    }

    /// A device that is open already, claimed by the caller. `name` stands for its path, and is always the same.
    pub(crate) fn of_device(
        machine: &Machine,
        (name, device, file): (&Path, DevNo, File),
        (source, needed): (DevNo, Bytes),
    ) -> Result<Self, ReplicaError> {
        check_device(machine, name, device, source)?;
        let kind = Kind::Device(device);
        let size = grown(name, &file, kind, needed)?;
        let id = identify(machine, name, &file, kind, size)?;
        Ok(Self { file, kind, id, plain_zeroes: true })
    }

    /// Which one it is.
    pub fn id(&self) -> &TargetId {
        &self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.id.path
    }

    /// Whether nothing is in it: a file without data, a device whose ends are zero.
    pub(crate) fn is_blank(&self) -> Result<bool, TargetError> {
        let looked = match self.kind {
            Kind::File => self.has_data(0, self.id.size.0).map(|has| !has),
            Kind::Device(_) => self.ends_are_zero(),
        };
        looked.map_err(failed("look at what is in", self.path()))
    }

    fn ends_are_zero(&self) -> io::Result<bool> {
        let length = END.min(self.id.size.0 / 4096 * 4096);
        let mut buffer = Buffer::zeroed(usize::try_from(length).map_err(io::Error::other)?);
        for offset in [0, self.id.size.0 / 4096 * 4096 - length] {
            let bytes = buffer.first_mut(usize::MAX);
            self.file.read_exact_at(bytes, offset)?;
            if !is_zero(bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Makes a range zero: a hole in a file, zeroes on a device.
    pub(crate) fn zero(&self, offset: u64, length: u64, zeroes: &Buffer) -> io::Result<()> {
        let how = match self.kind {
            Kind::Device(_) if self.plain_zeroes => {
                return self.write_zeroes(offset, length, zeroes);
            }
            Kind::File if !self.has_data(offset, offset + length)? => return Ok(()),
            Kind::File => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Kind::Device(_) => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        match fallocate(&self.file, how, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                self.write_zeroes(offset, length, zeroes)
            }
            done => Ok(done?),
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, zeroes: &Buffer) -> io::Result<()> {
        let end = offset + length;
        let mut next = offset;
        while next < end {
            let bytes = zeroes.first(usize::try_from(end - next).unwrap_or(usize::MAX));
            self.file.write_all_at(bytes, next)?;
            next += bytes.len() as u64;
        }
        Ok(())
    }

    /// Whether a file has anything but holes there. Where a file system does not tell, it has.
    fn has_data(&self, start: u64, end: u64) -> io::Result<bool> {
        match seek(&self.file, SeekFrom::Data(start)) {
            Ok(found) => Ok(found < end),
            Err(Errno::NXIO) => Ok(false),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// What was written is there also after a power cut.
    pub(crate) fn flush(&self) -> Result<(), TargetError> {
        self.file.sync_data().map_err(failed("flush", self.path()))
    }
}

fn without_links(path: &Path) -> Result<PathBuf, TargetError> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(path).map_err(failed("find", path))?;
            let (Some(dir), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Err(failed("make", path)(e));
            };
            let dir = fs::canonicalize(dir).map_err(failed("find the directory of", path))?;
            Ok(dir.join(name))
        }
        found => found.map_err(failed("find", path)),
    }
}

fn kind_of(path: &Path) -> Result<Option<Kind>, TargetError> {
    let found = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed("look at", path))?,
    };
    let kind = found.file_type();
    if kind.is_file() {
        Ok(Some(Kind::File))
    } else if kind.is_block_device() {
        Ok(Some(Kind::Device(number(found.rdev()))))
    } else {
        Err(TargetError::Kind { path: path.to_owned() })
    }
}

/// The source is written through what it stands on, and what stands on the source is written by
/// what is copied from it.
fn check_device(
    machine: &Machine,
    path: &Path,
    device: DevNo,
    source: DevNo,
) -> Result<(), ReplicaError> {
    let path = || path.to_owned();
    if machine.beneath(source)?.iter().any(|below| below.number == device) {
        return Err(TargetError::IsSource { path: path() }.into());
    }
    let beneath = machine.beneath(device)?;
    if beneath.iter().any(|below| below.number == source) {
        return Err(TargetError::OnSource { path: path() }.into());
    }
    let uuid = beneath.first().and_then(|itself| itself.uuid.as_ref());
    if uuid.is_some_and(DmUuid::is_ours) {
        return Err(TargetError::PartOfStack { path: path() }.into());
    }
    Ok(())
}

fn check_file(
    machine: &Machine,
    path: &Path,
    there: &Path,
    source: DevNo,
) -> Result<(), ReplicaError> {
    if let Some(device) = machine.device_of(there)?
        && machine.beneath(device)?.iter().any(|below| below.number == source)
    {
        return Err(TargetError::OnSource { path: path.to_owned() }.into());
    }
    if is_behind(machine, path, source)? {
        return Err(TargetError::IsSource { path: path.to_owned() }.into());
    }
    Ok(())
}

/// Whether the file is behind a loop device that the source stands on.
fn is_behind(machine: &Machine, path: &Path, source: DevNo) -> Result<bool, MachineError> {
    let Ok(wanted) = fs::metadata(path) else { return Ok(false) };
    let wanted = (wanted.dev(), wanted.ino());
    Ok(machine.beneath(source)?.iter().any(|below| {
        let text = machine.sys().join(format!("dev/block/{}/loop/backing_file", below.number));
        let backing = fs::read_to_string(text).unwrap_or_default();
        let found = fs::metadata(machine.path(Path::new(backing.trim_end())));
        !backing.is_empty() && found.is_ok_and(|found| (found.dev(), found.ino()) == wanted)
    }))
}

/// Around the page cache where the file system can.
fn open_for_ourselves(path: &Path, kind: Kind) -> Result<File, TargetError> {
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(kind == Kind::File).mode(0o600).custom_flags(flags);
        how.open(path)
    };
    let exclusive = match kind {
        Kind::File => OFlags::empty(),
        Kind::Device(_) => OFlags::EXCL,
    };
    let opened = match open(OFlags::DIRECT | exclusive) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => open(exclusive),
        opened => opened,
    };
    let in_use = || TargetError::InUse { path: path.to_owned() };
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Err(in_use()),
        opened => opened.map_err(failed("open", path))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(in_use()),
        Err(e) => Err(failed("lock", path)(e.into())),
        Ok(()) => Ok(file),
    }
}

/// How large it is; a new or empty file is first made as large as the source.
fn grown(path: &Path, file: &File, kind: Kind, needed: Bytes) -> Result<Bytes, TargetError> {
    let size = || seek(file, SeekFrom::End(0)).map_err(|e| failed("look at", path)(e.into()));
    let mut found = Bytes(size()?);
    if kind == Kind::File && found.0 == 0 {
        file.set_len(needed.0).map_err(failed("make room in", path))?;
        found = Bytes(size()?);
    }
    if found < needed {
        return Err(TargetError::TooSmall { path: path.to_owned(), found, needed });
    }
    Ok(found)
}

fn identify(
    machine: &Machine,
    path: &Path,
    file: &File,
    kind: Kind,
    size: Bytes,
) -> Result<TargetId, ReplicaError> {
    let path = path.to_owned();
    match kind {
        Kind::File => {
            let found = file.metadata().map_err(failed("look at", &path))?;
            let born = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
            Ok(TargetId { path, inode: Some(found.ino()), born, identity: None, size })
        }
        Kind::Device(device) => {
            let said = machine.identity(device)?;
            let identity = said.map_or_else(|| in_this_boot(machine, device), Ok)?;
            Ok(TargetId { path, inode: None, born: None, identity: Some(identity), size })
        }
    }
}

/// No two disks of a boot have the same sequence number (Documentation/ABI/stable/sysfs-block).
fn in_this_boot(machine: &Machine, device: DevNo) -> Result<String, MachineError> {
    let file = machine.sys().join(format!("dev/block/{device}/diskseq"));
    let sequence = fs::read_to_string(file).unwrap_or_default();
    Ok(format!("{device} disk {} of boot {}", sequence.trim(), machine.boot_id()?))
}

fn number(dev: u64) -> DevNo {
    DevNo { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TargetError + 'a {
    move |source| TargetError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SOURCE: DevNo = DevNo { major: 253, minor: 3 };

    /// A machine with a source over a disk, and where files may be.
    pub(crate) fn machine() -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        for dir in ["sys/dev/block/253:3/slaves/sda", "sys/dev/block/8:0"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        fs::write(root.path().join("sys/dev/block/253:3/slaves/sda/dev"), "8:0").unwrap();
        fs::create_dir_all(root.path().join("proc/1")).unwrap();
        fs::write(root.path().join("proc/1/mountinfo"), "").unwrap();
        let machine = Machine::new(root.path());
        (root, machine)
    }

    pub(crate) fn open(machine: &Machine, path: &Path, needed: u64) -> Result<Target, String> {
        Target::open(machine, path, (SOURCE, Bytes(needed))).map_err(|e| e.to_string())
    }

    #[test]
    fn a_new_file_is_as_large_as_the_source_and_blank() {
        let (_root, machine) = machine();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let target = open(&machine, &path, 1 << 20).unwrap();
        assert!(target.is_blank().unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
        let busy = open(&machine, &path, 1 << 20).unwrap_err();
        assert!(busy.contains("is in use"), "{busy}");
        let id = target.id().clone();
        drop(target);
        assert_eq!(*open(&machine, &path, 1 << 20).unwrap().id(), id);
        let small = open(&machine, &path, 2 << 20).unwrap_err();
        assert!(small.contains("1Mi, less than the 2Mi"), "{small}");
        assert!(open(&machine, &path, 4096).is_ok(), "a larger one will do");
        let gone = open(&machine, Path::new("/dev/no-such-disk"), 4096).unwrap_err();
        assert!(gone.contains("there is no device /dev/no-such-disk"), "{gone}");
        let none = open(&machine, dir.path(), 4096).unwrap_err();
        assert!(none.contains("neither a regular file"), "{none}");
    }

    #[test]
    fn zeroes_are_holes_and_holes_stay() {
        let (_root, machine) = machine();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let target = open(&machine, &path, 1 << 20).unwrap();
        let mut full = Buffer::zeroed(65536);
        full.first_mut(65536).fill(7);
        let zeroes = Buffer::zeroed(65536);
        target.write(full.first(65536), 131_072).unwrap();
        assert!(!target.is_blank().unwrap());
        target.zero(0, 131_072, &zeroes).unwrap();
        let allocated = || fs::metadata(&path).unwrap().blocks() * 512;
        assert!(allocated() <= 131_072, "{}", allocated());
        target.zero(131_072, 65536, &zeroes).unwrap();
        let mut read = Buffer::zeroed(65536);
        target.read(read.first_mut(65536), 131_072).unwrap();
        assert!(is_zero(read.first(65536)));
        target.write_zeroes(4096, 131_072, &zeroes).unwrap();
    }
}
