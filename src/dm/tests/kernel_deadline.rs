//! What is in flight on X does not end: the disk beneath holds it back, as a thin pool does that
//! is full. A swap then ends at its deadline, X goes on with the table that it had, and LVM's lock
//! is given back, so that whoever can make room is not kept waiting by us.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{assert_nothing_of_ours, in_flight, request};
use eratrack_dm::linux::Kernel;
use eratrack_dm::{Detached, Host, HostError};
use kit::{Disk, Volume, run, run_with, wait_for};
use rustix::fs::OFlags;

const DEADLINE: Duration = Duration::from_secs(1);
/// Far below the deadline that the kernel has of itself: none.
const SOON: Duration = Duration::from_secs(10);
const PAGE: usize = 4096;

/// A volume of LVM's over a disk that can be told to hold everything back.
struct Held {
    volume: Volume,
    group: String,
    beneath: String,
    _disk: Disk,
}

impl Held {
    fn new() -> Self {
        let disk = Disk::new(96);
        let (group, beneath) = (kit::unique("vg"), kit::unique("held"));
        // Not from the disk's start, or LVM would find its label there a second time.
        let table = format!("0 {} linear {} 2048", 95 * 2048, disk.device().display());
        run_with("dmsetup", ["create", &beneath, "--table", &table]).unwrap();
        run(&format!("vgcreate -qq {group} /dev/mapper/{beneath}"));
        run(&format!("lvcreate -qq -y -Wn -Zn -L 64m -n data {group}"));
        let dm_name = format!("{group}-data");
        let path = format!("/dev/mapper/{dm_name}").into();
        let volume = Volume { lv: format!("{group}/data"), dm_name, path };
        Self { volume, group, beneath, _disk: disk }
    }

    /// A write that does not end before [`Held::let_go`].
    fn hold_a_write(&self) -> JoinHandle<()> {
        run(&format!("dmsetup suspend --nolockfs {}", self.beneath));
        let path = self.volume.path.clone();
        let write = thread::spawn(move || put(&path));
        wait_for("a write in flight", || (in_flight(&self.volume) > 0).then_some(()));
        write
    }

    fn let_go(&self, write: JoinHandle<()>) {
        run(&format!("dmsetup resume {}", self.beneath));
        write.join().expect("the write succeeds");
    }

    #[track_caller]
    fn assert_given_up<T: std::fmt::Debug>(
        &self,
        reason: &str,
        operation: impl FnOnce() -> Result<T, HostError>,
    ) {
        let (before, start) = (self.volume.table(), Instant::now());
        let error = operation().unwrap_err();
        assert!((DEADLINE..SOON).contains(&start.elapsed()), "after {:?}", start.elapsed());
        assert_eq!((error.reason(), error.is_transient()), (reason, true), "{error}");
        assert_eq!(self.volume.table(), before);
        let info = run(&format!("dmsetup info {}", self.volume.dm_name));
        assert!(!info.contains("SUSPENDED") && !info.contains("INACTIVE"), "{info}");
        let lock = format!("/run/lock/lvm/V_{}", self.group);
        assert!(!Path::new(&lock).exists(), "LVM's lock is still held");
        let notes = fs::read_dir("/run/eratrack").unwrap().count();
        assert_eq!(notes, 0, "a swap is noted as under way");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = run_with("dmsetup", ["resume", &self.beneath]);
        let _ = run_with("vgremove", ["-qq", "-ff", "-y", &self.group]);
        let _ = run_with("dmsetup", ["remove", "--retry", &self.beneath]);
    }
}

fn put(path: &Path) {
    let direct = i32::try_from(OFlags::DIRECT.bits()).expect("O_DIRECT fits");
    let device = File::options().write(true).custom_flags(direct).open(path).expect("it opens");
    let buffer = vec![0x5a; 2 * PAGE];
    let start = buffer.as_ptr().align_offset(PAGE);
    device.write_all_at(&buffer[start..start + PAGE], 0).expect("it is written in the end");
}

fn host(dir: &Path) -> Host {
    let kernel = Kernel::open().expect("device mapper is there").with_drain_deadline(DEADLINE);
    common::host_over(dir, Arc::new(kernel), Duration::from_secs(10))
}

#[test]
#[ignore = "kernel tier"]
fn a_drain_that_does_not_end_is_given_up_and_tried_again() {
    let (held, store) = (Held::new(), kit::metadata_dir(64));
    let (host, original) = (host(store.path()), held.volume.table());
    let request = request(&held.volume, "deadline", "64Ki");

    let write = held.hold_a_write();
    held.assert_given_up("DeviceBusy", || host.attach(&request));
    assert_nothing_of_ours(store.path());
    held.let_go(write);

    let record = host.attach(&request).unwrap().record;
    host.boundary(&record).unwrap();
    let write = held.hold_a_write();
    held.assert_given_up("BoundaryTimeout", || host.boundary(&record));
    held.assert_given_up("DeviceBusy", || host.detach(&record.stack));
    held.let_go(write);

    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(held.volume.table(), original);
    assert_nothing_of_ours(store.path());
}
