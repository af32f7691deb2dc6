//! The machine's own files: `/sys` and `/proc`, below a root that a container sees elsewhere.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use eratrack_model::discards::DiscardLimits;
use eratrack_model::record::{BootId, ChainId};
use eratrack_model::stack::Beneath;
use eratrack_model::units::{Bytes, DevNo, Sectors};
use rustix::fs::FileType;

use crate::links;

/// The tag of a device-mapper device that counted its requests from the start.
pub const COUNTED: &str = "eratrack-counted";

/// A file of the machine's that cannot be read, written or understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct MachineError {
    /// What was tried.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Where the machine's files are.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose root directory is seen here.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the machine's root directory is seen.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where its sysfs is seen.
    pub fn sys(&self) -> PathBuf {
        self.root.join("sys")
    }

    /// A path of the machine's, as seen from here. Its symbolic links lead where they lead on the
    /// machine: the kernel would take an absolute one from the root of this process.
    pub fn path(&self, on_machine: &Path) -> PathBuf {
        self.root.join(links::resolve(&self.root, on_machine))
    }

    /// What `uname -r` prints.
    pub fn kernel_release(&self) -> Result<String, MachineError> {
        read(&self.root.join("proc/sys/kernel/osrelease"))
    }

    /// Different after each boot.
    pub fn boot_id(&self) -> Result<BootId, MachineError> {
        read_as(&self.root.join("proc/sys/kernel/random/boot_id"))
    }

    /// The name of a new chain: a random uuid of the kernel's making.
    pub fn new_chain(&self) -> Result<ChainId, MachineError> {
        read_as(&self.root.join("proc/sys/kernel/random/uuid"))
    }

    /// The directory of a block device in sysfs.
    fn block(&self, dev: DevNo) -> PathBuf {
        self.sys().join("dev/block").join(dev.to_string())
    }

    /// Whether there is such a block device.
    pub fn exists(&self, dev: DevNo) -> bool {
        self.block(dev).exists()
    }

    /// Its length.
    pub fn length(&self, dev: DevNo) -> Result<Sectors, MachineError> {
        read_as(&self.block(dev).join("size")).map(Sectors)
    }

    /// Has requests counted from now on: some kernels do not count those of a device-mapper
    /// device unless told to.
    pub fn count_requests(&self, dev: DevNo) -> Result<(), MachineError> {
        write(&self.queue(dev).join("iostats"), "1")
    }

    /// Whether it is one of device mapper's.
    pub fn is_device_mapper(&self, dev: DevNo) -> bool {
        self.block(dev).join("dm").exists()
    }

    /// Which of all disks of this boot it is: a number that no other gets (Documentation/ABI/stable/sysfs-block). That of
    /// a partition is its disk's.
    pub fn disk_sequence(&self, dev: DevNo) -> Result<u64, MachineError> {
        let dir = self.block(dev);
        let whole = if dir.join("partition").exists() { dir.join("..") } else { dir };
        read_as(&whole.join("diskseq"))
    }

    /// Sectors written and discarded since it appeared, or since it was told to count them; none if it does not
    /// (Documentation/block/stat.rst).
    pub fn sectors_written(&self, dev: DevNo) -> Result<Option<u64>, MachineError> {
        if read(&self.queue(dev).join("iostats"))? != "1" {
            return Ok(None);
        }
        let path = self.block(dev).join("stat");
        let text = read(&path)?;
        let figures: Vec<u64> = text.split_whitespace().map_while(|f| f.parse().ok()).collect();
        let counted = [6, 13].map(|field| figures.get(field).copied());
        let total = counted.into_iter().sum::<Option<u64>>();
        total.map(Some).ok_or_else(|| short(&path, &text))
    }

    /// Discard requests completed since it appeared (Documentation/block/stat.rst); none if the
    /// device is not told to count them.
    pub fn discard_count(&self, dev: DevNo) -> Result<Option<u64>, MachineError> {
        if read(&self.queue(dev).join("iostats"))? != "1" {
            return Ok(None);
        }
        let path = self.block(dev).join("stat");
        let text = read(&path)?;
        let count = text.split_whitespace().nth(11).and_then(|field| field.parse().ok());
        count.map(Some).ok_or_else(|| short(&path, &text))
    }

    /// What its queue takes of discards; nothing if it takes none.
    pub fn discards(&self, dev: DevNo) -> Result<DiscardLimits, MachineError> {
        let queue = self.queue(dev);
        Ok(DiscardLimits {
            max: Bytes(read_as(&queue.join("discard_max_bytes"))?),
            granularity: Bytes(read_as(&queue.join("discard_granularity"))?),
        })
    }

    /// Limits how long one discard may be; reads back what then holds.
    pub fn limit_discards(&self, dev: DevNo, bytes: Bytes) -> Result<Bytes, MachineError> {
        let path = self.queue(dev).join("discard_max_bytes");
        let there: u64 = read_as(&path)?;
        // A device that takes no discards refuses every limit.
        if there > bytes.0 {
            write(&path, &bytes.0.to_string())?;
        }
        read_as(&path).map(Bytes)
    }

    /// How far it reads ahead, in KiB.
    pub fn read_ahead(&self, dev: DevNo) -> Result<u64, MachineError> {
        read_as(&self.queue(dev).join("read_ahead_kb"))
    }

    /// Sets how far it reads ahead, in KiB.
    pub fn set_read_ahead(&self, dev: DevNo, kib: u64) -> Result<(), MachineError> {
        write(&self.queue(dev).join("read_ahead_kb"), &kib.to_string())
    }

    /// Whether nothing can be written to it.
    pub fn read_only(&self, dev: DevNo) -> Result<bool, MachineError> {
        Ok(read(&self.block(dev).join("ro"))? == "1")
    }

    /// Writes and discards that it has completed or begun since it appeared; none if it did not
    /// count them from the start. Disks do. Device-mapper devices do not since Linux 5.18, unless a
    /// udev rule told them to when they appeared, and left a tag as proof (`DM_IO_BLK_STAT`,
    /// drivers/md/dm.c).
    pub fn writes(&self, dev: DevNo) -> Result<Option<u64>, MachineError> {
        let counts = read(&self.queue(dev).join("iostats"))? == "1";
        let mapped = self.is_device_mapper(dev);
        if !counts || mapped && !self.has_udev_tag(dev, COUNTED) {
            return Ok(None);
        }
        let path = self.block(dev).join("stat");
        let text = read(&path)?;
        let figures: Vec<u64> = text.split_whitespace().map_while(|f| f.parse().ok()).collect();
        // Writes completed, requests in flight (of whatever kind), discards completed.
        let counted = [4, 8, 11].map(|field| figures.get(field).copied());
        let total = counted.into_iter().sum::<Option<u64>>();
        total.map(Some).ok_or_else(|| short(&path, &text))
    }

    /// udev keeps every tag that a device ever had (`G:` in its database, systemd 247).
    fn has_udev_tag(&self, dev: DevNo, tag: &str) -> bool {
        let database = self.root.join("run/udev/data").join(format!("b{dev}"));
        let text = fs::read_to_string(database).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("G:") == Some(tag))
    }

    /// Every block device there is.
    pub fn block_devices(&self) -> Result<Vec<DevNo>, MachineError> {
        let dir = self.sys().join("dev/block");
        let mut found: Vec<DevNo> = fs::read_dir(&dir)
            .map_err(failed("list", &dir))?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The block device that a path of the machine's leads to; none if it leads to none.
    pub fn device_at(&self, on_machine: &Path) -> Option<DevNo> {
        let found = rustix::fs::stat(self.path(on_machine)).ok()?;
        let is_block = FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice;
        is_block.then(|| number(found.st_rdev))
    }

    /// The kernel's own name for it, below `/dev`.
    pub fn node(&self, dev: DevNo) -> PathBuf {
        let facts = fs::read_to_string(self.block(dev).join("uevent")).unwrap_or_default();
        let name = facts.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        Path::new("/dev").join(name.map_or_else(|| format!("block/{dev}"), str::to_owned))
    }

    /// How many partitions it has.
    pub fn partitions(&self, dev: DevNo) -> Result<usize, MachineError> {
        let dir = self.block(dev);
        let entries = fs::read_dir(&dir).map_err(failed("list", &dir))?;
        Ok(entries.flatten().filter(|entry| entry.path().join("partition").exists()).count())
    }

    /// What it says of itself, the first of: its device-mapper uuid, its world-wide name, its
    /// serial number, the file behind it. A partition says what its disk says, and its own number.
    pub fn identity(&self, dev: DevNo) -> Result<Option<String>, MachineError> {
        let dir = self.block(dev);
        let partition = read_if_there(&dir.join("partition"))?;
        let whole = if partition.is_some() { dir.join("..") } else { dir };
        for file in
            ["dm/uuid", "wwid", "device/wwid", "serial", "device/serial", "loop/backing_file"]
        {
            let found = read_if_there(&whole.join(file)).unwrap_or_default();
            if let Some(text) = found.filter(|text| !text.is_empty()) {
                let part =
                    partition.map_or_else(String::new, |number| format!(" partition {number}"));
                return Ok(Some(format!("{text}{part}")));
            }
        }
        Ok(None)
    }

    /// Its logical block.
    pub fn logical_block(&self, dev: DevNo) -> Result<Bytes, MachineError> {
        read_as(&self.queue(dev).join("logical_block_size")).map(Bytes)
    }

    /// Whether its queue offers DAX.
    pub fn dax(&self, dev: DevNo) -> Result<bool, MachineError> {
        Ok(read_if_there(&self.queue(dev).join("dax"))?.is_some_and(|text| text == "1"))
    }

    /// Whether it has zones.
    pub fn zoned(&self, dev: DevNo) -> Result<bool, MachineError> {
        Ok(read_if_there(&self.queue(dev).join("zoned"))?.is_some_and(|text| text != "none"))
    }

    /// The devices that have it in one of their tables, live or not (`bd_link_disk_holder`, which
    /// device mapper calls when a table is loaded).
    pub fn holders(&self, dev: DevNo) -> Result<Vec<DevNo>, MachineError> {
        let dir = self.block(dev).join("holders");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("list", &dir)(e)),
        };
        let mut holders = Vec::new();
        for holder in entries.flatten() {
            holders.extend(number_in(&holder.path().join("dev"))?);
        }
        holders.sort_unstable();
        Ok(holders)
    }

    /// Every block device that its bytes pass through, itself first: slaves of device mapper
    /// and md, a partition's disk, and the file system's device below a loop device's file.
    pub fn beneath(&self, dev: DevNo) -> Result<Vec<Beneath>, MachineError> {
        let mut found: Vec<Beneath> = Vec::new();
        let mut pending = vec![dev];
        while let Some(next) = pending.pop() {
            if found.iter().any(|seen| seen.number == next) {
                continue;
            }
            found.push(Beneath { number: next, uuid: self.dm_uuid(next) });
            pending.extend(self.parents(next)?);
        }
        Ok(found)
    }

    fn parents(&self, dev: DevNo) -> Result<Vec<DevNo>, MachineError> {
        let dir = self.block(dev);
        let mut parents = Vec::new();
        if dir.join("partition").exists() {
            parents.extend(number_in(&dir.join("../dev"))?);
        }
        if let Ok(slaves) = fs::read_dir(dir.join("slaves")) {
            for slave in slaves.flatten() {
                parents.extend(number_in(&slave.path().join("dev"))?);
            }
        }
        if let Ok(file) = fs::read_to_string(dir.join("loop/backing_file")) {
            parents.extend(self.device_of(Path::new(file.trim_end()))?);
        }
        Ok(parents)
    }

    /// The block device of the file system that a path of the machine's lies on; none for a
    /// file system without one, such as tmpfs and overlay.
    pub fn device_of(&self, on_machine: &Path) -> Result<Option<DevNo>, MachineError> {
        let path = self.path(on_machine);
        let found = match rustix::fs::stat(&path) {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(failed("look at", &path)(e.into())),
        };
        let dev = number(found.st_dev);
        if self.exists(dev) { Ok(Some(dev)) } else { self.mount_source(on_machine) }
    }

    /// btrfs has a made-up `st_dev`: there the mount's source tells. `/proc/1` is the machine's
    /// first process also where the root is seen through it.
    fn mount_source(&self, on_machine: &Path) -> Result<Option<DevNo>, MachineError> {
        let table = read(&self.root.join("proc/1/mountinfo"))?;
        let on_machine = &Path::new("/").join(links::resolve(&self.root, on_machine));
        let mounts = table.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = Path::new(before.split(' ').nth(4)?);
            let source = Path::new(after.split(' ').nth(1)?);
            on_machine.starts_with(point).then_some((point.components().count(), source))
        });
        // The last mount of the deepest point is the one that is seen.
        let Some((_, source)) = mounts.max_by_key(|(depth, _)| *depth) else { return Ok(None) };
        if !source.is_absolute() {
            return Ok(None);
        }
        let dev = rustix::fs::stat(self.path(source)).map_or(0, |found| found.st_rdev);
        Ok(Some(number(dev)).filter(|dev| self.exists(*dev)))
    }

    fn dm_uuid(&self, dev: DevNo) -> Option<eratrack_model::names::DmUuid> {
        let text = fs::read_to_string(self.block(dev).join("dm/uuid")).ok()?;
        text.trim_end().parse().ok()
    }

    /// A partition has its disk's queue.
    fn queue(&self, dev: DevNo) -> PathBuf {
        let own = self.block(dev).join("queue");
        if own.exists() { own } else { self.block(dev).join("../queue") }
    }
}

