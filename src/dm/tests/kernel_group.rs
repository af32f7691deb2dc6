//! A boundary over several volumes is one instant for all of them; and whoever is killed meanwhile, the one that asked or
//! the one that holds them, none is left suspended, and no write of an application fails.

mod common;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::mortal::mortal_host;
use common::promise::{Promises, record_at};
use common::{Scratch, assert_no_point_in_time, assert_none_suspended, assert_nothing_of_ours};
use common::{listed, number, request};
use eratrack_dm::hold::HoldError;
use eratrack_dm::linux::{HelperProcess, serve};
use eratrack_dm::{Detached, Host, HostError, Joined, Joining, PointInTime, Recovery};
use eratrack_model::Era;
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;
use kit::{Disk, Mount, Volume, VolumeGroup};
use rustix::process::{Signal, getpid, getppid, kill_process};

const MIB: u64 = 32;
const PAGES: u64 = MIB << 8;
/// So that each page that the application writes is a block of its own.
const GRANULARITY: &str = "4Ki";
const COPIES: Bytes = Bytes(16 << 20);
/// No group has more moments than this.
const MOST: usize = 200;
/// In which test of this program the helper is.
const HELPER: &str = "the_helper_heeds_no_request_to_end";
/// What X's owner has set: a swap resets it.
const READ_AHEAD: &str = "384";

/// What befalls the helper at its n-th moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Nothing,
    /// It is killed.
    Killed(usize),
    /// It is asked to end.
    Asked(usize),
    /// Who started it is killed.
    Orphaned(usize),
}

impl Fate {
    fn to_text(self) -> String {
        match self {
            Self::Nothing => "nothing 0".to_owned(),
            Self::Killed(at) => format!("killed {at}"),
            Self::Asked(at) => format!("asked {at}"),
            Self::Orphaned(at) => format!("orphaned {at}"),
        }
    }

    fn helper(self) -> HelperProcess {
        let arguments = ["--exact", HELPER, "--ignored", "--nocapture", "--test-threads=1"];
        HelperProcess::new(env::current_exe().unwrap(), arguments)
            .with_variable("GROUP_FATE", self.to_text())
    }
}

/// Runs in the helper.
fn be_the_helper_if_told() {
    let Ok(fate) = env::var("GROUP_FATE") else { return };
    let (what, at) = fate.split_once(' ').expect("two words");
    let (at, count) = (at.parse::<usize>().expect("a number"), AtomicUsize::new(0));
    let watcher = |_: &'static str| {
        if count.fetch_add(1, Ordering::Relaxed) != at {
            return;
        }
        match what {
            "killed" => kill_process(getpid(), Signal::KILL).unwrap(),
            "asked" => [Signal::TERM, Signal::INT, Signal::HUP]
                .into_iter()
                .for_each(|signal| kill_process(getpid(), signal).unwrap()),
            "orphaned" => kill_process(getppid().unwrap(), Signal::KILL).unwrap(),
            _ => {}
        }
    };
    serve(&watcher).unwrap();
    std::process::exit(0);
}

/// Three volumes, and an application over them.
struct Scene {
    promises: Promises,
    records: Vec<Record>,
    volumes: Vec<Volume>,
    store: Mount,
    _group: VolumeGroup,
}

impl Scene {
    fn new(thin: bool, pages: u64) -> Self {
        let group = VolumeGroup::new([Disk::new(4 * MIB + 96).into_backing()]);
        let volume = |name| {
            if thin { group.thin("pool", name, MIB) } else { group.thick(name, MIB) }
        };
        if thin {
            group.thin_pool("pool", 4 * MIB, 64);
        }
        let volumes: Vec<_> = ["a", "b", "c"].into_iter().map(volume).collect();
        let store = kit::metadata_dir(256);
        let host = common::host(store.path());
        let attach = |volume: &Volume| {
            fs::write(read_ahead(volume), READ_AHEAD).unwrap();
            let stack = volume.lv.replace('/', "-");
            host.attach(&request(volume, &stack, GRANULARITY)).unwrap().record
        };
        let records = volumes.iter().map(attach).collect();
        let promises = Promises::start(&volumes, pages);
        promises.advance(5);
        Self { promises, records, volumes, store, _group: group }
    }

    fn host(&self, fate: Fate) -> Host {
        common::host(self.store.path()).with_holder(Arc::new(fate.helper()))
    }

    fn joining(&self, local: bool) -> Vec<Joining> {
        joining(&self.records, local)
    }

    /// Everything of the group is as if it had not been, and the application goes on.
    fn assert_unharmed(&self) {
        assert_none_suspended();
        self.promises.advance(3);
        for volume in &self.volumes {
            let (major, minor) = volume.number();
            let inactive = kit::run(&format!("dmsetup table --inactive -j {major} -m {minor}"));
            assert_eq!(inactive.trim(), "", "a table is left in the slot of {}", volume.dm_name);
            let found = fs::read_to_string(read_ahead(volume)).unwrap();
            assert_eq!(found.trim(), READ_AHEAD);
        }
    }

