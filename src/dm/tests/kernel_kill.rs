//! Invariant I3, and "whoever kills whichever process at any moment": each operation runs in a
//! child that ends itself with SIGKILL just before its n-th change to the machine, for every n.
//! Nothing is left suspended, the user's writes go on, and the next operation, whichever it is,
//! finishes or undoes what was begun.

mod common;

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use common::mortal::mortal_host;
use common::{assert_none_suspended, assert_nothing_of_ours, number, request};
use eratrack_dm::linux::Kernel;
use eratrack_dm::{Attached, Detached, DeviceMapper, Host, Liveness, Recovery, Slot};
use eratrack_model::Era;
use eratrack_model::record::Record;
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;
use kit::{Disk, Mount, Volume, VolumeGroup, Writer};
use rustix::process::Signal;

const STACK: &str = "kill";
const GRANULARITY: &str = "64Ki";
/// What X's owner has set: a swap resets it.
const READ_AHEAD: &str = "384";
/// No operation makes more changes than this.
const MOST: usize = 100;

/// What a child is told.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Attach,
    Boundary,
    Changes,
    Point,
    Detach,
}

/// Runs in the child: the operation, with an end at its n-th change.
fn be_the_child_if_told(operation: Operation) {
    let Ok(at) = env::var("KILL_AT") else { return };
    let at: usize = at.parse().expect("a number");
    let dir = PathBuf::from(env::var("KILL_DIR").expect("the store's directory"));
    let x: DevNo = env::var("KILL_X").expect("a device").parse().expect("a device number");
    let host = mortal_host(&dir, at);
    perform(&host, operation, x);
    // Not the tests of this binary: the operation came to its end.
    std::process::exit(0);
}

fn perform(host: &Host, operation: Operation, x: DevNo) {
    let stack = STACK.parse().expect("a valid name");
    let record = || match host.recover().expect("recovers").pop().map(|found| found.outcome) {
        Some(Recovery::Adopted(record)) => record,
        other => panic!("nothing to work on: {other:?}"),
    };
    match operation {
        Operation::Attach => {
            drop(host.attach(&common::request_for(x, STACK, GRANULARITY)).unwrap());
        }
        Operation::Boundary => drop(host.boundary(&record()).unwrap()),
        Operation::Changes => drop(host.changes(&record(), Era(1)).unwrap()),
        Operation::Point => {
            let point = host.point_in_time(&record(), None).unwrap();
            host.check_point_in_time(&point).unwrap();
            host.end_point_in_time(point).unwrap();
        }
        Operation::Detach => drop(host.detach(&stack).unwrap()),
    }
}

/// What is on the machine while a test runs.
struct Scene {
    writer: Writer,
    mount: Mount,
    host: Host,
    volume: Volume,
    original: Option<Table>,
    store: Mount,
    _group: VolumeGroup,
}

impl Scene {
    fn new(thin: bool) -> Self {
        let group = VolumeGroup::new([Disk::new(96).into_backing()]);
        let volume = if thin {
            group.thin_pool("pool", 64, 64);
            group.thin("pool", "data", 32)
        } else {
            group.thick("data", 32)
        };
        let store = kit::metadata_dir(64);
        fs::write(read_ahead(&volume), READ_AHEAD).unwrap();
        let mount = Mount::over("ext4", &volume.path, "");
        let writer = Writer::start(mount.path(), 4);
        let (host, original) = (common::host(store.path()), table(&volume, Slot::Live));
        Self { writer, mount, host, volume, original, store, _group: group }
    }

    fn attach(&self) -> Attached {
        self.host.attach(&request(&self.volume, STACK, GRANULARITY)).unwrap()
    }

    fn detach(&self) -> Detached {
        self.host.detach(&STACK.parse().unwrap()).unwrap()
    }

