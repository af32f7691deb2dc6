//! A writer in the background that knows what it was promised.

use std::ffi::OsString;
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
    thread: Option<JoinHandle<Outcome>>,
}

#[derive(Debug)]
struct Outcome {
    /// The number of the last record that was acknowledged at each place.
    acknowledged: Vec<u64>,
    longest: Duration,
    /// The record that was not acknowledged, its place, and why.
    failed: Option<(u64, u64, io::Error)>,
}

/// What a writer was promised until it was stopped, or until a write or an fsync failed.
#[derive(Debug)]
pub struct Promised {
    name: OsString,
    outcome: Outcome,
    /// Records acknowledged.
    pub records: u64,
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

    /// Whether a write or an fsync failed.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until so many more records were acknowledged.
    ///
    /// # Panics
    /// If the writer does not get there.
    #[track_caller]
    pub fn advance(&self, records: u64) {
        let goal = self.written() + records;
        crate::wait_for("more records", || {
            assert!(
                !self.has_ended(),
                "the writer has ended by itself: a write or an fsync failed"
            );
            (self.written() >= goal).then_some(())
        });
    }

    /// Stops, drops the page cache, and reads every acknowledged record back.
    ///
    /// # Panics
    /// If a write failed, or a record does not read back as it was acknowledged.
    #[track_caller]
    pub fn stop_and_verify(self) -> Verified {
        let dir = self.path.parent().expect("a file is in a directory").to_owned();
        let promised = self.stop();
        let failed = promised.failure().map(ToString::to_string);
        assert_eq!(failed, None, "a write or an fsync failed");
        promised.verify_in(&dir);
        Verified { records: promised.records, longest: promised.outcome.longest }
    }

    /// Stops, or finds that it has ended at a failure.
    ///
    /// # Panics
    /// If the writer has panicked.
    pub fn stop(mut self) -> Promised {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("a writer is stopped once");
        let outcome = thread.join().expect("the writer does not panic");
        let name = self.path.file_name().expect("a file has a name").to_owned();
        Promised { name, outcome, records: self.written() }
    }
}

impl Promised {
    /// What ended the writer, if it was not stopped.
    pub fn failure(&self) -> Option<&io::Error> {
        self.outcome.failed.as_ref().map(|(_, _, error)| error)
    }

    /// Drops the page cache, and reads every acknowledged record back from the directory, which
    /// may be mounted anew. Where the failed record was to go it may be in the place of the one
    /// that was acknowledged: nobody promised that it would not.
    ///
    /// # Panics
    /// If a record does not read back as it was acknowledged.
    #[track_caller]
    pub fn verify_in(&self, dir: &Path) {
        std::fs::write("/proc/sys/vm/drop_caches", "1").expect("root may drop caches");
        let file = File::open(dir.join(&self.name)).expect("the file is still there");
        let acknowledged = self.outcome.acknowledged.iter().enumerate();
        for (place, number) in acknowledged.filter(|(_, number)| **number > 0) {
            let mut found = vec![0; RECORD];
            file.read_exact_at(&mut found, (place * RECORD) as u64).expect("it reads back");
            let instead = self.outcome.failed.as_ref().filter(|(_, at, _)| *at == place as u64);
            let is_there = found == record(*number)
                || instead.is_some_and(|(failed, _, _)| found == record(*failed));
            assert!(is_there, "record {number} at place {place} is lost");
        }
    }
}

fn write_all(file: &File, places: u64, stop: &AtomicBool, written: &AtomicU64) -> Outcome {
    let mut acknowledged = vec![0; usize::try_from(places).expect("few places")];
    let (mut longest, mut failed, mut number) = (Duration::ZERO, None, 0);
    while !stop.load(Ordering::Acquire) {
        number += 1;
        let place = scatter(number) % places;
        let start = Instant::now();
        let write = file.write_all_at(&record(number), place * RECORD as u64);
        if let Err(error) = write.and_then(|()| file.sync_data()) {
            failed = Some((number, place, error));
            break;
        }
        longest = longest.max(start.elapsed());
        acknowledged[usize::try_from(place).expect("few places")] = number;
        written.store(number, Ordering::Release);
        std::thread::sleep(PAUSE);
    }
    Outcome { acknowledged, longest, failed }
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
