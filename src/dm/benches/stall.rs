//! How long a writer is held up by a boundary, beside a plain suspend and resume of the same device, in turn. Prints for
//! each round what was done, the longest gap between two finished writes, and the drain within a boundary; all in
//! milliseconds. It changes the machine it runs on: in a guest alone (`cargo e2e bench stall`).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use eratrack_dm::linux::Kernel;
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{AttachRequest, EraStatus, Host, HostConfig};
use eratrack_model::record::{Keeper, Record};
use eratrack_model::units::DevNo;
use kit::{Disk, VolumeGroup};

const ROUNDS: u32 = 200;
/// The guest's memory holds all of it.
const MIB: u64 = 256;
/// Besides the one that is watched.
const OTHER_WRITERS: u64 = 2;
/// Longer than any round, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

fn main() {
    let dir = kit::metadata_dir(64);
    let group = VolumeGroup::new([Disk::new(MIB + 64).into_backing()]);
    let volume = group.thick("data", MIB);
    let host = Host::new(HostConfig {
        root: "/".into(),
        dm: Arc::new(Kernel::open().expect("device mapper is there")),
        store: StoreConfig {
            per_node_percent: 100,
            ..StoreConfig::new(dir.path().join("eratrack"))
        },
        nodes: "/dev".into(),
        lock_deadline: Duration::from_secs(10),
        keeper: Keeper::Agent,
    });
    let (major, minor) = volume.number();
    let (stack, x) = ("stall".parse().expect("a name"), DevNo { major, minor });
    let request = AttachRequest::new(stack, x, "256Ki".parse().expect("a granularity"));
    let record = host.attach(&request).expect("it attaches").record;
    let (over, finished) = (AtomicBool::new(false), Finished::default());
    thread::scope(|scope| {
        for seed in 1..=OTHER_WRITERS {
            let (path, over) = (&volume.path, &over);
            scope.spawn(move || write(path, over, seed, |_| ()));
        }
        scope.spawn(|| write(&volume.path, &over, 0, |at| finished.push(at)));
        for _ in 0..ROUNDS {
            let boundary = || host.boundary(&record).expect("a boundary").drained_in;
            let (gap, drain) = finished.watch(boundary);
            println!("boundary {} {}", milliseconds(gap), milliseconds(drain));
            let name = &volume.dm_name;
            let (gap, ()) = finished.watch(|| {
                kit::run(&format!("dmsetup suspend {name}"));
                kit::run(&format!("dmsetup resume {name}"));
            });
            println!("plain {}", milliseconds(gap));
            until_digested(&host, &record);
        }
        over.store(true, Ordering::Relaxed);
    });
    host.detach(&request.stack).expect("it detaches");
}

/// Eras that are begun faster than dm-era digests them fill its metadata; the agent leaves it ten seconds for each.
fn until_digested(host: &Host, record: &Record) {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        match host.status(record).expect("a status") {
            EraStatus::Working { used, total, .. } if used * 2 <= total => return,
            EraStatus::Working { .. } => thread::sleep(Duration::from_millis(20)),
            EraStatus::Error => panic!("the metadata is full"),
        }
    }
    panic!("half of the metadata is still used after {} s", DEADLINE.as_secs());
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1000.0)
}

/// When the watched writer's writes were finished.
#[derive(Default)]
struct Finished(Mutex<Vec<Instant>>);

impl Finished {
    fn push(&self, at: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(at);
    }

    /// Does something, and waits for the first write after it: the longest gap that touches it.
    fn watch<T>(&self, act: impl FnOnce() -> T) -> (Duration, T) {
        let last = self.last_after(Instant::now());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|at| *at >= last);
        let acted = act();
        self.last_after(Instant::now());
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        (gaps.max().expect("two writes at least"), acted)
    }

    /// Waits for a write that is finished after `start`; when the last one was.
    fn last_after(&self, start: Instant) -> Instant {
        while start.elapsed() < DEADLINE {
            let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
            if let Some(last) = last.filter(|last| *last > start) {
                return last;
            }
            thread::yield_now();
        }
        panic!("no write was finished in {} s", DEADLINE.as_secs());
    }
}

/// Direct I/O asks for aligned memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

fn write(device: &Path, over: &AtomicBool, seed: u64, finished: impl Fn(Instant)) {
    let file: File = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
        .open(device)
        .expect("the device opens");
    let page = Box::new(Page([7; 4096]));
    let pages = (MIB << 20) / 4096;
    // All over the device, without need of a random number: 40503 is odd, so every page has its turn.
    for turn in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let page_number = (turn * 40503 + seed * 7919) % pages;
        file.write_all_at(&page.0, page_number * 4096).expect("a write");
        finished(Instant::now());
    }
}
