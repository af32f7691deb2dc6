//! LVM knows nothing of us and reloads volumes behind our back. After everything it does, LVM
//! itself still works, no write is lost, and we notice.

mod common;

use std::sync::{Arc, Mutex};
use std::thread;

use common::{
    assert_none_suspended, assert_nothing_of_ours, assert_transaction_ids_agree, request,
};
use eratrack_dm::{Detached, Host, HostError, Liveness, Moment};
use eratrack_model::plan::Step;
use eratrack_model::refusal::Refusal;
use kit::{Disk, Mount, Volume, VolumeGroup, Writer, run};

struct Scene {
    store: Mount,
    host: Host,
    mount: Mount,
    writer: Writer,
    volume: Volume,
}

impl Scene {
    /// A volume with a mounted filesystem that is written all the time.
    fn over(volume: Volume) -> Self {
        let store = kit::metadata_dir(96);
        let host = common::host(store.path());
        let mount = Mount::over("ext4", &volume.path, "");
        let writer = Writer::start(mount.path(), 8);
        writer.advance(10);
        Self { store, host, mount, writer, volume }
    }

    fn attach(&self) -> Result<eratrack_dm::Attached, HostError> {
        self.host.attach(&request(&self.volume, "lvm", "64Ki"))
    }

    /// What LVM did was noticed; our remains go, and the volume is tracked anew at its size.
    fn reinserted_after(&self, what: &str, operation: impl FnOnce()) {
        let before = self.attach().unwrap().record;
        self.writer.advance(10);
        operation();
        let found = self.host.liveness(&before).unwrap();
        assert!(matches!(found, Liveness::Reloaded { .. }), "after {what}: {found:?}");
        let refused = self.host.boundary(&before).unwrap_err();
        assert!(matches!(refused, HostError::NotIntact { .. }), "after {what}: {refused}");
        let removed = self.host.detach(&before.stack).unwrap();
        assert_eq!(removed, Detached::RemainsRemoved, "after {what}");
        assert_nothing_of_ours(self.store.path());
        self.writer.advance(10);
        let again = self.attach().unwrap();
        assert!(again.created, "after {what}");
        assert_ne!(again.record.chain, before.chain, "after {what} a new chain begins");
        assert_eq!(again.record.sectors, common::length(&self.volume));
    }

    /// The same for what leaves our table in X.
    fn kept_through(&self, what: &str, operation: impl FnOnce()) {
        let record = self.attach().unwrap().record;
        self.writer.advance(10);
        operation();
        assert_eq!(self.host.liveness(&record).unwrap(), Liveness::Intact, "after {what}");
        self.writer.advance(10);
    }

    /// Everything out, every acknowledged record there, the filesystem clean.
    fn end(self) {
        self.host.detach(&"lvm".parse().unwrap()).unwrap();
        assert_nothing_of_ours(self.store.path());
        assert_none_suspended();
        let verified = self.writer.stop_and_verify();
        assert!(verified.records > 0);
        self.mount.unmount_and_check("ext4");
    }
}

fn thick_group() -> VolumeGroup {
    VolumeGroup::new([Disk::new(200).into_backing(), Disk::new(200).into_backing()])
}

