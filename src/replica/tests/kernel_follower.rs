//! A device that follows another: whoever else writes to it is noticed, and a process that is gone after any piece leaves
//! what the next one goes on from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use eratrack_dm::linux::Kernel;
use eratrack_dm::machine::Machine;
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{AttachRequest, Host, HostConfig};
use eratrack_model::record::{Keeper, Record};
use eratrack_model::units::DevNo;
use eratrack_replica::{
    Follower, Label, Manner, Point, Progress, ReplicaError, Start, TargetError, Watch, Why,
};
use kit::{Content, Disk, Mount, Volume, VolumeGroup, run};

const MIB: u64 = 24;

struct Scene {
    host: Host,
    record: Record,
    store: Mount,
    source: Volume,
    target: Volume,
    group: VolumeGroup,
}

/// Fails once so many pieces are done: as if the process had been killed there, for all that is known afterwards is on
/// the disks.
struct Mortal<'a> {
    pieces: usize,
    check: &'a dyn Fn() -> Result<(), ReplicaError>,
}

impl Watch for Mortal<'_> {
    fn progress(&mut self, _: Progress) {
        self.pieces = self.pieces.saturating_sub(1);
        // The caller looks after each piece; here it dies instead.
        if self.pieces == 0 {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }

    fn check(&mut self) -> Result<(), ReplicaError> {
        (self.check)()
    }
}

fn number(volume: &Volume) -> DevNo {
    let (major, minor) = volume.number();
    DevNo { major, minor }
}

impl Scene {
    fn new() -> Self {
        let group = VolumeGroup::new([Disk::new(128).into_backing()]);
        let (source, target) = (group.thick("data", MIB), group.thick("copy", MIB));
        let store = kit::metadata_dir(128);
        let dm = Arc::new(Kernel::open().expect("device mapper is there"));
        let dir = store.path().join("eratrack");
        let host = Host::new(HostConfig {
            root: "/".into(),
            dm,
            store: StoreConfig { per_node_percent: 100, ..StoreConfig::new(&dir) },
            nodes: "/dev".into(),
            lock_deadline: Duration::from_secs(10),
            keeper: Keeper::Agent,
        });
        let request = AttachRequest::new(
            "data".parse().expect("a name"),
            number(&source),
            "64Ki".parse().expect("a size"),
        );
        let record = host.attach(&request).expect("attached").record;
        Self { host, record, store, source, target, group }
    }

    fn path(&self, volume: &str) -> PathBuf {
        PathBuf::from(format!("/dev/{}/{volume}", self.group.name()))
    }

    fn put(&self, volume: &str, at_kib: u64, kib: u64) {
        let to = self.path(volume);
        let to = to.display();
        run(&format!(
            "dd if=/dev/urandom of={to} bs=4k seek={} count={} oflag=direct conv=notrunc",
            at_kib / 4,
            kib / 4
        ));
    }

    fn open(&self) -> Result<Follower, ReplicaError> {
        let device = number(&self.target);
        let file = self.host.open_target(device)?.expect("nobody has it open");
        let table = self.host.live_table(device)?.map(|table| table.to_string());
        let (machine, name) = (Machine::new("/"), Path::new("persistentvolume/copy"));
        let dir = self.store.path().join("eratrack");
        Follower::of_device(&machine, &dir, self.record.clone(), (name, device, file), table)
    }

    /// One step of what the agent does, which dies after so many pieces; true once the target equals a point in time.
    fn step(&self, pieces: usize, verify: bool) -> bool {
        let mut follower = self.open().expect("it opens");
        let stop = AtomicBool::new(false);
        let manner = Manner { stop: &stop, max_rate: None, verify };
        if let Start::Full(_) = follower.start() {
            let boundary = self.host.boundary(&self.record).expect("a boundary");
            follower.begin(boundary.era).expect("begun");
        }
        if !follower.is_seeded() {
            let source = self.host.open_tracked(&self.record).expect("it opens");
            let mut watch = Mortal { pieces, check: &|| Ok(()) };
            dies(|| follower.seed(&source, manner, &mut watch).map(drop));
            return false;
        }
        let (Start::Resume { since, .. } | Start::Changed { since }) = *follower.start() else {
            panic!("{:?}", follower.start());
        };
        let point = self.host.point_in_time(&self.record, None).expect("a point in time");
        let changes = self.host.changes(&self.record, since).expect("a list");
        let device = self.host.open_point_in_time(&point).expect("it opens");
        let label = Some(Label { name: "s".into(), uid: "u".into() });
        let (era, time) = (point.boundary.era, 1);
        let what = Point { device: &device, era, time, label, changes: &changes.runs };
        let check = || Ok(self.host.check_point_in_time(&point)?);
        let mut watch = Mortal { pieces, check: &check };
        let died = dies(|| follower.copy(&what, manner, &mut watch).map(drop));
        drop((device, follower));
        self.host.end_point_in_time(point).expect("it ends");
        !died
    }

