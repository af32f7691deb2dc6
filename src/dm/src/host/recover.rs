//! What an earlier process left, at the start of this one.

use std::collections::BTreeSet;

use eratrack_model::lvm::{LvmName, LvmUuid};
use eratrack_model::names::StackId;
use eratrack_model::record::{Phase, Record};

use super::{Host, HostError, Liveness, Recovered, Recovery};
use crate::era_status::EraStatus;
use crate::executor::Surroundings;
use crate::port::Lookup;
use crate::store::StoreError;

impl Host {
    /// Finishes, undoes or takes over every stack that has a record, a file or a device. One
    /// that cannot be cleared up now does not keep the others from it.
    pub fn recover(&self) -> Result<Vec<Recovered>, HostError> {
        let stacks = self.all_stacks()?;
        let recovered = stacks.into_iter().map(|stack| {
            let outcome = self.recover_one(&stack);
            let outcome = outcome.unwrap_or_else(|error| Recovery::Failed(error.to_string()));
            tracing::info!(%stack, ?outcome, "recovered");
            Recovered { stack, outcome }
        });
        Ok(recovered.collect())
    }

    fn all_stacks(&self) -> Result<BTreeSet<StackId>, HostError> {
        let kept = self.store.stacks().unwrap_or_else(|error| {
            tracing::warn!(%error, "going by the devices alone");
            Vec::new()
        });
        let mut stacks: BTreeSet<_> = kept.into_iter().collect();
        for listed in self.dm.list()? {
            let uuid = self.find(&listed.number.into())?.and_then(|info| info.uuid);
            stacks.extend(uuid.and_then(|uuid| uuid.owner()).map(|(stack, _)| stack));
        }
        Ok(stacks)
    }

    fn recover_one(&self, stack: &StackId) -> Result<Recovery, HostError> {
        let record = match self.store.read_record(stack) {
            Ok(record) => record,
            Err(StoreError::Record { .. }) => None,
            // A disk that fails takes the record and the metadata alike, and then writes of the
            // user's fail too.
            Err(_) if self.era_status(stack)? == Some(EraStatus::Error) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(record) = record else {
            self.detach(stack)?;
            return Ok(Recovery::OrphansRemoved);
        };
        self.wake(&record)?;
        let found = self.liveness(&record)?;
        match (record.phase, found) {
            (Phase::Detaching, _) => self.detach(stack).map(|_| Recovery::Finished),
            (Phase::Attaching | Phase::Attached, Liveness::Intact) => self.take_over(record),
            (Phase::Attaching, _) => self.detach(stack).map(|_| Recovery::Undone),
            (Phase::Attached, found) => {
                self.detach(stack)?;
                Ok(Recovery::Broken { record, found, era_failed: false })
            }
        }
    }

    fn take_over(&self, record: Record) -> Result<Recovery, HostError> {
        if self.status(&record)? == EraStatus::Error {
            self.detach(&record.stack)?;
            return Ok(Recovery::Broken { record, found: Liveness::Intact, era_failed: true });
        }
        self.finish(record).map(Recovery::Adopted)
    }

    /// X may be suspended if the kernel refused a table after the drain and the process was
    /// killed before it could resume X. Whoever has LVM's lock knows that no command of LVM's
    /// is at work on X; other devices are left to whoever suspended them.
    fn wake(&self, record: &Record) -> Result<(), HostError> {
        let Some(x) = self.locate(record)? else { return Ok(()) };
        let info = self.dm.info(&x.into())?;
        let is_lvm = info.uuid.as_ref().is_some_and(|uuid| LvmUuid::parse(uuid).is_some());
        let Some(name) = LvmName::parse(&info.name).filter(|_| is_lvm && info.suspended) else {
            return Ok(());
        };
        let _lock = self.lock(&name.vg).map_err(|e| HostError::Unexpected {
            stack: record.stack.clone(),
            what: format!("{} is suspended: {e}", info.name),
        })?;
        let again = self.dm.info(&Lookup::Number(x))?;
        if again.suspended && again.live && !again.inactive {
            tracing::warn!(device = %info.name, "resuming a device that was left suspended");
            self.dm.swap(x)?;
        }
        Ok(())
    }
}
