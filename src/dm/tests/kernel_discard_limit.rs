//! Somebody raises the limit on discards that we set on X-era. dm-era marks only the first block
//! of a discard, so a list must reach as far as the longest discard that went through.

mod common;

use std::fs;

use common::{assert_none_suspended, assert_nothing_of_ours, listed, request};
use eratrack_dm::{Host, Liveness, Recovery};
use kit::{Disk, Volume, VolumeGroup, run};

const ERA: &str = "eratrack-limit-era";
const BLOCK: u64 = 64 << 10;
const RAISED: u64 = 1 << 20;

fn set_limit(of: &str, bytes: u64) {
    let name = run(&format!("dmsetup info -c --noheadings -o blkdevname {of}"));
    let path = format!("/sys/block/{}/queue/discard_max_bytes", name.trim());
    fs::write(&path, bytes.to_string()).expect("the queue takes it");
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), bytes.to_string());
}

fn discard_a_raised_limit(volume: &Volume) {
    run(&format!("blkdiscard -o {RAISED} -l {RAISED} {}", volume.path.display()));
}

fn scene(test: impl FnOnce(&Volume, &Host)) {
    let group = VolumeGroup::new([Disk::new(80).into_backing()]);
    let (volume, store) = (group.thick("data", 64), kit::metadata_dir(64));
    test(&volume, &common::host(store.path()));
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
}

/// How many blocks the kernel marks for a discard of 16 blocks; all of them must be listed.
fn marked(volume: &Volume, host: &Host, raised: &str) -> u64 {
    let record = host.attach(&request(volume, "limit", "64Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    set_limit(raised, RAISED);
    if raised == ERA {
        // X takes its limit from X-era when it is swapped.
        host.boundary(&record).unwrap();
    }
    discard_a_raised_limit(volume);
    host.boundary(&record).unwrap();
    set_limit(ERA, BLOCK);
    let changes = host.changes(&record, base.era).unwrap();
    let found = listed(&changes);
    let missed: Vec<_> = (16..32).filter(|block| !found.contains(block)).collect();
    println!("{raised}: {} marked, {} listed", changes.marked, found.len());
    assert!(missed.is_empty(), "missed {missed:?} of a discard of blocks 16 to 31");
    host.detach(&record.stack).unwrap();
    changes.marked
}

#[test]
#[ignore = "kernel tier"]
fn a_list_reaches_as_far_as_discards_did_while_the_limit_was_raised() {
    scene(|volume, host| assert_eq!(marked(volume, host, ERA), 1));
}

/// Whoever raises X's own limit changes nothing.
#[test]
#[ignore = "kernel tier"]
fn the_era_device_cuts_discards_whatever_limit_its_volume_has() {
    scene(|volume, host| assert_eq!(marked(volume, host, &volume.dm_name), 16));
}

#[test]
#[ignore = "kernel tier"]
fn a_raised_limit_that_a_start_finds_ends_the_chain() {
    scene(|volume, host| {
        let record = host.attach(&request(volume, "limit", "64Ki")).unwrap().record;
        set_limit(ERA, RAISED);
        let again = host.attach(&request(volume, "limit", "64Ki")).unwrap();
        assert!(again.created && again.record.chain != record.chain, "the old chain goes on");
        set_limit(ERA, RAISED);
        let found = host.recover().unwrap().pop().expect("one stack").outcome;
        let Recovery::Broken { found: Liveness::Intact, era_failed: false, .. } = found else {
            panic!("{found:?}")
        };
    });
}
