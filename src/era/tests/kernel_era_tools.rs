//! What this crate reads, against the kernel that writes it and the packaged tools that read it too.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use era_metadata::{Block, Era, View, WritesetState, render, sizing};
use rig::{Mapped, Random, Tracked};

/// Writes over many eras, so that some are digested and some may not be.
fn live_a_while(tracked: &mut Tracked, blocks: u64, eras: usize, random: &mut Random) {
    for _ in 0..eras {
        let first = random.below(blocks - 300);
        let run = first..first + random.below(300);
        let scattered = random.blocks(20, blocks);
        tracked.write(run.chain(scattered));
        tracked.message("checkpoint");
    }
    tracked.write([0, blocks - 1]);
}

/// Tells writers to stop, also when a check fails, so that the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn origin(name: &str, blocks: u64) -> Mapped {
    Mapped::create(name, &format!("0 {} zero", blocks * 8))
}

#[test]
#[ignore = "kernel tier"]
fn a_clean_end_agrees_with_era_dump() {
    const BLOCKS: u64 = 70_001;
    let metadata = rig::metadata_device("dump-meta", 0, 4096);
    let origin = origin("dump-origin", BLOCKS);
    let mut tracked = Tracked::create("dump-era", &metadata, &origin, BLOCKS);
    live_a_while(&mut tracked, BLOCKS, 8, &mut Random(1));
    drop(tracked);

    let mut dumped = Dump::default();
    dumped.parse(&rig::run("era_dump", &[metadata.path().to_str().unwrap()]));
    let read = rig::open(&metadata, View::Live);
    let mut ours = Dump {
        granularity: read.granularity_sectors().into(),
        blocks: read.nr_blocks().into(),
        current: read.current_era().0.into(),
        ..Dump::default()
    };
    read.visit_array(|_, era| ours.array.push(era.0.into())).unwrap();
    read.visit_writesets(|era, state, blocks| {
        assert_eq!(state, WritesetState::Archived);
        ours.writesets.insert(era.0.into(), rig::numbers(blocks));
    })
    .unwrap();
    assert!(ours.array.iter().any(|&era| era > 1) && !ours.writesets.is_empty());
    assert_eq!(ours, dumped);
}

/// What `era_dump` prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Dump {
    granularity: u64,
    blocks: u64,
    current: u64,
    writesets: BTreeMap<u64, BTreeSet<u64>>,
    array: Vec<u64>,
}