fn number(dev: u64) -> DevNo {
    DevNo { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) }
}

fn number_in(path: &Path) -> Result<Option<DevNo>, MachineError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", path)(e)),
    };
    text.trim().parse().map(Some).map_err(|e| failed("understand", path)(io::Error::other(e)))
}

fn read(path: &Path) -> Result<String, MachineError> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(failed("read", path))
}

/// An attribute that not every kernel has.
fn read_if_there(path: &Path) -> Result<Option<String>, MachineError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
    }
}

fn read_as<T: FromStr>(path: &Path) -> Result<T, MachineError>
where
    T::Err: Error + Send + Sync + 'static,
{
    read(path)?.parse().map_err(|e| failed("understand", path)(io::Error::other(e)))
}

fn write(path: &Path, text: &str) -> Result<(), MachineError> {
    fs::write(path, text).map_err(failed("write", path))
}

fn short(path: &Path, text: &str) -> MachineError {
    failed("understand", path)(io::Error::other(format!("too few figures: {text:?}")))
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> MachineError + 'a {
    move |source| MachineError { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine made of files: each path below its root, with its contents.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let machine = Machine::new(root.path());
        (root, machine)
    }

    fn dev(text: &str) -> DevNo {
        text.parse().unwrap()
    }

    #[test]
    fn discards_are_counted_where_the_device_counts() {
        let stat = "  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        let (_root, machine) = machine(&[
            ("sys/dev/block/253:0/stat", stat),
            ("sys/dev/block/253:0/queue/iostats", "1\n"),
            ("sys/dev/block/253:1/stat", "1 2 3"),
            ("sys/dev/block/253:1/queue/iostats", "1\n"),
            ("sys/dev/block/253:2/stat", stat),
            ("sys/dev/block/253:2/queue/iostats", "0\n"),
        ]);
        assert_eq!(machine.discard_count(dev("253:0")).unwrap(), Some(12));
        assert_eq!(machine.discard_count(dev("253:2")).unwrap(), None);
        let error = machine.discard_count(dev("253:1")).unwrap_err();
        assert!(error.path.ends_with("253:1/stat"), "{error}");
    }

    #[test]
    fn sectors_that_were_written_or_discarded_are_one_figure() {
        let stat = "  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        let (_root, machine) = machine(&[
            ("sys/dev/block/253:0/stat", stat),
            ("sys/dev/block/253:0/queue/iostats", "1\n"),
            ("sys/dev/block/253:1/stat", "1 2 3 4 5 6 7"),
            ("sys/dev/block/253:1/queue/iostats", "1\n"),
            ("sys/dev/block/253:2/stat", stat),
            ("sys/dev/block/253:2/queue/iostats", "0\n"),
        ]);
        assert_eq!(machine.sectors_written(dev("253:0")).unwrap(), Some(7 + 14));
        assert!(machine.sectors_written(dev("253:1")).is_err(), "a short file proves nothing");
        assert_eq!(machine.sectors_written(dev("253:2")).unwrap(), None);
    }

    #[test]
    fn writes_are_known_only_if_they_were_counted_from_the_start() {
        let stat = "  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        let (_root, machine) = machine(&[
            ("sys/dev/block/8:0/stat", stat),
            ("sys/dev/block/8:0/queue/iostats", "1\n"),
            ("sys/dev/block/253:0/stat", stat),
            ("sys/dev/block/253:0/dm/name", "a\n"),
            ("sys/dev/block/253:0/queue/iostats", "1\n"),
            ("sys/dev/block/253:1/stat", stat),
            ("sys/dev/block/253:1/dm/name", "b\n"),
            ("sys/dev/block/253:1/queue/iostats", "1\n"),
            ("run/udev/data/b253:0", "I:5\nG:systemd\nG:eratrack-counted\nQ:systemd\n"),
            ("run/udev/data/b253:1", "I:5\nE:NOTE=G:eratrack-counted\n"),
        ]);
        assert_eq!(machine.writes(dev("8:0")).unwrap(), Some(5 + 9 + 12));
        assert_eq!(machine.writes(dev("253:0")).unwrap(), Some(5 + 9 + 12));
        assert_eq!(machine.writes(dev("253:1")).unwrap(), None);
    }

    #[test]
    fn a_limit_is_only_ever_lowered() {
        let (_root, machine) = machine(&[
            ("sys/dev/block/253:0/queue/discard_max_bytes", "1048576\n"),
            ("sys/dev/block/253:1/queue/discard_max_bytes", "0\n"),
        ]);
        let limit = |device, bytes| machine.limit_discards(dev(device), Bytes(bytes)).unwrap();
        assert_eq!(limit("253:0", 65536), Bytes(65536));
        assert_eq!(limit("253:0", 1 << 20), Bytes(65536));
        assert_eq!(limit("253:1", 65536), Bytes(0));
    }

    #[test]
    fn what_lies_above_is_found_through_holders() {
        let (_root, machine) = machine(&[
            ("sys/dev/block/253:2/holders/dm-7/dev", "253:7\n"),
            ("sys/dev/block/253:2/holders/dm-0/dev", "253:0\n"),
        ]);
        assert_eq!(machine.holders(dev("253:2")).unwrap(), [dev("253:0"), dev("253:7")]);
        assert_eq!(machine.holders(dev("253:0")).unwrap(), []);
    }

    #[test]
    fn what_lies_beneath_is_found_through_slaves_and_disks() {
        let (_root, machine) = machine(&[
            ("sys/dev/block/253:1/slaves/dm-0/dev", "253:0\n"),
            ("sys/dev/block/253:0/dm/uuid", "CRYPT-SUBDEV-ERATRACK-a-base\n"),
            ("sys/dev/block/253:0/slaves/sda/dev", "8:0\n"),
            ("sys/dev/block/8:0/size", "1\n"),
        ]);
        let beneath = machine.beneath(dev("253:1")).unwrap();
        let found: Vec<_> =
            beneath.iter().map(|b| (b.number.to_string(), b.uuid.is_some())).collect();
        assert_eq!(found, [("253:1".into(), false), ("253:0".into(), true), ("8:0".into(), false)]);
    }
}
