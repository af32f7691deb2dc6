//! A stack under a mounted, written volume, from nothing to nothing, on a real kernel.

mod common;

use common::{assert_none_suspended, assert_nothing_of_ours, block_size, listed, number, request};
use eratrack_dm::{Detached, EraStatus, Liveness};
use kit::{Content, Disk, Mount, VolumeGroup, Writer, differing_blocks};

/// Attach, two boundaries, a list that holds all that differs, detach: under a writer.
fn whole_life(volume: &kit::Volume, granularity: &str) {
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let before = volume.table();
    let mount = Mount::over("ext4", &volume.path, "");
    let read_ahead = format!("/sys/dev/block/{}/queue/read_ahead_kb", number(volume));
    std::fs::write(&read_ahead, "384").unwrap();
    let writer = Writer::start(mount.path(), 8);
    writer.advance(20);

    let request = request(volume, "whole-life", granularity);
    let attached = host.attach(&request).unwrap();
    assert!(attached.created);
    assert_eq!(host.liveness(&attached.record).unwrap(), Liveness::Intact);
    writer.advance(20);
    let again = host.attach(&request).unwrap();
    assert_eq!((again.created, &again.record.chain), (false, &attached.record.chain));

    let record = attached.record;
    let first = host.boundary(&record).unwrap();
    let content_before = Content::of(&volume.path);
    writer.advance(50);
    let second = host.boundary(&record).unwrap();
    assert!(second.era > first.era);
    let content_after = Content::of(&volume.path);
    let changes = host.changes(&record, first.era).unwrap();
    // The writer went on between a boundary and the copy after it: what the copies differ in
    // was written after the first boundary and before the list was read.
    let differ = differing_blocks(&content_before, &content_after, block_size(record.granularity));
    let listed = listed(&changes);
    assert!(!differ.is_empty(), "the writer changed nothing");
    let missed: Vec<_> = differ.difference(&listed).collect();
    assert!(missed.is_empty(), "missed {missed:?} of {}", differ.len());
    assert!((listed.len() as u64) < changes.blocks / 2, "{} listed", listed.len());
    match host.status(&record).unwrap() {
        EraStatus::Working { held, used, total, .. } => {
            assert_eq!(held, None);
            assert!(used < total);
        }
        EraStatus::Error => panic!("the era device has failed"),
    }

    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::NothingThere);
    writer.advance(20);
    assert_eq!(volume.table(), before);
    assert_eq!(std::fs::read_to_string(&read_ahead).unwrap().trim(), "384");
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    let verified = writer.stop_and_verify();
    println!(
        "{} records, the slowest took {} ms; {} blocks differ, {} listed of {}; drain {} us",
        verified.records,
        verified.longest.as_millis(),
        differ.len(),
        listed.len(),
        changes.blocks,
        second.drained_in.as_micros()
    );
    mount.unmount_and_check("ext4");
}

#[test]
#[ignore = "kernel tier"]
fn a_thick_volume_is_tracked_while_it_is_written() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    whole_life(&group.thick("data", 64), "64Ki");
}

#[test]
#[ignore = "kernel tier"]
fn a_thin_volume_is_tracked_while_it_is_written() {
    let group = VolumeGroup::new([Disk::new(128).into_backing()]);
    group.thin_pool("pool", 96, 64);
    whole_life(&group.thin("pool", "data", 64), "64Ki");
}
