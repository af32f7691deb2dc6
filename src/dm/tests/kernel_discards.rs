//! Discards: dm-era marks only the first block that one touches, so the limit on X-era and the
//! dilation of lists must make up for it. Judged by content alone: no block may be missed.
//!
//! Holds what is said of discards in docs/limitations.md.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{Scratch, block_size, listed, number, request};
use eratrack_dm::{Changes, Host, Moment};
use eratrack_model::discards::DiscardPolicy;
use eratrack_model::plan::Step;
use kit::{
    Content, Dir, Disk, Mount, ScsiDebug, Volume, VolumeGroup, differing_blocks, run, run_with,
    wait_for,
};

/// XFS refuses anything smaller.
const VOLUME_MIB: u64 = 320;

#[derive(Clone, Copy)]
enum Trim {
    /// `fstrim` on the mounted filesystem.
    Command,
    /// The mount option `discard`.
    Option,
}

/// Requests of that kind completed by a device since it appeared: field 12 of its `stat`.
fn discards_completed(volume: &Volume) -> u64 {
    let path = format!("/sys/dev/block/{}/stat", number(volume));
    let stat = fs::read_to_string(path).expect("the volume is active");
    stat.split_whitespace().nth(11).expect("the kernel counts discards").parse().expect("a number")
}

/// Bytes that are never zero for long, and differ from file to file.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A file of up to so many pages, and at least of so many.
    fn file(&mut self, path: &Path, least: u64, most: u64) -> File {
        let size = 4096 * (least + (self.0 >> 33) % (most - least + 1));
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            content.extend_from_slice(&self.next().to_le_bytes());
        }
        let mut file = File::create(path).expect("there is room");
        file.write_all(&content).expect("there is room");
        file
    }
}

/// Files of odd sizes, so that what is freed begins and ends anywhere in a block. ext4 gives large
/// files places that begin with a block, where nothing can be missed, but packs small ones
/// (`mb_stream_req`, at most 64 KiB) one behind the other.
fn write_files(dir: &Path, count: u32) {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for index in 0..count {
        let file = noise.file(&dir.join(format!("file{index}")), 1, 600);
        file.sync_all().expect("the filesystem works");
    }
    for index in 0..4 * count {
        noise.file(&dir.join(format!("small{index}")), 3, 15);
    }
    run(&format!("sync -f {}", dir.display()));
}

/// Half of the large files, and every fourth of the small ones: what is freed of these lies apart.
fn free_half(mount: &Mount, volume: &Volume, trim: Trim, count: u32) {
    let before = discards_completed(volume);
    let large = (0..count).step_by(2).map(|index| format!("file{index}"));
    let small = (0..4 * count).step_by(4).map(|index| format!("small{index}"));
    for name in large.chain(small) {
        fs::remove_file(mount.path().join(name)).expect("the file is there");
    }
    run("sync");
    match trim {
        Trim::Command => {
            run(&format!("fstrim {}", mount.path().display()));
        }
        Trim::Option => wait_for("the filesystem's discards", || {
            run("sync");
            (discards_completed(volume) > before).then_some(())
        }),
    }
    assert!(discards_completed(volume) > before, "nothing was discarded");
}

struct Found {
    changes: Changes,
    missed: Vec<u64>,
    differing: usize,
    zeroed: usize,
}

/// A list over a time in which the filesystem discarded, held against what really differs.
fn list_over_discards(host: &Host, volume: &Volume, kind: &str, trim: Trim, block: &str) -> Found {
    let options = match trim {
        Trim::Command => "",
        Trim::Option => "discard",
    };
    let mount = Mount::over(kind, &volume.path, options);
    let record = host.attach(&request(volume, "discards", block)).unwrap().record;
    assert_eq!(record.discards, DiscardPolicy::Limit, "the device takes discards of a block");
    write_files(mount.path(), 60);
    let base = host.boundary(&record).unwrap();
    let before = Content::of(&volume.path);
    free_half(&mount, volume, trim, 60);
    let after = Content::of(&volume.path);
    host.boundary(&record).unwrap();
    let changes = host.changes(&record, base.era).unwrap();
    let size = block_size(record.granularity);
    let differ = differing_blocks(&before, &after, size);
    let listed = listed(&changes);
    let zeroed = after.zero_blocks(size);
    let found = Found {
        missed: differ.difference(&listed).copied().collect(),
        differing: differ.len(),
        zeroed: differ.intersection(&zeroed).count(),
        changes,
    };
    host.detach(&record.stack).unwrap();
    mount.unmount_and_check(kind);
    found
}

fn none_missed(volume: &Volume, kind: &str, trim: Trim, block: &str) {
    let store = kit::metadata_dir(96);
    let host = common::host(store.path());
    let found = list_over_discards(&host, volume, kind, trim, block);
    let Found { changes, missed, differing, zeroed } = found;
    println!(
        "{kind} {block}: {differing} blocks differ, {zeroed} of them now zero; {} marked, {} listed, dilation {}",
        changes.marked,
        changes.changed_blocks(),
        changes.dilation
    );
    assert!(zeroed > 0, "no whole block was discarded: the test shows nothing");
    assert!(missed.is_empty(), "missed {missed:?} of {differing} blocks that differ");
}

