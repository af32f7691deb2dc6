//! A stage, a snapshot held by hand and a return after a reboot, each in a child that ends itself
//! with SIGKILL just before its n-th change to the machine, for every n: the next operation,
//! whichever it is, finishes or undoes what was begun.

mod common;

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use common::mortal::mortal_host;
use common::{assert_none_suspended, assert_nothing_of_ours, request_for};
use eratrack_dm::{
    AttachRequest, Detached, Host, Liveness, Released, RestoreOutcome, StageRequest,
};
use eratrack_model::continuity::Trust;
use eratrack_model::record::{Record, Stage};
use eratrack_model::units::DevNo;
use kit::{Disk, Mount, run, run_with};
use rustix::process::Signal;

const STACK: &str = "staged";
const MOST: usize = 100;
/// Of no machine.
const OTHER_BOOT: &str = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11";

fn perform(host: &Host, operation: &str, disk: &str) {
    let record = || host.record(&STACK.parse().unwrap()).unwrap().expect("a record");
    match operation {
        "attach" => drop(host.attach(&request(host, disk)).unwrap()),
        "hold" => {
            host.hold(&record()).unwrap();
            host.release(&record()).unwrap();
        }
        "seal" => drop(host.seal(&record()).unwrap()),
        "restore" => drop(restored(host)),
        "detach" => drop(host.detach(&STACK.parse().unwrap()).unwrap()),
        other => panic!("{other}"),
    }
}

fn restored(host: &Host) -> RestoreOutcome {
    let restored = host.restore(Trust::PoweredOff, |_| ()).unwrap().pop().expect("a stack");
    restored.outcome.unwrap()
}

fn request(host: &Host, disk: &str) -> AttachRequest {
    let found = rustix::fs::stat(disk).unwrap().st_rdev;
    let number = DevNo { major: rustix::fs::major(found), minor: rustix::fs::minor(found) };
    let device = Stage { path: disk.into(), identity: host.identity(number).unwrap() };
    let mut request = request_for(number, STACK, "64Ki");
    request.stage = Some(StageRequest { name: "kill-stage".parse().unwrap(), device });
    request.access = true;
    request
}

/// Runs in the child: the operation, with an end at its n-th change.
fn be_the_child_if_told() {
    let Ok(at) = env::var("KILL_AT") else { return };
    let told = |name: &str| env::var(name).expect("it is told");
    let dir = PathBuf::from(told("KILL_DIR"));
    let host = mortal_host(&dir, at.parse().expect("a number"));
    perform(&host, &told("KILL_OPERATION"), &told("KILL_DISK"));
    // Not the tests of this binary: the operation came to its end.
    std::process::exit(0);
}

struct Scene {
    host: Host,
    disk: Disk,
    store: Mount,
}

impl Scene {
    fn new() -> Self {
        let store = kit::metadata_dir(64);
        Self { host: common::host(store.path()), disk: Disk::new(32), store }
    }

    fn path(&self) -> String {
        self.disk.device().display().to_string()
    }

    fn attach(&self) -> Record {
        self.host.attach(&request(&self.host, &self.path())).unwrap().record
    }

    fn detach(&self) {
        let done = self.host.detach(&STACK.parse().unwrap()).unwrap();
        assert_ne!(done, Detached::TopStays);
        assert_nothing_of_ours(self.store.path());
        assert_eq!(run("losetup --noheadings -O BACK-FILE").matches("era-metadata").count(), 0);
        assert!(run_with("test", ["-e", "/dev/mapper/kill-stage"]).is_err(), "the link is left");
    }

    /// True if the child was killed, false if it got to its end.
    fn child_is_killed(&self, test: &str, operation: &str, at: usize) -> bool {
        assert!(at < MOST, "{operation} never ends");
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env("KILL_AT", at.to_string())
            .env("KILL_DIR", self.store.path())
            .env("KILL_DISK", self.path())
            .env("KILL_OPERATION", operation)
            .output()
            .unwrap();
        assert_none_suspended();
        let killed = child.status.signal() == Some(Signal::KILL.as_raw());
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(killed || child.status.success(), "the child failed by itself: {said}");
        killed
    }

