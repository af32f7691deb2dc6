//! A target, what is known of it, and the steps that a replica is made of; the caller has boundaries and points in time.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eratrack_dm::machine::Machine;
use eratrack_model::Era;
use eratrack_model::extents::ChangedBlocks;
use eratrack_model::record::Record;
use eratrack_model::units::{Bytes, DevNo};

use crate::checkpoint::{Checkpoint, CheckpointFile, Label, State};
use crate::copy::{self, Control};
use crate::decide::{self, Found, Start, Why};
use crate::error::ReplicaError;
use crate::ledger::Ledger;
use crate::pace::Pace;
use crate::pieces::{self, MOST, Piece};
use crate::proof::{self, Witness};
use crate::target::Target;
use crate::verify;

/// How often the first copy is made to count, and a point in time looked at.
const ATTEND: Duration = Duration::from_secs(3);
/// The most that the first copy writes before it is made to count.
const AHEAD: u64 = 512 << 20;

/// What a copy is at.
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

/// Who attends a copy.
pub trait Watch {
    /// Told of each piece that is done.
    fn progress(&mut self, progress: Progress);

    /// Fails unless all that was read of the source up to now counts.
    fn check(&mut self) -> Result<(), ReplicaError>;
}

/// How a copy is made.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// Becomes true when it is to end.
    pub stop: &'a AtomicBool,
    /// Not more than so many bytes a second.
    pub max_rate: Option<Bytes>,
    /// Compare in full before it counts.
    pub verify: bool,
}

/// A point in time that is copied.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// Its device.
    pub device: &'a File,
    /// The first era after its boundary.
    pub era: Era,
    /// When its boundary was, in milliseconds since 1970.
    pub time: u64,
    /// What its maker calls it.
    pub label: Option<Label>,
    /// What was written since the boundary that [`Start`] names.
    pub changes: &'a ChangedBlocks,
}

/// What a copy of a point in time did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// How many points in time this target has equalled since its full copy.
    pub number: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// What of that was no zeroes, and so was written.
    pub written: u64,
    /// How long the comparison took, if there was one.
    pub verified_in: Option<Duration>,
}

/// Bytes of the first copy: read, and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Read.
    pub bytes: u64,
    /// What of that was no zeroes.
    pub written: u64,
}

/// An open target of one source. After an error it is to be opened anew, or the same is to be done again.
#[derive(Debug)]
pub struct Follower {
    record: Record,
    target: Target,
    ledger: Ledger,
    start: Start,
}

impl Follower {
    /// Opens a device as the target of a source, of whose writers it is known whether they were us: `file` is the device,
    /// claimed; `name` stands for its path, and is always the same; `table` is its live table, if it has one.
    pub fn of_device(
        machine: &Machine,
        state_dir: &Path,
        record: Record,
        (name, device, file): (&Path, DevNo, File),
        table: Option<String>,
    ) -> Result<Self, ReplicaError> {
        let source = (record.x, size_of(&record));
        let target = Target::of_device(machine, (name, device, file), source)?;
        let witness = Witness::new(machine, device, table);
        Self::new(state_dir, record, target, Some(witness), false)
    }

    /// Reads what is known of the target, and decides how to begin. `state_dir` is where checkpoints are.
    pub(crate) fn new(
        state_dir: &Path,
        record: Record,
        target: Target,
        witness: Option<Witness>,
        overwrite: bool,
    ) -> Result<Self, ReplicaError> {
        let file = CheckpointFile::of(state_dir, target.path());
        let read = file.read();
        let checkpoint = read.clone().unwrap_or_default();
        let (id, blank) = (target.id().clone(), target.is_blank()?);
        let seen = witness.as_ref().map(Witness::see).transpose()?.flatten();
        let noted = checkpoint.as_ref().and_then(|known| known.proof.as_ref());
        let doubt = witness.as_ref().and_then(|_| proof::judge(noted, seen.as_ref()));
        let found = Found { id, blank, checkpoint: read, doubt };
        let start = decide::decide(&record, found, overwrite)?;
        if let Some(witness) = &witness {
            witness.have_counted()?;
        }
        // From here on it is counted, also where it was not before.
        let seen = witness.as_ref().map(Witness::see).transpose()?.flatten();
        Ok(Self { record, target, ledger: Ledger::new(file, checkpoint, witness, seen), start })
    }