    fn end(self) {
        let host = common::host(self.store.path());
        assert_no_point_in_time();
        assert_none_suspended();
        println!("{} records", self.promises.stop());
        for record in &self.records {
            assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
        }
        assert_nothing_of_ours(self.store.path());
        let left = fs::read_dir("/run/eratrack").map_or(0, Iterator::count);
        assert_eq!(left, 0, "locks are left");
    }
}

fn joining(records: &[Record], local: bool) -> Vec<Joining> {
    let point = local.then_some(Some(COPIES));
    records.iter().map(|record| Joining { record: record.clone(), point }).collect()
}

fn read_ahead(volume: &Volume) -> PathBuf {
    format!("/sys/dev/block/{}/queue/read_ahead_kb", number(volume)).into()
}

fn points(joined: Vec<Joined>) -> Vec<PointInTime> {
    let point = |joined| match joined {
        Joined::Point(point) => *point,
        Joined::Boundary(boundary) => panic!("a boundary alone: {boundary:?}"),
    };
    joined.into_iter().map(point).collect()
}

fn eras(joined: &[Joined]) -> Vec<Era> {
    let era = |joined: &Joined| match joined {
        Joined::Boundary(boundary) => boundary.era,
        Joined::Point(point) => point.boundary.era,
    };
    joined.iter().map(era).collect()
}

/// What each volume's point in time has of the application's last record.
fn last_records(host: &Host, points: Vec<PointInTime>) -> Vec<u64> {
    let read =
        |point: &PointInTime| record_at(Path::new(&format!("/dev/dm-{}", point.device.minor)), 0);
    let records = points.iter().map(read).collect();
    for point in points {
        host.check_point_in_time(&point).unwrap();
        host.end_point_in_time(point).unwrap();
    }
    records
}

/// Whether no volume has a record that the one before it was not promised first.
fn in_order(records: &[u64]) -> bool {
    records.windows(2).all(|pair| pair[0] >= pair[1])
}

