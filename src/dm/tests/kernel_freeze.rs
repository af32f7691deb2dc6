//! Others at work on X: a frozen filesystem, a suspended or read-only device, a table in its
//! slot, pvmove. Either our swap works beside that or it is refused with the documented reason.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{assert_none_suspended, assert_nothing_of_ours, in_flight, listed, request};
use eratrack_dm::{Detached, EraStatus, Host, HostError, Liveness, Moment};
use eratrack_model::Era;
use eratrack_model::names::{Role, StackId};
use eratrack_model::plan::Step;
use eratrack_model::record::Record;
use kit::{Disk, Mount, Volume, VolumeGroup, Writer, run, run_with};

/// "At once" on a loaded machine. Nothing that is refused waits for anybody.
const AT_ONCE: Duration = Duration::from_secs(5);

fn stack() -> StackId {
    "freeze".parse().expect("a valid stack name")
}

/// What a call returned, which must have come at once.
fn at_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = call();
    assert!(start.elapsed() < AT_ONCE, "{what} took {} ms", start.elapsed().as_millis());
    result
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, HostError>, reason: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, HostError::Refused(_)), "{error}");
    assert_eq!(error.reason(), reason, "{error}");
}

/// A filesystem that its owner has frozen with `fsfreeze`, and will thaw.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn new(mounted: &'a Path) -> Self {
        run(&format!("fsfreeze -f {}", mounted.display()));
        Self(mounted)
    }

    fn thaw(self) {
        run(&format!("fsfreeze -u {}", self.0.display()));
        std::mem::forget(self);
    }
}

impl Drop for Frozen<'_> {
    /// After a failed assertion: whoever waits for the filesystem must not wait for ever.
    fn drop(&mut self) {
        let _ = run_with("fsfreeze", ["-u".as_ref(), self.0.as_os_str()]);
    }
}

