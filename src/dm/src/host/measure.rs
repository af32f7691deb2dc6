//! Questions to a stack that is in place, and its boundaries.

use std::time::{Duration, SystemTime};

use eratrack_model::names::{Role, StackId};
use eratrack_model::plan::{self, Step};
use eratrack_model::record::{Phase, Record};
use eratrack_model::table::Table;
use rustix::io::Errno;

use super::boundaries::DiscardsSeen;
use super::{Boundary, Host, HostError, Liveness};
use crate::era_status::{self, EraStatus};
use crate::executor::{Outcome, StepError, StepErrorKind};
use crate::port::{DmErrorKind, Lookup, Slot};
use crate::stack_lock::StackLock;

impl Host {
    /// Whether X still goes through its X-era. A few ioctls that wait for nobody.
    pub fn liveness(&self, record: &Record) -> Result<Liveness, HostError> {
        if self.machine.boot_id()? != record.boot {
            return Ok(Liveness::Rebooted);
        }
        let Some(x) = self.locate(record)? else { return Ok(Liveness::Gone) };
        let live = self.dm.table(x, Slot::Live)?;
        // LVM never loads ours: the same table on the same device is proof.
        let ours = x == record.x && self.leads_to_era(record, live.as_ref())?;
        if ours { Ok(Liveness::Intact) } else { Ok(Liveness::Reloaded { live }) }
    }

    /// Whether that table of X leads to X-era, at once or through X-origin.
    fn leads_to_era(&self, record: &Record, live: Option<&Table>) -> Result<bool, HostError> {
        let era = self.find(&Lookup::Uuid(record.stack.uuid(Role::Era)))?;
        let Some((live, era)) = live.zip(era) else { return Ok(false) };
        if plan::is_live_table(live, &record.original, era.number) {
            return Ok(true);
        }
        self.leads_through_origin(record, live, era.number)
    }

    /// Fails unless the record on disk is this chain's and in place: another process may have begun
    /// a new chain since the caller read it, or be taking the stack out. To be asked with the
    /// stack's lock.
    pub(super) fn require_own_chain(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<(), HostError> {
        // What a killed process has left suspended would hang in whatever comes next.
        self.wake(lock, &record.stack)?;
        // A disk that fails takes the record and the metadata alike: then era comes out.
        let kept = self.store.read_record(&record.stack);
        let found = match kept.map_err(|e| self.era_failed(record, e.into()))? {
            Some(kept) if kept.chain == record.chain && kept.phase == Phase::Attached => {
                return Ok(());
            }
            Some(kept) => format!("its record has chain {}, {:?}", kept.chain, kept.phase),
            None => "its record is gone".to_owned(),
        };
        Err(HostError::OtherRecord { stack: record.stack.clone(), found })
    }

    pub(super) fn require_intact(&self, record: &Record) -> Result<(), HostError> {
        let found = match self.liveness(record)? {
            Liveness::Intact => return Ok(()),
            Liveness::Reloaded { live: Some(live) } => {
                format!("its table is {}", live.to_string().replace('\n', "; "))
            }
            Liveness::Reloaded { live: None } => "it has no table".to_owned(),
            Liveness::Gone => "it is gone".to_owned(),
            Liveness::Rebooted => "the machine has booted since".to_owned(),
        };
        Err(HostError::NotIntact { x: record.x, stack: record.stack.clone(), found })
    }

    /// Asks X-era. Each call is a commit of its metadata with two flushes.
    pub fn status(&self, record: &Record) -> Result<EraStatus, HostError> {
        self.era_status(&record.stack)?.ok_or_else(|| HostError::Unexpected {
            stack: record.stack.clone(),
            what: "its era device is gone".to_owned(),
        })
    }

    /// The same by the stack's name alone; none if there is no era device.
    pub(super) fn era_status(&self, stack: &StackId) -> Result<Option<EraStatus>, HostError> {
        let Some(era) = self.find(&Lookup::Uuid(stack.uuid(Role::Era)))? else { return Ok(None) };
        let lines = self.dm.status(era.number)?;
        let status = era_status::parse(&lines).map_err(|text| HostError::Unexpected {
            stack: stack.clone(),
            what: format!("the era device reports {text:?}, which is not understood"),
        });
        status.map(Some)
    }

    /// Separates what was written before from what is written after: checkpoint, the era after
    /// it, then a drain. May be repeated: a boundary more does no harm.
    pub fn boundary(&self, record: &Record) -> Result<Boundary, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.boundary_locked(&lock, record)
    }