#[test]
#[ignore = "kernel tier"]
fn a_thick_volume_survives_what_lvm_does_to_it() {
    let group = thick_group();
    let scene = Scene::over(group.thick("data", 96));
    let lv = scene.volume.lv.clone();
    scene.reinserted_after("lvextend", || {
        run(&format!("lvextend -qq -L +16m {lv}"));
    });
    scene.reinserted_after("lvchange --refresh", || {
        run(&format!("lvchange -qq --refresh {lv}"));
    });
    scene.kept_through("another volume's life", || {
        run(&format!("lvcreate -qq -y -Wn -Zn -L 8m -n other {}", group.name()));
        run(&format!("lvremove -qq -y {}/other", group.name()));
    });
    scene.kept_through("lvs", || {
        run(&format!("lvs {}", group.name()));
    });
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_volume_with_lvm_snapshots_is_refused_until_they_are_gone() {
    let group = thick_group();
    let scene = Scene::over(group.thick("data", 96));
    let record = scene.attach().unwrap().record;
    run(&format!("lvcreate -qq -y -s -L 32m -n snap {}", scene.volume.lv));
    assert!(matches!(scene.host.liveness(&record).unwrap(), Liveness::Reloaded { .. }));
    scene.host.detach(&record.stack).unwrap();
    let refused = scene.attach().unwrap_err();
    assert_eq!(refused.reason(), "VolumeHasSnapshots", "{refused}");
    assert_nothing_of_ours(scene.store.path());
    run(&format!("fsck.ext4 -fn /dev/mapper/{}-snap", group.name()));
    run(&format!("lvremove -qq -y {}/snap", group.name()));
    assert!(scene.attach().unwrap().created);
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_volume_that_pvmove_moves_is_tracked_anew() {
    kit::run_with("modprobe", ["dm-mirror"]).expect("the guest has dm-mirror, which pvmove needs");
    let group = thick_group();
    let scene = Scene::over(group.thick("data", 96));
    let from = run(&format!("lvs --noheadings -o devices {}", scene.volume.lv));
    let from = from.trim().split('(').next().expect("a device").to_owned();
    scene.reinserted_after("pvmove", || {
        run(&format!("pvmove -qq -i 1 {from}"));
    });
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn what_is_left_of_a_deactivated_volume_is_removed() {
    let group = thick_group();
    let Scene { store, host, mount, writer, volume } = Scene::over(group.thick("data", 96));
    let record = host.attach(&request(&volume, "lvm", "64Ki")).unwrap().record;
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
    run(&format!("lvchange -qq -an {}", volume.lv));
    assert_eq!(host.liveness(&record).unwrap(), Liveness::Gone);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::RemainsRemoved);
    assert_nothing_of_ours(store.path());
    run(&format!("lvremove -qq -y {}", volume.lv));
}

#[test]
#[ignore = "kernel tier"]
fn a_thin_pool_stays_usable_whatever_is_done_to_it() {
    let group = VolumeGroup::new([Disk::new(400).into_backing()]);
    group.thin_pool("pool", 128, 64);
    let scene = Scene::over(group.thin("pool", "data", 160));
    let lv = scene.volume.lv.clone();
    let vg = group.name();
    scene.kept_through("lvcreate of another thin volume", || {
        run(&format!("lvcreate -qq -y -V 64m -T {vg}/pool -n other"));
    });
    assert_transaction_ids_agree(&group);
    scene.kept_through("a snapshot of another thin volume", || {
        run(&format!("lvcreate -qq -y -s {vg}/other -n othersnap"));
    });
    assert_transaction_ids_agree(&group);
    scene.kept_through("extension of the pool", || {
        run(&format!("lvextend -qq -L +32m {vg}/pool"));
    });
    scene.reinserted_after("lvcreate -s", || {
        run(&format!("lvcreate -qq -y -s {lv} -n snap"));
    });
    assert_transaction_ids_agree(&group);
    run(&format!("lvchange -qq -ay -K {vg}/snap"));
    run(&format!("fsck.ext4 -fn /dev/mapper/{vg}-snap"));
    scene.kept_through("lvremove of the snapshot", || {
        run(&format!("lvremove -qq -y {vg}/snap"));
    });
    scene.reinserted_after("lvextend", || {
        run(&format!("lvextend -qq -L +32m {lv}"));
    });
    scene.kept_through("lvremove of another thin volume", || {
        run(&format!("lvremove -qq -y {vg}/othersnap {vg}/other"));
    });
    assert_transaction_ids_agree(&group);
    scene.end();
    run(&format!("lvchange -qq -an {lv}"));
    run(&format!("lvremove -qq -y {lv}"));
    assert_transaction_ids_agree(&group);
}

/// All of a thin volume goes through X-era, its first and last 4 KiB too (design note 0002).
#[test]
#[ignore = "kernel tier"]
fn both_ends_of_a_thin_volume_are_tracked_and_are_what_they_were() {
    let group = VolumeGroup::new([Disk::new(200).into_backing()]);
    group.thin_pool("pool", 128, 64);
    let volume = group.thin("pool", "data", 128);
    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let path = volume.path.display();
    let last = 128 * 256 - 1;
    let put = |block: u64, byte: u8| {
        std::fs::write("/run/kit/page", [byte; 4096]).unwrap();
        run(&format!(
            "dd if=/run/kit/page of={path} bs=4096 count=1 seek={block} oflag=direct conv=notrunc,fsync"
        ));
    };
    let page = |block: u64| {
        run(&format!("dd if={path} of=/run/kit/read bs=4096 count=1 skip={block} iflag=direct"));
        std::fs::read("/run/kit/read").unwrap()
    };
    put(0, b'a');
    put(last, b'z');
    let record = host.attach(&request(&volume, "ends", "64Ki")).unwrap().record;
    assert_eq!((page(0)[0], page(last)[0]), (b'a', b'z'));
    let base = host.boundary(&record).unwrap();
    put(last, b'Z');
    let changes = host.changes(&record, base.era).unwrap();
    assert_eq!(common::listed(&changes).into_iter().collect::<Vec<_>>(), [last / 16]);
    put(0, b'A');
    let changes = host.changes(&record, base.era).unwrap();
    assert_eq!(common::listed(&changes).into_iter().collect::<Vec<_>>(), [0, last / 16]);
    host.detach(&record.stack).unwrap();
    assert_eq!((page(0)[0], page(last)[0]), (b'A', b'Z'));
}

/// LVM at work on X while we insert: whoever comes first, X ends with a table that is right.
#[test]
#[ignore = "kernel tier"]
fn lvextend_racing_an_insertion_leaves_one_of_the_two_tables() {
    let group = thick_group();
    let scene = Scene::over(group.thick("data", 32));
    for _ in 0..8 {
        let lv = scene.volume.lv.clone();
        let racing = thread::spawn(move || run(&format!("lvextend -qq -L +4m {lv}")));
        let attached = scene.attach();
        racing.join().expect("lvextend succeeds");
        let size = common::length(&scene.volume).0;
        let lvm =
            run(&format!("lvs --noheadings --nosuffix --units s -o lv_size {}", scene.volume.lv));
        assert_eq!(size.to_string(), lvm.trim(), "X is as long as LVM says");
        match attached {
            Ok(attached) => match scene.host.liveness(&attached.record).unwrap() {
                Liveness::Intact => assert_eq!(attached.record.sectors.0, size),
                Liveness::Reloaded { .. } => {}
                other => panic!("{other:?}"),
            },
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        assert_none_suspended();
        scene.writer.advance(5);
        scene.host.detach(&"lvm".parse().unwrap()).unwrap();
    }
    scene.end();
}

/// A process that waits for somebody's lock (`/proc/locks` shows it behind an arrow).
fn somebody_waits_for_a_lock() -> bool {
    std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| line.contains("-> FLOCK"))
}

/// LVM comes when our table is about to go into X: it waits until we are done.
#[test]
#[ignore = "kernel tier"]
fn lvm_waits_while_our_table_goes_in() {
    let group = thick_group();
    let volume = group.thick("data", 32);
    let store = kit::metadata_dir(64);
    let (lv, lvextend) = (volume.lv.clone(), Arc::new(Mutex::new(None)));
    let started = Arc::clone(&lvextend);
    let host = common::host(store.path()).observed_by(Arc::new(move |moment| {
        if let Moment::Step(Step::SwapIn { .. }) = moment {
            let lv = lv.clone();
            let racing = thread::spawn(move || run(&format!("lvextend -qq -L +4m {lv}")));
            kit::wait_for("lvextend, to wait or to end", || {
                (racing.is_finished() || somebody_waits_for_a_lock()).then_some(())
            });
            assert!(!racing.is_finished(), "lvextend did not wait for us");
            *started.lock().unwrap() = Some(racing);
        }
    }));
    let record = host.attach(&request(&volume, "lvm", "64Ki")).unwrap().record;
    lvextend.lock().unwrap().take().expect("it was started").join().expect("it succeeds");
    assert!(matches!(host.liveness(&record).unwrap(), Liveness::Reloaded { .. }));
    host.detach(&record.stack).unwrap();
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn while_somebody_holds_lvms_lock_nothing_is_changed() {
    let group = thick_group();
    let scene = Scene::over(group.thick("data", 32));
    let before = scene.volume.table();
    let lock = format!("/run/lock/lvm/V_{}", group.name());
    std::fs::create_dir_all("/run/lock/lvm").unwrap();
    let held = std::fs::File::options().create(true).append(true).open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let error = common::impatient_host(scene.store.path())
        .attach(&request(&scene.volume, "lvm", "64Ki"))
        .unwrap_err();
    assert!(error.is_transient() && error.to_string().contains(&lock), "{error}");
    assert_eq!(scene.volume.table(), before);
    assert_nothing_of_ours(scene.store.path());
    drop(held);
    assert!(scene.attach().unwrap().created);
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_store_on_the_tracked_volume_itself_is_refused() {
    let group = thick_group();
    let scene = Scene::over(group.thick("data", 96));
    let host = common::host(scene.mount.path());
    let refused = host.attach(&request(&scene.volume, "lvm", "64Ki")).unwrap_err();
    assert!(
        matches!(refused, HostError::Refused(Refusal::MetadataOnTrackedVolume { .. })),
        "{refused}"
    );
    assert_eq!(refused.reason(), "MetadataOnTrackedVolume");
    scene.end();
}
