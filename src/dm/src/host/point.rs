//! A point in time of X that can be read while X is written: X goes through X-origin, and X-snap
//! shows what X held.
//!
//! make the store -> plan -> X over X-origin -> ... read ... -> is it good? -> X as before -> store away.
//! Whoever reads it holds a lock beside the stack's: what nobody holds was left by a process that
//! was killed, and goes with the next point in time, at the next start, or when the stack is taken out.

use std::fs::File;

use eratrack_model::names::{Role, StackId};
use eratrack_model::plan::{self, Plan};
use eratrack_model::record::Record;
use eratrack_model::refusal::Refusal;
use eratrack_model::stack::{CopyStore, Observed};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo};

use super::{Boundary, Host, HostError};
use crate::file_lock::FileLock;
use crate::port::{Lookup, Slot};
use crate::stack_lock::{self, StackLock};

/// The loop driver's number (`LOOP_MAJOR`).
const LOOP_MAJOR: u32 = 7;

/// Stands for the device of the copies, which does not exist yet.
pub const COPIES_TO_COME: DevNo = DevNo { major: 0, minor: 2 };

/// A point in time, to be given back with [`Host::end_point_in_time`]. If it never is, whatever comes
/// next to the stack ends it.
#[derive(Debug)]
pub struct PointInTime {
    /// The boundary that it is.
    pub boundary: Boundary,
    /// X-snap: X as it was then, as long as [`Host::check_point_in_time`] says so.
    pub device: DevNo,
    /// How much of X can be overwritten before it is lost.
    pub copies: Bytes,
    record: Record,
    _reader: FileLock,
}

impl PointInTime {
    pub(super) fn held(
        boundary: Boundary,
        device: DevNo,
        copies: Bytes,
        record: Record,
        reader: FileLock,
    ) -> Self {
        Self { boundary, device, copies, record, _reader: reader }
    }
}

