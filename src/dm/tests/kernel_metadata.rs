//! Where metadata lies, and what happens to the user's data when it cannot be written.

mod common;

use std::fs;
use std::time::Duration;

use common::{FailingDisk, assert_none_suspended, assert_nothing_of_ours, listed, number, request};
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{
    Boundary, Detached, EraStatus, Host, HostConfig, HostError, Liveness, Recovered, Recovery,
};
use eratrack_model::names::{Role, StackId};
use eratrack_model::record::{Keeper, Record};
use eratrack_model::refusal::Refusal;
use eratrack_model::units::Bytes;
use kit::{Disk, Mount, Volume, VolumeGroup, Writer, run};

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
            keeper: Keeper::Agent,
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
    let file = fs::metadata(record.metadata.file().unwrap()).unwrap();
    let allocated = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    assert!(allocated >= record.metadata_size.0, "{allocated} of {}", record.metadata_size.0);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}

/// A tracked volume, and a boundary.
struct Tracked {
    group: VolumeGroup,
    volume: Volume,
    original: String,
    store: Mount,
    host: Host,
    record: Record,
    base: Boundary,
}

impl Tracked {
    fn new() -> Self {
        let group = VolumeGroup::new([Disk::new(96).into_backing()]);
        let (volume, store) = (group.thick("data", 64), kit::metadata_dir(64));
        let (host, original) = (common::host(store.path()), volume.table());
        let record = host.attach(&request(&volume, "tracked", "64Ki")).unwrap().record;
        let base = host.boundary(&record).unwrap();
        Self { group, volume, original, store, host, record, base }
    }

    fn write(&self, block: u64) {
        let (path, seek) = (self.volume.path.display(), block * 16);
        run(&format!(
            "dd if=/dev/zero of={path} bs=4096 count=1 seek={seek} oflag=direct conv=notrunc"
        ));
    }

    fn list(&self) -> Vec<u64> {
        let changes = self.host.changes(&self.record, self.base.era).unwrap();
        listed(&changes).into_iter().collect()
    }

    /// The loop device that X-era keeps its metadata on.
    fn loop_device(&self) -> String {
        let era = self.record.stack.name(Role::Era);
        let table = run(&format!("dmsetup table {era}"));
        let number = table.split_whitespace().nth(3).expect("era's metadata device");
        let found = run("losetup --list --noheadings -O NAME,MAJ:MIN");
        let line = found.lines().find(|line| line.split_whitespace().nth(1) == Some(number));
        line.expect("a loop device").split_whitespace().next().expect("its name").to_owned()
    }

    fn assert_as_before(&self) {
        assert_eq!(self.volume.table(), self.original);
        assert_none_suspended();
        assert_nothing_of_ours(self.store.path());
        let loops = run("losetup --list --noheadings -O BACK-FILE");
        assert!(!loops.contains("era-metadata"), "{loops} ({:?})", self.group);
    }
}

/// dm-era writes around the page cache of its metadata device, so whoever reads that through the
/// cache reads what was there when somebody first did.
#[test]
#[ignore = "kernel tier"]
fn a_list_is_not_read_from_the_page_cache() {
    let tracked = Tracked::new();
    tracked.write(3);
    assert_eq!(tracked.list(), [3]);
    run(&format!("dd if={} of=/dev/null bs=1M", tracked.loop_device()));
    tracked.write(5);
    assert_eq!(tracked.list(), [3, 5]);
    tracked.write(7);
    assert_eq!(tracked.list(), [3, 5, 7]);
    assert_eq!(tracked.host.detach(&tracked.record.stack).unwrap(), Detached::Restored);
    tracked.assert_as_before();
}

/// Somebody tidies up the store's directory while the volume is written.
#[test]
#[ignore = "kernel tier"]
fn metadata_whose_file_was_deleted_goes_on_working_and_is_freed() {
    let tracked = Tracked::new();
    let mount = Mount::over("ext4", &tracked.volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(20);
    let device = tracked.loop_device();
    fs::remove_file(tracked.record.metadata.file().unwrap()).unwrap();

    writer.advance(20);
    let boundary = tracked.host.boundary(&tracked.record).unwrap();
    assert!(boundary.era > tracked.base.era);
    writer.advance(20);
    let changes = tracked.host.changes(&tracked.record, boundary.era).unwrap();
    assert!(!changes.runs.is_empty());
    let adopted = Recovery::Adopted(tracked.record.clone());
    assert_eq!(tracked.host.recover().unwrap()[0].outcome, adopted);
    assert_eq!(tracked.host.detach(&tracked.record.stack).unwrap(), Detached::Restored);
    tracked.assert_as_before();
    let loops = run("losetup --list --noheadings -O NAME,BACK-FILE");
    let freed = !loops.lines().any(|line| line.split_whitespace().next() == Some(&device));
    assert!(freed, "{device} has a file still: {loops}");
    writer.advance(20);
    assert!(writer.stop_and_verify().records >= 80);
    mount.unmount_and_check("ext4");
}

/// The record of an earlier boot, as if the machine had come up since with X's own table; what
/// was written before somebody tracked it again is in no list.
#[test]
#[ignore = "kernel tier"]
fn a_stack_of_another_boot_is_not_intact_and_comes_out() {
    let tracked = Tracked::new();
    let path = tracked.record.metadata.file().unwrap().with_file_name("record.json");
    let text = fs::read_to_string(&path).unwrap();
    let boot = tracked.record.boot.as_str();
    assert!(text.contains(boot), "{text}");
    let other = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11";
    fs::write(&path, text.replace(boot, other)).unwrap();
    let record = Record { boot: other.parse().unwrap(), ..tracked.record.clone() };

    assert_eq!(tracked.host.liveness(&record).unwrap(), Liveness::Rebooted);
    let refused = tracked.host.boundary(&record).unwrap_err();
    assert!(matches!(refused, HostError::NotIntact { .. }), "{refused}");
    let refused = tracked.host.changes(&record, tracked.base.era).unwrap_err();
    assert!(matches!(refused, HostError::NotIntact { .. }), "{refused}");
    let outcome = Recovery::Broken { record, found: Liveness::Rebooted, era_failed: false };
    let stack = tracked.record.stack.clone();
    assert_eq!(tracked.host.recover().unwrap(), [Recovered { stack, outcome }]);
    tracked.assert_as_before();
    let again = tracked.host.attach(&request(&tracked.volume, "tracked", "64Ki")).unwrap();
    assert!(again.created && again.record.chain != tracked.record.chain);
    assert_eq!(tracked.host.detach(&again.record.stack).unwrap(), Detached::Restored);
}