/// Attach, boundary and detach, each while somebody else keeps the filesystem frozen: they
/// freeze nothing themselves (skip-lockfs), so they work, and the owner's thaw does too.
fn works_while_frozen(kind: &str, mib: u64) {
    let group = VolumeGroup::new([Disk::new(mib + 32).into_backing()]);
    let volume = group.thick("data", mib);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let mount = Mount::over(kind, &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(10);

    let frozen = Frozen::new(mount.path());
    let record = at_once("attach", || host.attach(&request(&volume, "freeze", "64Ki")));
    let record = record.unwrap().record;
    assert_eq!(host.liveness(&record).unwrap(), Liveness::Intact);
    assert_none_suspended();
    frozen.thaw();
    writer.advance(20);

    let frozen = Frozen::new(mount.path());
    let boundary = at_once("boundary", || host.boundary(&record)).unwrap();
    assert_none_suspended();
    frozen.thaw();
    writer.advance(20);
    assert!(!host.changes(&record, boundary.era).unwrap().runs.is_empty());

    let frozen = Frozen::new(mount.path());
    assert_eq!(at_once("detach", || host.detach(&record.stack)).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    frozen.thaw();
    writer.advance(20);

    // A whole life within one freeze.
    let frozen = Frozen::new(mount.path());
    let record = host.attach(&request(&volume, "freeze", "64Ki")).unwrap().record;
    host.boundary(&record).unwrap();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    frozen.thaw();
    writer.advance(20);

    assert_eq!(volume.table(), original);
    assert_nothing_of_ours(store.path());
    let verified = writer.stop_and_verify();
    assert!(verified.records >= 90, "{} records", verified.records);
    mount.unmount_and_check(kind);
    // A freeze count that leaked would make this fail (EBUSY), until the next boot.
    Mount::existing(&volume.path, "").unmount_and_check(kind);
}

#[test]
#[ignore = "kernel tier"]
fn an_ext4_frozen_by_somebody_else_does_not_matter() {
    works_while_frozen("ext4", 64);
}

#[test]
#[ignore = "kernel tier"]
fn an_xfs_frozen_by_somebody_else_does_not_matter() {
    works_while_frozen("xfs", 320);
}

/// Says that it is over also when an assertion fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Freeze and thaw as fast as it goes, while stacks come and go: both sides always succeed.
#[test]
#[ignore = "kernel tier"]
fn freezes_racing_our_swaps_leave_nothing_frozen() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let mount = Mount::over("ext4", &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(10);
    let (stop, mounted) = (AtomicBool::new(false), mount.path());
    let freezes = thread::scope(|scope| {
        let freezer = scope.spawn(|| {
            let mut freezes = 0;
            while !stop.load(Ordering::Acquire) {
                Frozen::new(mounted).thaw();
                freezes += 1;
            }
            freezes
        });
        let stopping = SetOnDrop(&stop);
        for _ in 0..6 {
            let record = host.attach(&request(&volume, "freeze", "64Ki")).unwrap().record;
            host.boundary(&record).unwrap();
            assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
        }
        drop(stopping);
        freezer.join().expect("every freeze and thaw succeeds")
    });
    assert!(freezes > 0);
    println!("{freezes} freezes beside 18 operations");
    writer.advance(20);
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
    Mount::existing(&volume.path, "").unmount_and_check("ext4");
}

/// A device-mapper device that is no volume of LVM's, made by hand; gone with this value.
struct ByHand {
    volume: Volume,
    _disk: Disk,
}

impl ByHand {
    fn new(mib: u64, options: &[&str]) -> Self {
        let disk = Disk::new(mib);
        let name = kit::unique("by-hand");
        let table = format!("0 {} linear {} 0", mib * 2048, disk.device().display());
        run_with("dmsetup", [&["create", &name, "--table", &table], options].concat()).unwrap();
        let path = format!("/dev/mapper/{name}").into();
        Self { volume: Volume { lv: String::new(), dm_name: name, path }, _disk: disk }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = run_with("dmsetup", ["remove", "--retry", "-f", &self.volume.dm_name]);
    }
}

fn assert_read_only_is_refused(volume: &Volume) {
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let refused = at_once("attach", || host.attach(&request(volume, "freeze", "64Ki")));
    assert_refused(refused, "DeviceReadOnly");
    assert_eq!(volume.table(), original);
    assert_eq!(run(&format!("blockdev --getro {}", volume.path.display())).trim(), "1");
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn a_read_only_device_is_refused_however_it_became_so() {
    let by_table = ByHand::new(32, &["--readonly"]);
    assert_read_only_is_refused(&by_table.volume);

    let group = VolumeGroup::new([Disk::new(64).into_backing()]);
    let volume = group.thick("data", 32);
    run(&format!("blockdev --setro {}", volume.path.display()));
    assert_read_only_is_refused(&volume);
    run(&format!("blockdev --setrw {}", volume.path.display()));
    run(&format!("lvchange -qq -pr {}", volume.lv));
    assert_read_only_is_refused(&volume);
    run(&format!("lvchange -qq -prw {}", volume.lv));

    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "freeze", "64Ki")).unwrap().record;
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}

/// Suspended by somebody else, with the filesystem frozen as `dmsetup suspend` does it: every
/// operation is refused at once, before and while X is tracked, and works once X is resumed.
#[test]
#[ignore = "kernel tier"]
fn a_suspended_device_is_refused_at_once_until_it_is_resumed() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let mount = Mount::over("ext4", &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(10);
    let request = request(&volume, "freeze", "64Ki");

    run(&format!("dmsetup suspend {}", volume.dm_name));
    let refused = at_once("attach", || host.attach(&request));
    run(&format!("dmsetup resume {}", volume.dm_name));
    assert_refused(refused, "DeviceBusy");
    assert_nothing_of_ours(store.path());
    writer.advance(10);

    let record = host.attach(&request).unwrap().record;
    let tracked = volume.table();
    run(&format!("dmsetup suspend {}", volume.dm_name));
    let again = at_once("attach", || host.attach(&request));
    let boundary = at_once("boundary", || host.boundary(&record));
    let detach = at_once("detach", || host.detach(&record.stack));
    let (found, still) = (host.liveness(&record), volume.table());
    run(&format!("dmsetup resume {}", volume.dm_name));
    assert_refused(again, "DeviceBusy");
    assert_refused(boundary, "DeviceBusy");
    assert_refused(detach, "DeviceBusy");
    assert_eq!((found.unwrap(), still), (Liveness::Intact, tracked));

    writer.advance(10);
    host.boundary(&record).unwrap();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
}

/// What a call returned that another thread makes; it must not wait for what is suspended.
#[track_caller]
fn returned<T: std::fmt::Debug>(what: &str, call: JoinHandle<T>, resume: impl FnOnce()) -> T {
    let start = Instant::now();
    while !call.is_finished() && start.elapsed() < AT_ONCE {
        thread::sleep(Duration::from_millis(5));
    }
    let waits = !call.is_finished();
    if waits {
        resume();
    }
    let result = call.join().unwrap();
    assert!(!waits, "{what} waited for the suspended device, then returned {result:?}");
    result
}

/// X-era or X-base suspended by somebody else, and a write of the user's that waits there. A
/// status or a message to X-era would wait too, in a state that no signal ends, and so would the
/// drain of X, with X suspended: all is refused at once, and X is not touched.
fn refused_while_suspended(role: Role) {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "freeze", "64Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    let (tracked, device) = (volume.table(), record.stack.name(role));

    run(&format!("dmsetup suspend --nolockfs {device}"));
    let resume = || drop(run(&format!("dmsetup resume {device}")));
    let page = format!("dd if=/dev/zero of={} bs=4096 count=1 oflag=direct", volume.path.display());
    let writer = thread::spawn(move || run(&format!("{page} seek=48 conv=notrunc")));
    kit::wait_for("a write that waits", || (in_flight(&volume) > 0).then_some(()));
    let call = |call: fn(&Host, &Record, Era) -> Result<String, HostError>| {
        let (host, record) = (host.clone(), record.clone());
        thread::spawn(move || call(&host, &record, base.era))
    };
    let boundary = call(|host, record, _| Ok(format!("{:?}", host.boundary(record)?)));
    assert_refused(returned("boundary", boundary, resume), "DeviceBusy");
    let detach = call(|host, record, _| Ok(format!("{:?}", host.detach(&record.stack)?)));
    assert_refused(returned("detach", detach, resume), "DeviceBusy");
    if role == Role::Era {
        let status = call(|host, record, _| Ok(format!("{:?}", host.status(record)?)));
        let error = returned("status", status, resume).unwrap_err();
        assert!(error.to_string().contains("suspended"), "{error}");
        let list = call(|host, record, since| Ok(format!("{:?}", host.changes(record, since)?)));
        let error = returned("list", list, resume).unwrap_err();
        assert!(error.to_string().contains("suspended"), "{error}");
    }
    assert_eq!(volume.table(), tracked);
    assert_eq!(in_flight(&volume), 1, "the write waits no longer");
    resume();

    writer.join().unwrap();
    assert_none_suspended();
    assert!(matches!(host.status(&record).unwrap(), EraStatus::Working { .. }));
    let changes = host.changes(&record, base.era).unwrap();
    assert_eq!(listed(&changes).into_iter().collect::<Vec<_>>(), [3]);
    assert!(host.boundary(&record).unwrap().era > base.era);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn a_suspended_era_device_is_refused_at_once_until_it_is_resumed() {
    refused_while_suspended(Role::Era);
}

#[test]
#[ignore = "kernel tier"]
fn a_suspended_base_device_is_refused_at_once_until_it_is_resumed() {
    refused_while_suspended(Role::Base);
}

/// Here the node's own filesystem is frozen, the one that the metadata is on, as a backup of the
/// machine does it. The loop driver writes all the same, so no write of the user's waits; what
/// writes files of its own, a boundary or a detach, ends after the thaw.
#[test]
#[ignore = "kernel tier"]
fn writes_go_on_while_the_filesystem_of_the_metadata_is_frozen() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "freeze", "64Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    let path = volume.path.display().to_string();
    let write = move |block: u64| {
        let page = format!("dd if=/dev/zero of={path} bs=4096 count=1 oflag=direct conv=notrunc");
        thread::spawn(move || run(&format!("{page} seek={}", block * 16)))
    };
    write(1).join().unwrap();

    let frozen = Frozen::new(store.path());
    let thaw = || drop(run(&format!("fsfreeze -u {}", store.path().display())));
    returned("a write to a marked block", write(1), thaw);
    for block in [2, 7, 500] {
        returned("a write to a block that is not marked", write(block), thaw);
    }
    let (ours, record) = (host.clone(), Arc::new(record));
    let read = Arc::clone(&record);
    let list = thread::spawn(move || ours.changes(&read, base.era));
    let list = returned("list", list, thaw).unwrap();
    assert_eq!(listed(&list).into_iter().collect::<Vec<_>>(), [1, 2, 7, 500]);
    let (ours, bounded) = (host.clone(), Arc::clone(&record));
    let boundary = thread::spawn(move || ours.boundary(&bounded));
    kit::wait_for("a boundary that waits for the thaw", || waits(&boundary).then_some(()));
    returned("a write during a boundary", write(9), thaw);
    assert_none_suspended();
    frozen.thaw();
    assert!(boundary.join().unwrap().unwrap().era > base.era);

    let frozen = Frozen::new(store.path());
    let ours = host.clone();
    let detach = thread::spawn(move || ours.detach(&record.stack));
    kit::wait_for("a detach that waits for the thaw", || waits(&detach).then_some(()));
    returned("a write during a detach", write(11), thaw);
    assert_none_suspended();
    frozen.thaw();
    assert_eq!(detach.join().unwrap().unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_nothing_of_ours(store.path());
}

/// Whether a thread of this process waits uninterruptibly.
fn waits<T>(thread: &JoinHandle<T>) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let states = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    !thread.is_finished() && states.into_iter().any(|stat| stat.contains(") D "))
}

/// A table of somebody else's in X's slot stays there, and nothing is done until it is gone.
#[test]
#[ignore = "kernel tier"]
fn a_table_of_somebody_else_in_the_slot_is_left_alone() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let request = request(&volume, "freeze", "64Ki");
    let theirs = format!("0 {} error", 64 * 2048);
    let waiting =
        || run(&format!("dmsetup table --inactive {}", volume.dm_name)).trim_end().to_owned();
    let load =
        || run_with("dmsetup", ["load", &volume.dm_name, "--table", &theirs]).expect("it loads");

    load();
    assert_refused(at_once("attach", || host.attach(&request)), "DeviceBusy");
    assert_eq!((waiting().trim_end(), volume.table()), (theirs.as_str(), original.clone()));
    assert_nothing_of_ours(store.path());
    run(&format!("dmsetup clear {}", volume.dm_name));

    let record = host.attach(&request).unwrap().record;
    let tracked = volume.table();
    load();
    assert_refused(at_once("boundary", || host.boundary(&record)), "DeviceBusy");
    assert_refused(at_once("detach", || host.detach(&record.stack)), "DeviceBusy");
    assert_eq!((waiting().trim_end(), volume.table()), (theirs.as_str(), tracked));
    run(&format!("dmsetup clear {}", volume.dm_name));
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!((waiting().as_str(), volume.table()), ("", original));
}