fn points_of_a_group_are_one_instant(thin: bool) {
    // One page, overwritten: it says which record was the last.
    let scene = Scene::new(thin, 1);
    let host = scene.host(Fate::Nothing);
    let mut seen = Vec::new();
    for _ in 0..12 {
        scene.promises.advance(20);
        let joined = host.boundary_together(&scene.joining(true)).unwrap();
        scene.promises.advance(20);
        let records = last_records(&host, points(joined));
        assert!(in_order(&records), "a record that was not promised: {records:?}");
        assert!(records[0] - records[2] <= 1, "there is one record at a time: {records:?}");
        seen.push(records);
    }
    println!("thin: {thin}, {seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0][0] < pair[1][0]), "the application went on");
    scene.assert_unharmed();
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn points_in_time_of_a_group_of_thick_volumes_are_one_instant() {
    points_of_a_group_are_one_instant(false);
}

#[test]
#[ignore = "kernel tier"]
fn points_in_time_of_a_group_of_thin_volumes_are_one_instant() {
    points_of_a_group_are_one_instant(true);
}

/// What the test above looks for is there to be found.
#[test]
#[ignore = "kernel tier"]
fn points_in_time_without_a_group_are_not_one_instant() {
    let scene = Scene::new(false, 1);
    let host = scene.host(Fate::Nothing);
    let one_by_one = || {
        let begin = |record| host.point_in_time(record, Some(COPIES)).unwrap();
        let points = scene.records.iter().map(begin).collect();
        last_records(&host, points)
    };
    let found = (0..20).map(|_| one_by_one()).find(|records| !in_order(records));
    println!("{found:?}");
    assert!(found.is_some(), "the check cannot fail");
    scene.end();
}

/// The blocks that each volume's list has since a boundary.
fn lists(host: &Host, records: &[Record], eras: &[Era]) -> Vec<BTreeSet<u64>> {
    let list = |(record, era): (&Record, &Era)| listed(&host.changes(record, *era).unwrap());
    let mut lists: Vec<BTreeSet<u64>> = records.iter().zip(eras).map(list).collect();
    // It is written again and again once the volume is full.
    for list in &mut lists {
        list.remove(&0);
    }
    lists
}

/// What was promised after the boundary was also done after it.
fn promised_first(lists: &[BTreeSet<u64>]) -> bool {
    lists.windows(2).all(|pair| pair[0].is_subset(&pair[1]))
}

/// The application stops, so that what each list has is compared at rest; the lists since, and how many records.
fn lists_across(
    scene: Scene,
    boundary: impl Fn(&Host, &Scene) -> Vec<Era>,
) -> (Vec<BTreeSet<u64>>, u64) {
    let host = scene.host(Fate::Nothing);
    scene.promises.advance(50);
    let eras = boundary(&host, &scene);
    scene.promises.advance(50);
    let Scene { promises, records, store, _group, volumes: _ } = scene;
    let written = promises.stop();
    assert!(written < PAGES, "the volumes were full before the boundary");
    let lists = lists(&host, &records, &eras);
    for record in &records {
        assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    }
    assert_nothing_of_ours(store.path());
    (lists, written)
}

#[test]
#[ignore = "kernel tier"]
fn lists_of_a_group_tell_one_instant() {
    for _ in 0..5 {
        let (lists, written) = lists_across(Scene::new(false, PAGES), |host, scene| {
            eras(&host.boundary_together(&scene.joining(false)).unwrap())
        });
        let sizes: Vec<_> = lists.iter().map(BTreeSet::len).collect();
        println!("{written} records, listed since: {sizes:?}");
        assert!(promised_first(&lists), "promised after the boundary, and done before: {sizes:?}");
        assert!(sizes[0] >= 50 && sizes[2] - sizes[0] <= 1, "{sizes:?}");
    }
}

/// What the test above looks for is there to be found.
#[test]
#[ignore = "kernel tier"]
fn lists_without_a_group_do_not_tell_one_instant() {
    let one_by_one = |host: &Host, scene: &Scene| -> Vec<Era> {
        scene.records.iter().map(|record| host.boundary(record).unwrap().era).collect()
    };
    let found =
        (0..5).any(|_| !promised_first(&lists_across(Scene::new(false, PAGES), one_by_one).0));
    assert!(found, "the check cannot fail");
}

#[test]
#[ignore = "kernel tier"]
fn a_helper_that_is_killed_anywhere_leaves_nothing_suspended() {
    let scene = Scene::new(false, 1);
    for local in [false, true] {
        let mut killed = 0;
        for at in 0..MOST {
            let host = scene.host(Fate::Killed(at));
            let drawn = host.boundary_together(&scene.joining(local));
            scene.assert_unharmed();
            match drawn {
                Ok(joined) => {
                    if local {
                        last_records(&host, points(joined));
                    }
                    break;
                }
                Err(error) => {
                    let lost = matches!(*error.source, HostError::Hold(HoldError::Lost));
                    assert!(lost && error.source.is_transient(), "{error:?}");
                    assert_no_point_in_time();
                    killed += 1;
                }
            }
        }
        println!("local: {local}, killed {killed} times");
        assert_eq!(killed, 9, "three volumes, suspended, checkpointed, resumed");
    }
    // The chain has gone through all of it.
    let host = scene.host(Fate::Nothing);
    for record in &scene.records {
        assert!(matches!(host.recover_stack(&record.stack), Recovery::Adopted(_)));
    }
    scene.end();
}

/// Runs in a child: a group whose caller ends at its n-th change, or when its helper says so.
fn be_the_caller_if_told() {
    let Ok(dir) = env::var("GROUP_DIR") else { return };
    let at = env::var("GROUP_AT").unwrap().parse().unwrap();
    let fate = match env::var("GROUP_ORPHAN_AT").unwrap().parse::<usize>() {
        Ok(at) => Fate::Orphaned(at),
        Err(_) => Fate::Nothing,
    };
    let local = env::var("GROUP_LOCAL").unwrap() == "true";
    let healthy = common::host(Path::new(&dir));
    let found = healthy.recover().unwrap().into_iter().map(|it| match it.outcome {
        Recovery::Adopted(record) => record,
        other => panic!("nothing to work on: {other:?}"),
    });
    let records: Vec<_> = found.collect();
    let host = mortal_host(Path::new(&dir), at).with_holder(Arc::new(fate.helper()));
    for joined in host.boundary_together(&joining(&records, local)).unwrap() {
        if let Joined::Point(point) = joined {
            host.end_point_in_time(*point).unwrap();
        }
    }
    std::process::exit(0);
}

impl Scene {
    /// True if the caller was killed, false if it came to its end.
    fn caller_is_killed(&self, test: &str, at: usize, orphan_at: &str, local: bool) -> bool {
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env("GROUP_DIR", self.store.path())
            .env("GROUP_AT", at.to_string())
            .env("GROUP_ORPHAN_AT", orphan_at)
            .env("GROUP_LOCAL", local.to_string())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(killed || status.success(), "the child failed by itself: {status}");
        killed
    }

    /// As the next start does.
    fn recover(&self) {
        let host = common::host(self.store.path());
        for found in host.recover().unwrap() {
            assert!(matches!(found.outcome, Recovery::Adopted(_)), "{:?}", found.outcome);
        }
        assert_no_point_in_time();
        self.assert_unharmed();
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_caller_that_is_killed_before_any_change_leaves_nothing_suspended() {
    be_the_caller_if_told();
    let test = "a_caller_that_is_killed_before_any_change_leaves_nothing_suspended";
    let scene = Scene::new(false, 1);
    for local in [false, true] {
        let killed = (0..MOST).take_while(|at| {
            let killed = scene.caller_is_killed(test, *at, "never", local);
            // Before anybody has cleared up: by itself.
            kit::wait_for("the helper, if there is one, has ended", || {
                common::none_suspended().then_some(())
            });
            scene.recover();
            killed
        });
        let killed = killed.count();
        println!("local: {local}, killed {killed} times");
        assert!(killed >= if local { 20 } else { 5 });
    }
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn the_helper_resumes_all_when_its_caller_is_killed() {
    be_the_caller_if_told();
    let test = "the_helper_resumes_all_when_its_caller_is_killed";
    let scene = Scene::new(false, 1);
    for local in [false, true] {
        for at in 0..9 {
            assert!(scene.caller_is_killed(test, MOST * 10, &at.to_string(), local));
            kit::wait_for("the helper resumes all", || common::none_suspended().then_some(()));
            scene.promises.advance(3);
            scene.recover();
        }
    }
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn the_helper_heeds_no_request_to_end() {
    be_the_helper_if_told();
    let scene = Scene::new(false, 1);
    for at in 0..9 {
        let host = scene.host(Fate::Asked(at));
        host.boundary_together(&scene.joining(false)).unwrap();
        scene.assert_unharmed();
    }
    scene.end();
}

/// One volume's writes take two seconds; the others of its group wait for it no longer than the deadline.
#[test]
#[ignore = "kernel tier"]
fn a_group_that_is_not_still_in_time_goes_on_as_it_was() {
    let slow = Scratch::new(32, Duration::from_secs(2));
    let scene = Scene::new(false, 1);
    let deadline = Duration::from_millis(300);
    let host = scene.host(Fate::Nothing).with_hold_deadline(deadline);
    let record = host.attach(&request(&slow.volume, "slow", GRANULARITY)).unwrap().record;
    let writes = Promises::start(std::slice::from_ref(&slow.volume), 1);
    writes.advance(1);
    for local in [false, true] {
        let mut all = scene.joining(local);
        all.push(joining(std::slice::from_ref(&record), local).remove(0));
        let start = Instant::now();
        // Making ready may outlast the write that was in flight.
        let mut attempts = 0..10;
        let error = loop {
            attempts.next().expect("it is never late");
            kit::wait_for("a write in flight", || (slow.in_flight() > 0).then_some(()));
            match host.boundary_together(&all) {
                Err(error) => break error,
                Ok(joined) if local => {
                    for point in points(joined) {
                        host.end_point_in_time(point).unwrap();
                    }
                }
                Ok(_) => {}
            }
        };
        let late =
            matches!(*error.source, HostError::Hold(HoldError::Late { waiting: 1, of: 4, .. }));
        assert!(late && error.source.reason() == "BoundaryTimeout", "{error:?}");
        println!("local: {local}, {:?}: {error}", start.elapsed());
        assert_no_point_in_time();
        scene.assert_unharmed();
    }
    // With time enough it works.
    let patient = scene.host(Fate::Nothing);
    let mut all = scene.joining(false);
    all.push(Joining { record: record.clone(), point: None });
    assert_eq!(patient.boundary_together(&all).unwrap().len(), 4);
    writes.stop();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    scene.end();
}

/// What is wrong with one is said of that one, and the others have no boundary either.
#[test]
#[ignore = "kernel tier"]
fn a_group_with_a_volume_that_was_reloaded_is_refused_by_that_volume() {
    let scene = Scene::new(false, 1);
    let host = scene.host(Fate::Nothing);
    let before = eras(&host.boundary_together(&scene.joining(false)).unwrap());
    kit::run(&format!("lvchange --refresh {}", scene.volumes[1].lv));
    let error = host.boundary_together(&scene.joining(true)).unwrap_err();
    assert_eq!(error.member, Some(1), "{error:?}");
    assert!(matches!(*error.source, HostError::NotIntact { .. }), "{error:?}");
    assert_none_suspended();
    assert_no_point_in_time();
    let host = common::host(scene.store.path());
    let after = host.boundary(&scene.records[0]).unwrap().era;
    assert_eq!(after, Era(before[0].0 + 1), "nothing was begun on the others");
    assert_eq!(host.detach(&scene.records[1].stack).unwrap(), Detached::RemainsRemoved);
    let Scene { promises, records, store, _group, volumes: _ } = scene;
    promises.stop();
    for record in [&records[0], &records[2]] {
        assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    }
    assert_nothing_of_ours(store.path());
}
