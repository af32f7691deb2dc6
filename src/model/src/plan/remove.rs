//! X's own table back, and nothing of ours left: after tracking, after an insertion that was
//! killed, after LVM reloaded X, after X itself is gone.

use super::situation::{self, Path, SlotState};
use super::{Goal, Plan, Refusal, Skipped, Step, point, shape};
use crate::names::Role;
use crate::stack::{Desired, Device, Observed, Subject, Volume};

pub(super) fn plan(observed: &Observed) -> Result<Plan, Refusal> {
    let goal = Goal::Reach(Desired::Untracked);
    let mut plan = Plan { goal, steps: Vec::new(), skipped: Vec::new() };
    match &observed.x {
        Subject::Gone | Subject::NotDeviceMapper(_) => plan.skipped.push(Skipped::Restore),
        Subject::Mapped(_) => {
            let volume = situation::volume(observed)?;
            match situation::path(observed, volume)? {
                Path::Own => pass_by(&mut plan, observed, volume)?,
                Path::ThroughEra { era: _, base, origin: _ } => {
                    restore(&mut plan, observed, volume, base)?;
                    // The user's device first: its reader's last reads count for nothing by then.
                    plan.steps.extend(point::cut_off(observed));
                    // Whoever has one of ours open does not keep X from its own table; the
                    // removal then fails, and is tried again.
                    remove_own(&mut plan, observed);
                    return Ok(plan);
                }
            }
        }
    }
    let cut_off = point::cut_off(observed);
    for role in Role::ALL.into_iter().filter(|it| *it != Role::Snapshot || cut_off.is_empty()) {
        situation::not_busy(observed, role)?;
    }
    plan.steps.extend(cut_off);
    remove_own(&mut plan, observed);
    Ok(plan)
}

/// X does not go through X-era; only a table that we left in its slot is in the way.
fn pass_by(plan: &mut Plan, observed: &Observed, volume: &Volume) -> Result<(), Refusal> {
    plan.skipped.push(Skipped::Restore);
    if situation::slot(observed, &volume.device) == SlotState::Ours {
        let group = situation::lock(volume)?;
        plan.steps.extend(group.iter().map(|vg| Step::LockVolumeGroup { vg: vg.clone() }));
        plan.steps.extend(situation::clear(&volume.device));
        plan.steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
    }
    Ok(())
}

fn restore(
    plan: &mut Plan,
    observed: &Observed,
    volume: &Volume,
    base: &Device,
) -> Result<(), Refusal> {
    let device = &volume.device;
    let (Some(live), Some(original)) = (&device.live, &base.live) else {
        return Err(Refusal::NoTable { name: device.name.clone() });
    };
    situation::can_be_drained(observed, device)?;
    let x = device.number;
    let (live, original) = (shape::planned(live), shape::planned(original));
    let group = situation::lock(volume)?;
    match &group {
        Some(vg) => plan.steps.push(Step::LockVolumeGroup { vg: vg.clone() }),
        None => plan.skipped.push(Skipped::Lock),
    }
    plan.steps.extend(situation::clear_slot(observed, device)?);
    plan.steps.push(Step::VerifyLive { x, table: live.clone() });
    let table = original.clone();
    plan.steps.push(Step::SwapIn { x, expect: live, table, keep_read_ahead: true });
    plan.steps.push(Step::VerifyLive { x, table: original });
    plan.steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
    Ok(())
}

/// From the top down: each holds those below. Removing them writes nothing to X.
fn remove_own(plan: &mut Plan, observed: &Observed) {
    for role in Role::ALL {
        if observed.own(role).is_some() {
            plan.steps.push(Step::Remove { role });
        } else if matches!(role, Role::Era | Role::Base) {
            plan.skipped.push(Skipped::Remove(role));
        }
    }
}
