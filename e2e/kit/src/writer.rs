//! A writer in the background that knows what it was promised.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One record: its number, then bytes that follow from it.
const RECORD: usize = 4096;
/// An application that thinks between two records: a guest has one processor, and the test needs
/// some of it.
const PAUSE: Duration = Duration::from_micros(500);

/// Writes records with an fsync each, at scattered places of one file, until it is stopped.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<Outcome>>>,
}

#[derive(Debug)]
struct Outcome {
    /// The number of the last record that was acknowledged at each place.
    acknowledged: Vec<u64>,
    longest: Duration,
}

/// What was found when all was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records acknowledged.
    pub records: u64,
    /// The longest that one record took.
    pub longest: Duration,
}

impl Writer {
    /// Starts writing to a new file of so many MiB in a directory.
    ///
    /// # Panics
    /// If the file cannot be made.
    pub fn start(dir: &Path, mib: u64) -> Self {
        let path = dir.join(crate::unique("records"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.expect("the directory is writable");
        file.set_len(mib << 20).expect("there is room");
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let places = (mib << 20) / RECORD as u64;
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || write_all(&file, places, &stopped, &count));
        Self { path, stop, written, thread: Some(thread) }
    }

    /// How many records were acknowledged so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Waits until so many more records were acknowledged.
    ///
    /// # Panics
    /// If the writer does not get there.
    #[track_caller]
    pub fn advance(&self, records: u64) {
        let goal = self.written() + records;
        crate::wait_for("more records", || {
            let failed = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!failed, "the writer has ended by itself: a write or an fsync failed");
            (self.written() >= goal).then_some(())
        });
    }

    /// Stops, drops the page cache, and reads every acknowledged record back.
    ///
    /// # Panics
    /// If a write failed, or a record does not read back as it was acknowledged.
    #[track_caller]
    pub fn stop_and_verify(mut self) -> Verified {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("a writer is stopped once");
        let outcome = thread.join().expect("the writer does not panic");
        let Outcome { acknowledged, longest } = outcome.expect("every write and fsync succeeded");
        std::fs::write("/proc/sys/vm/drop_caches", "1").expect("root may drop caches");
        let file = File::open(&self.path).expect("the file is still there");
        for (place, number) in acknowledged.iter().enumerate().filter(|(_, n)| **n > 0) {
            let mut found = vec![0; RECORD];
            file.read_exact_at(&mut found, (place * RECORD) as u64).expect("it reads back");
            assert!(found == record(*number), "record {number} at place {place} is lost");
        }
        Verified { records: self.written(), longest }
    }
}

fn write_all(
    file: &File,
    places: u64,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> io::Result<Outcome> {
    let mut acknowledged = vec![0; usize::try_from(places).map_err(io::Error::other)?];
    let (mut longest, mut number) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Acquire) {
        number += 1;
        let place = scatter(number) % places;
        let start = Instant::now();
        file.write_all_at(&record(number), place * RECORD as u64)?;
        file.sync_data()?;
        longest = longest.max(start.elapsed());
        acknowledged[usize::try_from(place).map_err(io::Error::other)?] = number;
        written.store(number, Ordering::Release);
        std::thread::sleep(PAUSE);
    }
    Ok(Outcome { acknowledged, longest })
}

fn record(number: u64) -> Vec<u8> {
    let words = (0..RECORD as u64 / 8).map(|word| scatter(number ^ (word << 40)));
    words.flat_map(u64::to_le_bytes).collect()
}

/// A well-mixed number (the finalizer of splitmix64).
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
