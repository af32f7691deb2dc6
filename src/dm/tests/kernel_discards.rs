//! Discards: dm-era marks only the first block that one touches, so the limit on X-era and the
//! dilation of lists must make up for it. Judged by content alone: no block may be missed.
//!
//! Holds what is said of discards in docs/limitations.md.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use common::{block_size, listed, number, request};
use eratrack_dm::{Changes, Host};
use eratrack_model::discards::DiscardPolicy;
use kit::{
    Content, Disk, Mount, ScsiDebug, Volume, VolumeGroup, differing_blocks, run, run_with, wait_for,
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

/// Files of odd sizes, so that what is freed begins and ends anywhere in a block.
fn write_files(dir: &Path, count: u32) {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for index in 0..count {
        let mut file = File::create(dir.join(format!("file{index}"))).expect("there is room");
        let size = 4096 * (1 + (state >> 33) % 600);
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&content).expect("there is room");
        file.sync_all().expect("the filesystem works");
    }
}

fn free_half(mount: &Mount, volume: &Volume, trim: Trim, count: u32) {
    let before = discards_completed(volume);
    for index in (0..count).step_by(2) {
        fs::remove_file(mount.path().join(format!("file{index}"))).expect("the file is there");
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
