//! Where metadata lies, and what happens to the user's data when it cannot be written.

mod common;

use std::fs;
use std::time::Duration;

use common::{assert_none_suspended, assert_nothing_of_ours, number, request};
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{Detached, EraStatus, Host, HostConfig, HostError, Recovered, Recovery};
use eratrack_model::names::StackId;
use eratrack_model::refusal::Refusal;
use eratrack_model::units::Bytes;
use kit::{Disk, Mount, Volume, VolumeGroup, Writer, run};

/// A mounted ext4 for metadata whose disk can be made to fail, and the device that fails.
struct FailingDisk {
    mount: Mount,
    name: String,
    sectors: u64,
    _disk: Disk,
}

impl FailingDisk {
    fn new(mib: u64) -> Self {
        let disk = Disk::new(mib);
        let (name, sectors) = (kit::unique("failing"), mib * 2048);
        let table = format!("0 {sectors} linear {} 0", disk.device().display());
        kit::run_with("dmsetup", ["create", &name, "--table", &table]).unwrap();
        let mount = Mount::over("ext4", format!("/dev/mapper/{name}").as_ref(), "");
        Self { mount, name, sectors, _disk: disk }
    }

    /// From now on every read and write fails.
    fn fail(&self) {
        let table = format!("0 {} error", self.sectors);
        kit::run_with("dmsetup", ["load", &self.name, "--table", &table]).unwrap();
        run(&format!("dmsetup suspend --nolockfs {}", self.name));
        run(&format!("dmsetup resume {}", self.name));
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = kit::run_with("umount", ["-l".as_ref(), self.mount.path().as_os_str()]);
        let _ = kit::run_with("dmsetup", ["remove", "--retry", "-f", &self.name]);
    }
}

/// The user's data comes first: era comes out although its metadata cannot be written, and what
/// was written into the page cache meanwhile reaches the device.
fn failing_metadata(kind: &str, volume: &Volume, take_out: fn(&Host, &StackId)) {
    let store = FailingDisk::new(64);
    let host = common::host(store.mount.path());
    let original = volume.table();
    let mount = Mount::over(kind, &volume.path, "");
    let record = host.attach(&request(volume, "failing", "64Ki")).unwrap().record;
    let writer = Writer::start(mount.path(), 4);
    writer.advance(50);
    let verified = writer.stop_and_verify();
    assert!(verified.records >= 50);

    let late = mount.path().join("late");
    fs::write(&late, vec![0x5a; 1 << 20]).unwrap();
    store.fail();
    let error = host.boundary(&record).unwrap_err();
    assert!(matches!(error, HostError::EraFailed { .. }), "{error}");
    assert_eq!(host.status(&record).unwrap(), EraStatus::Error);
    take_out(&host, &record.stack);
    assert_eq!(volume.table(), original);
    assert_none_suspended();

    let synced = fs::File::open(&late).unwrap().sync_all();
    synced.expect("buffered data reaches the device once era is out");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(50);
    writer.stop_and_verify();
    assert!(fs::read(&late).unwrap().iter().all(|byte| *byte == 0x5a));
    mount.unmount_and_check(kind);
}

#[test]
#[ignore = "kernel tier"]
fn failing_metadata_under_ext4_loses_nothing() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    failing_metadata("ext4", &group.thick("data", 64), |host, stack| {
        assert_eq!(host.detach(stack).unwrap(), Detached::Restored);
    });
}

#[test]
#[ignore = "kernel tier"]
fn failing_metadata_under_xfs_loses_nothing() {
    let group = VolumeGroup::new([Disk::new(352).into_backing()]);
    // As after a restart: the record, on the disk that failed, cannot be read either.
    failing_metadata("xfs", &group.thick("data", 320), |host, stack| {
        let recovered = host.recover().unwrap();
        let outcome = Recovery::OrphansRemoved;
        assert_eq!(recovered, [Recovered { stack: stack.clone(), outcome }]);
    });
}

#[test]
#[ignore = "kernel tier"]
fn metadata_on_the_volume_itself_is_refused() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (original, mount) = (volume.table(), Mount::over("ext4", &volume.path, ""));
    let host = common::host(mount.path());
    let error = host.attach(&request(&volume, "itself", "64Ki")).unwrap_err();
    let refused = HostError::Refused(Refusal::MetadataOnTrackedVolume {
        name: volume.dm_name.parse().unwrap(),
        beneath: number(&volume),
    });
    assert_eq!((error.to_string(), error.reason()), (refused.to_string(), refused.reason()));
    assert_eq!(volume.table(), original);
    assert_nothing_of_ours(mount.path());
}

#[test]
#[ignore = "kernel tier"]
fn metadata_on_another_tracked_volume_is_refused() {
    let group = VolumeGroup::new([Disk::new(160).into_backing()]);
    let (first, second) = (group.thick("first", 64), group.thick("second", 64));
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&first, "first", "64Ki")).unwrap().record;
    let mount = Mount::over("ext4", &first.path, "");
    let above = common::host(mount.path());
    let error = above.attach(&request(&second, "second", "64Ki")).unwrap_err();
    assert_eq!(error.reason(), "MetadataOnTrackedVolume", "{error}");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    drop(mount);
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn metadata_over_a_limit_is_refused_and_nothing_is_left() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let store = kit::metadata_dir(64);
    let limits = |config: StoreConfig| {
        Host::new(HostConfig {
            root: "/".into(),
            dm: std::sync::Arc::new(eratrack_dm::linux::Kernel::open().unwrap()),
            store: config,
            nodes: "/dev".into(),
            lock_deadline: Duration::from_secs(10),
        })
    };
    let usual =
        StoreConfig { per_node_percent: 100, ..StoreConfig::new(store.path().join("eratrack")) };
    let cases = [
        (StoreConfig { per_volume: Bytes(4096), ..usual.clone() }, "LimitExceeded"),
        (StoreConfig { per_node: Bytes(4096), ..usual.clone() }, "LimitExceeded"),
        (StoreConfig { keep_free_percent: 100, ..usual.clone() }, "MetadataNoSpace"),
    ];
    for (config, reason) in cases {
        let error = limits(config).attach(&request(&volume, "large", "64Ki")).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert_nothing_of_ours(store.path());
    }
    let host = limits(usual);
    let record = host.attach(&request(&volume, "large", "64Ki")).unwrap().record;
    let direct = run("losetup --list --noheadings -O BACK-FILE,DIO");
    let ours = direct.lines().find(|line| line.contains("era-metadata")).expect("its loop device");
    assert!(ours.trim_end().ends_with('1'), "no direct I/O: {ours}");
    let file = fs::metadata(&record.metadata).unwrap();
    let allocated = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    assert!(allocated >= record.metadata_size.0, "{allocated} of {}", record.metadata_size.0);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}
