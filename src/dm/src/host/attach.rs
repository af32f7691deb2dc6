//! Era under a device in use.

use std::path::Path;

use era_metadata::sizing;
use eratrack_model::discards::DiscardPolicy;
use eratrack_model::names::{Mapping, Role, StackId};
use eratrack_model::plan;
use eratrack_model::record::{Phase, Record};
use eratrack_model::refusal::Refusal;
use eratrack_model::stack::{Contents, Desired, MetadataArea, Observed, Subject, Tracked, Volume};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo};

use super::stage::over;
use super::{AttachRequest, Attached, Host, HostError, Liveness};
use crate::era_status::EraStatus;
use crate::stack_lock::StackLock;
use crate::store::StoreError;

impl Host {
    /// Puts era under X, or finds it there. What an earlier attempt left is finished if X goes
    /// through it already, else undone first. If this one fails, it is undone.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attached, HostError> {
        let lock = self.lock_stack(&request.stack)?;
        self.wake(&lock, &request.stack)?;
        let attached = self.attach_locked(&lock, request)?;
        self.store.remove_returning(&request.stack)?;
        Ok(attached)
    }

    pub(super) fn attach_locked(
        &self,
        lock: &StackLock,
        request: &AttachRequest,
    ) -> Result<Attached, HostError> {
        if let Some((record, created)) = self.adopt(lock, request)? {
            return Ok(Attached { record, created });
        }
        self.take_down(lock, &request.stack)?;
        match self.attach_anew(lock, request) {
            Ok(record) => Ok(Attached { record, created: true }),
            Err(error) => {
                if let Err(undo) = self.take_down(lock, &request.stack) {
                    tracing::warn!(stack = %request.stack, %undo, "what was begun is left for the next start");
                }
                Err(error)
            }
        }
    }

    fn attach_anew(&self, lock: &StackLock, request: &AttachRequest) -> Result<Record, HostError> {
        let x = match &request.stage {
            Some(stage) => self.put_top(&request.stack, stage, request.x)?,
            None => request.x,
        };
        let observed = self.observe(&request.stack, Some(x))?;
        plan::eligible(&observed, request.granularity)?;
        let record = self.new_record(request, x, &observed)?;
        self.check_metadata_room(lock, &record)?;
        self.build(lock, record, &observed)
    }

    /// The stack as asked for, if X goes through it and it works.
    fn adopt(
        &self,
        lock: &StackLock,
        request: &AttachRequest,
    ) -> Result<Option<(Record, bool)>, HostError> {
        if self.cut_short(&request.stack).is_some() {
            return Ok(None);
        }
        let record = match self.store.read_record(&request.stack) {
            Ok(Some(record)) if record.phase != Phase::Detaching => record,
            Ok(_) => return Ok(None),
            Err(error @ StoreError::Record { .. }) => {
                tracing::warn!(stack = %request.stack, %error, "attaching anew");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if self.liveness(&record)? != Liveness::Intact || self.status(&record)? == EraStatus::Error
        {
            return Ok(None);
        }
        if beneath(&record) != request.x {
            let what = format!("it tracks {}, not {}; detach it first", record.x, request.x);
            return Err(HostError::Unexpected { stack: request.stack.clone(), what });
        }
        if record.granularity != request.granularity {
            return Err(self.tracked_otherwise(&record)?.into());
        }
        if !self.is_at(&record, &request.metadata)? {
            let what = format!("its metadata is at {}; detach it first", record.metadata);
            return Err(HostError::Unexpected { stack: request.stack.clone(), what });
        }
        let created = record.phase == Phase::Attaching;
        let finished = self.finish(lock, record)?;
        Ok(finished.map(|record| (record, created)))
    }

    fn tracked_otherwise(&self, record: &Record) -> Result<Refusal, HostError> {
        Ok(Refusal::TrackedOtherwise {
            name: record.name.clone(),
            granularity: record.granularity.sectors(),
            metadata: self.metadata_device(&record.stack)?,
        })
    }

    /// Tidies up a stack that X goes through, and says in its record that it is in place. None if
    /// its chain has ended: X does not go through it any more, or discards did that were longer
    /// than lists account for.
    pub(super) fn finish(
        &self,
        lock: &StackLock,
        mut record: Record,
    ) -> Result<Option<Record>, HostError> {
        let observed = self.observe(&record.stack, Some(record.x))?;
        let limit = record.discards.limit(record.granularity);
        if observed.era.as_ref().is_some_and(|era| era.discards.max > limit) {
            tracing::warn!(stack = %record.stack, %limit, "somebody raised the limit on discards");
            return Ok(None);
        }
        let metadata = self.metadata_device(&record.stack)?;
        let desired = self.desired(&record, metadata, Contents::Kept)?;
        let plan = match plan::plan(&observed, &desired) {
            Err(Refusal::NotTracked { .. } | Refusal::Gone) => return Ok(None),
            plan => plan?,
        };
        self.execute(lock, &observed, &plan)?;
        self.end_if_abandoned(lock, &record)?;
        self.put_access(&record, metadata)?;
        if record.phase != Phase::Attached {
            record.phase = Phase::Attached;
            self.about_to("write the record: attached");
            self.store.write_record(&record)?;
        }
        Ok(Some(record))
    }

    pub(super) fn new_record(
        &self,
        request: &AttachRequest,
        x: DevNo,
        observed: &Observed,
    ) -> Result<Record, HostError> {
        let AttachRequest { stack, x: _, granularity, discards, stage, access, metadata } = request;
        let volume = mapped(observed)?;
        let original = volume.device.live.clone().ok_or(Refusal::Gone)?;
        let sectors = original.length();
        let sizing =
            sizing::required(sectors.0, granularity.sectors().0, sizing::DEFAULT_UNDIGESTED)?;
        let possible = DiscardPolicy::decide(volume.device.discards, *granularity);
        Ok(Record {
            stack: stack.clone(),
            chain: self.machine.new_chain()?,
            boot: self.machine.boot_id()?,
            x,
            name: volume.device.name.clone(),
            uuid: volume.device.uuid.clone(),
            original,
            sectors,
            granularity: *granularity,
            discards: discards.unwrap_or(possible),
            metadata: self.place(stack, metadata)?,
            metadata_size: Bytes(sizing.bytes()),
            phase: Phase::Attaching,
            keeper: self.keeper,
            stage: stage.as_ref().map(|stage| stage.device.clone()),
            access: *access,
            seal: None,
        })
    }

    fn build(
        &self,
        lock: &StackLock,
        record: Record,
        observed: &Observed,
    ) -> Result<Record, HostError> {
        self.store.make_dir()?;
        self.about_to("write the record: attaching");
        self.store.write_record(&record)?;
        let metadata = self.make_metadata(lock, &record)?;
        let desired = self.desired(&record, metadata, Contents::Fresh)?;
        let plan = plan::plan(observed, &desired)?;
        self.execute(lock, observed, &plan)?;
        self.put_access(&record, metadata)?;
        let attached = Record { phase: Phase::Attached, ..record };
        self.about_to("write the record: attached");
        self.store.write_record(&attached)?;
        Ok(attached)
    }

    /// The second way to the metadata, if it is wished for.
    pub(super) fn put_access(&self, record: &Record, metadata: DevNo) -> Result<(), HostError> {
        if record.access {
            let (stack, mapping) = (&record.stack, Mapping::Access);
            let table = over(metadata, self.machine.length(metadata)?)?;
            self.map(stack, mapping, &stack.name(mapping), &table)?;
        }
        Ok(())
    }

    pub(super) fn desired(
        &self,
        record: &Record,
        metadata: DevNo,
        contents: Contents,
    ) -> Result<Desired, HostError> {
        let mut beneath = self.machine.beneath(metadata)?;
        // A loop device shows its file as the mount namespace that made it saw it; the store's
        // directory is known for certain.
        if let Some(dir) = record.metadata.file().and_then(Path::parent)
            && let Some(device) = self.machine.device_of(dir)?
        {
            beneath.extend(self.machine.beneath(device)?);
        }
        Ok(Desired::Tracked(Tracked {
            granularity: record.granularity,
            discards: record.discards,
            metadata: MetadataArea {
                number: metadata,
                length: self.machine.length(metadata)?,
                contents,
                beneath,
            },
        }))
    }

    /// The device that X-era keeps its metadata on.
    pub(super) fn metadata_device(&self, stack: &StackId) -> Result<DevNo, HostError> {
        let era = self.own(stack, Role::Era)?.and_then(|era| era.live);
        let targets = era.iter().flat_map(Table::segments);
        let found = targets.map(|segment| &segment.target).find_map(|target| match target {
            Target::Era { metadata, .. } => Some(*metadata),
            _ => None,
        });
        found.ok_or_else(|| HostError::Unexpected {
            stack: stack.clone(),
            what: format!("{} has no era table", stack.name(Role::Era)),
        })
    }
}

/// The device that was asked for: X, or what an X of ours was put over.
fn beneath(record: &Record) -> DevNo {
    let over = record.stage.as_ref().and_then(|_| record.original.devices().next());
    over.copied().unwrap_or(record.x)
}

fn mapped(observed: &Observed) -> Result<&Volume, Refusal> {
    match &observed.x {
        Subject::Mapped(volume) => Ok(volume),
        Subject::Gone => Err(Refusal::Gone),
        Subject::NotDeviceMapper(number) => Err(Refusal::NotDeviceMapper { number: *number }),
    }
}
