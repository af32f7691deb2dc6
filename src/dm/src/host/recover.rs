//! What an earlier process left, at the start of this one.

use std::collections::BTreeSet;
use std::time::Duration;

use eratrack_model::lvm::{LvmName, LvmUuid, VgName};
use eratrack_model::names::{Role, StackId};
use eratrack_model::record::{Phase, Record};
use eratrack_model::table::Table;

use super::{Host, HostError, Liveness, Recovered, Recovery};
use crate::era_status::EraStatus;
use crate::executor::Swapping;
use crate::port::{DmErrorKind, Info, Lookup, Slot};
use crate::stack_lock::StackLock;
use crate::store::StoreError;

impl Host {
    /// Finishes, undoes or takes over every stack that has a record, a file or a device, but for
    /// those that somebody else keeps. One that cannot be cleared up now does not keep the others
    /// from it.
    pub fn recover(&self) -> Result<Vec<Recovered>, HostError> {
        let stacks = self.all_stacks()?;
        self.wake_all(&stacks);
        let ours = stacks.into_iter().filter(|stack| !self.is_kept_by_another(stack));
        let recovered = ours.map(|stack| {
            let outcome = self.recover_stack(&stack);
            Recovered { stack, outcome }
        });
        Ok(recovered.collect())
    }

    /// What a group has left suspended runs again before anything else is done: one volume's recovery may take its time.
    fn wake_all(&self, stacks: &BTreeSet<StackId>) {
        // Whoever keeps them: it was noted by a process of ours that is no more.
        for stack in stacks {
            // Where somebody is at work still, nothing is left; its own recovery waits for that.
            let Ok(lock) = StackLock::take(&self.machine, stack, Duration::ZERO) else { continue };
            if let Err(error) = self.wake(&lock, stack) {
                tracing::warn!(%stack, %error, "its recovery tries again");
            }
        }
    }

    /// The same for one stack, for one that could not be cleared up before.
    pub fn recover_stack(&self, stack: &StackId) -> Recovery {
        let outcome = self.recover_one(stack);
        let outcome = outcome.unwrap_or_else(|error| Recovery::Failed(error.to_string()));
        tracing::info!(%stack, ?outcome, "recovered");
        outcome
    }

    fn is_kept_by_another(&self, stack: &StackId) -> bool {
        self.store.keeper(stack).is_some_and(|keeper| keeper != self.keeper)
    }

    pub(super) fn all_stacks(&self) -> Result<BTreeSet<StackId>, HostError> {
        let kept = self.store.stacks().unwrap_or_else(|error| {
            tracing::warn!(%error, "going by the devices alone");
            Vec::new()
        });
        let mut stacks: BTreeSet<_> = kept.into_iter().collect();
        for listed in self.dm.list()? {
            let info = match self.find(&listed.number.into()) {
                // Ours read back, so it is none of ours.
                Err(error) if error.kind == DmErrorKind::Unreadable => None,
                info => info?,
            };
            let uuid = info.and_then(|info| info.uuid);
            stacks.extend(uuid.and_then(|uuid| uuid.owner()).map(|(stack, _)| stack));
        }
        Ok(stacks)
    }

