//! Rounds: each ends with a target that equals a point in time of the source.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eratrack_dm::machine::Machine;
use eratrack_dm::{Boundary, Host, PointInTime};
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;

use crate::decide::Start;
use crate::error::ReplicaError;
use crate::follower::{Follower, Manner, Point, Progress, Seeded, Watch, size_of};
use crate::target::Target;

/// How a replica is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is in the target may go.
    pub overwrite: bool,
    /// Compare in full after each round.
    pub verify: bool,
    /// How much of the source may be overwritten during a round; none: what fits.
    pub copies: Option<Bytes>,
    /// Not more than so many bytes a second.
    pub max_rate: Option<Bytes>,
}

/// Told of each piece that is done.
pub type Observer<'a> = &'a mut dyn FnMut(Progress);

/// What a round did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// How it began.
    pub start: Start,
    /// The boundary that was copied up to.
    pub boundary: Boundary,
    /// How many rounds this target has had since its full copy.
    pub number: u64,
    /// Blocks that may have changed, and that were copied.
    pub blocks: u64,
    /// Bytes copied, with those of the first copy.
    pub bytes: u64,
    /// What of that was no zeroes, and so was written.
    pub written: u64,
    /// How long the copying took.
    pub copied_in: Duration,
    /// How long the comparison took, if there was one.
    pub verified_in: Option<Duration>,
}

/// A target that follows a source.
pub struct Replica<'a> {
    host: &'a Host,
    record: Record,
    follower: Follower,
    options: Options,
    stop: &'a AtomicBool,
}

impl std::fmt::Debug for Replica<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("follower", &self.follower).finish_non_exhaustive()
    }
}

/// Looks at the source while it is copied: at a point in time, or at the device itself.
struct Look<'a, 'b> {
    host: &'a Host,
    record: &'a Record,
    point: Option<&'a PointInTime>,
    observer: &'a mut (dyn FnMut(Progress) + 'b),
}

impl Watch for Look<'_, '_> {
    fn progress(&mut self, progress: Progress) {
        (self.observer)(progress);
    }

    fn check(&mut self) -> Result<(), ReplicaError> {
        match self.point {
            Some(point) => self.host.check_point_in_time(point)?,
            None => self.host.check_intact(self.record)?,
        }
        Ok(())
    }
}

impl<'a> Replica<'a> {
    /// Opens the target and decides how to begin. `state_dir` is where checkpoints are, `stop` becomes
    /// true when it is to end.
    pub fn open(
        (host, machine): (&'a Host, &Machine),
        state_dir: &Path,
        record: Record,
        path: &Path,
        options: Options,
        stop: &'a AtomicBool,
    ) -> Result<Self, ReplicaError> {
        host.could_have_point_in_time(&record, options.copies)?;
        let target = Target::open(machine, path, (record.x, size_of(&record)))?;
        let follower = Follower::new(state_dir, record.clone(), target, None, options.overwrite)?;
        Ok(Self { host, record, follower, options, stop })
    }

    /// How the next round begins.
    pub fn start(&self) -> &Start {
        self.follower.start()
    }

    /// Where the copy goes.
    pub fn target(&self) -> &Target {
        self.follower.target()
    }

    fn manner(&self) -> Manner<'a> {
        let Options { verify, max_rate, .. } = self.options;
        Manner { stop: self.stop, max_rate, verify }
    }

    /// Makes the target equal to a new point in time of the source.
    pub fn round(&mut self, observer: Observer<'_>) -> Result<Round, ReplicaError> {
        let (start, began) = (self.start().clone(), Instant::now());
        if let Start::Full(_) = start {
            let Boundary { era, .. } = self.host.boundary(&self.record)?;
            self.follower.begin(era)?;
        }
        let seeded = self.seed(&mut *observer)?;
        let point = self.host.point_in_time(&self.record, self.options.copies)?;
        let copied = self.copy_point(&point, observer);
        let ended = self.host.end_point_in_time(point);
        let mut round = copied?;
        ended?;
        round.start = start;
        round.bytes += seeded.bytes;
        round.written += seeded.written;
        round.copied_in = began.elapsed().saturating_sub(round.verified_in.unwrap_or_default());
        Ok(round)
    }

    fn seed(&mut self, observer: Observer<'_>) -> Result<Seeded, ReplicaError> {
        let Start::Resume { .. } = self.start() else { return Ok(Seeded::default()) };
        let source = self.host.open_tracked(&self.record)?;
        let (host, record, manner) = (self.host, &self.record, self.manner());
        let mut look = Look { host, record, point: None, observer };
        self.follower.seed(&source, manner, &mut look)
    }

    fn copy_point(
        &mut self,
        point: &PointInTime,
        observer: Observer<'_>,
    ) -> Result<Round, ReplicaError> {
        let (Start::Resume { since, .. } | Start::Changed { since }) = *self.start() else {
            return Err(ReplicaError::Source("the full copy is to be made first".to_owned()));
        };
        let changes = self.host.changes(&self.record, since)?;
        let device = &self.host.open_point_in_time(point)?;
        let Boundary { era, time, .. } = point.boundary;
        let (time, label) = (milliseconds(time), None);
        let what = Point { device, era, time, label, changes: &changes.runs };
        let (host, record, manner) = (self.host, &self.record, self.manner());
        let mut look = Look { host, record, point: Some(point), observer };
        let copied = self.follower.copy(&what, manner, &mut look)?;
        Ok(Round {
            start: self.start().clone(),
            boundary: point.boundary,
            number: copied.number,
            blocks: changes.changed_blocks(),
            bytes: copied.bytes,
            written: copied.written,
            copied_in: Duration::ZERO,
            verified_in: copied.verified_in,
        })
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