    /// How the next copy begins.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Where the copy goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What the target equals, if it equals anything: when that was, in milliseconds since 1970, and what its maker calls
    /// it.
    pub fn equals(&self) -> Option<(u64, &Label)> {
        let Start::Changed { .. } = self.start else { return None };
        let known = self.ledger.checkpoint().filter(|it| it.state == State::Consistent)?;
        Some((known.time, known.label.as_ref()?))
    }

    /// From now on the target is ours, and what is in it counts for nothing: a full copy begins, of which all
    /// that is written from this era on is fetched later.
    pub fn begin(&mut self, era: Era) -> Result<(), ReplicaError> {
        let Record { stack, chain, sectors, granularity, .. } = self.record.clone();
        let id = self.target.id().clone();
        let checkpoint = Checkpoint::new(stack, chain, era, (sectors, granularity), id);
        self.ledger.begin_anew();
        self.ledger.note(&self.target, checkpoint, AHEAD)?;
        self.start = Start::Resume { since: era, cursor: Bytes(0) };
        Ok(())
    }

    /// Goes on with the full copy: all of the source from where it was, read through era. What changes meanwhile is in
    /// the list of what changed since the boundary.
    pub fn seed(
        &mut self,
        source: &File,
        manner: Manner<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Seeded, ReplicaError> {
        let Start::Resume { since, cursor } = self.start else { return Ok(Seeded::default()) };
        let total = size_of(&self.record).0;
        // What the process before may have written, from there on, is written again.
        self.count(cursor, AHEAD)?;
        let (target, ledger) = (&self.target, &mut self.ledger);
        let mut counted = Instant::now();
        let mut attend = |piece: Piece| {
            let done = piece.offset + piece.length as u64;
            watch.progress(Progress { phase: Phase::Seeding, done, total });
            ledger.wrote(piece.length as u64);
            let stopped = manner.stop.load(Ordering::Relaxed);
            let due = counted.elapsed() >= ATTEND || ledger.ours() + MOST > AHEAD || stopped;
            if !due && done < total {
                return Ok(());
            }
            counted = Instant::now();
            target.flush()?;
            watch.check()?;
            // Nothing more is written: from here on every sector is somebody else's.
            let ahead = if done >= total || stopped { 0 } else { AHEAD };
            note_cursor(ledger, target, Bytes(done), ahead)
        };
        let control = Control {
            stop: manner.stop,
            stands: State::Seeding,
            pace: Pace::new(manner.max_rate.map(|rate| rate.0)),
            attend: &mut attend,
        };
        let written = copy::copy(source, target, pieces::of_range(cursor.0, total), control);
        let now = self.ledger.checkpoint().map_or(cursor, |known| known.cursor);
        self.start = Start::Resume { since, cursor: now };
        Ok(Seeded { bytes: total - cursor.0.min(total), written: written? })
    }

    /// Whether all of the full copy is made, so that what changed meanwhile is to be fetched.
    pub fn is_seeded(&self) -> bool {
        match self.start {
            Start::Full(_) => false,
            Start::Resume { cursor, .. } => cursor >= size_of(&self.record),
            Start::Changed { .. } => true,
        }
    }

    /// Makes the target equal to a point in time: copies what changed, compares if that is wanted, flushes, has the
    /// point in time looked at, and then writes down that the target equals it.
    pub fn copy(
        &mut self,
        point: &Point<'_>,
        manner: Manner<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Account, ReplicaError> {
        let (size, granularity) = (size_of(&self.record).0, self.record.granularity);
        let list = || pieces::of_runs(point.changes.iter(), granularity, size);
        let total: u64 = list().map(|piece| piece.length as u64).sum();
        if total > 0 {
            self.say(State::Copying, total)?;
        }
        let phase = (Phase::Copying, total);
        let mut done = 0;
        let copied = self.attended((manner, &mut done), phase, watch, |control, target| {
            copy::copy(point.device, target, list(), control)
        });
        self.ledger.wrote(done);
        let finished =
            copied.and_then(|written| self.make_equal(point, manner, watch, (total, written)));
        if finished.is_err() && !matches!(self.start, Start::Full(_)) {
            // What else is written from here on is somebody else's.
            let settled = self
                .target
                .flush()
                .map_err(ReplicaError::from)
                .and_then(|()| self.say(State::Copying, 0));
            settled.unwrap_or_else(|error| tracing::debug!(%error, "all is copied again"));
        }
        finished
    }

    fn make_equal(
        &mut self,
        point: &Point<'_>,
        manner: Manner<'_>,
        watch: &mut dyn Watch,
        (total, written): (u64, u64),
    ) -> Result<Account, ReplicaError> {
        let verified_in = self.compare(point.device, manner, watch)?;
        self.target.flush()?;
        watch.check()?;
        let number = self.finish(point)?;
        Ok(Account { number, bytes: total, written, verified_in })
    }

    fn compare(
        &mut self,
        source: &File,
        manner: Manner<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Option<Duration>, ReplicaError> {
        if !manner.verify {
            return Ok(None);
        }
        let (size, began) = (size_of(&self.record).0, Instant::now());
        let ranges =
            self.attended((manner, &mut 0), (Phase::Verifying, size), watch, |control, target| {
                verify::compare(source, target, size, control)
            })?;
        if ranges.is_empty() {
            return Ok(Some(began.elapsed()));
        }
        // What is no point in time any more differs for that reason.
        watch.check()?;
        self.say(State::Differs, 0)?;
        self.start = Start::Full(Why::Differed);
        let bytes = Bytes(ranges.iter().map(|(_, length)| length).sum());
        Err(ReplicaError::Differs { path: self.target.path().to_owned(), ranges, bytes })
    }

    /// Does something with the point in time, looking at it now and then; why it is no longer good
    /// comes before what failed for it.
    fn attended<T>(
        &self,
        (manner, done): (Manner<'_>, &mut u64),
        (phase, total): (Phase, u64),
        watch: &mut dyn Watch,
        act: impl FnOnce(Control<'_>, &Target) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        let mut looked = Instant::now();
        let mut attend = |piece: Piece| {
            *done += piece.length as u64;
            watch.progress(Progress { phase, done: *done, total });
            if looked.elapsed() >= ATTEND {
                looked = Instant::now();
                watch.check()?;
            }
            Ok(())
        };
        let pace = Pace::new(manner.max_rate.map(|rate| rate.0));
        let (stop, stands) = (manner.stop, self.standing());
        let acted = act(Control { stop, stands, pace, attend: &mut attend }, &self.target);
        if matches!(acted, Err(ReplicaError::Read { .. })) {
            watch.check()?;
        }
        acted
    }

    fn standing(&self) -> State {
        self.ledger.checkpoint().map_or(State::Seeding, |known| known.state)
    }

    fn count(&mut self, cursor: Bytes, ahead: u64) -> Result<(), ReplicaError> {
        note_cursor(&mut self.ledger, &self.target, cursor, ahead)
    }

    /// A first copy stays one until it has become a point in time.
    fn say(&mut self, state: State, ahead: u64) -> Result<(), ReplicaError> {
        let Some(known) = self.ledger.checkpoint().cloned() else { return Ok(()) };
        let seeding = (known.state, state) == (State::Seeding, State::Copying);
        let state = if seeding { State::Seeding } else { state };
        self.ledger.note(&self.target, Checkpoint { state, ..known }, ahead)
    }

    fn finish(&mut self, point: &Point<'_>) -> Result<u64, ReplicaError> {
        let Some(known) = self.ledger.checkpoint().cloned() else { return Ok(0) };
        let (rounds, label) = (known.rounds + 1, point.label.clone());
        let (state, era, time) = (State::Consistent, point.era.0, point.time);
        let equal = Checkpoint { era, state, rounds, time, label, ..known };
        self.ledger.note(&self.target, equal, 0)?;
        self.start = Start::Changed { since: point.era };
        Ok(rounds)
    }
}

fn note_cursor(
    ledger: &mut Ledger,
    target: &Target,
    cursor: Bytes,
    ahead: u64,
) -> Result<(), ReplicaError> {
    let Some(known) = ledger.checkpoint().cloned() else { return Ok(()) };
    ledger.note(target, Checkpoint { cursor, ..known }, ahead)
}

pub(crate) fn size_of(record: &Record) -> Bytes {
    record.sectors.to_bytes().unwrap_or(Bytes(u64::MAX))
}
