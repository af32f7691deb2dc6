//! What the kernel tests of this crate share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod load;
pub(crate) mod mortal;
pub(crate) mod promise;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eratrack_dm::linux::Kernel;
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{AttachRequest, Changes, DeviceMapper, Host, HostConfig, Moment};
use eratrack_model::record::Keeper;
use eratrack_model::units::{DevNo, Granularity, Sectors};
use kit::{Disk, Mount, Volume, VolumeGroup};

/// A host whose metadata files go into this directory of the guest.
pub(crate) fn host(dir: &Path) -> Host {
    host_over(dir, kernel(), Duration::from_secs(10))
}

/// The same, but waiting for LVM's lock hardly at all.
pub(crate) fn impatient_host(dir: &Path) -> Host {
    host_over(dir, kernel(), Duration::from_millis(300))
}

/// The same over another device mapper.
pub(crate) fn host_over(dir: &Path, dm: Arc<dyn DeviceMapper>, lock_deadline: Duration) -> Host {
    let store = StoreConfig { per_node_percent: 100, ..StoreConfig::new(dir.join("eratrack")) };
    let (root, nodes, keeper) = ("/".into(), "/dev".into(), Keeper::Agent);
    Host::new(HostConfig { root, dm, store, nodes, lock_deadline, keeper })
}

/// A host for the machine's administrator, whose metadata may be in more places.
pub(crate) fn administrators_host(dir: &Path) -> Host {
    administrators_host_over(dir, kernel(), Duration::from_secs(30))
}

/// The same, but waiting for LVM hardly at all.
pub(crate) fn impatient_administrators_host(dir: &Path) -> Host {
    administrators_host_over(dir, kernel(), Duration::from_millis(500))
}

/// The same over another device mapper.
pub(crate) fn administrators_host_over(
    dir: &Path,
    dm: Arc<dyn DeviceMapper>,
    lock_deadline: Duration,
) -> Host {
    let store = StoreConfig { per_node_percent: 100, ..StoreConfig::new(dir.join("eratrack")) };
    let (root, nodes, keeper) = ("/".into(), "/dev".into(), Keeper::Administrator);
    Host::new(HostConfig { root, dm, store, nodes, lock_deadline, keeper })
}

fn kernel() -> Arc<Kernel> {
    Arc::new(Kernel::open().expect("device mapper is there"))
}

pub(crate) fn number(volume: &Volume) -> DevNo {
    let (major, minor) = volume.number();
    DevNo { major, minor }
}

/// As long as X is now.
pub(crate) fn length(volume: &Volume) -> Sectors {
    let size = std::fs::read_to_string(format!("/sys/dev/block/{}/size", number(volume)));
    Sectors(size.expect("the volume is active").trim().parse().expect("a number"))
}

pub(crate) fn request(volume: &Volume, stack: &str, granularity: &str) -> AttachRequest {
    request_for(number(volume), stack, granularity)
}

pub(crate) fn request_for(x: DevNo, stack: &str, granularity: &str) -> AttachRequest {
    let granularity = granularity.parse().expect("a valid granularity");
    AttachRequest::new(stack.parse().expect("a valid stack name"), x, granularity)
}

pub(crate) fn block_size(granularity: Granularity) -> usize {
    usize::try_from(granularity.bytes().0).expect("fits")
}

pub(crate) fn listed(changes: &Changes) -> BTreeSet<u64> {
    changes.runs.iter().flat_map(|run| run.first..=run.last).collect()
}

/// What sysfs says of each device-mapper device: its name and one of its attributes. Asking it
/// is a hundred times as fast as starting `dmsetup` in a guest.
fn attributes(name: &str) -> Vec<(String, String)> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned());
    let devices = std::fs::read_dir("/sys/block").unwrap().map(|found| found.unwrap().path());
    let dirs = devices.map(|device| device.join("dm"));
    dirs.filter_map(|dir| Some((read(dir.join("name"))?, read(dir.join(name))?))).collect()
}

/// Every device's name and state; none may be suspended.
pub(crate) fn assert_none_suspended() {
    let suspended: Vec<_> =
        attributes("suspended").into_iter().filter(|(_, state)| state != "0").collect();
    assert!(suspended.is_empty(), "suspended: {suspended:?}");
}

/// The same as a question.
pub(crate) fn none_suspended() -> bool {
    attributes("suspended").iter().all(|(_, state)| state == "0")
}

/// Nothing of ours is on the machine: no device, no file.
pub(crate) fn assert_nothing_of_ours(dir: &Path) {
    assert_no_device_of_ours();
    let left = std::fs::read_dir(dir.join("eratrack")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "files are left in the store");
}

/// No point in time is held, nor left.
pub(crate) fn assert_no_point_in_time() {
    let uuids = attributes("uuid");
    let is_part = |uuid: &str| ["-origin", "-snapshot"].iter().any(|part| uuid.ends_with(part));
    let left = uuids.iter().any(|(_, uuid)| uuid.contains("ERATRACK-") && is_part(uuid));
    assert!(!left, "{uuids:?}");
    let loops = loop_files();
    assert!(!loops.iter().any(|file| file.contains("point-in-time")), "{loops:?}");
}

