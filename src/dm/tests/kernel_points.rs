//! Points in time: what is read from one is X as it was then, whatever is written to X meanwhile,
//! and what goes wrong with one does no harm to X.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{assert_no_point_in_time, assert_none_suspended, assert_nothing_of_ours};
use common::{block_size, listed, request};
use eratrack_dm::{Boundary, Detached, Host, HostError, PointInTime, Recovery};
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;
use kit::{Content, Disk, Mount, Volume, VolumeGroup, Writer, differing_blocks, wait_for};
use rustix::fs::OFlags;

const PAGE: u64 = 4096;
const MIB: u64 = 64;
const PAGES: u64 = MIB << 8;
const MI: u64 = 1 << 20;

struct Scene {
    host: Host,
    record: Record,
    volume: Volume,
    store: Mount,
    group: VolumeGroup,
}

impl Scene {
    fn new(thin: bool) -> Self {
        let group = VolumeGroup::new([Disk::new(256).into_backing()]);
        let volume = if thin {
            group.thin_pool("pool", 128, 64);
            group.thin("pool", "data", MIB)
        } else {
            group.thick("data", MIB)
        };
        let store = kit::metadata_dir(256);
        let host = common::host(store.path());
        let record = host.attach(&request(&volume, "point", "64Ki")).unwrap().record;
        Self { host, record, volume, store, group }
    }

    fn begin(&self, copies: u64) -> PointInTime {
        self.host.point_in_time(&self.record, Some(Bytes(copies))).unwrap()
    }

    fn end(self) {
        assert_no_point_in_time();
        assert_none_suspended();
        assert_eq!(self.host.detach(&self.record.stack).unwrap(), Detached::Restored);
        assert_nothing_of_ours(self.store.path());
        drop(self.group);
    }
}

fn node(point: &PointInTime) -> PathBuf {
    PathBuf::from(format!("/dev/dm-{}", point.device.minor))
}

fn open(path: &Path) -> File {
    let direct = i32::try_from(OFlags::DIRECT.bits()).expect("O_DIRECT fits");
    File::options().write(true).custom_flags(direct).open(path).expect("the device opens")
}

fn put(device: &File, page: u64, pages: u64, byte: u8) -> io::Result<()> {
    let length = usize::try_from(pages * PAGE).expect("few pages");
    let buffer = vec![byte; length + 4096];
    let start = buffer.as_ptr().align_offset(4096);
    device.write_all_at(&buffer[start..start + length], page * PAGE)
}

fn get(device: &File, page: u64) -> io::Result<()> {
    let mut buffer = vec![0; 8192];
    let start = buffer.as_ptr().align_offset(4096);
    device.read_exact_at(&mut buffer[start..start + 4096], page * PAGE)
}

