//! Whoever kills an attach or a detach at any moment: no area, volume or file is left behind, and
//! none is taken away while era uses it. Each runs in a child that ends itself with SIGKILL just
//! before its n-th change to the machine, for every n; whatever comes next finishes or undoes it.

mod common;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::mortal::mortal_administrators_host;
use common::{Scratch, assert_none_suspended, assert_nothing_of_ours, number, request_for};
use eratrack_dm::{AttachRequest, Detached, Host, Liveness, Recovery};
use eratrack_model::names::StackId;
use eratrack_model::place::MetadataRequest;
use kit::{Disk, VolumeGroup, wait_for};
use rustix::process::Signal;

const STACK: &str = "kill";
/// No operation makes more changes than this.
const MOST: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Attach,
    Detach,
}

fn stack() -> StackId {
    STACK.parse().unwrap()
}

/// Runs in the child: the operation, with an end at its n-th change.
fn be_the_child_if_told(operation: Operation) {
    let Ok(at) = env::var("KILL_AT") else { return };
    let told = |name: &str| env::var(name).expect("the child is told");
    let host = mortal_administrators_host(Path::new(&told("KILL_DIR")), at.parse().unwrap());
    match operation {
        Operation::Attach => {
            let mut request = request_for(told("KILL_X").parse().unwrap(), STACK, "64Ki");
            request.metadata = told("KILL_METADATA").parse().unwrap();
            drop(host.attach(&request).unwrap());
        }
        Operation::Detach => drop(host.detach(&stack()).unwrap()),
    }
    // Not the tests of this binary: the operation came to its end.
    std::process::exit(0);
}

/// A device, a place for its metadata, and how to tell that the place is empty.
struct Scene {
    scratch: Scratch,
    store: kit::Mount,
    host: Host,
    place: MetadataRequest,
    table: String,
    pool: Disk,
    group: VolumeGroup,
    dir: kit::Dir,
}

impl Scene {
    fn new(choose: impl FnOnce(&Disk, &VolumeGroup, &Path) -> MetadataRequest) -> Self {
        let (scratch, store) = (Scratch::new(32, Duration::ZERO), kit::metadata_dir(32));
        let host = common::administrators_host(store.path());
        let (pool, group) = (Disk::new(16), VolumeGroup::new([Disk::new(32).into_backing()]));
        host.init_pool(pool.device(), None).unwrap();
        let (dir, table) = (kit::Dir::new("files"), scratch.volume.table());
        let place = choose(&pool, &group, store.path());
        Self { scratch, store, host, place, table, pool, group, dir }
    }

    fn in_pool() -> Self {
        Self::new(|pool, _, _| MetadataRequest::Pool(pool.device().to_owned()))
    }

    fn in_volume() -> Self {
        Self::new(|_, group, _| format!("lv:{}", group.name()).parse().unwrap())
    }

    fn in_file() -> Self {
        Self::new(|_, _, store| MetadataRequest::File(store.join("kill.era")))
    }

    fn request(&self) -> AttachRequest {
        let mut request = request_for(number(&self.scratch.volume), STACK, "64Ki");
        request.metadata = self.place.clone();
        request
    }

    fn child(&self, test: &str, at: usize) -> Command {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
        child.env("KILL_AT", at.to_string()).env("KILL_DIR", self.store.path());
        child.env("KILL_X", number(&self.scratch.volume).to_string());
        child.env("KILL_METADATA", self.place.to_string());
        child
    }

    /// True if the child was killed, false if it got to its end.
    fn child_is_killed(&self, test: &str, at: usize) -> bool {
        assert!(at < MOST, "the operation never ends");
        let status = self.child(test, at).status().unwrap();
        assert_none_suspended();
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(killed || status.success(), "the child failed by itself: {status}");
        killed
    }

    fn assert_as_before(&self) {
        assert_eq!(self.scratch.volume.table(), self.table);
        assert_nothing_of_ours(self.store.path());
        let pool = self.host.pool(self.pool.device()).unwrap();
        assert!(pool.areas.is_empty() && pool.findings.is_empty(), "{pool:?}");
        let volumes = kit::run(&format!("lvs --noheadings {}", self.group.name()));
        assert_eq!(volumes.trim(), "");
        let files = fs::read_dir(self.store.path()).unwrap().map(|file| file.unwrap().file_name());
        let files: Vec<_> = files.filter(|name| name != "lost+found").collect();
        assert!(files.iter().all(|name| name == "eratrack"), "{files:?}");
        let loops = common::loop_files();
        assert!(!loops.iter().any(|file| file.contains("era")), "{loops:?}");
    }

