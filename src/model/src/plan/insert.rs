//! Era under an X in use, from nothing or from what a kill left of an earlier attempt.

use super::situation::{self, Path};
use super::{Goal, Plan, Refusal, Skipped, Step, eligible, point, shape};
use crate::discards::DiscardPolicy;
use crate::names::Role;
use crate::stack::{Contents, Desired, Device, Observed, Tracked, Volume};
use crate::table::{Table, Target};
use crate::units::{Bytes, Sectors};

/// What dm-era takes as "format this": a superblock of zeroes, 4 KiB (`superblock_all_zeroes`,
/// drivers/md/dm-era-target.c).
const SUPERBLOCK: Sectors = Sectors(8);

pub(super) fn plan(observed: &Observed, wanted: &Tracked) -> Result<Plan, Refusal> {
    let volume = situation::volume(observed)?;
    let mut draft = Draft { observed, volume, wanted, steps: Vec::new(), skipped: Vec::new() };
    match situation::path(observed, volume)? {
        Path::Own => draft.insert()?,
        Path::ThroughEra { era, base: _, origin } => draft.keep(era, origin.is_some())?,
    }
    let Draft { steps, skipped, .. } = draft;
    Ok(Plan { goal: Goal::Reach(Desired::Tracked(wanted.clone())), steps, skipped })
}

struct Draft<'a> {
    observed: &'a Observed,
    volume: &'a Volume,
    wanted: &'a Tracked,
    steps: Vec<Step>,
    skipped: Vec<Skipped>,
}

impl Draft<'_> {
    /// X goes through X-era already: tidy up after a boundary or a removal that was killed.
    fn keep(&mut self, era: &Device, point_in_time: bool) -> Result<(), Refusal> {
        let x = &self.volume.device;
        self.is_as_wanted(era)?;
        situation::not_suspended(x)?;
        situation::not_suspended(era)?;
        if let Some(clear) = situation::clear_slot(self.observed, x)? {
            let group = situation::lock(self.volume)?;
            self.steps.extend(group.iter().map(|vg| Step::LockVolumeGroup { vg: vg.clone() }));
            self.steps.push(clear);
            self.steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
        }
        self.skipped.push(Skipped::Insert(self.wanted.granularity));
        self.skipped.extend(point_in_time.then_some(Skipped::PointInTime));
        self.limit_discards(Some(era));
        Ok(())
    }

    fn is_as_wanted(&self, era: &Device) -> Result<(), Refusal> {
        let found = era.live.as_ref().and_then(|table| match table.segments() {
            [only] => match only.target {
                Target::Era { metadata, origin: _, granularity } => Some((metadata, granularity)),
                _ => None,
            },
            _ => None,
        });
        let name = self.volume.device.name.clone();
        let Some((metadata, granularity)) = found else {
            let what = format!("{} maps {:?}", era.name, situation::text(era.live.as_ref()));
            return Err(Refusal::Inconsistent { name, what });
        };
        let wanted = (self.wanted.metadata.number, self.wanted.granularity.sectors());
        if (metadata, granularity) == wanted {
            Ok(())
        } else {
            Err(Refusal::TrackedOtherwise { name, granularity, metadata })
        }
    }

    fn insert(&mut self) -> Result<(), Refusal> {
        let x = &self.volume.device;
        // Nobody recorded what was written while X went without era (invariant I2).
        if self.wanted.metadata.contents == Contents::Kept {
            return Err(Refusal::NotTracked { name: x.name.clone() });
        }
        let table = eligible::bare(self.observed, self.volume, self.wanted.granularity)?;
        eligible::metadata_apart(&self.observed.stack, self.volume, self.wanted)?;
        let group = situation::lock(self.volume)?;
        match &group {
            Some(vg) => self.steps.push(Step::LockVolumeGroup { vg: vg.clone() }),
            None => self.skipped.push(Skipped::Lock),
        }
        self.steps.extend(situation::clear_slot(self.observed, x)?);
        self.steps.push(Step::VerifyLive { x: x.number, table: shape::planned(table) });
        self.build(table)?;
        self.swap(table);
        self.steps.extend(group.map(|vg| Step::UnlockVolumeGroup { vg }));
        Ok(())
    }

    /// X-base and X-era: kept if they are exactly right, else removed and made anew. A device
    /// that was only half made is not worth telling apart from one that is wrong.
    fn build(&mut self, table: &Table) -> Result<(), Refusal> {
        let observed = self.observed;
        let base = observed.base.as_ref().filter(|base| is_live(base, table));
        let era = base.and_then(|base| fitting_era(observed, self.wanted, table, base));
        let fits = |role| match role {
            // Of a point in time before X lost its era device.
            Role::Origin | Role::Snapshot => false,
            Role::Era => era.is_some(),
            Role::Base => base.is_some(),
        };
        let cut_off = point::cut_off(observed);
        let read_until_now = !cut_off.is_empty();
        self.steps.extend(cut_off);
        for role in Role::ALL {
            if !fits(role) && observed.own(role).is_some() {
                if role != Role::Snapshot || !read_until_now {
                    situation::not_busy(observed, role)?;
                }
                self.steps.push(Step::Remove { role });
            }
        }
        if era.is_some() || self.wanted.metadata.contents == Contents::Proven {
            self.skipped.push(Skipped::Zero);
        } else {
            let device = self.wanted.metadata.number;
            self.steps.push(Step::ZeroMetadata { device, length: SUPERBLOCK });
        }
        self.make(Role::Base, base.is_some(), shape::planned(table));
        self.make(Role::Era, era.is_some(), shape::planned_era(table.length(), self.wanted));
        self.limit_discards(era);
        Ok(())
    }

    fn make(&mut self, role: Role, there: bool, table: super::PlannedTable) {
        if there {
            self.skipped.push(Skipped::Build(role));
            return;
        }
        let stack = &self.observed.stack;
        let (name, uuid) = (stack.name(role), stack.uuid(role));
        self.steps.push(Step::Create { role, name, uuid });
        self.steps.push(Step::Load { role, table });
        self.steps.push(Step::Activate { role });
    }

    fn limit_discards(&mut self, era: Option<&Device>) {
        let Tracked { granularity, metadata: _, discards } = *self.wanted;
        let possible = match era {
            Some(era) => era.discards,
            None => self.volume.device.discards,
        };
        let feasible = DiscardPolicy::decide(possible, granularity);
        let bytes: Bytes = discards.limit(granularity).min(feasible.limit(granularity));
        if era.is_some_and(|era| era.discards.max <= bytes) {
            self.skipped.push(Skipped::LimitDiscards(bytes));
        } else {
            self.steps.push(Step::LimitDiscards { bytes });
        }
    }

    fn swap(&mut self, table: &Table) {
        let x = self.volume.device.number;
        let (old, new) =
            (shape::planned(table), shape::planned_live(table, self.volume.pool_chunk));
        let table = new.clone();
        self.steps.push(Step::SwapIn { x, expect: old, table, keep_read_ahead: true });
        self.steps.push(Step::VerifyLive { x, table: new });
    }
}

fn is_live(device: &Device, table: &Table) -> bool {
    device.live.as_ref() == Some(table) && device.inactive.is_none() && !device.suspended
}

fn fitting_era<'a>(
    observed: &'a Observed,
    wanted: &Tracked,
    table: &Table,
    base: &Device,
) -> Option<&'a Device> {
    let Tracked { granularity, metadata, discards: _ } = wanted;
    let expected = shape::era_table(table.length(), metadata.number, base.number, *granularity);
    observed.era.as_ref().filter(|era| is_live(era, &expected))
}
