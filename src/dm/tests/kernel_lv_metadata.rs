//! Metadata in a volume that LVM makes for it, in a group of its own or the tracked volume's.

mod common;

use std::fs::File;
use std::path::Path;

use common::{administrators_host, assert_nothing_of_ours, listed, number, request};
use eratrack_dm::{AttachRequest, Detached, Host, HostError, LvmError};
use kit::{Disk, Volume, VolumeGroup, run};

fn request_in(group: &VolumeGroup, volume: &Volume) -> AttachRequest {
    let mut request = request(volume, "lv", "64Ki");
    request.metadata = format!("lv:{}", group.name()).parse().unwrap();
    request
}

fn volumes(group: &VolumeGroup) -> Vec<String> {
    let listed = run(&format!("lvs --noheadings -o lv_name {}", group.name()));
    listed.split_whitespace().map(str::to_owned).collect()
}

fn write(volume: &Volume, block: u64) {
    let to = volume.path.display();
    run(&format!("dd if=/dev/urandom of={to} bs=64k count=1 seek={block} oflag=direct"));
}

/// Attached, written, read and detached.
fn tracked(host: &Host, store: &Path, group: &VolumeGroup, volume: &Volume) {
    let before = (volumes(group), volume.table());
    let record = host.attach(&request_in(group, volume)).unwrap().record;
    assert!(volumes(group).contains(&"eratrack-lv".to_owned()));
    let tags = run(&format!("lvs --noheadings -o lv_tags {}/eratrack-lv", group.name()));
    assert!(tags.contains(record.chain.as_str()), "{tags}");
    let base = host.boundary(&record).unwrap().era;
    write(volume, 17);
    let changes = host.changes(&record, base).unwrap();
    assert!(listed(&changes).contains(&17), "{changes:?}");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!((volumes(group), volume.table()), before);
    assert_nothing_of_ours(store);
}

#[test]
#[ignore = "kernel tier"]
fn metadata_in_a_group_of_its_own() {
    let (store, other) = (kit::metadata_dir(16), VolumeGroup::new([Disk::new(32).into_backing()]));
    let group = VolumeGroup::new([Disk::new(64).into_backing()]);
    tracked(&administrators_host(store.path()), store.path(), &other, &group.thick("data", 32));
}

/// LVM is asked and makes volumes while it sees our table in the tracked volume of that group.
#[test]
#[ignore = "kernel tier"]
fn metadata_in_the_group_of_the_tracked_volume() {
    let store = kit::metadata_dir(16);
    let host = administrators_host(store.path());
    let group = VolumeGroup::new([Disk::new(128).into_backing()]);
    tracked(&host, store.path(), &group, &group.thick("data", 32));
    group.thin_pool("pool", 32, 64);
    tracked(&host, store.path(), &group, &group.thin("pool", "thin", 32));
    common::assert_transaction_ids_agree(&group);
}

#[test]
#[ignore = "kernel tier"]
fn a_full_group_is_refused_and_nothing_is_left() {
    let store = kit::metadata_dir(16);
    let host = administrators_host(store.path());
    let group = VolumeGroup::new([Disk::new(64).into_backing()]);
    let volume = group.thick("data", 32);
    run(&format!("lvcreate -qq -y -Wn -Zn -l 100%FREE -n all {}", group.name()));
    let (before, table) = (volumes(&group), volume.table());
    let error = host.attach(&request_in(&group, &volume)).unwrap_err();
    assert!(matches!(error, HostError::Lvm(LvmError::NoRoom { .. })), "{error}");
    assert_eq!((volumes(&group), volume.table()), (before, table));
    assert_nothing_of_ours(store.path());
}

/// LVM waits for its lock without end; we do not.
#[test]
#[ignore = "kernel tier"]
fn a_group_that_somebody_has_locked_is_given_up_in_time() {
    let store = kit::metadata_dir(16);
    let other = VolumeGroup::new([Disk::new(32).into_backing()]);
    let group = VolumeGroup::new([Disk::new(64).into_backing()]);
    let volume = group.thick("data", 32);
    let host = common::impatient_administrators_host(store.path());
    let lock = format!("/run/lock/lvm/V_{}", other.name());
    let held = File::options().create(true).append(true).open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let error = host.attach(&request_in(&other, &volume)).unwrap_err();
    assert!(matches!(error, HostError::Lvm(LvmError::Deadline { .. })), "{error}");
    drop(held);
    assert_eq!(volumes(&other), [""; 0]);
    assert_nothing_of_ours(store.path());
    let patient = administrators_host(store.path());
    let record = patient.attach(&request_in(&other, &volume)).unwrap().record;
    assert_eq!(record.x, number(&volume));
    assert_eq!(patient.detach(&record.stack).unwrap(), Detached::Restored);
}

/// An agent in a container has not the machine's LVM.
#[test]
#[ignore = "kernel tier"]
fn an_agent_makes_no_volumes() {
    let store = kit::metadata_dir(16);
    let group = VolumeGroup::new([Disk::new(64).into_backing()]);
    let volume = group.thick("data", 32);
    let error = common::host(store.path()).attach(&request_in(&group, &volume)).unwrap_err();
    assert!(matches!(error, HostError::Lvm(LvmError::NotHere)), "{error}");
    assert_eq!(volumes(&group), ["data"]);
    assert_nothing_of_ours(store.path());
}
