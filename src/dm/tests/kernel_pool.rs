//! Pools on real disks: who becomes one, many stacks in one, after a reboot, and against mistakes.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use common::{administrators_host, assert_no_device_of_ours, assert_nothing_of_ours, listed};
use eratrack_dm::pool::PoolError;
use eratrack_dm::{AreaState, Detached, Finding, Host, HostError};
use eratrack_model::names::StackId;
use eratrack_model::place::MetadataRequest;
use eratrack_model::pool::{AllocateError, Copies, ReadError};
use eratrack_model::units::{Bytes, DevNo};
use kit::{Disk, Mount, VolumeGroup, run, run_with};

const MIB: u64 = 1 << 20;

fn error_of<T: std::fmt::Debug>(result: Result<T, HostError>) -> PoolError {
    match result.unwrap_err() {
        HostError::Pool(error) => error,
        other => panic!("{other}"),
    }
}

fn serial(disk: &Disk) -> String {
    let name = disk.device().file_name().unwrap().to_string_lossy().into_owned();
    fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).unwrap().trim().to_owned()
}

fn stack(name: &str) -> StackId {
    name.parse().unwrap()
}

/// Devices of nobody's on one disk, of 8 MiB each.
struct Devices {
    names: Vec<String>,
    disk: Disk,
}

impl Devices {
    const SECTORS: usize = 16384;

    fn new(count: usize) -> Self {
        let disk = Disk::new(8 * count as u64);
        let names: Vec<_> = (0..count).map(|_| kit::unique("many")).collect();
        let devices = Self { names, disk };
        for (index, name) in devices.names.iter().enumerate() {
            let (sectors, start) = (Self::SECTORS, index * Self::SECTORS);
            let table = format!("0 {sectors} linear {} {start}", devices.disk.device().display());
            run_with("dmsetup", ["create", name, "--table", &table]).unwrap();
        }
        devices
    }

    fn path(&self, index: usize) -> PathBuf {
        Path::new("/dev/mapper").join(&self.names[index])
    }

    fn number(&self, index: usize) -> DevNo {
        let found = rustix::fs::stat(self.path(index)).unwrap();
        DevNo { major: rustix::fs::major(found.st_rdev), minor: rustix::fs::minor(found.st_rdev) }
    }

    fn write(&self, index: usize, block: u64) {
        let file = File::options().write(true).open(self.path(index)).unwrap();
        file.write_all_at(&[1; 4096], block * 65536).unwrap();
        file.sync_all().unwrap();
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = run_with("dmsetup", ["remove", "--retry", "-f", name]);
        }
    }
}

fn request(devices: &Devices, index: usize, pool: &Disk) -> eratrack_dm::AttachRequest {
    let mut request = common::request_for(devices.number(index), &format!("many-{index}"), "64Ki");
    request.metadata = MetadataRequest::Pool(pool.device().to_owned());
    request
}

fn assert_empty(host: &Host, pool: &Disk) {
    let state = host.pool(pool.device()).unwrap();
    assert!(state.areas.is_empty() && state.findings.is_empty(), "{state:?}");
}