impl Dump {
    fn parse(&mut self, document: &str) {
        let mut writeset = 0;
        for line in document.lines().map(str::trim_start) {
            if line.starts_with("<superblock ") {
                self.granularity = rig::number(line, "block_size");
                self.blocks = rig::number(line, "nr_blocks");
                self.current = rig::number(line, "current_era");
            } else if line.starts_with("<writeset ") {
                writeset = rig::number(line, "era");
                self.writesets.insert(writeset, BTreeSet::new());
            } else if line.starts_with("<bit ") && rig::attribute(line, "value") == "true" {
                let block = rig::number(line, "block");
                self.writesets.get_mut(&writeset).expect("a writeset").insert(block);
            } else if line.starts_with("<era ") {
                assert_eq!(rig::number(line, "block"), self.array.len() as u64);
                self.array.push(rig::number(line, "era"));
            }
        }
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_clean_end_agrees_with_era_invalidate_and_with_what_was_written() {
    const BLOCKS: u64 = 40_003;
    let metadata = rig::metadata_device("clean-meta", 1, 2048);
    let origin = origin("clean-origin", BLOCKS);
    let mut tracked = Tracked::create("clean-era", &metadata, &origin, BLOCKS);
    live_a_while(&mut tracked, BLOCKS, 10, &mut Random(2));
    let (last, writes) = (tracked.status().era, std::mem::take(&mut tracked.writes));
    drop(tracked);

    let read = rig::open(&metadata, View::Live);
    assert_eq!(read.current_era(), last);
    for era in 1..=last.0 {
        let era = Era(era);
        let ours = rig::changed(&read, era);
        assert_eq!(ours, rig::since(&writes, era), "since {era}");
        assert_eq!(ours, rig::era_invalidate(&metadata.path(), era), "since {era}");
        let mut document = Vec::new();
        render::xml(&mut document, read.changed_since(era).unwrap().runs()).unwrap();
        assert_eq!(ours, rig::parse_blocks(&String::from_utf8(document).unwrap()));
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_held_snapshot_is_read_while_the_device_is_written() {
    const BLOCKS: u64 = 5_000;
    let metadata = rig::metadata_device("held-meta", 2, 4096);
    let origin = origin("held-origin", BLOCKS);
    let mut tracked = Tracked::create("held-era", &metadata, &origin, BLOCKS);
    let mut random = Random(3);
    for _ in 0..3 {
        live_a_while(&mut tracked, BLOCKS, 2, &mut random);
        tracked.message("take_metadata_snap");
        let status = tracked.status();
        let held = View::HeldAt(status.held.expect("a held root"));
        let writes = tracked.writes.clone();
        let stop = AtomicBool::new(false);
        let progress = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let file = tracked.file();
            let stopping = Stop(&stop);
            let thread = scope.spawn(|| {
                let mut random = Random(4);
                while !stop.load(Ordering::Relaxed) {
                    let at = random.below(BLOCKS) * 4096;
                    file.write_all_at(Block::zeroed().bytes(), at).unwrap();
                    progress.fetch_add(1, Ordering::Relaxed);
                }
            });
            let await_writes = || {
                let enough = progress.load(Ordering::Relaxed) + 50;
                while progress.load(Ordering::Relaxed) < enough && !thread.is_finished() {
                    std::thread::yield_now();
                }
            };
            await_writes();
            let read = rig::open(&metadata, held);
            assert_eq!(read.current_era(), status.era);
            for era in 1..status.era.0 {
                let expected = rig::since(&writes, Era(era));
                assert_eq!(rig::changed(&read, Era(era)), expected, "since {era}");
            }
            // The era that the snapshot began: it knows nothing of it, now or later.
            await_writes();
            assert!(rig::changed(&read, status.era).is_empty());
            assert!(!thread.is_finished(), "the writer failed");
            drop(stopping);
        });
        tracked.message("drop_metadata_snap");
        // What the thread wrote is not in the log: it is part of the base from now on.
        let everything: Vec<u64> = (0..BLOCKS).collect();
        tracked.message("checkpoint");
        tracked.write(everything);
    }
}

/// The metadata is cut off in the middle of writes, as by a loss of power: it is frozen beneath the era device and
/// copied. Nothing that was acknowledged may be missing, and the kernel, given the copy, must agree.
#[test]
#[ignore = "kernel tier"]
fn an_unclean_end_loses_no_write() {
    const BLOCKS: u64 = 60_000;
    const METADATA: u64 = 2048;
    let metadata = rig::metadata_device("cut-meta", 3, METADATA);
    let copy = rig::metadata_device("cut-copy", 4, METADATA);
    let origin = origin("cut-origin", BLOCKS);
    let mut tracked = Tracked::create("cut-era", &metadata, &origin, BLOCKS);
    live_a_while(&mut tracked, BLOCKS, 3, &mut Random(5));
    tracked.message("checkpoint");
    let era = tracked.status().era;

    let begun = Mutex::new(BTreeSet::new());
    let done = Mutex::new(BTreeSet::new());
    let mut acknowledged = BTreeSet::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        for writer in 0..3 {
            let (tracked, begun, done, stop) = (&tracked, &begun, &done, &stop);
            scope.spawn(move || {
                let mut random = Random(6 + writer);
                while !stop.load(Ordering::Relaxed) {
                    let block = random.below(BLOCKS);
                    begun.lock().unwrap().insert(block);
                    tracked.file().write_all_at(Block::zeroed().bytes(), block * 4096).unwrap();
                    done.lock().unwrap().insert(block);
                }
            });
        }
        while done.lock().unwrap().len() < 300 {
            std::thread::yield_now();
        }
        acknowledged.clone_from(&done.lock().unwrap());
        metadata.dmsetup("suspend", &["--noflush", "--nolockfs"]);
        // Read through the disk below: the metadata device itself is stopped.
        let below = Mapped::create("cut-below", &format!("0 {} linear /dev/ram3 0", METADATA * 8));
        rig::copy(&below, &copy, METADATA);
        drop(stopping);
        metadata.dmsetup("resume", &[]);
    });
    let begun = begun.into_inner().unwrap();

    let ours = rig::changed(&rig::open(&copy, View::Live), era);
    let before = rig::since(&tracked.writes, Era(1));
    assert!(ours.is_superset(&acknowledged), "acknowledged writes are missing");
    assert!(ours.is_subset(&begun), "blocks that were not written");
    let everything = rig::changed(&rig::open(&copy, View::Live), Era(1));
    assert_eq!(everything, ours.union(&before).copied().collect());
    // The tool leaves the current writeset out: it is no oracle here.
    assert!(rig::era_invalidate(&copy.path(), era).is_empty());

    drop(Tracked::create("cut-again", &copy, &origin, BLOCKS));
    assert_eq!(rig::era_invalidate(&copy.path(), era), ours);
    assert_eq!(rig::changed(&rig::open(&copy, View::Live), era), ours);
}

/// Writes to every block of the array in every era, with a metadata snapshot held for long.
#[test]
#[ignore = "kernel tier"]
fn metadata_of_the_required_size_suffices() {
    const BLOCKS: u64 = 200_000;
    let required = sizing::required(BLOCKS * 8, 8, sizing::DEFAULT_UNDIGESTED).unwrap();
    let metadata = rig::metadata_device("size-meta", 5, required.total());
    let origin = origin("size-origin", BLOCKS);
    let mut tracked = Tracked::create("size-era", &metadata, &origin, BLOCKS);
    let mut random = Random(9);
    let mut most = 0;
    for boundary in 0..16 {
        if boundary % 8 == 1 {
            tracked.message("take_metadata_snap");
        }
        tracked.write((0..BLOCKS / 1018).map(|leaf| leaf * 1018 + random.below(1018)));
        tracked.message("checkpoint");
        let status = tracked.status();
        assert_eq!(status.total, required.total());
        most = most.max(status.used);
        if boundary == 7 {
            tracked.message("drop_metadata_snap");
        }
    }
    println!("{most} of {} metadata blocks were used", required.total());
    assert!(most < required.total(), "{most} of {}", required.total());
    let held = tracked.status().held.expect("a held root");
    let read = rig::open(&metadata, View::HeldAt(held));
    let end = read.current_era();
    let before_the_second: Vec<_> =
        tracked.writes.iter().copied().filter(|(era, _)| *era < end).collect();
    assert_eq!(rig::changed(&read, Era(1)), rig::since(&before_the_second, Era(1)));
}