    /// What a reboot takes away is taken away, and the record is of the boot before.
    fn reboot(record: &Record) {
        for name in
            ["kill-stage", "eratrack-staged-access", "eratrack-staged-era", "eratrack-staged-base"]
        {
            run(&format!("dmsetup remove {name}"));
        }
        let metadata = record.metadata.file().expect("a file").display().to_string();
        for device in run(&format!("losetup --noheadings -O NAME -j {metadata}")).lines() {
            run(&format!("losetup -d {device}"));
        }
        let path = record.metadata.file().unwrap().with_file_name("record.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(record.boot.as_str(), OTHER_BOOT)).unwrap();
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_stage_killed_anywhere_is_finished_or_undone() {
    be_the_child_if_told();
    let scene = Scene::new();
    let test = "a_stage_killed_anywhere_is_finished_or_undone";
    for at in 0.. {
        let killed = scene.child_is_killed(test, "attach", at);
        // By turns: done again, recovered as a start does, taken out.
        match at % 3 {
            0 => {
                let record = scene.attach();
                assert_eq!(scene.host.liveness(&record).unwrap(), Liveness::Intact);
            }
            1 => drop(scene.host.recover().unwrap()),
            _ => {}
        }
        scene.detach();
        if !killed {
            break;
        }
    }
    for at in 0.. {
        scene.attach();
        let killed = scene.child_is_killed(test, "detach", at);
        if at % 2 == 0 {
            drop(scene.host.recover().unwrap());
        }
        scene.detach();
        if !killed {
            break;
        }
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_snapshot_held_by_hand_is_given_back_after_any_kill() {
    be_the_child_if_told();
    let scene = Scene::new();
    let test = "a_snapshot_held_by_hand_is_given_back_after_any_kill";
    let record = scene.attach();
    for at in 0.. {
        let killed = scene.child_is_killed(test, "hold", at);
        if at % 2 == 0 {
            scene.host.release(&record).unwrap();
            scene.host.changes(&record, eratrack_model::Era(1)).unwrap();
        } else if scene.host.held_by_hand(&record).unwrap().is_none() {
            // A stale one is in nobody's way.
            scene.host.hold(&record).unwrap();
            assert_eq!(scene.host.release(&record).unwrap(), Released::ByHand);
        } else {
            scene.host.release(&record).unwrap();
        }
        assert_eq!(scene.host.release(&record).unwrap(), Released::Nothing);
        if !killed {
            break;
        }
    }
    scene.detach();
}

/// A chain goes on only if the kill came before anything was changed, or after all was done.
#[test]
#[ignore = "kernel tier"]
fn a_return_after_a_reboot_killed_anywhere_is_done_again() {
    be_the_child_if_told();
    let scene = Scene::new();
    let test = "a_return_after_a_reboot_killed_anywhere_is_done_again";
    let mut went_on = 0;
    for at in 0.. {
        let record = scene.attach();
        // Killed or not, sealing twice is as good as once; it makes fewer changes than a return.
        if at < 8 {
            scene.child_is_killed(test, "seal", at);
        }
        scene.host.seal(&record).unwrap();
        Scene::reboot(&record);
        let killed = scene.child_is_killed(test, "restore", at);
        let outcome = restored(&scene.host);
        let now = scene.host.record(&record.stack).unwrap().expect("it is back");
        assert_eq!(scene.host.liveness(&now).unwrap(), Liveness::Intact, "{outcome:?}");
        match outcome {
            RestoreOutcome::Broken { record: new, why } => {
                assert!(new.chain != record.chain && killed, "at {at}: {why}");
            }
            RestoreOutcome::Intact(same) | RestoreOutcome::InPlace(same) => {
                assert_eq!(same.chain, record.chain);
                went_on += 1;
            }
            RestoreOutcome::Removed => panic!("it is out at {at}"),
            RestoreOutcome::Left { why } => panic!("it is left at {at}: {why}"),
        }
        scene.detach();
        if !killed {
            break;
        }
    }
    assert!(went_on >= 2, "{went_on}");
}