impl Host {
    /// Begins a point in time: a boundary, and X as it was then in a device of its own. What X held
    /// is kept in a file of that size, or of a size that fits.
    pub fn point_in_time(
        &self,
        record: &Record,
        copies: Option<Bytes>,
    ) -> Result<PointInTime, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.require_intact(record)?;
        let held = || Refusal::PointInTimeHeld { name: record.name.clone() };
        let reader = stack_lock::take_point(&self.machine, &record.stack)?.ok_or_else(held)?;
        self.end_point_locked(&lock, record)?;
        self.has_snapshots()?;
        let begun = self.begin_point(&lock, record, copies);
        let (boundary, copies, device) = begun.inspect_err(|_| {
            if let Err(undo) = self.end_point_locked(&lock, record) {
                tracing::warn!(stack = %record.stack, %undo, "what was begun is left for the next time");
            }
        })?;
        let record = record.clone();
        Ok(PointInTime { boundary, device, copies, record, _reader: reader })
    }

    pub(super) fn has_snapshots(&self) -> Result<(), HostError> {
        for target in ["snapshot", "snapshot-origin"] {
            if !self.dm.has_target(target)? {
                return Err(Refusal::TargetMissing { target: "snapshot" }.into());
            }
        }
        Ok(())
    }

    /// Fails if there could be no point in time however long one waited: before anybody copies for
    /// hours, to learn it then. Changes nothing.
    pub fn could_have_point_in_time(
        &self,
        record: &Record,
        copies: Option<Bytes>,
    ) -> Result<(), HostError> {
        self.require_intact(record)?;
        self.has_snapshots()?;
        self.store.look_for_copies(&record.stack, copies, record.sectors)?;
        match self.preview_point_in_time(record) {
            Err(HostError::Refused(Refusal::PointInTimeHeld { .. })) => Ok(()),
            planned => planned.map(drop),
        }
    }

    /// What [`Host::point_in_time`] and [`Host::end_point_in_time`] would do, but for the store.
    pub fn preview_point_in_time(&self, record: &Record) -> Result<Plan, HostError> {
        let _lock = self.lock_stack(&record.stack)?;
        let store = CopyStore { number: COPIES_TO_COME, beneath: Vec::new() };
        let observed = self.observe(&record.stack, Some(record.x))?;
        Ok(plan::plan_point_in_time(&observed, &store)?)
    }

    fn begin_point(
        &self,
        lock: &StackLock,
        record: &Record,
        copies: Option<Bytes>,
    ) -> Result<(Boundary, Bytes, DevNo), HostError> {
        let (store, size) = self.make_copy_store(record, copies)?;
        let discards = self.discards_now(record)?;
        let observed = self.observe(&record.stack, Some(record.x))?;
        let plan = plan::plan_point_in_time(&observed, &store)?;
        let outcome =
            self.execute(lock, &observed, &plan).map_err(|e| self.era_failed(record, e))?;
        let boundary = self.drawn(record, &outcome, discards)?;
        let snapshot = self.dm.info(&Lookup::Uuid(record.stack.uuid(Role::Snapshot)))?;
        Ok((boundary, size, snapshot.number))
    }

    pub(super) fn make_copy_store(
        &self,
        record: &Record,
        size: Option<Bytes>,
    ) -> Result<(CopyStore, Bytes), HostError> {
        self.about_to("make the file for copies");
        let (file, size) = self.store.create_copies(&record.stack, size, record.sectors)?;
        self.about_to("put a loop device over the copies");
        let number = self.loops.attach(&file)?;
        let mut beneath = self.machine.beneath(number)?;
        // As with metadata: the loop device shows its file as another mount namespace may see it.
        if let Some(device) = self.machine.device_of(&self.store.dir_on_machine(&record.stack))? {
            beneath.extend(self.machine.beneath(device)?);
        }
        Ok((CopyStore { number, beneath }, size))
    }

    /// Opens X itself for reading around the page cache, through era.
    pub fn open_tracked(&self, record: &Record) -> Result<File, HostError> {
        self.require_intact(record)?;
        let device = record.x;
        self.nodes.open_direct(device).map_err(|source| HostError::Open { device, source })
    }

    /// Fails unless X goes through era on this chain, and era works.
    pub fn check_intact(&self, record: &Record) -> Result<(), HostError> {
        self.require_intact(record)?;
        self.working(record).map(drop)
    }

    /// Opens X as it was then, for reading around the page cache.
    pub fn open_point_in_time(&self, point: &PointInTime) -> Result<File, HostError> {
        let device = point.device;
        self.nodes.open_direct(device).map_err(|source| HostError::Open { device, source })
    }

    /// Fails unless all that was read up to now is X as it was then: X's table must still be ours,
    /// because whoever reloads X lets writes past X-origin, and the store must not be full.
    pub fn check_point_in_time(&self, point: &PointInTime) -> Result<(), HostError> {
        let PointInTime { record, copies, .. } = point;
        self.require_intact(record)?;
        if !self.goes_through_origin(record)? {
            return Err(HostError::NotIntact {
                x: record.x,
                stack: record.stack.clone(),
                found: "it does not go through its point in time".to_owned(),
            });
        }
        let lines = self.dm.status(point.device)?;
        let valid = lines.iter().all(|line| is_valid(&line.text));
        if valid && !lines.is_empty() {
            return Ok(());
        }
        Err(HostError::PointInTimeLost { stack: record.stack.clone(), copies: *copies })
    }

    /// Gives X the table that it had, and removes what kept the point in time.
    pub fn end_point_in_time(&self, point: PointInTime) -> Result<(), HostError> {
        // Nobody else may begin one before this has ended.
        let PointInTime { record, _reader, .. } = point;
        let lock = self.lock_stack(&record.stack)?;
        self.wake(&lock, &record.stack)?;
        self.end_point_locked(&lock, &record)
    }

    /// Ends what nobody reads.
    pub(super) fn end_if_abandoned(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<(), HostError> {
        let stack = &record.stack;
        let left = |role| self.find(&Lookup::Uuid(stack.uuid(role)));
        if left(Role::Origin)?.is_none()
            && left(Role::Snapshot)?.is_none()
            && !self.store.copies(stack).exists()
        {
            return Ok(());
        }
        match stack_lock::take_point(&self.machine, stack)? {
            Some(_reader) => self.end_point_locked(lock, record),
            None => Ok(()),
        }
    }

    /// Ends what a point in time has left that did not end as a whole, or whose process was killed.
    pub fn end_points_in_time_left(&self, record: &Record) -> Result<(), HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.wake(&lock, &record.stack)?;
        self.end_if_abandoned(&lock, record)
    }

    pub(super) fn end_point_locked(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<(), HostError> {
        let observed = self.observe(&record.stack, self.locate(record)?)?;
        let plan = plan::plan_end_point_in_time(&observed)?;
        self.execute(lock, &observed, &plan)?;
        self.remove_copies(&record.stack, &observed)
    }

    /// Frees the loop device of the copies and removes their file.
    pub(super) fn remove_copies(
        &self,
        stack: &StackId,
        observed: &Observed,
    ) -> Result<(), HostError> {
        let file = self.store.copies(stack);
        let device = copy_device(observed);
        if device.is_none() && !file.exists() {
            return Ok(());
        }
        self.about_to("free the loop device of the copies");
        let freed = self.loops.detach(&file)?;
        if let (false, Some(device)) = (freed, device) {
            self.loops.free_if_bound(device, &file)?;
        }
        self.about_to("remove the file of the copies");
        Ok(self.store.remove_copies(stack)?)
    }

    fn goes_through_origin(&self, record: &Record) -> Result<bool, HostError> {
        let era = self.find(&Lookup::Uuid(record.stack.uuid(Role::Era)))?;
        let live = self.dm.table(record.x, Slot::Live)?;
        let Some((live, era)) = live.zip(era) else { return Ok(false) };
        self.leads_through_origin(record, &live, era.number)
    }

    /// Whether that table of X leads to X-origin, and X-origin to X-era.
    pub(super) fn leads_through_origin(
        &self,
        record: &Record,
        live: &Table,
        era: DevNo,
    ) -> Result<bool, HostError> {
        let uuid = record.stack.uuid(Role::Origin);
        let Some(origin) = self.find(&Lookup::Uuid(uuid))? else { return Ok(false) };
        if !plan::is_live_table(live, &record.original, origin.number) {
            return Ok(false);
        }
        let table = self.dm.table(origin.number, Slot::Live)?;
        Ok(table == Some(plan::origin_table(record.sectors, era)))
    }
}

/// `snapshot_status` (drivers/md/dm-snap.c): sectors used and there, or a word when it is lost.
fn is_valid(text: &str) -> bool {
    text.trim().starts_with(|first: char| first.is_ascii_digit())
}

/// The loop device that took the copies when the stack was observed.
fn copy_device(observed: &Observed) -> Option<DevNo> {
    let table = observed.own(Role::Snapshot)?.live.as_ref()?;
    table.segments().iter().find_map(|segment| match segment.target {
        Target::Snapshot { store, .. } if store.major == LOOP_MAJOR => Some(store),
        _ => None,
    })
}
