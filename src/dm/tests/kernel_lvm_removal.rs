//! LVM takes the tracked volume itself away while nobody has it open: it deactivates it, removes
//! it, gives its extents to another one, or rolls it back to a snapshot.
//!
//! Holds what docs/limitations.md says of thin volumes that are removed while they are tracked.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{
    assert_none_suspended, assert_nothing_of_ours, assert_transaction_ids_agree, request,
    transaction_ids,
};
use eratrack_dm::{Attached, Detached, Host, HostError, Liveness, Recovery};
use eratrack_model::record::Record;
use kit::{CommandError, Content, Disk, Mount, Volume, VolumeGroup, run, run_with};

/// How long the volume is.
const MIB: u64 = 32;

/// A tracked volume that nobody has open.
struct Scene {
    group: VolumeGroup,
    volume: Volume,
    store: Mount,
    host: Host,
}

impl Scene {
    fn thick() -> Self {
        let group = VolumeGroup::new([Disk::new(128).into_backing()]);
        let volume = group.thick("data", MIB);
        Self::over(group, volume)
    }

    fn thin() -> Self {
        let group = VolumeGroup::new([Disk::new(200).into_backing()]);
        group.thin_pool("pool", 96, 64);
        let volume = group.thin("pool", "data", MIB);
        Self::over(group, volume)
    }

    fn over(group: VolumeGroup, volume: Volume) -> Self {
        let store = kit::metadata_dir(64);
        let host = common::host(store.path());
        Self { group, volume, store, host }
    }

    fn try_attach(&self) -> Result<Attached, HostError> {
        self.host.attach(&request(&self.volume, "removal", "64Ki"))
    }

    fn attach(&self) -> Record {
        self.try_attach().unwrap().record
    }

    fn lv(&self, name: &str) -> String {
        format!("{}/{name}", self.group.name())
    }

    /// As an agent's next start finds it: era is out of the path, and what is left goes.
    fn remains_go(&self, found: &Liveness) {
        let recovered = self.host.recover().unwrap();
        let broken = matches!(&recovered[..], [one]
            if matches!(&one.outcome, Recovery::Broken { found: seen, .. } if seen == found));
        assert!(broken, "{recovered:?}");
        assert_nothing_of_ours(self.store.path());
        assert_none_suspended();
    }

    /// A pool that LVM refuses nothing of: the ids agree after each of its operations.
    fn the_pool_is_usable(&self) {
        run(&format!("lvcreate -qq -y -V 32m -T {} -n next", self.lv("pool")));
        assert_transaction_ids_agree(&self.group);
        run(&format!("lvcreate -qq -y -s {} -n nextsnap", self.lv("next")));
        assert_transaction_ids_agree(&self.group);
        run(&format!("lvextend -qq -L +32m {}", self.lv("pool")));
        run(&format!("lvremove -qq -y {}", self.lv("nextsnap")));
        assert_transaction_ids_agree(&self.group);
    }
}

/// Puts a page of this byte at the start of each block of 64 KiB.
fn mark_blocks(device: &Path, byte: u8) {
    let file = File::options().write(true).open(device).unwrap();
    for block in 0..MIB << 4 {
        file.write_all_at(&[byte; 4096], block << 16).unwrap();
    }
    file.sync_all().unwrap();
}

fn lvm(line: &str) -> Result<String, CommandError> {
    let mut words = line.split_whitespace();
    run_with(words.next().unwrap(), words)
}

/// LVM has said what it will do, and the pool did not let it: the thin device is still open.
#[track_caller]
fn assert_the_pool_is_busy(result: Result<String, CommandError>) {
    let error = result.unwrap_err();
    assert!(error.output.contains("Failed to process message \"delete"), "{error}");
}

#[test]
#[ignore = "kernel tier"]
fn a_deactivated_thin_volume_comes_back_and_goes_for_good() {
    let scene = Scene::thin();
    let record = scene.attach();
    run(&format!("lvchange -qq -an {}", scene.volume.lv));
    assert_eq!(scene.host.liveness(&record).unwrap(), Liveness::Gone);
    scene.remains_go(&Liveness::Gone);
    run(&format!("lvchange -qq -ay {}", scene.volume.lv));
    assert_transaction_ids_agree(&scene.group);

    let again = scene.attach();
    assert_ne!(again.chain, record.chain);
    run(&format!("lvchange -qq -an {}", scene.volume.lv));
    let removed = scene.host.detach(&again.stack).unwrap();
    assert_eq!(removed, Detached::RemainsRemoved);
    run(&format!("lvremove -qq -y {}", scene.volume.lv));
    assert_transaction_ids_agree(&scene.group);
}

