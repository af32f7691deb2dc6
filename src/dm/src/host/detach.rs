//! X's own table back, and nothing of ours left.

use eratrack_model::names::{Mapping, Role, StackId};
use eratrack_model::plan::{self, Step};
use eratrack_model::record::{Phase, Record};
use eratrack_model::stack::{Desired, Observed};
use eratrack_model::units::DevNo;

use super::mapping::Unmapped;
use super::{Detached, Host, HostError};
use crate::port::Lookup;
use crate::stack_lock::StackLock;

impl Host {
    /// Gives X its own table back and removes all of the stack, or what an earlier process left
    /// of it. X's filesystem is not frozen, so this works also when X-era has failed. Where X went
    /// on without us or is gone, the remains go and nothing is written.
    pub fn detach(&self, stack: &StackId) -> Result<Detached, HostError> {
        let done = self.take_down(&self.lock_stack(stack)?, stack)?;
        self.store.remove_returning(stack)?;
        Ok(done)
    }

    pub(super) fn take_down(
        &self,
        lock: &StackLock,
        stack: &StackId,
    ) -> Result<Detached, HostError> {
        self.wake(lock, stack)?;
        let record = self.record_if_readable(stack);
        let observed = self.observe(stack, self.x_of(stack, record.as_ref())?)?;
        let area = self.find(&Lookup::Uuid(stack.uuid(Mapping::Metadata)))?.is_some();
        let devices = area || Role::ALL.into_iter().any(|role| observed.own(role).is_some());
        if !devices && !self.store.stacks()?.contains(stack) {
            let top = self.find(&Lookup::Uuid(stack.uuid(Mapping::Top)))?;
            return match (top, self.take_top(stack)?) {
                (None, _) => Ok(Detached::NothingThere),
                (Some(_), true) => Ok(Detached::RemainsRemoved),
                (Some(_), false) => Ok(Detached::TopStays),
            };
        }
        let plan = plan::plan(&observed, &Desired::Untracked)?;
        let restores = plan.steps.iter().any(|step| matches!(step, Step::SwapIn { .. }));
        self.say_detaching(record.as_ref());
        self.execute(lock, &observed, &plan)?;
        self.take_access(stack)?;
        if !self.take_top(stack)? {
            // The record stays for the next time; what was recorded is of no use to anybody.
            let copies = self.remove_copies(stack, &observed);
            let removed =
                copies.and_then(|()| self.remove_metadata(lock, record.as_ref(), &observed));
            if let Err(error) = removed {
                tracing::warn!(%stack, %error, "metadata is left; the next attach or start removes it");
            }
            return Ok(Detached::TopStays);
        }
        match self.remove_files(lock, record.as_ref(), &observed) {
            Ok(()) if restores => Ok(Detached::Restored),
            Ok(()) => Ok(Detached::RemainsRemoved),
            // What counts is done. Metadata often fails together with the file system it is on.
            Err(error) if restores => {
                tracing::warn!(%stack, %error, "files are left; the next attach or start removes them");
                Ok(Detached::Restored)
            }
            Err(error) => Err(error),
        }
    }

    fn take_access(&self, stack: &StackId) -> Result<(), HostError> {
        self.forget_note(stack)?;
        match self.unmap(stack, Mapping::Access)? {
            Unmapped::Gone => Ok(()),
            Unmapped::InUse { open_count } => {
                Err(HostError::InUse { name: stack.name(Mapping::Access), open_count })
            }
        }
    }

    /// A record that is not understood, or lies on a disk that fails, does not keep era under
    /// the user's device: the devices themselves tell all that is needed.
    pub(super) fn record_if_readable(&self, stack: &StackId) -> Option<Record> {
        self.store.read_record(stack).unwrap_or_else(|error| {
            tracing::warn!(%stack, %error, "going by the devices alone");
            None
        })
    }

    pub(super) fn x_of(
        &self,
        stack: &StackId,
        record: Option<&Record>,
    ) -> Result<Option<DevNo>, HostError> {
        match (self.user_of(stack)?, record) {
            (Some(user), _) => Ok(Some(user)),
            (None, Some(record)) => self.locate(record),
            (None, None) => Ok(None),
        }
    }

    fn say_detaching(&self, record: Option<&Record>) {
        let Some(record) = record.filter(|record| record.phase != Phase::Detaching) else {
            return;
        };
        self.about_to("write the record: detaching");
        let detaching = Record { phase: Phase::Detaching, ..record.clone() };
        let written = self.store.write_record(&detaching);
        // A full or read-only file system must not keep era under the user's device.
        if let Err(error) = written {
            tracing::warn!(%error, "detaching all the same");
        }
    }

    fn remove_files(
        &self,
        lock: &StackLock,
        record: Option<&Record>,
        observed: &Observed,
    ) -> Result<(), HostError> {
        self.remove_copies(&observed.stack, observed)?;
        self.remove_metadata(lock, record, observed)?;
        self.about_to("remove the files");
        Ok(self.store.remove(&observed.stack)?)
    }
}
