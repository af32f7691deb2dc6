//! Carries a plan out, step by step. It makes no choices: a step that does not go exactly as
//! planned ends the run, and observing and planning again is the way on.

use std::time::{Duration, Instant, SystemTime};

use eratrack_model::Era;
use eratrack_model::lvm::VgName;
use eratrack_model::names::{DmUuid, Role, StackId};
use eratrack_model::plan::{DeviceRef, Member, Plan, PlannedTable, Step};
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, DevNo, Sectors};

use crate::era_status::{self, EraStatus};
use crate::lvm_lock::LockError;
use crate::machine::MachineError;
use crate::port::{Access, DeviceMapper, DmError, Lookup, Slot};

/// What a plan needs besides device mapper. [`crate::host`] has the machine's.
pub trait Surroundings {
    /// LVM's lock on a volume group, for as long as the value lives.
    type Lock;

    /// Told that X's table is about to be swapped, after X was found as it must be; or that this
    /// is over, and X neither suspended nor without its read-ahead.
    fn swapping(&self, swap: Option<Swapping>);
    /// Takes LVM's lock.
    fn lock(&self, vg: &VgName) -> Result<Self::Lock, LockError>;
    /// Writes zeroes over the start of a block device, durably.
    fn zero(&self, dev: DevNo, length: Sectors) -> Result<(), MachineError>;
    /// Limits discards on a device; what then holds.
    fn limit_discards(&self, dev: DevNo, bytes: Bytes) -> Result<Bytes, MachineError>;
    /// How far a device reads ahead, in KiB.
    fn read_ahead(&self, dev: DevNo) -> Result<u64, MachineError>;
    /// Sets how far a device reads ahead, in KiB.
    fn set_read_ahead(&self, dev: DevNo, kib: u64) -> Result<(), MachineError>;
}

/// What a process that is killed while it swaps X's table must leave to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swapping {
    /// X, which the kernel may have left suspended.
    pub x: DevNo,
    /// How far X read ahead before, in KiB: the swap resets it.
    pub read_ahead: Option<u64>,
}

/// Told of each step before it happens: a trace, or a test that ends the process there.
pub type Observer<'a> = &'a (dyn Fn(usize, &Step) + Sync);

/// What a plan's steps found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The era that [`Step::ReadEra`] read.
    pub era: Option<Era>,
    /// Metadata blocks of 4 KiB that were in use, and that there are, as the same step read.
    pub metadata: Option<(u64, u64)>,
    /// When, and after how long, the last swap or drain of X ended.
    pub drained: Option<(SystemTime, Duration)>,
}

/// A step that did not go as planned; those after it have not happened.
#[derive(Debug, thiserror::Error)]
#[error("step {number} of {of} of {stack} ({step:?})")]
pub struct StepError {
    /// The stack.
    pub stack: StackId,
    /// Which step, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// The step.
    pub step: Box<Step>,
    /// What went wrong.
    #[source]
    pub source: Box<StepErrorKind>,
}

/// What went wrong in a step.
#[derive(Debug, thiserror::Error)]
pub enum StepErrorKind {
    /// The kernel refused it.
    #[error(transparent)]
    DeviceMapper(#[from] DmError),
    /// LVM's lock was not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file of the machine's, or a device, was not to be read or written.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// X is not as it was planned for: somebody else is at work on it.
    #[error("device {x} has {found}; expected {expected}")]
    Changed {
        /// X.
        x: DevNo,
        /// What X has.
        found: String,
        /// What it must have.
        expected: String,
    },
    /// A limit was written and did not hold.
    #[error("discards on {dev} are limited to {found} bytes, not to {wanted}")]
    Limit {
        /// X-era.
        dev: DevNo,
        /// What holds.
        found: u64,
        /// What was written.
        wanted: u64,
    },
    /// dm-era reports `Error`.
    #[error("the era device {dev} has failed: its metadata is full or cannot be written")]
    EraFailed {
        /// X-era.
        dev: DevNo,
    },
    /// dm-era reports something that is not understood.
    #[error("the era device {dev} reports {text:?}, which is not understood")]
    Status {
        /// X-era.
        dev: DevNo,
        /// What it reports.
        text: String,
    },
}

/// Runs plans of one stack.
pub struct Executor<'a, S: Surroundings> {
    /// Where.
    pub dm: &'a dyn DeviceMapper,
    /// With what besides.
    pub surroundings: &'a S,
    /// Whose stack.
    pub stack: &'a StackId,
    /// Who is told of each step.
    pub observer: Observer<'a>,
}

/// X as it is just before it is held together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// X.
    pub x: DevNo,
    /// X-era.
    pub era: DevNo,
    /// What X goes on with; it waits in X's slot.
    pub table: Option<Table>,
    /// The era that is to end.
    pub ends: Era,
    read_ahead: Option<u64>,
}

struct Run<L> {
    locks: Vec<(VgName, L)>,
    outcome: Outcome,
}