    /// Whatever comes, X ends with its own table and nothing of ours is left: with a start or
    /// without, with an attach or a detach.
    fn goes_on(&self, at: usize, after: Operation) {
        if at % 4 < 2 {
            for found in self.host.recover().unwrap() {
                match (found.outcome, after) {
                    (Recovery::Adopted(record), _) => {
                        assert!(at == 0 || after == Operation::Attach);
                        self.host.boundary(&record).unwrap();
                    }
                    (Recovery::Undone | Recovery::OrphansRemoved, Operation::Attach)
                    | (Recovery::Finished, Operation::Detach) => self.assert_as_before(),
                    other => panic!("{other:?}"),
                }
            }
        }
        if at.is_multiple_of(2) {
            let record = self.host.attach(&self.request()).unwrap().record;
            assert_eq!(self.host.liveness(&record).unwrap(), Liveness::Intact);
            self.host.boundary(&record).unwrap();
        }
        self.host.detach(&stack()).unwrap();
        self.assert_as_before();
    }

    fn killed_anywhere(&self, test: &str, operation: Operation) {
        // Each moment twice, with another way on.
        for count in 0.. {
            let (at, way) = (count / 2, count / 2 + count % 2 * 3);
            if operation == Operation::Detach {
                self.host.attach(&self.request()).unwrap();
            }
            if !self.child_is_killed(test, at) {
                println!("{operation:?} with {} changes the machine {at} times", self.place);
                assert!(at > 5, "too few moments to be all");
                self.host.detach(&stack()).unwrap();
                self.assert_as_before();
                return;
            }
            self.goes_on(way, operation);
        }
    }
}

fn killed(test: &str, operation: Operation, scene: fn() -> Scene) {
    be_the_child_if_told(operation);
    scene().killed_anywhere(test, operation);
}

#[test]
#[ignore = "kernel tier"]
fn an_attach_into_a_pool_killed_anywhere_leaves_no_area() {
    const TEST: &str = "an_attach_into_a_pool_killed_anywhere_leaves_no_area";
    killed(TEST, Operation::Attach, Scene::in_pool);
}

#[test]
#[ignore = "kernel tier"]
fn a_detach_from_a_pool_killed_anywhere_leaves_no_area() {
    const TEST: &str = "a_detach_from_a_pool_killed_anywhere_leaves_no_area";
    killed(TEST, Operation::Detach, Scene::in_pool);
}

#[test]
#[ignore = "kernel tier"]
fn an_attach_with_a_volume_killed_anywhere_leaves_no_volume() {
    const TEST: &str = "an_attach_with_a_volume_killed_anywhere_leaves_no_volume";
    killed(TEST, Operation::Attach, Scene::in_volume);
}

#[test]
#[ignore = "kernel tier"]
fn a_detach_with_a_volume_killed_anywhere_leaves_no_volume() {
    const TEST: &str = "a_detach_with_a_volume_killed_anywhere_leaves_no_volume";
    killed(TEST, Operation::Detach, Scene::in_volume);
}

#[test]
#[ignore = "kernel tier"]
fn an_attach_with_a_file_of_ones_own_killed_anywhere_leaves_no_file() {
    const TEST: &str = "an_attach_with_a_file_of_ones_own_killed_anywhere_leaves_no_file";
    killed(TEST, Operation::Attach, Scene::in_file);
}

#[test]
#[ignore = "kernel tier"]
fn a_detach_with_a_file_of_ones_own_killed_anywhere_leaves_no_file() {
    const TEST: &str = "a_detach_with_a_file_of_ones_own_killed_anywhere_leaves_no_file";
    killed(TEST, Operation::Detach, Scene::in_file);
}

/// LVM goes on when the process that began it is killed: whoever comes next waits for it.
#[test]
#[ignore = "kernel tier"]
fn a_kill_while_lvm_makes_the_volume_leaves_no_volume() {
    const TEST: &str = "a_kill_while_lvm_makes_the_volume_leaves_no_volume";
    be_the_child_if_told(Operation::Attach);
    let scene = Scene::in_volume();
    let (begun, script) = (scene.dir.path().join("begun"), scene.dir.path().join("lvcreate"));
    let real = real_path("lvcreate");
    let text =
        format!("#!/bin/sh\ntouch {}\nsleep 3\nexec {} \"$@\"\n", begun.display(), real.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", scene.dir.path().display(), env::var("PATH").unwrap());
    let mut child = scene.child(TEST, usize::MAX).env("PATH", path).spawn().unwrap();
    wait_for("LVM's command", || begun.exists().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(kit::run(&format!("lvs --noheadings {}", scene.group.name())).trim(), "");
    assert_eq!(scene.host.detach(&stack()).unwrap(), Detached::RemainsRemoved);
    scene.assert_as_before();
}

fn real_path(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.exists()).unwrap()
}