/// X-base keeps the thin device open, so the pool refuses to delete it, after LVM has written down
/// that it is gone. LVM keeps the message and sends it again before whatever it does next to the
/// pool: that fails as long as X-base is there, and all is well once it is not.
#[test]
#[ignore = "kernel tier"]
fn a_thin_volume_removed_while_it_is_tracked_leaves_the_pool_usable() {
    let scene = Scene::thin();
    let record = scene.attach();
    let lvremove = format!("lvremove -y {}", scene.volume.lv);

    let open = File::open(&scene.volume.path).unwrap();
    let refused = lvm(&lvremove).unwrap_err();
    assert!(refused.output.contains("in use"), "{refused}");
    drop(open);
    assert_transaction_ids_agree(&scene.group);
    assert_eq!(scene.host.liveness(&record).unwrap(), Liveness::Intact);

    assert_the_pool_is_busy(lvm(&lvremove));
    assert_eq!(transaction_ids(&scene.group), ("2".to_owned(), "1".to_owned()));
    assert_eq!(scene.host.liveness(&record).unwrap(), Liveness::Gone);
    let create = format!("lvcreate -y -V 32m -T {} -n early", scene.lv("pool"));
    assert_the_pool_is_busy(lvm(&create));

    scene.remains_go(&Liveness::Gone);
    scene.the_pool_is_usable();
}

#[test]
#[ignore = "kernel tier"]
fn a_thin_volume_rolled_back_while_it_is_tracked_begins_a_new_chain() {
    let scene = Scene::thin();
    mark_blocks(&scene.volume.path, 1);
    run(&format!("lvcreate -qq -y -s {} -n snap", scene.volume.lv));
    let wanted = Content::of(&scene.volume.path);
    let record = scene.attach();
    mark_blocks(&scene.volume.path, 2);
    assert_the_pool_is_busy(lvm(&format!("lvconvert --merge {}", scene.lv("snap"))));
    assert_eq!(scene.host.liveness(&record).unwrap(), Liveness::Gone);
    run(&format!("lvchange -qq -ay {}", scene.volume.lv));

    let found = scene.host.liveness(&record).unwrap();
    assert!(matches!(found, Liveness::Reloaded { live: Some(_) }), "{found:?}");
    let refused = scene.host.boundary(&record).unwrap_err();
    assert!(matches!(refused, HostError::NotIntact { .. }), "{refused}");
    scene.remains_go(&found);
    run(&format!("lvcreate -qq -y -V 32m -T {} -n next", scene.lv("pool")));
    assert_transaction_ids_agree(&scene.group);
    assert_eq!(Content::of(&scene.volume.path), wanted);
    let again = scene.try_attach().unwrap();
    assert!(again.created && again.record.chain != record.chain);
    scene.host.boundary(&again.record).unwrap();
    assert_eq!(scene.host.detach(&record.stack).unwrap(), Detached::Restored);
}

#[test]
#[ignore = "kernel tier"]
fn a_thick_volume_rolled_back_begins_a_new_chain() {
    let scene = Scene::thick();
    let record = scene.attach();
    mark_blocks(&scene.volume.path, 1);
    let wanted = Content::of(&scene.volume.path);
    run(&format!("lvcreate -qq -y -s -L 48m {} -n snap", scene.volume.lv));
    mark_blocks(&scene.volume.path, 2);
    let found = scene.host.liveness(&record).unwrap();
    assert!(matches!(found, Liveness::Reloaded { .. }), "{found:?}");
    scene.remains_go(&found);
    assert_eq!(scene.try_attach().unwrap_err().reason(), "VolumeHasSnapshots");

    // While it is open LVM puts the merge off until it is activated again.
    let open = File::open(&scene.volume.path).unwrap();
    run(&format!("lvconvert -qq --merge {}", scene.lv("snap")));
    assert_eq!(scene.try_attach().unwrap_err().reason(), "VolumeHasSnapshots");
    drop(open);
    run(&format!("lvchange -qq -an {}", scene.volume.lv));
    run(&format!("lvchange -qq -ay --poll n {}", scene.volume.lv));
    assert!(scene.volume.table().contains(" snapshot-merge "), "{}", scene.volume.table());
    assert_eq!(scene.try_attach().unwrap_err().reason(), "TableUnsupported");
    assert_nothing_of_ours(scene.store.path());
    kit::wait_for("the end of the merge", || {
        lvm(&format!("lvchange -qq --poll y {}", scene.volume.lv)).ok()?;
        scene.volume.table().contains(" linear ").then_some(())
    });

    let found = scene.host.liveness(&record).unwrap();
    assert!(matches!(found, Liveness::Reloaded { .. }), "{found:?}");
    assert_eq!(Content::of(&scene.volume.path), wanted);
    let again = scene.try_attach().unwrap();
    assert!(again.created && again.record.chain != record.chain);
    assert_eq!(scene.host.detach(&record.stack).unwrap(), Detached::Restored);
}

/// What is left of a removed volume still maps its extents, which are another volume's by now.
#[test]
#[ignore = "kernel tier"]
fn extents_given_to_another_volume_are_not_written_when_the_remains_go() {
    let scene = Scene::thick();
    let original = scene.volume.table();
    let record = scene.attach();
    mark_blocks(&scene.volume.path, 1);
    run(&format!("lvremove -qq -y {}", scene.volume.lv));
    let other = scene.group.thick("other", MIB);
    assert_eq!(other.table(), original, "the other volume has the same extents");
    mark_blocks(&other.path, 2);
    let wanted = Content::of(&other.path);

    assert_eq!(scene.host.liveness(&record).unwrap(), Liveness::Gone);
    assert_eq!(scene.host.detach(&record.stack).unwrap(), Detached::RemainsRemoved);
    assert_nothing_of_ours(scene.store.path());
    assert_none_suspended();
    assert!(Content::of(&other.path) == wanted, "the other volume was written");
    assert_eq!(other.table(), original);
}
