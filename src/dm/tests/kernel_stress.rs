//! How full the metadata gets at worst, and what happens when it is too small from the start.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::{assert_none_suspended, assert_nothing_of_ours, listed, request, stingy_host};
use era_metadata::sizing;
use eratrack_dm::linux::Kernel;
use eratrack_dm::{Detached, DeviceMapper, EraStatus, Host, HostError, Lookup};
use eratrack_model::names::Role;
use eratrack_model::record::Record;
use kit::{Disk, Volume, VolumeGroup, run, run_with};

const PAGE: u64 = 4096;
/// Entries in a block of the era array: one write in each of these many blocks costs a copy of
/// the whole array once it is digested.
const PER_ARRAY_BLOCK: u64 = 1018;

/// A device that holds nothing: what is written is thrown away, so it may be as long as wanted.
struct Sparse {
    volume: Volume,
    zero: String,
}

impl Sparse {
    fn new(mib: u64) -> Self {
        kit::setup();
        run("modprobe dm-zero");
        let (zero, name) = (kit::unique("zero"), kit::unique("sparse"));
        let sectors = mib * 2048;
        run_with("dmsetup", ["create", &zero, "--table", &format!("0 {sectors} zero")]).unwrap();
        let table = format!("0 {sectors} linear /dev/mapper/{zero} 0");
        run_with("dmsetup", ["create", &name, "--table", &table]).unwrap();
        let path = PathBuf::from(format!("/dev/mapper/{name}"));
        Self { volume: Volume { lv: String::new(), dm_name: name, path }, zero }
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        for name in [&self.volume.dm_name, &self.zero] {
            let _ = run_with("dmsetup", ["remove", "--retry", "-f", name]);
        }
    }
}

/// What the metadata came to.
#[derive(Default)]
struct Usage {
    highest: u64,
    total: u64,
}

impl Usage {
    /// Asks X-era, which must work; how much is used now.
    fn look(&mut self, host: &Host, record: &Record) -> u64 {
        match host.status(record).unwrap() {
            EraStatus::Working { used, total, .. } => {
                (self.highest, self.total) = (self.highest.max(used), total);
                used
            }
            EraStatus::Error => panic!("full: {} of {} were used before", self.highest, self.total),
        }
    }

    fn percent(&self) -> u64 {
        self.highest * 100 / self.total
    }
}

/// One page into each block of the era array, and so into each of the bitset, at a place that
/// depends on the round; the granularity is a page.
fn scatter(device: &File, blocks: u64, round: u64) -> impl Iterator<Item = u64> {
    let places = (0..blocks).step_by(usize::try_from(PER_ARRAY_BLOCK).expect("fits"));
    let places = places.map(move |first| (first + round * 7 % PER_ARRAY_BLOCK).min(blocks - 1));
    let page = vec![u8::try_from(round).expect("few rounds"); usize::try_from(PAGE).expect("fits")];
    for place in places.clone() {
        device.write_all_at(&page, place * PAGE).expect("the write succeeds");
    }
    device.sync_data().expect("the writes succeed");
    places
}

/// What X-era reports is counted just after a commit: within a transaction another version of the
/// array comes on top, which shows only as an error when there is no room for it.
///
/// Boundaries as fast as they go, so that writesets wait to be digested, while an old version of
/// everything is held; then once more, held anew. The list holds all that was written.
fn worst_case(mib: u64, rounds: u64) -> Usage {
    let (sparse, store) = (Sparse::new(mib), kit::metadata_dir(128));
    let host = common::host(store.path());
    let record = host.attach(&request(&sparse.volume, "stress", "4Ki")).unwrap().record;
    let sectors = mib * 2048;
    let needed = sizing::required(sectors, 8, sizing::DEFAULT_UNDIGESTED).unwrap();
    let device = File::options().write(true).open(&sparse.volume.path).unwrap();
    let era = Kernel::open().unwrap();
    let number = era.info(&Lookup::Uuid(record.stack.uuid(Role::Era))).unwrap().number;
    let mut usage = Usage::default();

    let base = host.boundary(&record).unwrap();
    let mut written: Vec<u64> = scatter(&device, needed.device_blocks, 0).collect();
    host.boundary(&record).unwrap();
    kit::wait_for("the first writeset in the array", || {
        (usage.look(&host, &record) >= needed.array / 3).then_some(())
    });
    for held in 0..2 {
        era.message(number, "take_metadata_snap").unwrap();
        for round in 1..=rounds {
            written.extend(scatter(&device, needed.device_blocks, held * rounds + round));
            host.boundary(&record).unwrap();
            usage.look(&host, &record);
        }
        era.message(number, "drop_metadata_snap").unwrap();
    }
    assert_eq!(usage.total, needed.total(), "the size is the computed one");
    let listed = listed(&host.changes(&record, base.era).unwrap());
    let missed: Vec<_> = written.iter().filter(|block| !listed.contains(block)).collect();
    assert!(missed.is_empty(), "missed {missed:?}");
    usage.look(&host, &record);
    drop(device);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
    println!(
        "{mib} MiB, {} boundaries: at most {} of {} blocks used, {} %",
        2 * rounds + 2,
        usage.highest,
        usage.total,
        usage.percent()
    );
    usage
}

#[test]
#[ignore = "kernel tier"]
fn the_computed_size_holds_the_worst_case_of_a_large_device() {
    worst_case(4096, 12);
}

#[test]
#[ignore = "kernel tier"]
fn the_computed_size_holds_the_worst_case_of_a_middling_device() {
    worst_case(512, 12);
}

/// Here it is the writesets and the spare that count.
#[test]
#[ignore = "kernel tier"]
fn the_computed_size_holds_the_worst_case_of_a_small_device() {
    worst_case(8, 12);
}

/// The kernel finds that out while it makes X-era: X was not touched, and all is undone.
#[test]
#[ignore = "kernel tier"]
fn metadata_that_is_full_at_once_is_undone() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let (volume, store) = (group.thick("data", 64), kit::metadata_dir(64));
    let original = volume.table();
    let request = request(&volume, "stress", "4Ki");
    let error = stingy_host(store.path(), "stress", 24).attach(&request).unwrap_err();
    assert!(matches!(error, HostError::Step(_)), "{error}");
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
}
