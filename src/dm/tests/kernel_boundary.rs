//! What is under way while a boundary is made: writes that the disk has not finished, and dm-era
//! that goes on rewriting its metadata while a list is read.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Scratch, assert_nothing_of_ours, block_size, listed, request};
use eratrack_dm::linux::Kernel;
use eratrack_dm::{Detached, DeviceMapper, EraStatus, Lookup, Moment};
use eratrack_model::names::{Role, StackId};
use kit::{Content, differing_blocks, wait_for};
use rustix::fs::OFlags;

const PAGE: usize = 4096;

/// Around the page cache: reading a copy would wait for what the cache is writing.
fn open(path: &Path) -> File {
    let direct = i32::try_from(OFlags::DIRECT.bits()).expect("O_DIRECT fits");
    File::options().write(true).custom_flags(direct).open(path).expect("the device opens")
}

fn put(device: &File, page: u64, byte: u8) -> io::Result<()> {
    let buffer = vec![byte; 2 * PAGE];
    let start = buffer.as_ptr().align_offset(PAGE);
    device.write_all_at(&buffer[start..start + PAGE], page * PAGE as u64)
}

/// Each of these was mapped in the era before the boundary, and is not on the disk when the
/// boundary begins. So it must be on the disk when the boundary has ended.
#[test]
#[ignore = "kernel tier"]
fn what_is_in_flight_when_a_boundary_begins_is_on_the_disk_when_it_ends() {
    const WRITES: u64 = 8;
    let scratch = Scratch::new(64, Duration::from_millis(1500));
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&scratch.volume, "flight", "64Ki")).unwrap().record;
    host.boundary(&record).unwrap();
    let empty = Content::of(&scratch.volume.path);
    let (base, copy) = thread::scope(|scope| {
        for write in 0..WRITES {
            let path = &scratch.volume.path;
            scope.spawn(move || put(&open(path), write * 32, 0x5a).unwrap());
        }
        wait_for("writes in flight", || (scratch.in_flight() >= 8).then_some(()));
        let base = host.boundary(&record).unwrap();
        (base, Content::of(&scratch.volume.path))
    });
    let later = Content::of(&scratch.volume.path);
    let listed = listed(&host.changes(&record, base.era).unwrap());
    let size = block_size(record.granularity);
    let differ = differing_blocks(&copy, &later, size);
    let missed: Vec<_> = differ.difference(&listed).collect();
    println!("{} listed, {} differ, drained in {:?}", listed.len(), differ.len(), base.drained_in);
    assert!(missed.is_empty(), "neither in the copy nor in the list: {missed:?}");
    assert_eq!(differing_blocks(&empty, &copy, size).len() as u64, WRITES);
    assert!(base.drained_in > Duration::from_millis(100), "nothing was in flight");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}

/// Pseudo-random pages, until told to stop.
fn write_anywhere(path: &Path, seed: u64, stop: &AtomicBool, count: &AtomicU64) {
    let (device, mut state) = (open(path), seed);
    while !stop.load(Ordering::Relaxed) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        put(&device, (state >> 20) % (64 << 8), state.to_le_bytes()[0]).unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "kernel tier"]