impl<S: Surroundings> Executor<'_, S> {
    /// Runs a whole plan. Locks that it takes are given back however it ends.
    pub fn run(&self, plan: &Plan) -> Result<Outcome, StepError> {
        self.run_steps(&plan.steps)
    }

    /// Runs a part of one.
    pub fn run_steps(&self, steps: &[Step]) -> Result<Outcome, StepError> {
        let mut run = Run { locks: Vec::new(), outcome: Outcome::default() };
        let of = steps.len();
        for (index, step) in steps.iter().enumerate() {
            (self.observer)(index, step);
            tracing::debug!(stack = %self.stack, number = index + 1, of, ?step, "step");
            self.step(step, &mut run).map_err(|source| StepError {
                stack: self.stack.clone(),
                number: index + 1,
                of,
                step: Box::new(step.clone()),
                source: Box::new(source),
            })?;
        }
        Ok(run.outcome)
    }

    /// Makes X ready to be held: it is as planned, the table that it goes on with waits in its slot, and a kill from
    /// here on is noted. Only [`Executor::called_off`] or [`Executor::gone_on`] ends that.
    pub fn make_ready(&self, member: &Member) -> Result<Ready, StepErrorKind> {
        let (x, expect) = (member.x, self.resolve(&member.expect)?);
        self.verify(x, &expect)?;
        let (ends, ..) = self.read_era()?;
        let table = member.table.as_ref().map(|table| self.resolve(table)).transpose()?;
        // Only another table resets it.
        let read_ahead = match table {
            Some(_) => Some(self.surroundings.read_ahead(x)?),
            None => None,
        };
        let ready = Ready { x, era: self.own(Role::Era)?, table, ends, read_ahead };
        self.surroundings.swapping(Some(Swapping { x, read_ahead }));
        let loaded = ready.table.as_ref().map_or(Ok(()), |table| {
            self.dm.load(x, table, Access::ReadWrite)?;
            self.holds(x, Slot::Inactive, table)?;
            self.holds(x, Slot::Live, &expect)
        });
        loaded.inspect_err(|_| self.called_off(&ready))?;
        Ok(ready)
    }

    /// X was not held, or goes on with the table that it had.
    pub fn called_off(&self, ready: &Ready) {
        if let Some(table) = &ready.table
            && let Err(error) = self.clear_slot(ready.x, table)
        {
            tracing::warn!(x = %ready.x, %error, "the slot is left as it is");
        }
        self.no_longer_swapping(ready.x);
    }

    /// X was held, and goes on.
    pub fn gone_on(&self, ready: &Ready) -> Result<(), StepErrorKind> {
        let kept =
            ready.read_ahead.map_or(Ok(()), |kib| self.surroundings.set_read_ahead(ready.x, kib));
        self.no_longer_swapping(ready.x);
        Ok(kept?)
    }

    /// The era that has just begun, and the metadata: the one that follows the one that was to end, and no later one.
    /// Else somebody began another in between, and what was written in this one would be in no list.
    pub fn read_era_after(&self, ready: &Ready) -> Result<Outcome, StepErrorKind> {
        let (era, used, total) = self.read_era()?;
        if Some(era.0) != ready.ends.0.checked_add(1) {
            return Err(StepErrorKind::Changed {
                x: ready.era,
                found: format!("era {era}"),
                expected: format!("the one after {}", ready.ends),
            });
        }
        Ok(Outcome { era: Some(era), metadata: Some((used, total)), drained: None })
    }

    fn no_longer_swapping(&self, x: DevNo) {
        if self.dm.info(&x.into()).is_ok_and(|info| !info.suspended) {
            self.surroundings.swapping(None);
        }
    }

    fn step(&self, step: &Step, run: &mut Run<S::Lock>) -> Result<(), StepErrorKind> {
        match step {
            Step::LockVolumeGroup { vg } => {
                run.locks.push((vg.clone(), self.surroundings.lock(vg)?));
            }
            Step::UnlockVolumeGroup { vg } => run.locks.retain(|(held, _)| held != vg),
            Step::VerifyLive { x, table } => self.verify(*x, &self.resolve(table)?)?,
            Step::ZeroMetadata { device, length } => self.surroundings.zero(*device, *length)?,
            Step::Create { role: _, name, uuid } => {
                self.dm.create(name, uuid)?;
            }
            Step::Load { role, table } => {
                self.dm.load(self.own(*role)?, &self.resolve(table)?, Access::ReadWrite)?;
            }
            Step::Activate { role } => self.dm.swap(self.own(*role)?)?,
            Step::LimitDiscards { bytes } => self.limit_discards(*bytes)?,
            Step::SwapIn { x, expect, table, keep_read_ahead } => {
                let expect = self.resolve(expect)?;
                self.verify(*x, &expect)?;
                let start = Instant::now();
                self.swap_in(*x, &expect, &self.resolve(table)?, *keep_read_ahead)?;
                run.outcome.drained = Some((SystemTime::now(), start.elapsed()));
            }
            Step::ClearSlot { x, table } => self.clear_slot(*x, &self.resolve(table)?)?,
            Step::Remove { role } => self.dm.remove(self.own(*role)?)?,
            Step::Checkpoint => self.dm.message(self.own(Role::Era)?, "checkpoint")?,
            Step::ReadEra => {
                let (era, used, total) = self.read_era()?;
                run.outcome.era = Some(era);
                run.outcome.metadata = Some((used, total));
            }
            Step::Drain { x, table, keep_read_ahead } => {
                let table = self.resolve(table)?;
                self.verify(*x, &table)?;
                let start = Instant::now();
                self.swap_in(*x, &table, &table, *keep_read_ahead)?;
                run.outcome.drained = Some((SystemTime::now(), start.elapsed()));
            }
        }
        Ok(())
    }

    /// The device of ours with that role. Found by uuid at each step: a number could be another
    /// device's by now.
    fn own(&self, role: Role) -> Result<DevNo, DmError> {
        Ok(self.dm.info(&Lookup::Uuid(self.uuid(role)))?.number)
    }

    fn uuid(&self, role: Role) -> DmUuid {
        self.stack.uuid(role)
    }

    fn resolve(&self, table: &PlannedTable) -> Result<Table, DmError> {
        table.try_map(|device| match device {
            DeviceRef::Number(number) => Ok(*number),
            DeviceRef::Own(role) => self.own(*role),
        })
    }

    fn verify(&self, x: DevNo, expected: &Table) -> Result<(), StepErrorKind> {
        let changed = |found: String| StepErrorKind::Changed {
            x,
            found,
            expected: format!("the live table {}", one_line(expected)),
        };
        let info = self.dm.info(&x.into())?;
        if info.suspended {
            return Err(changed("been suspended".to_owned()));
        }
        if info.inactive {
            let loaded = self.dm.table(x, Slot::Inactive)?;
            return Err(changed(format!("a table loaded: {}", text(loaded.as_ref()))));
        }
        self.holds(x, Slot::Live, expected)
    }

    fn clear_slot(&self, x: DevNo, expected: &Table) -> Result<(), StepErrorKind> {
        if self.dm.table(x, Slot::Inactive)?.is_some() {
            self.holds(x, Slot::Inactive, expected)?;
        }
        Ok(self.dm.clear(x)?)
    }

    fn holds(&self, x: DevNo, slot: Slot, expected: &Table) -> Result<(), StepErrorKind> {
        let found = self.dm.table(x, slot)?;
        if found.as_ref() == Some(expected) {
            return Ok(());
        }
        let which = match slot {
            Slot::Live => "live",
            Slot::Inactive => "loaded",
        };
        let expected = format!("the {which} table {}", one_line(expected));
        Err(StepErrorKind::Changed { x, found: text(found.as_ref()), expected })
    }

    fn load_and_swap(&self, x: DevNo, expect: &Table, table: &Table) -> Result<(), StepErrorKind> {
        self.dm.load(x, table, Access::ReadWrite)?;
        // Whoever shares no lock with us may have come in between.
        self.holds(x, Slot::Inactive, table)?;
        self.holds(x, Slot::Live, expect)?;
        Ok(self.dm.swap(x)?)
    }

    /// Load and swap; whatever fails, no table of ours is in X's slot afterwards.
    fn swap_in(
        &self,
        x: DevNo,
        expect: &Table,
        table: &Table,
        keep_read_ahead: bool,
    ) -> Result<(), StepErrorKind> {
        let read_ahead =
            if keep_read_ahead { Some(self.surroundings.read_ahead(x)?) } else { None };
        self.surroundings.swapping(Some(Swapping { x, read_ahead }));
        let swapped = self.load_and_swap(x, expect, table);
        if swapped.is_err() {
            // Why the swap failed is what counts.
            if let Err(error) = self.clear_slot(x, table) {
                tracing::warn!(%x, %error, "the slot is left as it is");
            }
        }
        let kept = match (&swapped, read_ahead) {
            (Ok(()), Some(kib)) => self.surroundings.set_read_ahead(x, kib),
            (Ok(()), None) | (Err(_), _) => Ok(()),
        };
        if swapped.is_ok() {
            self.surroundings.swapping(None);
        } else {
            self.no_longer_swapping(x);
        }
        swapped?;
        Ok(kept?)
    }

    fn limit_discards(&self, bytes: Bytes) -> Result<(), StepErrorKind> {
        let dev = self.own(Role::Era)?;
        let found = self.surroundings.limit_discards(dev, bytes)?;
        if found <= bytes {
            Ok(())
        } else {
            Err(StepErrorKind::Limit { dev, found: found.0, wanted: bytes.0 })
        }
    }

    fn read_era(&self) -> Result<(Era, u64, u64), StepErrorKind> {
        let dev = self.own(Role::Era)?;
        let lines = self.dm.status(dev)?;
        match era_status::parse(&lines) {
            Ok(EraStatus::Working { era, used, total, held: _ }) => Ok((era, used, total)),
            Ok(EraStatus::Error) => Err(StepErrorKind::EraFailed { dev }),
            Err(text) => Err(StepErrorKind::Status { dev, text }),
        }
    }
}

fn text(table: Option<&Table>) -> String {
    table.map_or_else(|| "no table".to_owned(), |table| format!("the table {}", one_line(table)))
}

fn one_line(table: &Table) -> String {
    table.to_string().replace('\n', "; ")
}