/// Pages here and there, one to eight in a row, until told to stop; the first and the last page of
/// the device again and again.
fn write_anywhere(path: &Path, seed: u64, stop: &AtomicBool, count: &AtomicU64) {
    let (device, mut state) = (open(path), seed);
    while !stop.load(Ordering::Relaxed) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let byte = state.to_le_bytes()[0];
        let (page, pages) = match state % 16 {
            0 => (0, 1),
            1 => (PAGES - 1, 1),
            _ => ((state >> 20) % (PAGES - 8), 1 + (state >> 16) % 8),
        };
        put(&device, page, pages, byte).unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything in the chain of points in time, by content: each is the same whenever it is read, and
/// the next one differs from it only in what is listed since its boundary.
fn points_are_exact(thin: bool) {
    let scene = Scene::new(thin);
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut found = Vec::new();
    let written = |more: u64| {
        let seen = count.load(Ordering::Relaxed);
        wait_for("more writes", || (count.load(Ordering::Relaxed) > seen + more).then_some(()));
    };
    let look = || {
        let point = scene.begin(MIB * MI);
        let first = Content::of(&node(&point));
        written(30);
        let again = Content::of(&node(&point));
        assert!(first == again, "a point in time has changed while it was read");
        let live = Content::of(&scene.volume.path);
        assert!(first != live, "nothing was written meanwhile");
        scene.host.check_point_in_time(&point).unwrap();
        let Boundary { era, .. } = point.boundary;
        scene.host.end_point_in_time(point).unwrap();
        (era, first)
    };
    let run = || {
        let mut before = look();
        for _ in 0..4 {
            written(60);
            let after = look();
            let listed = listed(&scene.host.changes(&scene.record, before.0).unwrap());
            let size = block_size(scene.record.granularity);
            let differ = differing_blocks(&before.1, &after.1, size);
            let missed: Vec<_> = differ.difference(&listed).copied().collect();
            found.push((differ.len(), missed));
            before = after;
        }
    };
    thread::scope(|scope| {
        for seed in 1..=4 {
            let (path, stop, count) = (&scene.volume.path, &stop, &count);
            scope.spawn(move || write_anywhere(path, seed << 40 | 0x2545_f491, stop, count));
        }
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        stop.store(true, Ordering::Relaxed);
        if let Err(failed) = ran {
            std::panic::resume_unwind(failed);
        }
    });
    println!("thin: {thin}, (differing, missed): {found:?}");
    assert!(found.iter().all(|(differ, missed)| *differ > 0 && missed.is_empty()), "{found:?}");
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn points_in_time_of_a_thick_volume_are_exact_and_differ_only_in_what_is_listed() {
    points_are_exact(false);
}

#[test]
#[ignore = "kernel tier"]
fn points_in_time_of_a_thin_volume_are_exact_and_differ_only_in_what_is_listed() {
    points_are_exact(true);
}

/// No sector of X goes past the copies: each page of a thin volume is overwritten, in one piece and
/// in pieces that lie across chunks and across the end of what goes through `switch`.
#[test]
#[ignore = "kernel tier"]
fn no_sector_of_a_thin_volume_goes_past_its_point_in_time() {
    let scene = Scene::new(true);
    let device = open(&scene.volume.path);
    for page in (0..PAGES).step_by(64) {
        put(&device, page, 64, 0x11).unwrap();
    }
    let point = scene.begin(MIB * MI);
    let before = Content::of(&node(&point));
    for page in (3..PAGES).step_by(64) {
        put(&device, page, 64.min(PAGES - page), 0x22).unwrap();
    }
    put(&device, 0, 3, 0x22).unwrap();
    assert!(before == Content::of(&node(&point)), "a write went past the copies");
    let live = Content::of(&scene.volume.path);
    assert_eq!(differing_blocks(&before, &live, 4096).len() as u64, PAGES);
    scene.host.check_point_in_time(&point).unwrap();
    scene.host.end_point_in_time(point).unwrap();
    assert!(live == Content::of(&scene.volume.path), "what was written is not there afterwards");
    scene.end();
}

/// A copy of a point in time of a mounted filesystem under writes: its log is replayed, and then it is
/// whole and has what was acknowledged before.
fn a_filesystem_is_crash_consistent(kind: &str, thin: bool) {
    let mib = if kind == "xfs" { 320 } else { MIB };
    let group = VolumeGroup::new([Disk::new(2 * mib + 64).into_backing()]);
    let volume = if thin {
        group.thin_pool("pool", mib + 32, 64);
        group.thin("pool", "data", mib)
    } else {
        group.thick("data", mib)
    };
    let store = kit::metadata_dir(256);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "point", "64Ki")).unwrap().record;
    let mount = Mount::over(kind, &volume.path, "");
    for _ in 0..2 {
        let before = Writer::start(mount.path(), 4);
        before.advance(60);
        let promised = before.stop();
        let during = Writer::start(mount.path(), 4);
        during.advance(30);
        let point = host.point_in_time(&record, Some(Bytes(64 * MI))).unwrap();
        during.advance(30);
        let copy = Disk::new(mib);
        let (from, to) = (node(&point).display().to_string(), copy.device().display().to_string());
        kit::run(&format!("dd if={from} of={to} bs=1M iflag=direct oflag=direct status=none"));
        host.check_point_in_time(&point).unwrap();
        host.end_point_in_time(point).unwrap();
        let options = if kind == "xfs" { "nouuid" } else { "" };
        let copied = Mount::existing(copy.device(), options);
        promised.verify_in(copied.path());
        copied.unmount_and_check(kind);
        during.stop_and_verify();
    }
    mount.unmount_and_check(kind);
    assert_no_point_in_time();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn an_ext4_is_crash_consistent_at_a_point_in_time() {
    a_filesystem_is_crash_consistent("ext4", false);
}

#[test]
#[ignore = "kernel tier"]
fn an_xfs_on_a_thin_volume_is_crash_consistent_at_a_point_in_time() {
    a_filesystem_is_crash_consistent("xfs", true);
}

#[test]
#[ignore = "kernel tier"]
fn a_full_store_ends_the_point_in_time_and_harms_nobody() {
    let scene = Scene::new(false);
    let device = open(&scene.volume.path);
    let point = scene.begin(MI);
    put(&device, 0, 128, 0x33).unwrap();
    scene.host.check_point_in_time(&point).unwrap();
    for page in (0..PAGES).step_by(256) {
        put(&device, page, 256, 0x44).unwrap();
    }
    let lost = scene.host.check_point_in_time(&point).unwrap_err();
    assert!(matches!(lost, HostError::PointInTimeLost { .. }), "{lost}");
    let read = scene.host.open_point_in_time(&point).unwrap();
    let mut buffer = vec![0; 8192];
    let start = buffer.as_ptr().align_offset(4096);
    assert!(read.read_exact_at(&mut buffer[start..start + 4096], 0).is_err(), "it still reads");
    drop(read);
    let era = point.boundary.era;
    scene.host.end_point_in_time(point).unwrap();
    let listed = listed(&scene.host.changes(&scene.record, era).unwrap());
    assert_eq!(listed, (0..PAGES / 16).collect::<BTreeSet<_>>(), "the chain goes on");
    let next = scene.begin(MI);
    scene.host.check_point_in_time(&next).unwrap();
    scene.host.end_point_in_time(next).unwrap();
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_table_that_lvm_reloads_spoils_the_point_in_time_and_that_is_noticed() {
    for thin in [false, true] {
        let scene = Scene::new(thin);
        let point = scene.begin(16 * MI);
        kit::run(&format!("lvchange --refresh {}", scene.volume.lv));
        let spoilt = scene.host.check_point_in_time(&point).unwrap_err();
        assert!(matches!(spoilt, HostError::NotIntact { .. }), "{spoilt}");
        scene.host.end_point_in_time(point).unwrap();
        assert_no_point_in_time();
        assert_eq!(scene.host.detach(&scene.record.stack).unwrap(), Detached::RemainsRemoved);
        assert_nothing_of_ours(scene.store.path());
    }
}

/// LVM changes the pool and other volumes of it as ever.
#[test]
#[ignore = "kernel tier"]
fn a_thin_pool_stays_usable_while_a_point_in_time_of_a_volume_is_read() {
    let scene = Scene::new(true);
    let other = scene.group.thin("pool", "other", 16);
    let point = scene.begin(16 * MI);
    kit::run(&format!("lvcreate -qq -s -n snap {}", other.lv));
    kit::run(&format!("lvremove -qq -y {}/snap", scene.group.name()));
    scene.host.check_point_in_time(&point).unwrap();
    // A snapshot of the volume itself reloads it, as ever.
    kit::run(&format!("lvcreate -qq -s -n own {}", scene.volume.lv));
    let spoilt = scene.host.check_point_in_time(&point).unwrap_err();
    assert!(matches!(spoilt, HostError::NotIntact { .. }), "{spoilt}");
    scene.host.end_point_in_time(point).unwrap();
    common::assert_transaction_ids_agree(&scene.group);
    assert_eq!(scene.host.detach(&scene.record.stack).unwrap(), Detached::RemainsRemoved);
    kit::run(&format!("lvremove -qq -y {}/own", scene.group.name()));
    common::assert_transaction_ids_agree(&scene.group);
}

#[test]
#[ignore = "kernel tier"]
fn there_is_one_reader_at_a_time_and_a_start_leaves_it_alone() {
    let scene = Scene::new(false);
    let point = scene.begin(16 * MI);
    let second = scene.host.point_in_time(&scene.record, None).unwrap_err();
    assert_eq!(second.reason(), "PointInTimeHeld", "{second}");
    let found = scene.host.recover().unwrap();
    assert_eq!(found[0].outcome, Recovery::Adopted(scene.record.clone()));
    scene.host.boundary(&scene.record).unwrap();
    scene.host.check_point_in_time(&point).unwrap();
    scene.host.end_point_in_time(point).unwrap();
    scene.end();
}

/// A reader finds it by its name, and cannot change what it shows; whoever comes next removes names that are left.
#[test]
#[ignore = "kernel tier"]
fn a_point_in_time_is_shown_under_a_name_and_takes_no_writes() {
    let scene = Scene::new(true);
    let name = "0b5c1a52-6f0e-4b3f-9d6e-0c64d7c1a001";
    let point = scene.begin(16 * MI);
    let shown = scene.host.show_point_in_time(&point, name).unwrap();
    assert_eq!(shown, Path::new("/dev/eratrack").join(name));
    let device = open(&scene.volume.path);
    let before = Content::of(&shown);
    for page in 0..64 {
        put(&device, page, 1, 0x55).unwrap();
    }
    assert!(before == Content::of(&shown), "what it shows has changed");
    let written =
        File::options().write(true).open(&shown).and_then(|it| it.write_all_at(&[1; 4096], 0));
    assert!(written.is_err(), "it took a write");
    assert_eq!(kit::run(&format!("blockdev --getro {}", shown.display())).trim(), "1");
    scene.host.check_point_in_time(&point).unwrap();
    scene.host.hide_point_in_time(name).unwrap();
    assert!(!shown.exists());
    scene.host.hide_point_in_time(name).unwrap();
    scene.host.show_point_in_time(&point, name).unwrap();
    scene.host.hide_points_in_time().unwrap();
    assert!(!shown.exists());
    scene.host.end_point_in_time(point).unwrap();
    scene.end();
}

/// What a reader keeps open after the end is removed once it is closed; X does not wait for it, and the reader is told.
#[test]
#[ignore = "kernel tier"]
fn what_a_reader_keeps_open_after_the_end_is_removed_later() {
    let scene = Scene::new(false);
    let point = scene.begin(16 * MI);
    let reader = scene.host.open_point_in_time(&point).unwrap();
    get(&reader, 32).unwrap();
    let busy = scene.host.end_point_in_time(point).unwrap_err();
    assert!(busy.is_transient(), "{busy}");
    let told = get(&reader, 32).unwrap_err();
    assert_eq!(told.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{told}");
    scene.host.end_points_in_time_left(&scene.record).unwrap_err();
    let boundary = scene.host.boundary(&scene.record).unwrap();
    put(&open(&scene.volume.path), 32, 1, 0x66).unwrap();
    let changes = scene.host.changes(&scene.record, boundary.era).unwrap();
    assert_eq!(listed(&changes), BTreeSet::from([2]), "the chain goes on");
    drop(reader);
    scene.host.end_points_in_time_left(&scene.record).unwrap();
    scene.end();
}

/// The user's device comes first: it gets its table back, and the reader finds out.
#[test]
#[ignore = "kernel tier"]
fn a_stack_whose_point_in_time_is_read_gives_the_volume_its_table_back() {
    let scene = Scene::new(false);
    let point = scene.begin(16 * MI);
    let reader = scene.host.open_point_in_time(&point).unwrap();
    let busy = scene.host.detach(&scene.record.stack).unwrap_err();
    assert_eq!(busy.reason(), "DeviceBusy", "{busy}");
    assert!(scene.volume.table().contains(" linear "), "{}", scene.volume.table());
    let spoilt = scene.host.check_point_in_time(&point).unwrap_err();
    assert!(matches!(spoilt, HostError::NotIntact { .. }), "{spoilt}");
    drop(reader);
    scene.host.end_point_in_time(point).unwrap();
    assert_eq!(scene.host.detach(&scene.record.stack).unwrap(), Detached::RemainsRemoved);
    assert_nothing_of_ours(scene.store.path());
}

/// A write to X would wait for itself.
#[test]
#[ignore = "kernel tier"]
fn a_store_on_the_volume_itself_is_refused() {
    let group = VolumeGroup::new([Disk::new(256).into_backing()]);
    let volume = group.thick("data", 200);
    let elsewhere = kit::metadata_dir(64);
    let host = common::host(elsewhere.path());
    let record = host.attach(&request(&volume, "point", "64Ki")).unwrap().record;
    let mount = Mount::over("ext4", &volume.path, "");
    let link = elsewhere.path().join("eratrack").join("point");
    let moved = mount.path().join("point");
    kit::run(&format!("cp -a {} {}", link.display(), moved.display()));
    kit::run(&format!("mount --bind {} {}", moved.display(), link.display()));
    let refused = host.point_in_time(&record, Some(Bytes(MI))).unwrap_err();
    kit::run(&format!("umount {}", link.display()));
    assert_eq!(refused.reason(), "MetadataOnTrackedVolume", "{refused}");
    assert_no_point_in_time();
    mount.unmount_and_check("ext4");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}