    fn start(&self) -> Start {
        self.open().expect("it opens").start().clone()
    }

    fn follow(&self) {
        for _ in 0..4 {
            if self.step(usize::MAX, true) {
                return self.is_equal();
            }
        }
        panic!("it never equals anything");
    }

    #[track_caller]
    fn is_equal(&self) {
        let (data, copy) = (Content::of(&self.path("data")), Content::of(&self.path("copy")));
        assert!(data == copy, "the replica differs");
    }
}

/// Whether it died on the way; what fails otherwise fails the test.
fn dies(act: impl FnOnce() -> Result<(), ReplicaError>) -> bool {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)) {
        Ok(done) => {
            done.expect("nothing is wrong");
            false
        }
        Err(_) => true,
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_process_that_is_gone_after_any_piece_leaves_what_the_next_goes_on_from() {
    let scene = Scene::new();
    scene.put("data", 0, MIB << 10);
    let mut deaths = 0;
    // Of the full copy, in pieces of 4 MiB.
    for pieces in 1..=(MIB / 4) as usize {
        assert!(!scene.step(pieces, false));
        assert!(matches!(scene.start(), Start::Resume { .. }), "{:?}", scene.start());
        deaths += 1;
    }
    scene.follow();
    // And of rounds, of six pieces each.
    for round in 0..3_u64 {
        for pieces in 1..=6 {
            for place in 0..6 {
                scene.put("data", place * 4096 + 64 * (round * 6 + pieces), 64);
            }
            let killed = !scene.step(usize::try_from(pieces).expect("few"), false);
            assert!(matches!(scene.start(), Start::Changed { .. }), "{:?}", scene.start());
            deaths += usize::from(killed);
        }
        scene.follow();
    }
    assert!(deaths > 20, "only {deaths}");
}

#[test]
#[ignore = "kernel tier"]
fn whoever_else_writes_to_the_target_has_everything_copied_again() {
    let scene = Scene::new();
    scene.put("data", 1024, 512);
    scene.follow();
    assert!(matches!(scene.start(), Start::Changed { .. }));
    let copy = scene.path("copy");
    let copy = copy.display();
    let writes = [
        format!("dd if=/dev/zero of={copy} bs=512 count=1 seek=777 oflag=direct conv=notrunc"),
        format!("blkdiscard --force --zeroout --offset 1048576 --length 65536 {copy}"),
        format!("dd if=/dev/zero of={copy} bs=4k count=1 seek=77 conv=notrunc,fsync"),
    ];
    for write in writes {
        run(&write);
        assert_eq!(scene.start(), Start::Full(Why::Written), "{write}");
        scene.follow();
        assert!(matches!(scene.start(), Start::Changed { .. }), "after {write}");
    }
    // Reading is no offence.
    run(&format!("dd if={copy} of=/dev/null bs=1M"));
    assert!(matches!(scene.start(), Start::Changed { .. }));
    // A table that was loaded anew may lead anywhere.
    run(&format!("lvextend --size +4M {}/copy", scene.group.name()));
    let refused = scene.open().map(|it| it.start().clone());
    assert!(matches!(refused, Ok(Start::Full(Why::Unproven))), "{refused:?}");
}

#[test]
#[ignore = "kernel tier"]
fn what_is_somebody_elses_is_refused_and_left_as_it_is() {
    let scene = Scene::new();
    scene.put("copy", 0, 64);
    let before = Content::of(&scene.path("copy"));
    let refused = scene.open().map(drop).unwrap_err();
    let not_empty = matches!(refused, ReplicaError::Target(TargetError::NotEmpty { .. }));
    assert!(not_empty, "{refused}");
    assert!(Content::of(&scene.path("copy")) == before);
    let device = number(&scene.target);
    run(&format!("mkfs.ext4 -q {}", scene.path("copy").display()));
    let mount = Mount::over("ext4", &scene.path("copy"), "");
    assert!(scene.host.open_target(device).expect("it is looked at").is_none(), "mounted");
    drop(mount);
    let open = std::fs::File::open(scene.path("copy")).expect("it opens");
    assert!(scene.host.open_target(device).expect("it is looked at").is_none(), "open");
    drop(open);
    assert!(scene.host.open_target(device).expect("it is looked at").is_some());
    let source = number(&scene.source);
    let file = scene.host.open_target(source).expect("it is looked at").expect("nobody has it");
    let (machine, dir) = (Machine::new("/"), scene.store.path().join("eratrack"));
    let itself = (Path::new("persistentvolume/data"), source, file);
    let refused = Follower::of_device(&machine, &dir, scene.record.clone(), itself, None);
    let is_source = matches!(refused, Err(ReplicaError::Target(TargetError::IsSource { .. })));
    assert!(is_source, "{refused:?}");
}
