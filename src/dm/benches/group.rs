//! How long a group of volumes is held for one boundary: of 1, of 10 and of 50 volumes, each of them written. Prints for
//! each round how many there were, for how long they were held, and the longest gap between two finished writes of one
//! of them; in milliseconds. It changes the machine it runs on: in a guest alone (`cargo e2e bench group`).

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eratrack_dm::linux::{HelperProcess, Kernel, serve};
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{AttachRequest, EraStatus, Host, HostConfig, Joined, Joining};
use eratrack_model::record::{Keeper, Record};
use eratrack_model::units::DevNo;
use kit::{Disk, VolumeGroup};

/// What a helper is called with.
const HELPER: &str = "be-the-helper";
/// How many volumes, and how often.
const SIZES: [(usize, usize); 3] = [(1, 100), (10, 30), (50, 10)];
const MIB: u64 = 8;
/// Longer than any round, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    if std::env::args().any(|word| word == HELPER) {
        return serve(&|_| ());
    }
    let (most, _) = SIZES[SIZES.len() - 1];
    let dir = kit::metadata_dir(128);
    let group = VolumeGroup::new([Disk::new(most as u64 * MIB + 64).into_backing()]);
    let host = Host::new(HostConfig {
        root: "/".into(),
        dm: Arc::new(Kernel::open().expect("device mapper is there")),
        store: StoreConfig {
            per_node_percent: 100,
            ..StoreConfig::new(dir.path().join("eratrack"))
        },
        nodes: "/dev".into(),
        lock_deadline: Duration::from_secs(30),
        keeper: Keeper::Agent,
    })
    .with_holder(Arc::new(HelperProcess::new(std::env::current_exe()?, [HELPER])));
    let volumes: Vec<_> = (0..most).map(|index| group.thick(&format!("v{index}"), MIB)).collect();
    let attach = |(index, volume): (usize, &kit::Volume)| {
        let (major, minor) = volume.number();
        let (stack, x) = (format!("v{index}").parse().expect("a name"), DevNo { major, minor });
        let request = AttachRequest::new(stack, x, "256Ki".parse().expect("a granularity"));
        host.attach(&request).expect("it attaches").record
    };
    let records: Vec<_> = volumes.iter().enumerate().map(attach).collect();
    let (over, gap, count) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| write(&volumes[0].path, &over, &gap, &count));
        for volume in volumes.iter().skip(1).step_by(10) {
            let over = &over;
            scope.spawn(move || write(&volume.path, over, &AtomicU64::new(0), &AtomicU64::new(0)));
        }
        for (size, rounds) in SIZES {
            for _ in 0..rounds {
                round(&host, &records[..size], &gap, &count);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    for record in &records {
        host.detach(&record.stack).expect("it detaches");
    }
    Ok(())
}

fn round(host: &Host, records: &[Record], gap: &AtomicU64, count: &AtomicU64) {
    until_digested(host, records);
    let joining: Vec<_> =
        records.iter().map(|record| Joining { record: record.clone(), point: None }).collect();
    next_write(count);
    gap.store(0, Ordering::Relaxed);
    let joined = host.boundary_together(&joining).expect("a boundary");
    next_write(count);
    let Joined::Boundary(boundary) = &joined[0] else { panic!("no point in time was asked for") };
    let held = boundary.drained_in.as_secs_f64() * 1000.0;
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a round")]
    let gap = gap.load(Ordering::Relaxed) as f64 / 1000.0;
    println!("group {} {held:.3} {gap:.3}", records.len());
}

/// Waits for two writes that end after this.
fn next_write(count: &AtomicU64) {
    let (start, seen) = (Instant::now(), count.load(Ordering::Relaxed));
    while count.load(Ordering::Relaxed) < seen + 2 {
        assert!(start.elapsed() < DEADLINE, "no write was finished");
        thread::yield_now();
    }
}

/// Eras that are begun faster than dm-era digests them fill its metadata; the agent leaves it ten seconds for each.
fn until_digested(host: &Host, records: &[Record]) {
    let start = Instant::now();
    for record in records {
        loop {
            match host.status(record).expect("a status") {
                EraStatus::Working { used, total, .. } if used * 4 <= total * 3 => break,
                EraStatus::Working { .. } => thread::sleep(Duration::from_millis(20)),
                EraStatus::Error => panic!("the metadata is full"),
            }
            assert!(start.elapsed() < DEADLINE, "the metadata is still in use");
        }
    }
}

/// Direct I/O asks for aligned memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Writes all over a device; the longest time between the ends of two writes, in microseconds.
fn write(device: &Path, over: &AtomicBool, gap: &AtomicU64, count: &AtomicU64) {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
        .open(device)
        .expect("the device opens");
    let (page, pages) = (Box::new(Page([7; 4096])), (MIB << 20) / 4096);
    let mut last = Instant::now();
    for turn in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        file.write_all_at(&page.0, (turn * 40503 % pages) * 4096).expect("a write");
        let now = Instant::now();
        let took = u64::try_from((now - last).as_micros()).unwrap_or(u64::MAX);
        gap.fetch_max(took, Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
        last = now;
    }
}
