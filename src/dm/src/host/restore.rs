//! Stacks over a reboot: sealed at shutdown, put back at start-up, with their chain if it is
//! proven that nothing was written in between.
//!
//! sealed record -> evidence -> [`judge`] -> era in, nothing zeroed -> the same evidence again.

use era_metadata::{FileSource, Metadata, View};
use eratrack_model::Era;
use eratrack_model::continuity::{Break, Evidence, Proof, Seal, Trust, Use, judge};
use eratrack_model::names::StackId;
use eratrack_model::plan;
use eratrack_model::record::{Phase, Record};
use eratrack_model::stack::Contents;
use eratrack_model::units::DevNo;

use super::ends::Ends;
use super::{AttachRequest, Host, HostError, Known, Liveness, StageRequest};
use crate::port::Lookup;
use crate::stack_lock::StackLock;

/// What became of one stack.
#[derive(Debug)]
pub struct Restored {
    /// The stack.
    pub stack: StackId,
    /// What was done.
    pub outcome: Result<RestoreOutcome, HostError>,
}

/// What [`Host::restore`] did about a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// It was in place already.
    InPlace(Record),
    /// It is in place again, and its chain goes on.
    Intact(Record),
    /// It is in place again with a new chain: the next copy is full.
    Broken {
        /// The new record.
        record: Record,
        /// Why the old chain ended.
        why: String,
    },
    /// It was being taken out, or had never been finished; it is out.
    Removed,
    /// It is the agent's, and nothing proves that its chain goes on: it is left as it is, for the
    /// agent to begin a new one when the volume is used.
    Left {
        /// Why the chain has ended.
        why: String,
    },
}

/// What came of sealing a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealOutcome {
    /// Its chain may go on after the reboot.
    Sealed,
    /// X is open; what is written until the end would not be known of.
    InUse {
        /// How often.
        open_count: u32,
    },
    /// X does not go through era.
    NotIntact,
}