/// A short life under a mounted, written volume; how often LVM's lock was taken meanwhile.
fn short_life(volume: &Volume) -> usize {
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let locks = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&locks);
    let host = common::host(store.path()).observed_by(Arc::new(move |moment| {
        if let Moment::Step(Step::LockVolumeGroup { .. }) = moment {
            *seen.lock().unwrap() += 1;
        }
    }));
    let mount = Mount::over("ext4", &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(10);
    let record = host.attach(&request(volume, "freeze", "64Ki")).unwrap().record;
    let boundary = host.boundary(&record).unwrap();
    writer.advance(20);
    assert!(!host.changes(&record, boundary.era).unwrap().runs.is_empty());
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    writer.advance(10);
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
    *locks.lock().unwrap()
}

#[test]
#[ignore = "kernel tier"]
fn a_striped_volume_is_tracked_under_lvms_lock() {
    let group = VolumeGroup::new([Disk::new(64).into_backing(), Disk::new(64).into_backing()]);
    run(&format!("lvcreate -qq -y -Wn -Zn -i 2 -I 64k -L 64m -n data {}", group.name()));
    let volume = group.volume("data");
    assert!(volume.table().contains(" striped 2 128 "), "{}", volume.table());
    assert_eq!(short_life(&volume), 3);
}

