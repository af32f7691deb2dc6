//! Rounds: each ends with a target that equals a point in time of the source.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eratrack_dm::machine::Machine;
use eratrack_dm::{Boundary, Host, PointInTime};
use eratrack_model::Era;
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;

use crate::checkpoint::{Checkpoint, CheckpointFile, State};
use crate::copy::{self, Control};
use crate::decide::{self, Found, Start};
use crate::error::ReplicaError;
use crate::pace::Pace;
use crate::pieces::{self, Piece};
use crate::target::Target;
use crate::verify;

/// How often the first copy is made to count, and a point in time looked at.
const ATTEND: Duration = Duration::from_secs(3);

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

/// What a round is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first copy.
    Seeding,
    /// What changed.
    Copying,
    /// The comparison.
    Verifying,
}

/// How far a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub phase: Phase,
    /// Bytes done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
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
    target: Target,
    file: CheckpointFile,
    checkpoint: Option<Checkpoint>,
    start: Start,
    options: Options,
    stop: &'a AtomicBool,
}

impl std::fmt::Debug for Replica<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Bytes of the first copy: read, and written.
#[derive(Clone, Copy, Default)]
struct Seeded {
    bytes: u64,
    written: u64,
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
        let file = CheckpointFile::of(state_dir, target.path());
        let read = file.read();
        let checkpoint = read.clone().unwrap_or_default();
        let (id, blank) = (target.id().clone(), target.is_blank()?);
        let start =
            decide::decide(&record, Found { id, blank, checkpoint: read }, options.overwrite)?;
        Ok(Self { host, record, target, file, checkpoint, start, options, stop })
    }

    /// How the next round begins.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Where the copy goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Makes the target equal to a new point in time of the source.
    pub fn round(&mut self, observer: Observer<'_>) -> Result<Round, ReplicaError> {
        let (start, began) = (self.start.clone(), Instant::now());
        let (since, seeded) = match start {
            Start::Full(_) => {
                let Boundary { era, .. } = self.host.boundary(&self.record)?;
                self.begin(era)?;
                (era, self.seed(era, Bytes(0), &mut *observer)?)
            }
            Start::Resume { since, cursor } => (since, self.seed(since, cursor, &mut *observer)?),
            Start::Changed { since } => (since, Seeded::default()),
        };
        let point = self.host.point_in_time(&self.record, self.options.copies)?;
        let copied = self.copy_point(&point, since, observer);
        let ended = self.host.end_point_in_time(point);
        let mut round = copied?;
        ended?;
        round.start = start;
        round.bytes += seeded.bytes;
        round.written += seeded.written;
        round.copied_in = began.elapsed().saturating_sub(round.verified_in.unwrap_or_default());
        Ok(round)
    }

    /// From now on the target is ours, and what is in it counts for nothing.
    fn begin(&mut self, era: Era) -> Result<(), ReplicaError> {
        let Record { stack, chain, sectors, granularity, .. } = self.record.clone();
        let id = self.target.id().clone();
        let checkpoint = Checkpoint::new(stack, chain, era, (sectors, granularity), id);
        self.write(checkpoint)?;
        self.start = Start::Resume { since: era, cursor: Bytes(0) };
        Ok(())
    }

    fn write(&mut self, checkpoint: Checkpoint) -> Result<(), ReplicaError> {
        self.file.write(&checkpoint).map_err(ReplicaError::Checkpoint)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// All of the source from there on, read through era: what changes meanwhile is in the list of
    /// what changed since the boundary.
    fn seed(
        &mut self,
        since: Era,
        cursor: Bytes,
        observer: Observer<'_>,
    ) -> Result<Seeded, ReplicaError> {
        let total = size_of(&self.record).0;
        let source = self.host.open_tracked(&self.record)?;
        let mut counted = Instant::now();
        let (host, record, target, stop) = (self.host, &self.record, &self.target, self.stop);
        let (file, mut checkpoint) = (&self.file, self.checkpoint.clone());
        let mut count = |done: u64| {
            target.flush()?;
            host.check_intact(record)?;
            if let Some(checkpoint) = &mut checkpoint {
                checkpoint.cursor = Bytes(done);
                file.write(checkpoint).map_err(ReplicaError::Checkpoint)?;
            }
            Ok::<_, ReplicaError>(())
        };
        let mut attend = |piece: Piece| {
            let done = piece.offset + piece.length as u64;
            observer(Progress { phase: Phase::Seeding, done, total });
            let due = counted.elapsed() >= ATTEND || stop.load(Ordering::Relaxed);
            if !due && done < total {
                return Ok(());
            }
            counted = Instant::now();
            count(done)
        };
        let control = Control {
            stop: self.stop,
            stands: State::Seeding,
            pace: Pace::new(self.options.max_rate.map(|rate| rate.0)),
            attend: &mut attend,
        };
        let written = copy::copy(&source, target, pieces::of_range(cursor.0, total), control);
        self.checkpoint = checkpoint;
        let cursor_now = self.checkpoint.as_ref().map_or(cursor, |checkpoint| checkpoint.cursor);
        self.start = Start::Resume { since, cursor: cursor_now };
        Ok(Seeded { bytes: total - cursor.0.min(total), written: written? })
    }

    fn copy_point(
        &mut self,
        point: &PointInTime,
        since: Era,
        observer: Observer<'_>,
    ) -> Result<Round, ReplicaError> {
        let changes = self.host.changes(&self.record, since)?;
        let size = size_of(&self.record).0;
        let list = || pieces::of_runs(changes.runs.iter(), self.record.granularity, size);
        let total: u64 = list().map(|piece| piece.length as u64).sum();
        let source = self.host.open_point_in_time(point)?;
        if total > 0 {
            self.say(State::Copying)?;
        }
        let written =
            self.attended(point, (Phase::Copying, total), observer, |control, target| {
                let list = pieces::of_runs(changes.runs.iter(), changes.granularity, size);
                copy::copy(&source, target, list, control)
            })?;
        let verified_in = self.verify(point, &source, observer)?;
        self.target.flush()?;
        self.host.check_point_in_time(point)?;
        let number = self.finish(point)?;
        Ok(Round {
            start: self.start.clone(),
            boundary: point.boundary,
            number,
            blocks: changes.changed_blocks(),
            bytes: total,
            written,
            copied_in: Duration::ZERO,
            verified_in,
        })
    }

    fn verify(
        &mut self,
        point: &PointInTime,
        source: &File,
        observer: Observer<'_>,
    ) -> Result<Option<Duration>, ReplicaError> {
        if !self.options.verify {
            return Ok(None);
        }
        let (size, began) = (size_of(&self.record).0, Instant::now());
        let ranges =
            self.attended(point, (Phase::Verifying, size), observer, |control, target| {
                verify::compare(source, target, size, control)
            })?;
        if ranges.is_empty() {
            return Ok(Some(began.elapsed()));
        }
        // What is no point in time any more differs for that reason.
        self.host.check_point_in_time(point)?;
        self.say(State::Differs)?;
        self.start = Start::Full(decide::Why::Differed);
        let bytes = Bytes(ranges.iter().map(|(_, length)| length).sum());
        Err(ReplicaError::Differs { path: self.target.path().to_owned(), ranges, bytes })
    }

    /// Does something with the point in time, looking at it now and then; why it is no longer good
    /// comes before what failed for it.
    fn attended<T>(
        &self,
        point: &PointInTime,
        (phase, total): (Phase, u64),
        observer: Observer<'_>,
        act: impl FnOnce(Control<'_>, &Target) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        let (mut done, mut looked) = (0, Instant::now());
        let mut attend = |piece: Piece| {
            done += piece.length as u64;
            observer(Progress { phase, done, total });
            if looked.elapsed() >= ATTEND {
                looked = Instant::now();
                self.host.check_point_in_time(point)?;
            }
            Ok(())
        };
        let pace = Pace::new(self.options.max_rate.map(|rate| rate.0));
        let (stop, stands) = (self.stop, self.standing());
        let acted = act(Control { stop, stands, pace, attend: &mut attend }, &self.target);
        if matches!(acted, Err(ReplicaError::Read { .. })) {
            self.host.check_point_in_time(point)?;
        }
        acted
    }

    fn standing(&self) -> State {
        self.checkpoint.as_ref().map_or(State::Seeding, |checkpoint| checkpoint.state)
    }

    /// A first copy stays one until it has become a point in time.
    fn say(&mut self, state: State) -> Result<(), ReplicaError> {
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(()) };
        if checkpoint.state == state
            || (checkpoint.state, state) == (State::Seeding, State::Copying)
        {
            return Ok(());
        }
        self.write(Checkpoint { state, ..checkpoint })
    }

    fn finish(&mut self, point: &PointInTime) -> Result<u64, ReplicaError> {
        let Boundary { era, time, .. } = point.boundary;
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(0) };
        let rounds = checkpoint.rounds + 1;
        let (state, time) = (State::Consistent, milliseconds(time));
        self.write(Checkpoint { state, era: era.0, rounds, time, ..checkpoint })?;
        self.start = Start::Changed { since: era };
        Ok(rounds)
    }
}

fn size_of(record: &Record) -> Bytes {
    record.sectors.to_bytes().unwrap_or(Bytes(u64::MAX))
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