fn thick(test: impl Fn(&Volume)) {
    let group = VolumeGroup::new([Disk::new(VOLUME_MIB + 16).into_backing()]);
    test(&group.thick("data", VOLUME_MIB));
}

fn thin(chunk_kib: u64, test: impl Fn(&Volume)) {
    let group = VolumeGroup::new([Disk::new(VOLUME_MIB + 64).into_backing()]);
    group.thin_pool("pool", VOLUME_MIB, chunk_kib);
    test(&group.thin("pool", "data", VOLUME_MIB));
}

#[test]
#[ignore = "kernel tier"]
fn fstrim_on_ext4_misses_nothing_at_any_granularity() {
    for block in ["4Ki", "64Ki", "256Ki", "1Mi"] {
        thick(|volume| none_missed(volume, "ext4", Trim::Command, block));
    }
}

#[test]
#[ignore = "kernel tier"]
fn fstrim_on_xfs_misses_nothing_at_any_granularity() {
    for block in ["4Ki", "64Ki", "256Ki"] {
        thick(|volume| none_missed(volume, "xfs", Trim::Command, block));
    }
}

#[test]
#[ignore = "kernel tier"]
fn the_mount_option_on_ext4_misses_nothing() {
    thick(|volume| none_missed(volume, "ext4", Trim::Option, "64Ki"));
}

#[test]
#[ignore = "kernel tier"]
fn the_mount_option_on_xfs_misses_nothing() {
    thick(|volume| none_missed(volume, "xfs", Trim::Option, "64Ki"));
}

