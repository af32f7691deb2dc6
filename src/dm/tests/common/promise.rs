//! An application over three volumes that promises on one what it then does on the next: record n is written to A, and
//! once that is acknowledged to B, and then to C. So at no one instant has B a record that A has not.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use kit::{Volume, wait_for};
use rustix::fs::OFlags;

const PAGE: usize = 4096;

#[repr(align(4096))]
struct Page([u8; PAGE]);

/// Writes records one after the other until it is stopped, and panics at the first error.
pub(crate) struct Promises {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    writer: JoinHandle<()>,
}

impl Promises {
    /// Record n goes into page n of each volume, as long as there are so many pages; then page 0 is written again and
    /// again.
    pub(crate) fn start(volumes: &[Volume], pages: u64) -> Self {
        let devices: Vec<_> = volumes.iter().map(|volume| open(&volume.path)).collect();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let writer = std::thread::spawn(move || {
            let mut page = Box::new(Page([0; PAGE]));
            for n in 1_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                page.0.fill(n.to_le_bytes()[0]);
                page.0[..8].copy_from_slice(&n.to_le_bytes());
                let at = if n < pages { n } else { 0 };
                for device in &devices {
                    device.write_all_at(&page.0, at * PAGE as u64).expect("a write");
                }
                counted.store(n, Ordering::Relaxed);
            }
        });
        Self { stop, count, writer }
    }

    pub(crate) fn written(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until it has written so many more.
    pub(crate) fn advance(&self, more: u64) {
        let seen = self.written();
        wait_for("more records", || {
            assert!(!self.writer.is_finished(), "the application met with an error");
            (self.written() > seen + more).then_some(())
        });
    }

    /// How many it has written without an error.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().expect("the application met with no error");
        self.count.load(Ordering::Relaxed)
    }
}

/// The record in that page of a device.
pub(crate) fn record_at(device: &Path, page: u64) -> u64 {
    let mut read = Box::new(Page([0; PAGE]));
    open(device).read_exact_at(&mut read.0, page * PAGE as u64).expect("a read");
    u64::from_le_bytes(read.0[..8].try_into().expect("eight bytes"))
}

fn open(path: &Path) -> File {
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits();
    let flags = i32::try_from(flags).expect("the flags fit");
    File::options()
        .read(true)
        .write(!path.starts_with("/dev/dm-"))
        .custom_flags(flags)
        .open(path)
        .expect("the device opens")
}
