//! Somebody has X-base or X-era open: a prober, a curious admin, another device mapper table.
//! The user's device gets its own table back all the same; our devices go when they are closed.

mod common;

use common::{assert_none_suspended, assert_nothing_of_ours, request};
use eratrack_dm::linux::{Kernel, Nodes};
use eratrack_dm::{Detached, DeviceMapper, Lookup};
use eratrack_model::names::Role;
use kit::{Disk, Mount, VolumeGroup, Writer};

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