#[test]
#[ignore = "kernel tier"]
fn a_device_that_is_no_volume_of_lvms_is_tracked_without_its_lock() {
    let by_hand = ByHand::new(64, &[]);
    assert_eq!(short_life(&by_hand.volume), 0);
}

/// Nobody has X open.
#[test]
#[ignore = "kernel tier"]
fn an_idle_volume_is_tracked() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let open = || run(&format!("dmsetup info -c --noheadings -o open {}", volume.dm_name));
    assert_eq!(open().trim(), "0");
    let record = host.attach(&request(&volume, "freeze", "64Ki")).unwrap().record;
    let boundary = host.boundary(&record).unwrap();
    assert!(host.changes(&record, boundary.era).unwrap().runs.is_empty());
    let path = volume.path.display();
    run(&format!("dd if=/dev/zero of={path} bs=64k count=1 seek=7 oflag=direct conv=notrunc"));
    let changes = host.changes(&record, boundary.era).unwrap();
    assert_eq!(listed(&changes).into_iter().collect::<Vec<_>>(), [7]);
    assert_eq!(open().trim(), "0");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_nothing_of_ours(store.path());
}

/// What one round of the race below came to.
fn attach_and_detach(host: &Host, volume: &Volume) -> &'static str {
    match host.attach(&request(volume, "freeze", "64Ki")) {
        Ok(attached) => {
            let outcome = match host.liveness(&attached.record).unwrap() {
                Liveness::Intact => "attached",
                Liveness::Reloaded { .. } => "reloaded",
                other => panic!("{other:?}"),
            };
            detach(host);
            outcome
        }
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            detach(host);
            "busy"
        }
    }
}