impl Host {
    /// Writes down what is in X's ends, so that the chain may go on after a reboot. To be done when
    /// nobody has X open any more.
    pub fn seal(&self, record: &Record) -> Result<SealOutcome, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        if self.liveness(record)? != Liveness::Intact {
            // What is written in this boot is recorded nowhere: a seal of the one before tells of that no more.
            self.unsealed(record.clone())?;
            return Ok(SealOutcome::NotIntact);
        }
        let open_count = self.dm.info(&record.x.into())?.open_count;
        if open_count > 0 {
            return Ok(SealOutcome::InUse { open_count });
        }
        // Nothing of it may still be in flight, or in the page cache.
        self.boundary_locked(&lock, record)?;
        let Ends { digest, contents } = self.ends(record.x)?;
        let seal = Seal { boot: record.boot.clone(), ends: digest, contents, used: None };
        self.about_to("write the record: sealed");
        self.store.write_record(&Record { seal: Some(seal), ..record.clone() })?;
        Ok(SealOutcome::Sealed)
    }

    /// Puts back every stack that this host keeps, and those of the agent whose chain goes on. One
    /// that cannot be does not keep the others from it. `about` hears of each before its turn.
    pub fn restore(
        &self,
        trust: Trust,
        mut about: impl FnMut(&StackId),
    ) -> Result<Vec<Restored>, HostError> {
        let mut restored = Vec::new();
        for Known { stack, record } in self.stacks()? {
            // A record that tells nothing is no reason to say nothing.
            let kept = self.store.keeper(&stack).is_some();
            if kept || record.is_err() {
                about(&stack);
                let outcome = self.restore_one(&stack, trust);
                restored.push(Restored { stack, outcome });
            }
        }
        Ok(restored)
    }

    fn is_another_keepers(&self, stack: &StackId) -> bool {
        self.store.keeper(stack).is_some_and(|keeper| keeper != self.keeper)
    }

    /// The record of a return that was cut short: nobody can tell how far it came, and what was
    /// written since. None if the stack was attached anew meanwhile.
    pub(super) fn cut_short(&self, stack: &StackId) -> Option<Record> {
        let returning = self.store.read_returning(stack).ok().flatten()?;
        let anew = |now: &Record| now.phase == Phase::Attached && now.chain != returning.chain;
        let done = self.record_if_readable(stack).as_ref().is_some_and(anew);
        (!done).then_some(returning)
    }

    fn restore_one(&self, stack: &StackId, trust: Trust) -> Result<RestoreOutcome, HostError> {
        let lock = self.lock_stack(stack)?;
        self.wake(&lock, stack)?;
        if let Some(record) = self.cut_short(stack) {
            return self.give_up(&lock, &record, "an earlier restore was cut short".to_owned());
        }
        self.store.remove_returning(stack)?;
        // Not as it was before the lock was there: another process may have been at work.
        let Some(record) = self.store.read_record(stack)? else {
            return Ok(RestoreOutcome::Removed);
        };
        match (record.phase, self.liveness(&record)?) {
            (Phase::Attached, Liveness::Intact) => return self.in_use_again(&record),
            (Phase::Attached, Liveness::Rebooted) => {}
            (Phase::Attached, found) => {
                let record = self.unsealed(record)?;
                return self.give_up(&lock, &record, format!("{found:?}"));
            }
            (Phase::Attaching | Phase::Detaching, _) if self.is_another_keepers(stack) => {
                return Ok(RestoreOutcome::Left { why: "it was not finished".to_owned() });
            }
            (Phase::Attaching | Phase::Detaching, _) => {
                self.take_down(&lock, &record.stack)?;
                return Ok(RestoreOutcome::Removed);
            }
        }
        let record = self.seal_is_used(record)?;
        self.metadata_is_reachable(&lock, &record)?;
        let x = self.x_after_reboot(&record)?;
        match self.evidence(&record, x).map(|found| judge(&record, &found, trust))? {
            Ok(proof) => self.go_on(&lock, &record, x, &proof),
            // Nobody may know of the next writes.
            Err(broken) => self.give_up(&lock, &self.unsealed(record)?, broken.to_string()),
        }
    }

    /// The chain has ended. An agent's stack is not tracked anew: only its agent knows whether
    /// that is still wished for.
    fn give_up(
        &self,
        lock: &StackLock,
        record: &Record,
        why: String,
    ) -> Result<RestoreOutcome, HostError> {
        if self.is_another_keepers(&record.stack) {
            tracing::warn!(stack = %record.stack, why, "the chain has ended");
            return Ok(RestoreOutcome::Left { why });
        }
        self.begin_anew(lock, record, why)
    }

    /// A seal tells of a device that nobody uses until the machine is off; from now on it is used.
    fn in_use_again(&self, record: &Record) -> Result<RestoreOutcome, HostError> {
        Ok(RestoreOutcome::InPlace(self.unsealed(record.clone())?))
    }

    /// Should an error end this attempt, another one in this boot may go by the same seal; what is
    /// written in this boot is counted until then. In no later boot: by then nobody has counted.
    fn seal_is_used(&self, record: Record) -> Result<Record, HostError> {
        let Some(seal) = record.seal.clone().filter(|seal| seal.used.is_none()) else {
            return Ok(record);
        };
        let counted = self.counted(&record).ok();
        let seal = Some(Seal { used: Some(self.use_of(counted)?), ..seal });
        let used = Record { seal, ..record };
        self.about_to("write the record: its seal is used");
        self.store.write_record(&used)?;
        Ok(used)
    }

    /// The record without its seal, on disk too.
    pub(super) fn unsealed(&self, record: Record) -> Result<Record, HostError> {
        if record.seal.is_none() {
            return Ok(record);
        }
        let unsealed = Record { seal: None, ..record };
        self.store.write_record(&unsealed)?;
        Ok(unsealed)
    }

    /// X may have another number now; one of our own is made first.
    fn x_after_reboot(&self, record: &Record) -> Result<DevNo, HostError> {
        if let Some(stage) = stage_of(record) {
            let beneath = self.beneath_stage(record)?;
            return self.put_top(&record.stack, &stage, beneath);
        }
        let of = match &record.uuid {
            Some(uuid) => Lookup::Uuid(uuid.clone()),
            None => Lookup::Name(record.name.clone()),
        };
        Ok(self.dm.info(&of)?.number)
    }

    /// The device beneath a stage: at the path that a person gave, and the same one by what it says
    /// of itself.
    fn beneath_stage(&self, record: &Record) -> Result<DevNo, HostError> {
        let Some(stage) = &record.stage else { return Ok(record.x) };
        let path = self.machine.path(&stage.path);
        let found = rustix::fs::stat(&path).map_err(|e| crate::machine::MachineError {
            doing: "look at",
            path: path.clone(),
            source: e.into(),
        })?;
        let device = DevNo {
            major: rustix::fs::major(found.st_rdev),
            minor: rustix::fs::minor(found.st_rdev),
        };
        let identity = self.machine.identity(device)?;
        if identity == stage.identity {
            return Ok(device);
        }
        Err(HostError::Unexpected {
            stack: record.stack.clone(),
            what: format!(
                "{} says it is {identity:?}, but the stack was put over {:?}; detach the stack if the disk was replaced",
                path.display(),
                stage.identity
            ),
        })
    }

    fn evidence(&self, record: &Record, x: DevNo) -> Result<Evidence, HostError> {
        let (now, writes) = (self.use_of(Some(self.counted(record)?))?, self.writes(record, x)?);
        Ok(Evidence { now, table: self.live_table(x)?, writes, ends: self.ends(x)?.digest })
    }

    /// The device whose writes are counted, as it is called in this boot.
    fn counted(&self, record: &Record) -> Result<DevNo, HostError> {
        if record.stage.is_some() {
            self.beneath_stage(record)
        } else {
            self.x_after_reboot(record)
        }
    }

    fn use_of(&self, counted: Option<DevNo>) -> Result<Use, HostError> {
        let sequence = counted.and_then(|counted| self.machine.disk_sequence(counted).ok());
        Ok(Use { boot: self.machine.boot_id()?, sequence })
    }

    /// An X of ours is as new as this process: what it is put over tells.
    fn writes(&self, record: &Record, x: DevNo) -> Result<Option<u64>, HostError> {
        let counted = if record.stage.is_some() { self.beneath_stage(record)? } else { x };
        Ok(self.machine.writes(counted)?)
    }

    fn go_on(
        &self,
        lock: &StackLock,
        record: &Record,
        x: DevNo,
        proof: &Proof,
    ) -> Result<RestoreOutcome, HostError> {
        let boot = self.machine.boot_id()?;
        self.about_to("write down that it returns");
        self.store.write_returning(record)?;
        let attaching = Record { boot, x, seal: None, phase: Phase::Attaching, ..record.clone() };
        self.about_to("write the record: attaching");
        self.store.write_record(&attaching)?;
        let last = self.last_boundary(&record.stack)?;
        // X-era's count of discards begins again: the marks of before say nothing any more.
        self.forget_counts(&record.stack)?;
        let back = self.put_back(lock, &attaching, last, proof);
        let wrote = match back {
            Ok(()) => self.writes(record, x)?,
            Err(error) => {
                return self.give_up(lock, record, format!("its metadata cannot go on: {error}"));
            }
        };
        if wrote != Some(0) {
            let broken = wrote.map_or(Break::NotCounted, Break::Written);
            return self.give_up(lock, record, broken.to_string());
        }
        let attached = Record { phase: Phase::Attached, ..attaching };
        self.about_to("write the record: attached");
        self.store.write_record(&attached)?;
        self.about_to("write down that it is back");
        self.store.remove_returning(&record.stack)?;
        Ok(RestoreOutcome::Intact(attached))
    }

    fn put_back(
        &self,
        lock: &StackLock,
        record: &Record,
        last: Option<Era>,
        _: &Proof,
    ) -> Result<(), HostError> {
        let metadata = self.open_metadata_place(lock, record)?;
        self.is_of(record, metadata, last)?;
        let observed = self.observe(&record.stack, Some(record.x))?;
        let desired = self.desired(record, metadata, Contents::Proven)?;
        let plan = plan::plan(&observed, &desired)?;
        self.execute(lock, &observed, &plan)?;
        self.put_access(record, metadata)
    }

    /// Whether the metadata is this stack's, as far as it tells, and as new as its last boundary.
    fn is_of(&self, record: &Record, device: DevNo, last: Option<Era>) -> Result<(), HostError> {
        let stack = &record.stack;
        let file = self.nodes.open_direct(device).and_then(FileSource::from_file);
        let file = file.map_err(|source| HostError::Open { device, source })?;
        let unreadable = |source| HostError::Metadata { stack: stack.clone(), source };
        let metadata = Metadata::open(file, View::Live).map_err(unreadable)?;
        super::changes::verify_geometry(
            record,
            metadata.granularity_sectors(),
            metadata.nr_blocks(),
        )?;
        // A copy of it from earlier lacks what was written since; other metadata, too. Sealing draws a
        // boundary, and nothing begins an era after that.
        let found = metadata.current_era();
        let what = match last {
            Some(last) if found < last => {
                format!(
                    "its metadata is of era {found}, older than the last boundary, of era {last}"
                )
            }
            Some(last) if found > last => format!(
                "its metadata is of era {found}, but the last boundary was of era {last}: it is not the one that was sealed, or it was read since"
            ),
            Some(_) => return Ok(()),
            None => "nothing is known of its last boundary any more".to_owned(),
        };
        Err(HostError::Unexpected { stack: stack.clone(), what })
    }

    fn begin_anew(
        &self,
        lock: &StackLock,
        record: &Record,
        why: String,
    ) -> Result<RestoreOutcome, HostError> {
        tracing::warn!(stack = %record.stack, why, "the chain has ended");
        let stage = stage_of(record);
        let x = match stage {
            Some(_) => self.beneath_stage(record)?,
            None => self.x_after_reboot(record)?,
        };
        self.about_to("write down that it returns");
        self.store.write_returning(record)?;
        self.take_down(lock, &record.stack)?;
        let mut request = AttachRequest::new(record.stack.clone(), x, record.granularity);
        (request.stage, request.access) = (stage, record.access);
        request.metadata = self.request_of(record);
        request.discards = Some(record.discards);
        let record = self.attach_locked(lock, &request)?.record;
        self.about_to("write down that it is back");
        self.store.remove_returning(&record.stack)?;
        Ok(RestoreOutcome::Broken { record, why })
    }

    fn ends(&self, x: DevNo) -> Result<Ends, HostError> {
        let file =
            self.nodes.open_direct(x).map_err(|source| HostError::Open { device: x, source })?;
        let length = self.machine.length(x)?;
        Ends::read(&file, length).map_err(|source| HostError::Open { device: x, source })
    }
}

fn stage_of(record: &Record) -> Option<StageRequest> {
    let device = record.stage.clone()?;
    Some(StageRequest { name: record.name.clone(), device })
}
