//! What processes do to each other: two of ours at work on one stack, and one that is killed
//! between the kernel's refusal of a table, which leaves X suspended, and its resuming X.

mod common;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Scratch, assert_none_suspended, assert_nothing_of_ours, request};
use eratrack_dm::{AttachRequest, Detached, Host, HostError, Moment, Recovery, StackLockError};
use kit::run;

const LOCKS: &str = "/run/eratrack";

fn scene() -> (Scratch, kit::Mount, AttachRequest) {
    let scratch = Scratch::new(64, Duration::ZERO);
    let request = request(&scratch.volume, "processes", "64Ki");
    (scratch, kit::metadata_dir(64), request)
}

fn assert_no_locks_left() {
    let left: Vec<_> = fs::read_dir(LOCKS).unwrap().map(|found| found.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn assert_busy<T: std::fmt::Debug>(result: Result<T, HostError>) {
    let error = result.unwrap_err();
    let busy = matches!(error, HostError::Lock(StackLockError::Deadline { .. }));
    assert!(busy && error.is_transient() && error.reason() == "DeviceBusy", "{error}");
    assert!(error.to_string().contains(LOCKS), "{error}");
}

#[test]
#[ignore = "kernel tier"]
fn while_another_process_is_at_work_on_a_stack_nothing_is_changed() {
    let (scratch, store, request) = scene();
    let host = common::host(store.path());
    let impatient = common::impatient_host(store.path());
    let record = host.attach(&request).unwrap().record;
    let base = host.boundary(&record).unwrap();
    let live = scratch.volume.table();

    let lock = Path::new(LOCKS).join("processes");
    let held = File::options().create(true).append(true).open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_busy(impatient.attach(&request));
    assert_busy(impatient.boundary(&record));
    assert_busy(impatient.changes(&record, base.era));
    assert_busy(impatient.detach(&record.stack));
    let recovered = impatient.recover().unwrap();
    assert!(matches!(&recovered[..], [one] if matches!(one.outcome, Recovery::Failed(_))));
    assert_eq!(scratch.volume.table(), live);

    // As when that process is killed: the kernel gives its lock back, the file stays.
    drop(held);
    assert!(host.boundary(&record).unwrap().era > base.era);
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
    assert_no_locks_left();
}

/// A host whose process ends just before it swaps X.
fn mortal_host(dir: &Path) -> Host {
    common::host(dir).observed_by(Arc::new(|moment| {
        assert!(!matches!(moment, Moment::Machine("swap the table")), "killed");
    }))
}

/// As the kernel leaves X when it refuses a table after the drain: suspended, its slot empty.
fn suspend(name: &str) {
    run(&format!("dmsetup suspend --nolockfs {name}"));
}

fn adopted(host: &Host) -> bool {
    let recovered = host.recover().unwrap();
    matches!(&recovered[..], [one] if matches!(one.outcome, Recovery::Adopted(_)))
}

#[test]
#[ignore = "kernel tier"]
fn what_we_left_suspended_is_resumed_and_what_others_suspended_is_not() {
    let (scratch, store, request) = scene();
    let host = common::host(store.path());
    let name = &scratch.volume.dm_name;
    let record = host.attach(&request).unwrap().record;

    let mortal = mortal_host(store.path());
    assert!(catch_unwind(AssertUnwindSafe(|| mortal.boundary(&record))).is_err());
    suspend(name);
    assert!(adopted(&host));
    assert_none_suspended();
    assert_no_locks_left();

    // The same without a swap of ours under way: somebody else's doing, and theirs to undo.
    suspend(name);
    assert!(!adopted(&host), "X is suspended: nothing can be finished now");
    assert!(run(&format!("dmsetup info {name}")).contains("SUSPENDED"));
    run(&format!("dmsetup resume {name}"));
    assert!(adopted(&host));
    host.boundary(&record).unwrap();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_nothing_of_ours(store.path());
    assert_no_locks_left();
}
