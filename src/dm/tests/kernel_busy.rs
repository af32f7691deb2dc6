//! Somebody has X-base or X-era open: a prober, a curious admin, another device mapper table.
//! The user's device gets its own table back all the same; our devices go when they are closed.

mod common;

use common::{assert_none_suspended, assert_nothing_of_ours, request};
use eratrack_dm::linux::{Kernel, Nodes};
use eratrack_dm::{Detached, DeviceMapper, HostError, Lookup, Recovery, StackLockError};
use eratrack_model::names::Role;
use kit::{Disk, Mount, VolumeGroup, Writer, run};

#[test]
#[ignore = "kernel tier"]
fn a_stack_that_somebody_has_open_gives_the_volume_its_table_back() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let mount = Mount::over("ext4", &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    for role in [Role::Era, Role::Base] {
        let record = host.attach(&request(&volume, "busy", "64Ki")).unwrap().record;
        let uuid = Lookup::Uuid(record.stack.uuid(role));
        let own = Kernel::open().unwrap().info(&uuid).unwrap().number;
        let held = Nodes::new("/dev").open_direct(own).unwrap();
        for _ in 0..2 {
            let busy = host.detach(&record.stack).unwrap_err();
            assert_eq!((busy.reason(), busy.is_transient()), ("DeviceBusy", true), "{busy}");
            assert_eq!(volume.table(), original, "{role} is open");
            writer.advance(10);
        }
        drop(held);
        assert_eq!(host.detach(&record.stack).unwrap(), Detached::RemainsRemoved);
        assert_none_suspended();
        assert_nothing_of_ours(store.path());
    }
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
}

/// `dmsetup suspend` takes no lock of LVM's: a volume of LVM's may be suspended by anybody, and is
/// left to whoever did that.
#[test]
#[ignore = "kernel tier"]
fn a_volume_of_lvms_that_somebody_suspended_is_left_to_them() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "busy", "64Ki")).unwrap().record;
    run(&format!("dmsetup suspend {}", volume.dm_name));
    let found = host.recover().unwrap().pop().expect("one stack").outcome;
    let still = run(&format!("dmsetup info {}", volume.dm_name));
    run(&format!("dmsetup resume {}", volume.dm_name));
    assert!(matches!(found, Recovery::Failed(_)), "{found:?}");
    assert!(still.contains("SUSPENDED"), "{still}");
    let found = host.recover().unwrap().pop().expect("one stack").outcome;
    assert_eq!(found, Recovery::Adopted(record.clone()));
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}

/// The directory of our locks is ours alone; one that is not is not used.
#[test]
#[ignore = "kernel tier"]
fn a_directory_for_locks_that_somebody_else_made_is_refused() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    run("mkdir -p /run/kit/theirs");
    run("rm -rf /run/eratrack");
    run("ln -s /run/kit/theirs /run/eratrack");
    let refused = host.attach(&request(&volume, "busy", "64Ki")).unwrap_err();
    assert!(matches!(refused, HostError::Lock(StackLockError::Io { .. })), "{refused}");
    assert_eq!(volume.table(), original);
    assert_eq!(std::fs::read_dir("/run/kit/theirs").unwrap().count(), 0);
    run("rm /run/eratrack");
    let record = host.attach(&request(&volume, "busy", "64Ki")).unwrap().record;
    assert_eq!(run("stat -c %a:%u /run/eratrack").trim(), "700:0");
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
}