    /// Lets a child of this very test begin; true if it was killed, false if it got to its end.
    fn child_is_killed(&self, test: &str, at: usize) -> bool {
        assert!(at < MOST, "the operation never ends");
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env("KILL_AT", at.to_string())
            .env("KILL_DIR", self.store.path())
            .env("KILL_X", number(&self.volume).to_string())
            .status()
            .unwrap();
        assert_none_suspended();
        self.writer.advance(1);
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(killed || status.success(), "the child failed by itself: {status}");
        killed
    }

    fn assert_as_before(&self) {
        assert_eq!(table(&self.volume, Slot::Live), self.original);
        assert_eq!(table(&self.volume, Slot::Inactive), None);
        self.assert_read_ahead_is_kept();
        assert_none_suspended();
        assert_nothing_of_ours(self.store.path());
        let loops = common::loop_files();
        assert!(!loops.iter().any(|file| file.contains("eratrack")), "{loops:?}");
    }

    fn assert_read_ahead_is_kept(&self) {
        let found = fs::read_to_string(read_ahead(&self.volume)).unwrap();
        assert_eq!(found.trim(), READ_AHEAD);
    }

    fn end(self) {
        self.assert_as_before();
        println!("{} records", self.writer.stop_and_verify().records);
        self.mount.unmount_and_check("ext4");
    }
}

fn read_ahead(volume: &Volume) -> String {
    format!("/sys/dev/block/{}/queue/read_ahead_kb", number(volume))
}

fn table(volume: &Volume, slot: Slot) -> Option<Table> {
    Kernel::open().unwrap().table(number(volume), slot).unwrap()
}

/// What comes after an operation that was killed. A start recovers before anything else; one that
/// is made again within the same process does not.
#[derive(Clone, Copy, Debug)]
struct Next {
    recover: bool,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Attach,
    Detach,
}

impl Next {
    const ALL: [Self; 4] = [
        Self { recover: true, then: Then::Attach },
        Self { recover: false, then: Then::Attach },
        Self { recover: true, then: Then::Detach },
        Self { recover: false, then: Then::Detach },
    ];

    /// At each moment one way with and one without a start, by turns.
    fn at(at: usize) -> [Self; 2] {
        let first = at % 2 * 2;
        [Self::ALL[first], Self::ALL[(first + 3) % 4]]
    }
}

impl Scene {
    /// Whatever comes, X ends with its own table and nothing of ours is left.
    fn goes_on(&self, next: Next, before: Option<&Record>, after: Operation, at: usize) {
        if next.recover {
            for found in self.host.recover().unwrap() {
                self.is_cleared_up(found.outcome, after, at);
            }
        }
        if let Then::Attach = next.then {
            let Attached { record, created, .. } = self.attach();
            assert!(before.is_none_or(|before| created == (record.chain != before.chain)));
            assert_eq!(self.host.liveness(&record).unwrap(), Liveness::Intact);
            self.host.boundary(&record).unwrap();
        }
        self.detach();
        self.assert_as_before();
    }

    /// An attach is finished or undone. A detach is finished, unless its record does not yet say
    /// so: then nothing has happened.
    fn is_cleared_up(&self, outcome: Recovery, after: Operation, at: usize) {
        match (outcome, after) {
            (Recovery::Adopted(record), Operation::Attach) => {
                assert_eq!(self.host.liveness(&record).unwrap(), Liveness::Intact);
                self.host.boundary(&record).unwrap();
            }
            (Recovery::Adopted(_), Operation::Point) => common::assert_no_point_in_time(),
            (Recovery::Adopted(_), Operation::Detach) => assert_eq!(at, 0),
            (Recovery::Undone | Recovery::OrphansRemoved, Operation::Attach)
            | (Recovery::Finished, Operation::Detach) => self.assert_as_before(),
            other => panic!("{other:?}"),
        }
    }

    /// Each moment of an operation, with each of two ways on.
    fn killed_anywhere(
        &self,
        test: &str,
        operation: Operation,
        prepare: impl Fn() -> Option<Record>,
    ) {
        for at in 0.. {
            for next in Next::at(at) {
                let before = prepare();
                if !self.child_is_killed(test, at) {
                    println!("{operation:?} changes the machine {at} times");
                    assert!(at > 5, "too few moments to be all");
                    self.detach();
                    return;
                }
                self.goes_on(next, before.as_ref(), operation, at);
            }
        }
    }
}