/// As the agent does: again while somebody is at work on X.
fn detach(host: &Host) {
    kit::wait_for("a detach", || match host.detach(&stack()) {
        Ok(_) => Some(()),
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            None
        }
    });
}

/// pvmove reloads X at its start and at its end, and in between X maps through a mirror of LVM's,
/// which X-base must never hold: pvmove would fail and leave the mirror suspended. Whoever comes
/// first, no write goes to the extents that were left.
#[test]
#[ignore = "kernel tier"]
fn pvmove_racing_insertions_loses_no_write() {
    run_with("modprobe", ["dm-mirror"]).expect("the guest has dm-mirror, which pvmove needs");
    let group = VolumeGroup::new([Disk::new(96).into_backing(), Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let mount = Mount::over("ext4", &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(10);
    let disks: Vec<_> = group.disks().map(|disk| disk.display().to_string()).collect();
    let stop = AtomicBool::new(false);
    let mut outcomes = Vec::new();
    thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let _stopping = SetOnDrop(&stop);
            for (from, to) in [(0, 1), (1, 0), (0, 1)] {
                run(&format!("pvmove -qq -i 1 {} {}", disks[from], disks[to]));
            }
        });
        while !stop.load(Ordering::Acquire) {
            outcomes.push(attach_and_detach(&host, &volume));
        }
        mover.join().expect("pvmove succeeds");
    });
    let count = |what| outcomes.iter().filter(|outcome| **outcome == what).count();
    let (attached, busy) = (count("attached"), count("busy"));
    println!("{attached} attached, {} reloaded, {busy} busy", count("reloaded"));
    assert!(attached > 0 && busy > 0, "{attached} attached, {busy} busy: no race");
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    let live = volume.table();
    run(&format!("vgck {}", group.name()));
    run(&format!("lvchange -qq --refresh {}", volume.lv));
    assert_eq!(volume.table(), live, "LVM's own idea of the table");
    let devices = run("dmsetup ls");
    assert!(!devices.contains("pvmove"), "{devices}");
    let lvs = run(&format!("lvs -a --noheadings -o lv_name,lv_attr {}", group.name()));
    assert!(!lvs.contains("pvmove"), "{lvs}");
    writer.advance(20);
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
}
