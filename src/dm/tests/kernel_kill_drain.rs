//! SIGKILL from outside while the kernel drains X: the disk takes 1.5 s a write, and a child that
//! attaches, makes a boundary or detaches is ended so long after it began to swap X's table. The
//! kernel gives the swap up: X is not suspended, the table goes back into its slot (`do_resume`,
//! drivers/md/dm-ioctl.c), and the next start empties that and clears up.

mod common;

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{Scratch, assert_none_suspended, assert_nothing_of_ours, number, request};
use eratrack_dm::linux::Kernel;
use eratrack_dm::{Detached, DeviceMapper, Host, Liveness, Moment, Recovery, Slot};
use eratrack_model::plan::Step;
use eratrack_model::record::Record;
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;
use kit::Mount;
use rustix::fs::OFlags;
use rustix::process::Signal;

const STACK: &str = "drain";
const GRANULARITY: &str = "64Ki";
const SLOW: Duration = Duration::from_millis(1500);
/// When the child is ended, after it began to swap. The last is when the drain is over.
const KILLS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(400),
    Duration::from_millis(900),
    Duration::from_millis(1600),
];
/// What a child says when it is about to swap.
const SWAPPING: &str = "swapping X's table";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Attach,
    Boundary,
    Detach,
}

/// Runs in the child: the operation, which says when it swaps.
fn be_the_child_if_told(operation: Operation) {
    let Ok(dir) = env::var("DRAIN_DIR") else { return };
    let x: DevNo = env::var("DRAIN_X").expect("a device").parse().expect("a device number");
    let host = common::host(Path::new(&dir));
    let adopted = match host.recover().unwrap().pop().map(|found| found.outcome) {
        Some(Recovery::Adopted(record)) => Some(record),
        _ => None,
    };
    let host = host.observed_by(Arc::new(|moment| {
        if let Moment::Step(Step::SwapIn { .. } | Step::Drain { .. }) = moment {
            println!("\n{SWAPPING}");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }));
    match operation {
        Operation::Attach => drop(host.attach(&common::request_for(x, STACK, GRANULARITY))),
        Operation::Boundary => drop(host.boundary(&adopted.expect("a stack"))),
        Operation::Detach => drop(host.detach(&STACK.parse().expect("a valid name"))),
    }
    std::process::exit(0);
}

/// A write to X that takes as long as the disk makes it.
fn write(scratch: &Scratch) -> JoinHandle<()> {
    let path = scratch.volume.path.clone();
    let write = thread::spawn(move || {
        let direct = i32::try_from(OFlags::DIRECT.bits()).expect("O_DIRECT fits");
        let device = File::options().write(true).custom_flags(direct).open(path).unwrap();
        let buffer = [0x5a; 8192];
        let start = buffer.as_ptr().align_offset(4096);
        device.write_all_at(&buffer[start..start + 4096], 3 << 16).expect("X takes writes");
    });
    kit::wait_for("a write in flight", || (scratch.in_flight() > 0).then_some(()));
    write
}

struct Scene {
    scratch: Scratch,
    original: Option<Table>,
    store: Mount,
    host: Host,
}

impl Scene {
    fn new() -> Self {
        let scratch = Scratch::new(32, SLOW);
        let store = kit::metadata_dir(64);
        let host = common::host(store.path());
        let original = table(&scratch, Slot::Live);
        Self { scratch, original, store, host }
    }

    fn attach(&self) -> Record {
        self.host.attach(&request(&self.scratch.volume, STACK, GRANULARITY)).unwrap().record
    }

    /// A child that is about to swap X's table, and waits for a word.
    fn child(&self, test: &str) -> Child {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env("DRAIN_DIR", self.store.path())
            .env("DRAIN_X", number(&self.scratch.volume).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == SWAPPING), "the child did not swap");
        child
    }

    /// True if the drain was under way when the child was ended.
    fn killed_in_the_drain(&self, test: &str, after: Duration) -> bool {
        let before = table(&self.scratch, Slot::Live);
        let mut child = self.child(test);
        let write = write(&self.scratch);
        drop(child.stdin.take());
        thread::sleep(after);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_none_suspended();
        let (now, left) = (table(&self.scratch, Slot::Live), table(&self.scratch, Slot::Inactive));
        let (swapped, left, draining) = (now != before, left.is_some(), !write.is_finished());
        println!("killed after {after:?}: {status}, swapped: {swapped}, in the slot: {left}");
        if draining {
            assert_eq!(
                status.signal(),
                Some(Signal::KILL.as_raw()),
                "the drain waited for nothing"
            );
            assert!(!swapped, "X was swapped while a write was in flight");
        }
        write.join().unwrap();
        draining && left
    }

    /// As the next start, and whatever it found: X takes writes, and comes out with its own table.
    fn next_start(&self) -> Option<Recovery> {
        let outcome = self.host.recover().unwrap().pop().map(|found| found.outcome);
        if let Some(Recovery::Adopted(record)) = &outcome {
            assert_eq!(self.host.liveness(record).unwrap(), Liveness::Intact);
        }
        assert_none_suspended();
        assert_eq!(table(&self.scratch, Slot::Inactive), None);
        outcome
    }

    fn is_as_before(&self) {
        assert_eq!(table(&self.scratch, Slot::Live), self.original);
        assert_none_suspended();
        assert_nothing_of_ours(self.store.path());
    }
}

fn table(scratch: &Scratch, slot: Slot) -> Option<Table> {
    Kernel::open().unwrap().table(number(&scratch.volume), slot).unwrap()
}

fn killed_while_it_drains(test: &str, operation: Operation) {
    be_the_child_if_told(operation);
    let scene = Scene::new();
    let mut draining = 0;
    for after in KILLS {
        if operation != Operation::Attach {
            scene.attach();
        }
        draining += usize::from(scene.killed_in_the_drain(test, after));
        match (scene.next_start(), operation) {
            (Some(Recovery::Adopted(_)), Operation::Attach | Operation::Boundary) => {
                let detached = scene.host.detach(&STACK.parse().unwrap()).unwrap();
                assert_eq!(detached, Detached::Restored);
            }
            (Some(Recovery::Undone), Operation::Attach)
            | (Some(Recovery::Finished) | None, Operation::Detach) => {}
            other => panic!("{other:?}"),
        }
        scene.is_as_before();
    }
    assert!(draining >= 2, "the drain was hit {draining} times");
    write(&scene.scratch).join().unwrap();
    scene.is_as_before();
}

#[test]
#[ignore = "kernel tier"]
fn an_attach_killed_while_it_drains_leaves_the_volume_running() {
    const TEST: &str = "an_attach_killed_while_it_drains_leaves_the_volume_running";
    killed_while_it_drains(TEST, Operation::Attach);
}

#[test]
#[ignore = "kernel tier"]
fn a_boundary_killed_while_it_drains_leaves_the_volume_running() {
    const TEST: &str = "a_boundary_killed_while_it_drains_leaves_the_volume_running";
    killed_while_it_drains(TEST, Operation::Boundary);
}

#[test]
#[ignore = "kernel tier"]
fn a_detach_killed_while_it_drains_leaves_the_volume_running() {
    const TEST: &str = "a_detach_killed_while_it_drains_leaves_the_volume_running";
    killed_while_it_drains(TEST, Operation::Detach);
}