fn attach_killed(test: &str, thin: bool) {
    be_the_child_if_told(Operation::Attach);
    let scene = Scene::new(thin);
    scene.killed_anywhere(test, Operation::Attach, || None);
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn an_attach_killed_anywhere_is_finished_or_undone() {
    attach_killed("an_attach_killed_anywhere_is_finished_or_undone", false);
}

#[test]
#[ignore = "kernel tier"]
fn an_attach_of_a_thin_volume_killed_anywhere_is_finished_or_undone() {
    attach_killed("an_attach_of_a_thin_volume_killed_anywhere_is_finished_or_undone", true);
}

fn detach_killed(test: &str, thin: bool) {
    be_the_child_if_told(Operation::Detach);
    let scene = Scene::new(thin);
    scene.killed_anywhere(test, Operation::Detach, || Some(scene.attach().record));
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_detach_killed_anywhere_is_finished() {
    detach_killed("a_detach_killed_anywhere_is_finished", false);
}

#[test]
#[ignore = "kernel tier"]
fn a_detach_of_a_thin_volume_killed_anywhere_is_finished() {
    detach_killed("a_detach_of_a_thin_volume_killed_anywhere_is_finished", true);
}

/// The chain survives whatever moment of a boundary or a read the process is killed at.
fn chain_survives(test: &str, operation: Operation, thin: bool) {
    be_the_child_if_told(operation);
    let scene = Scene::new(thin);
    let record = scene.attach().record;
    let base = scene.host.boundary(&record).unwrap();
    for at in 0.. {
        let killed = scene.child_is_killed(test, at);
        let found = scene.host.recover().unwrap();
        assert!(
            matches!(&found[..], [one] if one.outcome == Recovery::Adopted(record.clone())),
            "{found:?}"
        );
        assert_eq!(table(&scene.volume, Slot::Inactive), None);
        common::assert_no_point_in_time();
        scene.assert_read_ahead_is_kept();
        let again = scene.host.boundary(&record).unwrap();
        assert!(again.era > base.era);
        assert!(!scene.host.changes(&record, base.era).unwrap().runs.is_empty());
        if !killed {
            println!("{operation:?} changes the machine {at} times");
            assert!(at > 1, "too few moments to be all");
            break;
        }
    }
    assert_eq!(scene.detach(), Detached::Restored);
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_boundary_killed_anywhere_keeps_the_chain() {
    chain_survives("a_boundary_killed_anywhere_keeps_the_chain", Operation::Boundary, false);
}

#[test]
#[ignore = "kernel tier"]
fn a_point_in_time_killed_anywhere_keeps_the_chain() {
    chain_survives("a_point_in_time_killed_anywhere_keeps_the_chain", Operation::Point, false);
}

#[test]
#[ignore = "kernel tier"]
fn whatever_comes_after_a_killed_point_in_time_of_a_thin_volume_ends_it() {
    const TEST: &str = "whatever_comes_after_a_killed_point_in_time_of_a_thin_volume_ends_it";
    be_the_child_if_told(Operation::Point);
    let scene = Scene::new(true);
    scene.killed_anywhere(TEST, Operation::Point, || Some(scene.attach().record));
    scene.end();
}

#[test]
#[ignore = "kernel tier"]
fn a_read_killed_anywhere_keeps_the_chain() {
    chain_survives("a_read_killed_anywhere_keeps_the_chain", Operation::Changes, false);
}

#[test]
#[ignore = "kernel tier"]
fn a_boundary_of_a_thin_volume_killed_anywhere_keeps_the_chain() {
    const TEST: &str = "a_boundary_of_a_thin_volume_killed_anywhere_keeps_the_chain";
    chain_survives(TEST, Operation::Boundary, true);
}
