//! A point in time: X goes through X-origin, so that what it held is copied to the store before it
//! is overwritten, and X-snap shows X as it was. And its end.
//!
//! A boundary whose drain is the swap to X-origin: checkpoint, read the era, swap. What is written
//! between the checkpoint and the swap is in X-snap and in the next list, which does no harm.

use super::situation::{self, Path, SlotState};
use super::{Goal, Plan, PlannedTable, Refusal, Skipped, Step, eligible, shape};
use crate::names::Role;
use crate::stack::{CopyStore, Device, Observed, Subject, Volume};
use crate::table::{Table, Target};
use crate::units::{SECTOR_BYTES, Sectors};

/// How much is copied to the store at the first write to it, 16 KiB: a write waits for that, and the
/// kernel keeps some 40 bytes in memory for each.
pub const CHUNK: Sectors = Sectors(32);

/// What a loop device over a file of ours is addressed in.
const STORE_BLOCK: Sectors = Sectors(8);

pub(super) fn begin(observed: &Observed, store: &CopyStore) -> Result<Plan, Refusal> {
    let volume = situation::volume(observed)?;
    let device = &volume.device;
    let not_tracked = || Refusal::NotTracked { name: device.name.clone() };
    let Path::ThroughEra { era, .. } = situation::path(observed, volume)? else {
        return Err(not_tracked());
    };
    if observed.origin.is_some() || observed.snapshot.is_some() {
        return Err(Refusal::PointInTimeHeld { name: device.name.clone() });
    }
    eligible::store_apart(&observed.stack, volume, store)?;
    situation::can_be_drained(observed, device)?;
    let live = device.live.as_ref().ok_or_else(not_tracked)?;
    let length = live.length();
    // The device of the copies has blocks of 4 KiB, and with it X-snap.
    if !length.0.is_multiple_of(STORE_BLOCK.0) {
        let block = STORE_BLOCK.0 * SECTOR_BYTES;
        return Err(Refusal::OddLength { name: device.name.clone(), length, block });
    }
    let through = shape::rerouted(live, era.number, Role::Origin);
    let mut plan =
        Plan { goal: Goal::PointInTime(store.clone()), steps: Vec::new(), skipped: Vec::new() };
    // The snapshot first: when X-origin goes live, the kernel looks how large its chunks are, and cuts
    // writes accordingly (`origin_resume`, drivers/md/dm-snap.c).
    make(&mut plan, observed, Role::Snapshot, shape::planned_snapshot(length, store.number, CHUNK));
    make(&mut plan, observed, Role::Origin, shape::planned_origin(length));
    let before = [Step::Checkpoint, Step::ReadEra];
    swap(&mut plan, observed, volume, before, (shape::planned(live), through))?;
    Ok(plan)
}

pub(super) fn end(observed: &Observed) -> Result<Plan, Refusal> {
    let mut plan = Plan { goal: Goal::EndPointInTime, steps: Vec::new(), skipped: Vec::new() };
    // Before X goes past the copies: from then on X-snap would show what X holds by now.
    plan.steps = cut_off(observed);
    let cut_off = !plan.steps.is_empty();
    let passed_by = match &observed.x {
        Subject::Gone | Subject::NotDeviceMapper(_) => true,
        Subject::Mapped(_) => {
            let volume = situation::volume(observed)?;
            match situation::path(observed, volume)? {
                Path::ThroughEra { era: _, base: _, origin: Some(origin) } => {
                    leave_origin(&mut plan, observed, volume, origin)?;
                    false
                }
                Path::ThroughEra { origin: None, .. } | Path::Own => {
                    clear_ours(&mut plan, observed, volume)?;
                    true
                }
            }
        }
    };
    if passed_by {
        plan.skipped.push(Skipped::EndPointInTime);
        situation::not_busy(observed, Role::Origin)?;
        if !cut_off {
            situation::not_busy(observed, Role::Snapshot)?;
        }
    }
    for role in [Role::Origin, Role::Snapshot] {
        if observed.own(role).is_some() {
            plan.steps.push(Step::Remove { role });
        } else {
            plan.skipped.push(Skipped::Remove(role));
        }
    }
    Ok(plan)
}

/// Has whoever keeps X-snap open read errors, and not what X holds by now.
pub(super) fn cut_off(observed: &Observed) -> Vec<Step> {
    let role = Role::Snapshot;
    let Some(device) = observed.own(role) else { return Vec::new() };
    let Some(live) = device.live.as_ref().filter(|live| is_snapshot(live)) else {
        return Vec::new();
    };
    let load = Step::Load { role, table: shape::planned_error(live.length()) };
    let activate = Step::Activate { role };
    // Else a kill has left it there.
    if device.inactive.is_none() { vec![load, activate] } else { vec![activate] }
}

fn is_snapshot(table: &Table) -> bool {
    table.segments().iter().any(|segment| matches!(segment.target, Target::Snapshot { .. }))
}

fn make(plan: &mut Plan, observed: &Observed, role: Role, table: PlannedTable) {
    let (name, uuid) = (observed.stack.name(role), observed.stack.uuid(role));
    plan.steps.push(Step::Create { role, name, uuid });
    plan.steps.push(Step::Load { role, table });
    plan.steps.push(Step::Activate { role });
}

fn leave_origin(
    plan: &mut Plan,
    observed: &Observed,
    volume: &Volume,
    origin: &Device,
) -> Result<(), Refusal> {
    let device = &volume.device;
    situation::can_be_drained(observed, device)?;
    let no_table = || Refusal::NoTable { name: device.name.clone() };
    let live: &Table = device.live.as_ref().ok_or_else(no_table)?;
    let straight = shape::rerouted(live, origin.number, Role::Era);
    swap(plan, observed, volume, [], (shape::planned(live), straight))
}

/// X from one table to another, under its lock.
fn swap(
    plan: &mut Plan,
    observed: &Observed,
    volume: &Volume,
    before: impl IntoIterator<Item = Step>,
    (expect, table): (PlannedTable, PlannedTable),
) -> Result<(), Refusal> {
    let x = volume.device.number;
    let group = situation::lock(volume)?;
    match &group {
        Some(vg) => plan.steps.push(Step::LockVolumeGroup { vg: vg.clone() }),
        None => plan.skipped.push(Skipped::Lock),
    }
    plan.steps.extend(situation::clear_slot(observed, &volume.device)?);
    plan.steps.push(Step::VerifyLive { x, table: expect.clone() });
    plan.steps.extend(before);
    let live = table.clone();
    plan.steps.push(Step::SwapIn { x, expect, table, keep_read_ahead: true });
    plan.steps.push(Step::VerifyLive { x, table: live });
    plan.steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
    Ok(())
}

/// A table over X-origin may wait in X's slot, where a kill left it, and hold X-origin.
fn clear_ours(plan: &mut Plan, observed: &Observed, volume: &Volume) -> Result<(), Refusal> {
    if situation::slot(observed, &volume.device) == SlotState::Ours {
        let group = situation::lock(volume)?;
        plan.steps.extend(group.iter().map(|vg| Step::LockVolumeGroup { vg: vg.clone() }));
        plan.steps.extend(situation::clear(&volume.device));
        plan.steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
    }
    Ok(())
}
