//! dm-era's metadata fails while the application writes: writes to blocks that are not yet marked
//! get EIO until era is out. Whatever the filesystem makes of that, what was acknowledged is there.
//!
//! Holds what docs/limitations.md says of metadata that fails.

mod common;

use common::load::{Load, has_failed};
use common::{FailingDisk, assert_no_device_of_ours, assert_none_suspended, request};
use eratrack_dm::Detached;
use kit::{Disk, Mount, Volume, VolumeGroup};

fn metadata_fails(kind: &str, volume: &Volume) {
    let store = FailingDisk::new(64);
    let host = common::host(store.mount.path());
    let (original, mount) = (volume.table(), Mount::over(kind, &volume.path, ""));
    let record = host.attach(&request(volume, "failing", "4Ki")).unwrap().record;
    let load = Load::start(mount);
    store.fail();
    kit::wait_for("the failure", || has_failed(&host, &record).then_some(()));
    load.fails();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    assert_no_device_of_ours();
    load.nothing_is_lost(kind);
}

#[test]
#[ignore = "kernel tier"]
fn metadata_that_fails_under_load_loses_nothing_on_ext4() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    metadata_fails("ext4", &group.thick("data", 64));
}

#[test]
#[ignore = "kernel tier"]
fn metadata_that_fails_under_load_loses_nothing_on_xfs() {
    let group = VolumeGroup::new([Disk::new(352).into_backing()]);
    metadata_fails("xfs", &group.thick("data", 320));
}

#[test]
#[ignore = "kernel tier"]
fn metadata_that_fails_under_load_loses_nothing_on_a_thin_volume() {
    let group = VolumeGroup::new([Disk::new(128).into_backing()]);
    group.thin_pool("pool", 96, 64);
    metadata_fails("ext4", &group.thin("pool", "data", 64));
}
