//! The metadata snapshot that a list is read from: dm-era holds one, for whoever asks.

mod common;

use std::sync::Arc;

use common::{assert_nothing_of_ours, request};
use eratrack_dm::{Detached, EraStatus, Host, HostError, Moment};
use kit::{Disk, Mount, VolumeGroup, run};

const MESSAGE: &str = "dmsetup message eratrack-held-era 0";

/// Somebody sends these messages while a list is read.
fn interfering(store: &Mount, messages: &'static [&'static str]) -> Host {
    common::host(store.path()).observed_by(Arc::new(move |moment| {
        if let Moment::Machine("read the metadata snapshot") = moment {
            for message in messages {
                run(&format!("{MESSAGE} {message}"));
            }
        }
    }))
}

/// Its blocks may hold anything once it was dropped; what was read is not believed.
#[test]
#[ignore = "kernel tier"]
fn a_list_read_while_somebody_dropped_the_snapshot_is_not_believed() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "held", "64Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    for messages in [
        &["drop_metadata_snap"][..],
        &["drop_metadata_snap", "take_metadata_snap"],
        &["drop_metadata_snap", "checkpoint", "take_metadata_snap"],
    ] {
        let refused = interfering(&store, messages).changes(&record, base.era).unwrap_err();
        assert!(matches!(refused, HostError::Unexpected { .. }), "{messages:?}: {refused}");
        let after = host.changes(&record, base.era).unwrap();
        assert!(after.runs.is_empty(), "nobody wrote");
    }
    run(&format!("{MESSAGE} take_metadata_snap"));
    host.recover().unwrap();
    let status = host.status(&record).unwrap();
    assert!(matches!(status, EraStatus::Working { held: None, .. }), "{status:?}");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}

/// Whoever goes on from the era that a list names misses nothing.
#[test]
#[ignore = "kernel tier"]
fn a_list_from_a_snapshot_that_is_held_names_the_era_that_it_was_taken_in() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "held", "64Ki")).unwrap().record;
    let base = host.boundary(&record).unwrap();
    assert!(host.changes(&record, base.era).unwrap().read_at > base.era);
    let held = host.hold(&record).unwrap();
    let path = format!("/dev/{}/data", group.name());
    run(&format!("dd if=/dev/urandom of={path} bs=64k count=1 seek=7 oflag=direct conv=notrunc"));
    host.boundary(&record).unwrap();
    let first = host.changes_held(&record, base.era).unwrap().expect("one is held");
    assert_eq!((first.read_at.0, first.runs.is_empty()), (held.era, true));
    host.release(&record).unwrap();
    let second = host.changes(&record, first.read_at).unwrap();
    assert_eq!(second.changed_blocks(), 1);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}