fn copies_between_boundaries_differ_only_in_what_is_listed() {
    let scratch = Scratch::new(64, Duration::from_millis(200));
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&scratch.volume, "copies", "4Ki")).unwrap().record;
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut found = Vec::new();
    thread::scope(|scope| {
        for seed in 1..=8 {
            let (path, stop, count) = (&scratch.volume.path, &stop, &count);
            scope.spawn(move || write_anywhere(path, seed << 40 | 0x2545_f491, stop, count));
        }
        let look = || {
            let base = host.boundary(&record).unwrap().era;
            (base, Content::of(&scratch.volume.path))
        };
        let mut before = look();
        for _ in 0..6 {
            let seen = count.load(Ordering::Relaxed);
            let enough = || (count.load(Ordering::Relaxed) > seen + 40).then_some(());
            wait_for("more writes", enough);
            let after = look();
            let listed = listed(&host.changes(&record, before.0).unwrap());
            let differ = differing_blocks(&before.1, &after.1, PAGE);
            found.push((differ.len(), differ.difference(&listed).copied().collect::<Vec<_>>()));
            before = after;
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("(differing, missed): {found:?}");
    assert!(found.iter().all(|(differing, _)| *differing > 0));
    assert!(found.iter().all(|(_, missed)| missed.is_empty()), "(differing, missed): {found:?}");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}

/// While the list is read, a write begins in a block that had none and its era ends: the metadata
/// as last committed tells of it, the metadata snapshot does not.
#[test]
#[ignore = "kernel tier"]
fn a_list_is_read_from_the_metadata_snapshot() {
    let scratch = Scratch::new(64, Duration::ZERO);
    let store = kit::metadata_dir(64);
    let stack: StackId = "held".parse().unwrap();
    let (path, uuid) = (scratch.volume.path.clone(), stack.uuid(Role::Era));
    let host = common::host(store.path()).observed_by(Arc::new(move |moment| {
        if matches!(moment, Moment::Machine("read the metadata snapshot")) {
            put(&open(&path), 5, 0x5a).unwrap();
            let kernel = Kernel::open().unwrap();
            let era = kernel.info(&Lookup::Uuid(uuid.clone())).unwrap().number;
            kernel.message(era, "checkpoint").unwrap();
        }
    }));
    let record = host.attach(&request(&scratch.volume, stack.as_str(), "4Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    put(&open(&scratch.volume.path), 3, 0x5a).unwrap();
    let first = listed(&host.changes(&record, base.era).unwrap());
    let second = listed(&host.changes(&record, base.era).unwrap());
    assert_eq!(first, BTreeSet::from([3]));
    assert_eq!(second, BTreeSet::from([3, 5]));
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}

/// A page in every so many of them.
fn spread(device: &File, first: usize, every: usize, pages: u64) -> BTreeSet<u64> {
    let places: BTreeSet<u64> = (0..pages).skip(first).step_by(every).collect();
    for page in &places {
        put(device, *page, 1).unwrap();
    }
    places
}

/// A quarter of the metadata at least is free.
fn has_room(status: &EraStatus) -> bool {
    matches!(status, EraStatus::Working { used, total, .. } if *used < total / 4 * 3)
}

/// dm-era ends eras, digests them and commits as fast as it can, each commit giving blocks back
/// that the last one used, while lists are read from the metadata snapshot.
#[test]
#[ignore = "kernel tier"]
fn a_list_is_whole_while_the_metadata_is_rewritten() {
    const MIB: u64 = 2048;
    const LISTS: usize = 40;
    let scratch = Scratch::new(MIB, Duration::ZERO);
    let store = kit::metadata_dir(128);
    let host = common::host(store.path());
    let record = host.attach(&request(&scratch.volume, "rewritten", "4Ki")).unwrap().record;
    let kernel = Kernel::open().unwrap();
    let era = kernel.info(&Lookup::Uuid(record.stack.uuid(Role::Era))).unwrap().number;
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let mut listed_blocks = 0;
    let read = || {
        let device = open(&scratch.volume.path);
        for round in 0..LISTS {
            let base = host.boundary(&record).unwrap();
            let written = spread(&device, 100 + round, 2036, MIB << 8);
            let listed = listed(&host.changes(&record, base.era).unwrap());
            let missed: Vec<_> = written.difference(&listed).collect();
            assert!(missed.is_empty(), "list {round} misses {} blocks: {missed:?}", missed.len());
            listed_blocks += listed.len();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let device = open(&scratch.volume.path);
            while !stop.load(Ordering::Relaxed) {
                spread(&device, 3, 4072, MIB << 8);
                // Each look is a commit. Eras that end faster than dm-era digests them fill it.
                if has_room(&host.status(&record).unwrap()) {
                    kernel.message(era, "checkpoint").unwrap();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
        stop.store(true, Ordering::Relaxed);
        if let Err(failed) = read {
            std::panic::resume_unwind(failed);
        }
    });
    println!("{listed_blocks} blocks in {LISTS} lists, {} eras meanwhile", rounds.into_inner());
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
}