pub(crate) fn assert_no_device_of_ours() {
    let uuids = attributes("uuid");
    assert!(!uuids.iter().any(|(_, uuid)| uuid.contains("ERATRACK")), "{uuids:?}");
}

/// A host whose metadata files, of the stack with that name, are cut to so many blocks of 4 KiB
/// before they are used.
pub(crate) fn stingy_host(store: &Path, stack: &str, blocks: u64) -> Host {
    let file = store.join("eratrack").join(stack).join("era-metadata");
    host(store).observed_by(Arc::new(move |moment| {
        if matches!(moment, Moment::Machine("put a loop device over it")) {
            let file = std::fs::File::options().write(true).open(&file).unwrap();
            file.set_len(blocks * 4096).unwrap();
        }
    }))
}

/// The files behind the machine's loop devices.
pub(crate) fn loop_files() -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").unwrap().map(|found| found.unwrap().path());
    let files = devices.map(|device| device.join("loop/backing_file"));
    files.filter_map(|file| std::fs::read_to_string(file).ok()).collect()
}

/// The transaction id of the volume group's `pool`, as LVM and as the kernel have it.
pub(crate) fn transaction_ids(group: &VolumeGroup) -> (String, String) {
    let lv = format!("{}/pool", group.name());
    let lvm = kit::run(&format!("lvs --noheadings -o transaction_id {lv}")).trim().to_owned();
    let status = kit::run(&format!("dmsetup status {}-pool-tpool", group.name()));
    (lvm, status.split_whitespace().nth(3).expect("thin-pool's status").to_owned())
}

/// They must agree, or LVM refuses every further operation on the pool.
pub(crate) fn assert_transaction_ids_agree(group: &VolumeGroup) {
    let (lvm, kernel) = transaction_ids(group);
    assert_eq!(lvm, kernel, "the pool's transaction ids differ: LVM {lvm}, kernel {kernel}");
}

/// Requests that a device has taken and not completed.
pub(crate) fn in_flight(volume: &Volume) -> usize {
    let stat = format!("/sys/dev/block/{}/stat", number(volume));
    let stat = std::fs::read_to_string(stat).unwrap();
    stat.split_whitespace().nth(8).expect("the kernel counts them").parse().unwrap()
}

/// A device of nobody's over a disk; writes to the disk take so long.
pub(crate) struct Scratch {
    pub(crate) volume: Volume,
    beneath: String,
    _disk: Disk,
}

impl Scratch {
    pub(crate) fn new(mib: u64, slow: Duration) -> Self {
        let disk = Disk::new(mib);
        kit::run("modprobe dm-delay");
        let (beneath, name, sectors) = (kit::unique("slow"), kit::unique("data"), mib * 2048);
        let (device, delay) = (disk.device().display(), slow.as_millis());
        let table = format!("0 {sectors} delay {device} 0 0 {device} 0 {delay}");
        kit::run_with("dmsetup", ["create", &beneath, "--table", &table]).unwrap();
        let table = format!("0 {sectors} linear /dev/mapper/{beneath} 0");
        kit::run_with("dmsetup", ["create", &name, "--table", &table]).unwrap();
        let path = PathBuf::from(format!("/dev/mapper/{name}"));
        Self { volume: Volume { lv: String::new(), dm_name: name, path }, beneath, _disk: disk }
    }

    /// Writes that the device has taken and not completed.
    pub(crate) fn in_flight(&self) -> usize {
        in_flight(&self.volume)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in [&self.volume.dm_name, &self.beneath] {
            let _ = kit::run_with("dmsetup", ["remove", "--retry", "-f", name]);
        }
    }
}

/// A mounted ext4 for metadata whose disk can be made to fail, and the device that fails.
pub(crate) struct FailingDisk {
    pub(crate) mount: Mount,
    name: String,
    sectors: u64,
    _disk: Disk,
}

impl FailingDisk {
    pub(crate) fn new(mib: u64) -> Self {
        let disk = Disk::new(mib);
        let (name, sectors) = (kit::unique("failing"), mib * 2048);
        let table = format!("0 {sectors} linear {} 0", disk.device().display());
        kit::run_with("dmsetup", ["create", &name, "--table", &table]).unwrap();
        let mount = Mount::over("ext4", format!("/dev/mapper/{name}").as_ref(), "");
        Self { mount, name, sectors, _disk: disk }
    }

    /// From now on every read and write fails.
    pub(crate) fn fail(&self) {
        let table = format!("0 {} error", self.sectors);
        kit::run_with("dmsetup", ["load", &self.name, "--table", &table]).unwrap();
        kit::run(&format!("dmsetup suspend --nolockfs {}", self.name));
        kit::run(&format!("dmsetup resume {}", self.name));
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = kit::run_with("umount", ["-l".as_ref(), self.mount.path().as_os_str()]);
        let _ = kit::run_with("dmsetup", ["remove", "--retry", "-f", &self.name]);
    }
}