    fn recover_one(&self, stack: &StackId) -> Result<Recovery, HostError> {
        let lock = self.lock_stack(stack)?;
        self.wake(&lock, stack)?;
        let record = match self.store.read_record(stack) {
            Ok(record) => record,
            Err(StoreError::Record { .. }) => None,
            // A disk that fails takes the record and the metadata alike, and then writes of the
            // user's fail too.
            Err(_) if self.era_status(stack)? == Some(EraStatus::Error) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(record) = record else {
            self.take_down(&lock, stack)?;
            return Ok(Recovery::OrphansRemoved);
        };
        if let Some(record) = self.cut_short(stack) {
            self.take_down(&lock, stack)?;
            self.store.remove_returning(stack)?;
            let found = Liveness::Rebooted;
            return Ok(Recovery::Broken { record, found, era_failed: false });
        }
        let found = self.liveness(&record)?;
        match (record.phase, found) {
            (Phase::Detaching, _) => self.take_down(&lock, stack).map(|_| Recovery::Finished),
            (Phase::Attaching | Phase::Attached, Liveness::Intact) => {
                self.take_over(&lock, self.unsealed(record)?)
            }
            (Phase::Attaching, _) => self.take_down(&lock, stack).map(|_| Recovery::Undone),
            (Phase::Attached, found) => {
                self.take_down(&lock, stack)?;
                Ok(Recovery::Broken { record, found, era_failed: false })
            }
        }
    }

    fn take_over(&self, lock: &StackLock, record: Record) -> Result<Recovery, HostError> {
        let status = self.status(&record)?;
        if let EraStatus::Working { held: Some(_), .. } = status {
            // A process that was killed while it read has left it, and it takes up room.
            self.drop_held(&record)?;
        }
        let era_failed = status == EraStatus::Error;
        let finished = if era_failed { None } else { self.finish(lock, record.clone())? };
        if let Some(record) = finished {
            return Ok(Recovery::Adopted(record));
        }
        let found = self.liveness(&record)?;
        self.take_down(lock, &record.stack)?;
        Ok(Recovery::Broken { record, found, era_failed })
    }

    /// Makes up for a process that was killed while it swapped X's table: X is suspended if the
    /// kernel refused the table after the drain, and the swap may have reset X's read-ahead. What
    /// no such process noted is left to whoever suspended it. LVM's volumes are resumed with LVM's
    /// lock.
    pub(super) fn wake(&self, lock: &StackLock, stack: &StackId) -> Result<(), HostError> {
        let Some(Swapping { x, .. }) = lock.swap_cut_short() else { return Ok(()) };
        let group = match self.find(&x.into())? {
            Some(info) if info.suspended => volume_group(&info),
            _ => None,
        };
        let locked = group.map(|group| self.lock_group(&group)).transpose();
        let _lvm = locked.map_err(|e| HostError::Unexpected {
            stack: stack.clone(),
            what: format!("{x} is suspended: {e}"),
        })?;
        self.wake_locked(lock, stack)
    }

    /// The same for who has LVM's lock already.
    pub(super) fn wake_locked(&self, lock: &StackLock, stack: &StackId) -> Result<(), HostError> {
        let Some(Swapping { x, read_ahead }) = lock.swap_cut_short() else { return Ok(()) };
        if let Some(info) = self.find(&x.into())? {
            self.resume(stack, &info)?;
            if let Some(kib) = read_ahead {
                self.machine.set_read_ahead(x, kib)?;
            }
        }
        lock.note_swapping(None);
        Ok(())
    }

    fn resume(&self, stack: &StackId, x: &Info) -> Result<(), HostError> {
        if !x.suspended || !x.live {
            return Ok(());
        }
        if x.inactive {
            // A group was to go on with it. Somebody else's is theirs to make live, and it is not forgotten.
            if !self.leads_to_ours(stack, self.dm.table(x.number, Slot::Inactive)?.as_ref())? {
                let what = format!(
                    "{} is suspended, and a table of somebody else's waits to become live: let LVM finish (`lvchange --refresh`), or `dmsetup resume` it",
                    x.name
                );
                return Err(HostError::Unexpected { stack: stack.clone(), what });
            }
            self.dm.clear(x.number)?;
        }
        tracing::warn!(device = %x.name, "resuming a device that was left suspended");
        Ok(self.dm.swap(x.number)?)
    }

    /// Whether a table leads to a device of the stack's.
    fn leads_to_ours(&self, stack: &StackId, table: Option<&Table>) -> Result<bool, HostError> {
        let Some(table) = table else { return Ok(false) };
        for role in [Role::Origin, Role::Era, Role::Base] {
            if let Some(own) = self.find(&Lookup::Uuid(stack.uuid(role)))?
                && table.devices().any(|device| *device == own.number)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn volume_group(info: &Info) -> Option<VgName> {
    let is_lvm = info.uuid.as_ref().is_some_and(|uuid| LvmUuid::parse(uuid).is_some());
    LvmName::parse(&info.name).filter(|_| is_lvm).map(|name| name.vg)
}
