//! A boundary: checkpoint, read the era, drain.
//!
//! The era is read right after the checkpoint and before the drain. Nothing is gained by reading
//! it later, and if anything else began another era in between, the later number would leave out
//! blocks that were written in this one (invariant I1).

use super::situation::{self, Path};
use super::{Goal, Plan, Refusal, Skipped, Step, shape};
use crate::stack::Observed;

pub(super) fn plan(observed: &Observed) -> Result<Plan, Refusal> {
    let volume = situation::volume(observed)?;
    let device = &volume.device;
    let not_tracked = || Refusal::NotTracked { name: device.name.clone() };
    let Path::ThroughEra { .. } = situation::path(observed, volume)? else {
        return Err(not_tracked());
    };
    situation::can_be_drained(observed, device)?;
    let table = shape::planned(device.live.as_ref().ok_or_else(not_tracked)?);
    let x = device.number;
    let group = situation::lock(volume)?;
    let mut steps = Vec::new();
    steps.extend(group.iter().map(|vg| Step::LockVolumeGroup { vg: vg.clone() }));
    steps.extend(situation::clear_slot(observed, device)?);
    steps.push(Step::VerifyLive { x, table: table.clone() });
    steps.push(Step::Checkpoint);
    steps.push(Step::ReadEra);
    steps.push(Step::Drain { x, table: table.clone(), keep_read_ahead: true });
    steps.push(Step::VerifyLive { x, table });
    let skipped = if group.is_none() { vec![Skipped::Lock] } else { Vec::new() };
    steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
    Ok(Plan { goal: Goal::Boundary, steps, skipped })
}