#[test]
#[ignore = "kernel tier"]
fn a_hundred_devices_keep_their_metadata_in_one_pool() {
    const COUNT: usize = 100;
    let (pool, store) = (Disk::new(256), kit::metadata_dir(64));
    let (devices, host) = (Devices::new(COUNT), administrators_host(store.path()));
    host.init_pool(pool.device(), None).unwrap();
    // Several at a time, as several processes would.
    let attach = |from: usize| {
        let indices = (from..COUNT).step_by(4);
        let attach = |index| (index, host.attach(&request(&devices, index, &pool)).unwrap().record);
        indices.map(attach).collect::<Vec<_>>()
    };
    let mut records = thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|from| scope.spawn(move || attach(from))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    records.sort_by_key(|(index, _)| *index);
    assert_eq!(records.len(), COUNT);
    let state = host.pool(pool.device()).unwrap();
    assert_eq!((state.areas.len(), state.findings), (COUNT, vec![]));
    assert!(state.areas.iter().all(|area| area.state == AreaState::InUse));
    println!("{} areas take {}", COUNT, state.table.used());

    let bases: Vec<_> =
        records.iter().map(|(_, record)| host.boundary(record).unwrap().era).collect();
    let block = |index: usize| (index as u64 * 7) % 128;
    for index in 0..COUNT {
        devices.write(index, block(index));
    }
    for ((index, record), base) in records.iter().zip(bases) {
        let changes = host.changes(record, base).unwrap();
        // Loop devices take discards: each block may stand for the next one too.
        let found = listed(&changes);
        assert!(found.contains(&block(*index)), "{index}: {found:?}");
        assert_eq!(changes.marked, 1, "{index}: what another device wrote is in its list");
    }
    for (_, record) in &records {
        assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    }
    assert_empty(&host, &pool);
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn a_disk_becomes_a_pool_only_if_it_is_blank_or_named_by_its_serial() {
    let store = kit::metadata_dir(16);
    let host = administrators_host(store.path());
    let disk = Disk::new(32);
    let state = host.init_pool(disk.device(), None).unwrap();
    assert_eq!((state.areas.len(), state.disk), (0, Bytes(32 * MIB)));

    let error = error_of(host.init_pool(disk.device(), None)).to_string();
    assert!(error.contains("it holds a pool") && error.contains(&serial(&disk)), "{error}");
    let error = error_of(host.init_pool(disk.device(), Some("another")));
    assert!(matches!(error, PoolError::OtherSerial { .. }), "{error}");
    assert_eq!(host.pool(disk.device()).unwrap(), state, "nothing was changed");
    let anew = host.init_pool(disk.device(), Some(&serial(&disk))).unwrap();
    assert_ne!(anew.table.pool(), state.table.pool());

    for (tool, what) in [("mkfs.ext4 -q", "ext filesystem"), ("mkswap", "swap space")] {
        let used = Disk::new(32);
        run(&format!("{tool} {}", used.device().display()));
        let error = error_of(host.init_pool(used.device(), None)).to_string();
        assert!(error.contains(what), "{error}");
    }
    let last = Disk::new(32);
    let file = File::options().write(true).open(last.device()).unwrap();
    file.write_all_at(&[1], 32 * MIB - 1).unwrap();
    file.sync_all().unwrap();
    let error = error_of(host.init_pool(last.device(), None)).to_string();
    assert!(error.contains("last MiB"), "{error}");
}

#[test]
#[ignore = "kernel tier"]
fn a_disk_in_use_or_unfit_becomes_no_pool() {
    let store = kit::metadata_dir(16);
    let host = administrators_host(store.path());
    let busy = |device: &Path, serial: &str| {
        let error = error_of(host.init_pool(device, Some(serial)));
        assert!(matches!(error, PoolError::Busy { .. }), "{error}");
    };
    let mounted = Disk::new(32);
    let its = serial(&mounted);
    run(&format!("mkfs.ext4 -q {}", mounted.device().display()));
    let mount = Mount::over("ext4", mounted.device(), "");
    busy(mounted.device(), &its);
    drop(mount);

    let swap = Disk::new(32);
    run(&format!("mkswap {}", swap.device().display()));
    run(&format!("swapon {}", swap.device().display()));
    busy(swap.device(), &serial(&swap));
    run(&format!("swapoff {}", swap.device().display()));

    let member = Disk::new(32);
    let (device, its) = (member.device().to_owned(), serial(&member));
    let group = VolumeGroup::new([member.into_backing()]);
    group.thick("data", 8);
    busy(&device, &its);

    let small = Disk::new(2);
    let error = error_of(host.init_pool(small.device(), None));
    assert!(matches!(error, PoolError::TooSmall { .. }), "{error}");
    let read_only = Disk::new(32);
    run(&format!("blockdev --setro {}", read_only.device().display()));
    let error = error_of(host.init_pool(read_only.device(), None)).to_string();
    assert!(error.contains("read-only"), "{error}");
    for nowhere in ["/dev/no-such-device", "/dev/null", "/etc/hostname"] {
        let error = error_of(host.init_pool(Path::new(nowhere), None));
        assert!(matches!(error, PoolError::NoDevice { .. }), "{error}");
    }
}

#[test]
#[ignore = "kernel tier"]
fn what_is_no_pool_or_has_no_room_is_refused_and_nothing_is_left() {
    let (store, devices) = (kit::metadata_dir(16), Devices::new(2));
    let host = administrators_host(store.path());
    let (blank, small) = (Disk::new(32), Disk::new(3));
    let error = error_of(host.attach(&request(&devices, 0, &blank)));
    assert!(matches!(error, PoolError::Table { source: ReadError::NoPool, .. }), "{error}");

    host.init_pool(small.device(), None).unwrap();
    let first = host.attach(&request(&devices, 0, &small)).unwrap().record;
    let error = error_of(host.attach(&request(&devices, 1, &small)));
    assert!(matches!(error, PoolError::Area(AllocateError::NoRoom { .. })), "{error}");
    assert_eq!(host.stacks().unwrap().len(), 1);
    assert_eq!(host.detach(&first.stack).unwrap(), Detached::Restored);

    // Its table is damaged while a stack is in it: the stack comes out all the same.
    host.attach(&request(&devices, 0, &small)).unwrap();
    let file = File::options().write(true).open(small.device()).unwrap();
    for copy in [0, 2 * MIB] {
        file.write_all_at(b"x", copy + 40).unwrap();
    }
    file.sync_all().unwrap();
    let error = error_of(host.pool(small.device()));
    assert!(matches!(error, PoolError::Table { source: ReadError::Damaged { .. }, .. }), "{error}");
    let found = host.pools().unwrap();
    assert!(found.iter().any(|found| found.state.is_err()), "{found:?}");
    assert_eq!(host.detach(&first.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}

/// Somebody restored an old copy of the table, say. What a device of ours maps is not given away.
#[test]
#[ignore = "kernel tier"]
fn an_area_that_a_device_maps_is_never_given_to_another() {
    let (pool, store, devices) = (Disk::new(32), kit::metadata_dir(16), Devices::new(2));
    let host = administrators_host(store.path());
    host.init_pool(pool.device(), None).unwrap();
    let first = host.attach(&request(&devices, 0, &pool)).unwrap().record;
    let before = host.pool(pool.device()).unwrap();
    forget(pool.device(), &first.stack);
    let state = host.pool(pool.device()).unwrap();
    assert_eq!(state.findings, [Finding::Stray { stack: first.stack.clone() }]);

    let second = host.attach(&request(&devices, 1, &pool)).unwrap().record;
    let state = host.pool(pool.device()).unwrap();
    let (theirs, ours) = (&before.areas[0].area, &state.areas[0].area);
    assert_eq!(ours.stack, second.stack);
    assert!(ours.start.0 >= theirs.start.0 + theirs.length.0, "{theirs:?} {ours:?}");
    assert_eq!(host.detach(&first.stack).unwrap(), Detached::Restored);
    assert_eq!(host.detach(&second.stack).unwrap(), Detached::Restored);
    assert_empty(&host, &pool);
}

/// Takes a stack's area out of the table behind our back.
fn forget(pool: &Path, stack: &StackId) {
    let file = File::options().read(true).write(true).open(pool).unwrap();
    let length = Bytes(32 * MIB);
    let read = |offset, bytes: &mut [u8]| file.read_exact_at(bytes, offset).map_err(Failed::Io);
    let copies = Copies::read(length, read).unwrap();
    let (writes, _) = copies.next(copies.table.free(stack).unwrap()).unwrap();
    for write in writes {
        file.write_all_at(&write.bytes, write.offset).unwrap();
    }
    file.sync_all().unwrap();
}

#[derive(Debug)]
enum Failed {
    #[allow(dead_code, reason = "shown when a test fails")]
    Io(std::io::Error),
    #[allow(dead_code, reason = "shown when a test fails")]
    Table(ReadError),
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::Table(error)
    }
}

#[test]
#[ignore = "kernel tier"]
fn an_area_is_freed_by_hand_only_if_nobody_needs_it() {
    let (pool, store, devices) = (Disk::new(32), kit::metadata_dir(16), Devices::new(1));
    let host = administrators_host(store.path());
    host.init_pool(pool.device(), None).unwrap();
    let record = host.attach(&request(&devices, 0, &pool)).unwrap().record;
    let error = error_of(host.free_area(pool.device(), &record.stack));
    assert!(matches!(error, PoolError::AreaInUse { .. }), "{error}");
    let error = error_of(host.free_area(pool.device(), &stack("other")));
    assert!(matches!(error, PoolError::Area(AllocateError::NoArea(_))), "{error}");

    // The record is lost: the stack comes out by its devices alone, and its area stays.
    fs::remove_file(store.path().join("eratrack/many-0/record.json")).unwrap();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_no_device_of_ours();
    let state = host.pool(pool.device()).unwrap();
    assert_eq!(state.findings, [Finding::Unused { stack: record.stack.clone() }]);
    let error = error_of(host.attach(&request(&devices, 0, &pool))).to_string();
    assert!(error.contains("device pool free"), "{error}");
    assert_eq!(host.pool(pool.device()).unwrap().areas.len(), 1, "not undone with the attach");
    assert!(host.free_area(pool.device(), &record.stack).unwrap().areas.is_empty());
    host.attach(&request(&devices, 0, &pool)).unwrap();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}

#[test]
#[ignore = "kernel tier"]
fn a_disk_that_has_grown_is_used_after_grow_while_stacks_are_in_place() {
    let (pool, store, devices) = (Disk::new(3), kit::metadata_dir(16), Devices::new(2));
    let host = administrators_host(store.path());
    host.init_pool(pool.device(), None).unwrap();
    let first = host.attach(&request(&devices, 0, &pool)).unwrap().record;
    let error = error_of(host.grow_pool(pool.device()));
    assert!(matches!(error, PoolError::Area(AllocateError::NotGrown { .. })), "{error}");
    File::options().write(true).open(serial(&pool)).unwrap().set_len(8 * MIB).unwrap();
    run(&format!("losetup -c {}", pool.device().display()));
    let state = host.pool(pool.device()).unwrap();
    assert_eq!(state.findings, [Finding::Grown { more: Bytes(5 * MIB) }]);
    let error = error_of(host.attach(&request(&devices, 1, &pool)));
    assert!(matches!(error, PoolError::Area(AllocateError::NoRoom { .. })), "{error}");

    assert_eq!(host.grow_pool(pool.device()).unwrap().findings, []);
    let second = host.attach(&request(&devices, 1, &pool)).unwrap().record;
    let base = host.boundary(&first).unwrap().era;
    devices.write(0, 5);
    assert!(listed(&host.changes(&first, base).unwrap()).contains(&5));
    for record in [first, second] {
        assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    }
    assert_empty(&host, &pool);
}

/// A pool's disk that fails fails its stacks: they come out, and what is left there is freed when
/// the disk is back.
#[test]
#[ignore = "kernel tier"]
fn a_pool_whose_disk_fails_lets_its_stacks_go() {
    let (disk, store, devices) = (Disk::new(32), kit::metadata_dir(16), Devices::new(1));
    let (host, name) = (administrators_host(store.path()), kit::unique("failing"));
    let good = format!("0 65536 linear {} 0", disk.device().display());
    run_with("dmsetup", ["create", &name, "--table", &good]).unwrap();
    let becomes = |table: &str| {
        run_with("dmsetup", ["load", &name, "--table", table]).unwrap();
        run(&format!("dmsetup suspend --nolockfs {name}"));
        run(&format!("dmsetup resume {name}"));
    };
    let pool = Path::new("/dev/mapper").join(&name);
    host.init_pool(&pool, None).unwrap();
    let mut request = request(&devices, 0, &disk);
    request.metadata = MetadataRequest::Pool(pool.clone());
    let record = host.attach(&request).unwrap().record;
    let table = run(&format!("dmsetup table {}", devices.names[0]));
    assert!(table.contains("linear"), "{table}");

    becomes("0 65536 error");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_no_device_of_ours();
    assert!(host.stacks().unwrap().is_empty(), "nothing is left to be detached");
    becomes(&good);
    let state = host.pool(&pool).unwrap();
    assert_eq!(state.findings, [Finding::Unused { stack: record.stack.clone() }]);
    assert!(host.free_area(&pool, &record.stack).unwrap().areas.is_empty());
    run(&format!("dmsetup remove --retry {name}"));
}