    pub(super) fn boundary_locked(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<Boundary, HostError> {
        self.require_intact(record)?;
        // Before the checkpoint: a discard that begins after this counts as later. One that is under way may be counted already
        // (Linux 6.1 counts it when it begins); the drain waits for it, so that it is in the copy.
        let discards = self.discards_now(record)?;
        let observed = self.observe(&record.stack, Some(record.x))?;
        let plan = plan::plan_boundary(&observed)?;
        let outcome =
            self.execute(lock, &observed, &plan).map_err(|e| self.era_failed(record, e))?;
        self.drawn(record, &outcome, discards)
    }

    /// The boundary that a plan drew, written down.
    pub(super) fn drawn(
        &self,
        record: &Record,
        outcome: &Outcome,
        discards: DiscardsSeen,
    ) -> Result<Boundary, HostError> {
        self.require_intact(record)?;
        let read = outcome.era.zip(outcome.metadata);
        let (era, (metadata_used, metadata_total)) = read.ok_or_else(|| HostError::Unexpected {
            stack: record.stack.clone(),
            what: "the plan of a boundary read no era".to_owned(),
        })?;
        let (time, drained_in) = outcome.drained.unwrap_or((SystemTime::now(), Duration::ZERO));
        self.about_to("write the boundary down");
        self.mark_boundary(&record.stack, era, discards)?;
        Ok(Boundary { era, time, drained_in, metadata_used, metadata_total })
    }

    pub(super) fn era_failed(&self, record: &Record, error: HostError) -> HostError {
        let failed = lacks_room(&error) || matches!(self.status(record), Ok(EraStatus::Error));
        if failed { HostError::EraFailed { stack: record.stack.clone() } } else { error }
    }
}

/// Whether the kernel had no room for a new era's writeset, or could not write it. Its status may
/// say afterwards that all is well, because asking is a commit and a commit gives blocks back; but
/// until then writes of the user's failed, and they will again.
fn lacks_room(error: &HostError) -> bool {
    let refused = match error {
        HostError::Step(StepError { step, source, .. }) if **step == Step::Checkpoint => {
            match &**source {
                StepErrorKind::DeviceMapper(refused) => refused,
                _ => return false,
            }
        }
        HostError::NewEra(refused) => refused,
        _ => return false,
    };
    let lost = [Errno::NOSPC, Errno::IO].map(|e| DmErrorKind::Errno(e.raw_os_error()));
    lost.contains(&refused.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::DmError;

    fn refused(step: Step, kind: DmErrorKind) -> HostError {
        let source = Box::new(StepErrorKind::DeviceMapper(DmError::new(kind, "message", "254:2")));
        let stack = "a".parse().expect("a valid stack name");
        HostError::Step(StepError { stack, number: 1, of: 1, step: Box::new(step), source })
    }

    /// `kernel_stress` has seen ENOSPC with a status that said all was well.
    #[test]
    fn a_checkpoint_without_room_counts_as_a_failure_of_era() {
        let no_room = DmErrorKind::Errno(28);
        assert!(lacks_room(&refused(Step::Checkpoint, no_room)));
        assert!(lacks_room(&refused(Step::Checkpoint, DmErrorKind::Errno(5))));
        assert!(!lacks_room(&refused(Step::Checkpoint, DmErrorKind::Busy)));
        assert!(!lacks_room(&refused(Step::ReadEra, no_room)));
        let snapshot = |kind| HostError::NewEra(DmError::new(kind, "message", "254:2"));
        assert!(lacks_room(&snapshot(no_room)));
        assert!(!lacks_room(&snapshot(DmErrorKind::Invalid)));
    }
}
