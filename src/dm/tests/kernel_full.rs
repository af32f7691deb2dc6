//! dm-era's metadata runs full while the application writes: writes to blocks that are not yet
//! marked get EIO until era is out, and what was acknowledged is there.
//!
//! A 6.1 kernel may stop when such an era device is removed (docs/limitations.md): which of
//! dm-era's allocations fails decides whether it leaves a buffer locked. So the metadata here has
//! room for the first era, and for hardly more: what fails is the first digestion. In 40 runs on
//! ext4 and 16 on XFS that stopped no kernel; with 40 blocks for 32, which last for ten eras, the
//! third run did in one guest, and the first in another.
//!
//! Holds what docs/limitations.md says of metadata that is full.

mod common;

use common::load::{Load, has_failed};
use common::{assert_none_suspended, assert_nothing_of_ours, request, stingy_host};
use eratrack_dm::{Detached, EraStatus};
use kit::{Disk, Mount, Volume, VolumeGroup};

/// Metadata of so many blocks, which is enough for X-era to be made.
fn metadata_runs_full(kind: &str, volume: &Volume, blocks: u64) {
    let store = kit::metadata_dir(64);
    let host = stingy_host(store.path(), "full", blocks);
    let (original, mount) = (volume.table(), Mount::over(kind, &volume.path, ""));
    let record = host.attach(&request(volume, "full", "4Ki")).unwrap().record;
    let made = host.status(&record).unwrap();
    let is_small = matches!(made, EraStatus::Working { total, .. } if total == blocks);
    assert!(is_small, "{made:?}");
    let load = Load::start(mount);
    let failed = || (has_failed(&host, &record) || load.has_failed()).then_some(());
    kit::wait_for("the metadata to be full", failed);
    assert_eq!(host.status(&record).unwrap(), EraStatus::Error);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    load.nothing_is_lost(kind);
}

#[test]
#[ignore = "kernel tier"]
fn metadata_that_runs_full_under_load_loses_nothing_on_ext4() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    metadata_runs_full("ext4", &group.thick("data", 64), 32);
}

#[test]
#[ignore = "kernel tier"]
fn metadata_that_runs_full_under_load_loses_nothing_on_xfs() {
    let group = VolumeGroup::new([Disk::new(352).into_backing()]);
    metadata_runs_full("xfs", &group.thick("data", 320), 97);
}