#[test]
#[ignore = "kernel tier"]
fn discards_of_a_thin_volume_miss_nothing() {
    for kind in ["ext4", "xfs"] {
        for trim in [Trim::Command, Trim::Option] {
            thin(64, |volume| none_missed(volume, kind, trim, "64Ki"));
        }
        thin(64, |volume| none_missed(volume, kind, Trim::Command, "256Ki"));
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_disk_that_discards_in_units_of_a_block_misses_nothing() {
    let disk = ScsiDebug::new(VOLUME_MIB + 16, 64 << 10);
    let group = VolumeGroup::new([disk.into_backing()]);
    let volume = group.thick("data", VOLUME_MIB);
    for kind in ["ext4", "xfs"] {
        none_missed(&volume, kind, Trim::Command, "64Ki");
    }
}

/// A unit that does not divide a block: a limit would be refused or ignored, so X takes no
/// discards while it is tracked, and takes them again afterwards.
#[test]
#[ignore = "kernel tier"]
fn discards_are_off_where_their_unit_does_not_divide_a_block() {
    thin(256, |volume| {
        let store = kit::metadata_dir(96);
        let host = common::host(store.path());
        let mount = Mount::over("ext4", &volume.path, "");
        let record = host.attach(&request(volume, "off", "64Ki")).unwrap().record;
        assert_eq!(record.discards, DiscardPolicy::Off);
        write_files(mount.path(), 10);
        let refused = run_with("fstrim", [mount.path()]).unwrap_err();
        assert!(refused.output.contains("not supported"), "{refused}");
        host.detach(&record.stack).unwrap();
        run(&format!("fstrim {}", mount.path().display()));
        mount.unmount_and_check("ext4");
    });
}

#[test]
#[ignore = "kernel tier"]
fn without_a_discard_since_the_boundary_a_list_is_not_dilated() {
    thick(|volume| {
        let store = kit::metadata_dir(96);
        let host = common::host(store.path());
        let mount = Mount::over("ext4", &volume.path, "");
        let record = host.attach(&request(volume, "exact", "64Ki")).unwrap().record;
        let base = host.boundary(&record).unwrap();
        let counted = discards_completed(volume);
        write_files(mount.path(), 5);
        assert_eq!(discards_completed(volume), counted, "nothing discards here");
        let changes = host.changes(&record, base.era).unwrap();
        assert_eq!((changes.dilation, changes.marked), (0, changes.changed_blocks()));
        run(&format!("fstrim {}", mount.path().display()));
        let changes = host.changes(&record, base.era).unwrap();
        assert_eq!(changes.dilation, 1);
        host.detach(&record.stack).unwrap();
    });
}

/// So many blocks of something at the start of a device, around the page cache.
fn fill(volume: &Volume, blocks: u64) {
    let dir = Dir::new("fill");
    let file = dir.path().join("bytes");
    fs::write(&file, vec![0xa5; usize::try_from(blocks * BLOCK).unwrap()]).expect("there is room");
    let (file, device) = (file.display(), volume.path.display());
    run(&format!("dd if={file} of={device} bs={} oflag=direct conv=notrunc", blocks * BLOCK));
}

const BLOCK: u64 = 64 << 10;

/// What a command does that writes zeroes over ten blocks and a half, from within a block on: the
/// kernel writes them, each write marks its block, and the list is exact.
fn zeroes_are_listed(volume: &Volume, zero: impl Fn(u64, u64, &Path) -> String) {
    const FROM: u64 = 5 * BLOCK + 20480;
    const LENGTH: u64 = 10 * BLOCK + 8192;
    fill(volume, 24);
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(volume, "zeroes", "64Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    let before = Content::of(&volume.path);
    run(&zero(FROM, LENGTH, &volume.path));
    let after = Content::of(&volume.path);
    let changes = host.changes(&record, base.era).unwrap();
    let differ = differing_blocks(&before, &after, block_size(record.granularity));
    assert_eq!(differ, (5..16).collect());
    assert_eq!((listed(&changes), changes.dilation), (differ, 0));
    host.detach(&record.stack).unwrap();
}

fn blkdiscard(from: u64, length: u64, device: &Path) -> String {
    format!("blkdiscard -z -o {from} -l {length} {}", device.display())
}

fn zero_range(from: u64, length: u64, device: &Path) -> String {
    format!("fallocate --zero-range -o {from} -l {length} {}", device.display())
}

#[test]
#[ignore = "kernel tier"]
fn zeroes_written_by_the_kernel_are_listed_exactly() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    group.thin_pool("pool", 32, 64);
    for volume in [group.thick("thick", 16), group.thin("pool", "thin", 16)] {
        zeroes_are_listed(&volume, blkdiscard);
        zeroes_are_listed(&volume, zero_range);
    }
    // A disk that could zero by itself what is beneath era.
    let group = VolumeGroup::new([ScsiDebug::new(64, 4096).into_backing()]);
    zeroes_are_listed(&group.thick("data", 32), blkdiscard);
}

/// A slow disk, and a discard of a block's second half and the first half of the next one.
struct SlowDiscard {
    scratch: Scratch,
    store: Mount,
}

impl SlowDiscard {
    fn new() -> Self {
        let scratch = Scratch::new(32, Duration::from_millis(700));
        fill(&scratch.volume, 8);
        Self { scratch, store: kit::metadata_dir(64) }
    }

    /// Begins, and is marked, and is on its way to the disk.
    fn begin(scratch: &Scratch) -> JoinHandle<String> {
        let path = scratch.volume.path.display();
        let discard = format!("blkdiscard -o {} -l {BLOCK} {path}", 3 * BLOCK + 32768);
        let discard = thread::spawn(move || run(&discard));
        wait_for("a discard in flight", || (scratch.in_flight() > 0).then_some(()));
        discard
    }
}

/// The discard begins before the boundary does, or only when this has counted them and is about
/// to end the era. Either way it marked its first block alone, and in the era before: the list up
/// to the boundary has both. The list from there on need not, because the drain waits for it; but
/// from the count alone nobody could tell the second kind from one that begins later.
#[test]
#[ignore = "kernel tier"]
fn a_discard_in_flight_at_a_boundary_is_in_the_list_before_it() {
    for late in [false, true] {
        let SlowDiscard { scratch, store } = SlowDiscard::new();
        let (volume, scratch) = (scratch.volume.clone(), Arc::new(scratch));
        let (discard, watched) = (Arc::new(Mutex::new(None)), Arc::clone(&scratch));
        let late_one = Arc::clone(&discard);
        let host = common::host(store.path());
        let slow = host.clone().observed_by(Arc::new(move |moment| {
            if late && matches!(moment, Moment::Step(Step::Checkpoint)) {
                *late_one.lock().unwrap() = Some(SlowDiscard::begin(&watched));
            }
        }));
        let record = host.attach(&request(&volume, "flight", "64Ki")).unwrap().record;
        assert_eq!(record.discards, DiscardPolicy::Limit);
        let first = host.boundary(&record).unwrap();
        let before = Content::of(&volume.path);
        if !late {
            *discard.lock().unwrap() = Some(SlowDiscard::begin(&scratch));
        }
        let second = slow.boundary(&record).unwrap();
        let copy = Content::of(&volume.path);
        discard.lock().unwrap().take().expect("it was begun").join().expect("blkdiscard succeeds");
        assert!(second.drained_in > Duration::from_millis(100), "nothing was in flight");
        assert!(Content::of(&volume.path) == copy, "the copy was made too early");

        let changes = host.changes(&record, first.era).unwrap();
        let size = block_size(record.granularity);
        assert_eq!(differing_blocks(&before, &copy, size), BTreeSet::from([3, 4]));
        assert_eq!((listed(&changes), changes.marked), (BTreeSet::from([3, 4]), 1));
        let since = host.changes(&record, second.era).unwrap();
        assert!(!late || since.dilation == 1, "it was counted too late: {since:?}");
        let third = host.boundary(&record).unwrap();
        assert_eq!(host.changes(&record, third.era).unwrap().dilation, 0);
        host.detach(&record.stack).unwrap();
    }
}
