mod points;

use super::tables::{
    by_role, ends, era_of, names, names_ours, normal, parts_of, show, wholly_tracked,
};
use super::{Rule, Verdict, require};
use crate::lvm::VgName;
use crate::names::Role;
use crate::plan::{Goal, Plan, PlannedTable, Step};
use crate::stack::{Contents, Desired, Device, Observed, Subject, Tracked, Volume};
use crate::table::Table;
use crate::units::{Bytes, DevNo, Sectors};

/// The machine, as far as the steps so far have changed it. Tables name our devices by role.
pub(super) struct State<'a> {
    goal: &'a Goal,
    observed: &'a Observed,
    volume: Option<&'a Volume>,
    live: Option<PlannedTable>,
    slot: Option<PlannedTable>,
    era: Option<Own>,
    base: Option<Own>,
    origin: Option<Own>,
    snapshot: Option<Own>,
    held: Option<&'a VgName>,
    locks_taken: usize,
    /// X's live table is proven since the lock was taken.
    proven: bool,
    /// X was swapped and nothing has looked since.
    unverified: bool,
    zeroed: bool,
    boundary: Boundary,
}

#[derive(Clone, Default)]
struct Own {
    live: Option<PlannedTable>,
    slot: Option<PlannedTable>,
    longest_discard: Option<Bytes>,
    /// What a limit must be a multiple of, in bytes; 0 if anything goes.
    discard_unit: u64,
    suspended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boundary {
    None,
    Checkpointed,
    EraRead,
    Drained,
}

impl<'a> State<'a> {
    pub(super) fn new(plan: &'a Plan, observed: &'a Observed) -> Self {
        let volume = match &observed.x {
            Subject::Mapped(volume) => Some(volume),
            Subject::Gone | Subject::NotDeviceMapper(_) => None,
        };
        let named = |table: Option<&Table>| table.map(|table| by_role(table, observed));
        let own = |device: &Device| Own {
            live: named(device.live.as_ref()),
            slot: named(device.inactive.as_ref()),
            longest_discard: Some(device.discards.max),
            discard_unit: device.discards.granularity.0,
            suspended: device.suspended,
        };
        Self {
            goal: &plan.goal,
            observed,
            volume,
            live: named(volume.and_then(|volume| volume.device.live.as_ref())),
            slot: named(volume.and_then(|volume| volume.device.inactive.as_ref())),
            era: observed.era.as_ref().map(own),
            base: observed.base.as_ref().map(own),
            origin: observed.origin.as_ref().map(own),
            snapshot: observed.snapshot.as_ref().map(own),
            held: None,
            locks_taken: 0,
            proven: false,
            unverified: false,
            zeroed: false,
            boundary: Boundary::None,
        }
    }

    pub(super) fn take(&mut self, step: &'a Step) -> Verdict {
        let verifies = matches!(step, Step::VerifyLive { .. });
        require(!self.unverified || verifies, Rule::VerifiedAfter, || "not verified".into())?;
        match step {
            Step::LockVolumeGroup { vg } => self.lock(vg),
            Step::UnlockVolumeGroup { vg } => self.unlock(vg),
            Step::VerifyLive { x, table } => self.verify(*x, table),
            Step::ZeroMetadata { device, length } => self.zero(*device, *length),
            Step::Create { role, name, uuid } => self.create(*role, name.as_str(), uuid.as_str()),
            Step::Load { role, table } => self.load(*role, table),
            Step::Activate { role } => self.activate(*role),
            Step::LimitDiscards { bytes } => self.limit_discards(*bytes),
            Step::SwapIn { x, expect, table, keep_read_ahead } => {
                self.swap(*x, expect, table, *keep_read_ahead)
            }
            Step::ClearSlot { x, table } => self.clear_slot(*x, table),
            Step::Remove { role } => self.remove(*role),
            Step::Checkpoint => self.era_is_asked(Boundary::None, Boundary::Checkpointed),
            Step::ReadEra => self.era_is_asked(Boundary::Checkpointed, Boundary::EraRead),
            Step::Drain { x, table, keep_read_ahead } => self.drain(*x, table, *keep_read_ahead),
        }
    }

    pub(super) fn end(&self) -> Verdict {
        require(!self.unverified, Rule::VerifiedAfter, || "the last swap is not".into())?;
        require(self.held.is_none(), Rule::LockBalanced, || "still held".into())?;
        let through = self.goes_through_era();
        let left = |role: Role| self.own_there(role).is_some();
        let nothing_waits = !self.slot.as_ref().is_some_and(names_ours);
        let (reached, clean) = match self.goal {
            Goal::Reach(Desired::Tracked(_)) => (through, self.slot.is_none()),
            Goal::Boundary => (self.boundary == Boundary::Drained, self.slot.is_none()),
            Goal::PointInTime(_) => {
                let drained = self.boundary == Boundary::Drained;
                (drained && self.goes_through_origin(), self.slot.is_none())
            }
            Goal::EndPointInTime => (!left(Role::Origin) && !left(Role::Snapshot), nothing_waits),
            Goal::Reach(Desired::Untracked) => {
                (!through && !Role::ALL.into_iter().any(left), nothing_waits)
            }
        };
        require(reached, Rule::GoalReached, || format!("{:?}", self.boundary))?;
        require(clean, Rule::SlotIsEmpty, || show(self.slot.as_ref()))?;
        self.tracked_as_wanted()
    }

    fn tracked_as_wanted(&self) -> Verdict {
        let Goal::Reach(Desired::Tracked(wanted)) = self.goal else { return Ok(()) };
        let live = self.era.as_ref().and_then(|era| era.live.as_ref());
        require(
            live.is_some_and(|table| era_of(table) == Some(parts_of(wanted))),
            Rule::GoalReached,
            || show(live),
        )?;
        self.discards_are_limited(wanted)
    }

    fn own(&mut self, role: Role) -> &mut Option<Own> {
        match role {
            Role::Era => &mut self.era,
            Role::Base => &mut self.base,
            Role::Origin => &mut self.origin,
            Role::Snapshot => &mut self.snapshot,
        }
    }

    fn own_there(&self, role: Role) -> Option<&Own> {
        match role {
            Role::Era => self.era.as_ref(),
            Role::Base => self.base.as_ref(),
            Role::Origin => self.origin.as_ref(),
            Role::Snapshot => self.snapshot.as_ref(),
        }
    }

    /// X leads to X-era, at once or through X-origin.
    fn goes_through_era(&self) -> bool {
        let direct = self.live.as_ref().is_some_and(|live| names(live, Role::Era));
        direct || self.goes_through_origin()
    }

    fn x(&self, number: DevNo) -> Result<&'a Volume, (Rule, String)> {
        let volume = self.volume.ok_or_else(|| (Rule::XIsMapped, number.to_string()))?;
        let right = volume.device.number == number;
        require(right, Rule::RightX, || volume.device.number.to_string()).map(|()| volume)
    }

    // LVM's lock

    fn needs_lock(volume: &Volume) -> bool {
        let uuid = volume.device.uuid.as_ref();
        uuid.is_some_and(|uuid| uuid.as_str().starts_with("LVM-"))
    }

    fn lock(&mut self, vg: &'a VgName) -> Verdict {
        require(self.held.is_none() && self.locks_taken == 0, Rule::LockBalanced, || {
            vg.to_string()
        })?;
        let name = self.volume.map(|volume| volume.device.name.as_str().replace("--", "\0"));
        let group = name.as_ref().and_then(|name| name.split_once('-')).map(|(group, _)| group);
        let right = group.is_some_and(|group| group.replace('\0', "-") == vg.as_str());
        require(right, Rule::LockBalanced, || format!("{vg} is not the volume's group"))?;
        self.held = Some(vg);
        self.locks_taken += 1;
        Ok(())
    }

    fn unlock(&mut self, vg: &VgName) -> Verdict {
        require(self.held == Some(vg), Rule::LockBalanced, || format!("{vg} is not held"))?;
        self.held = None;
        self.proven = false;
        Ok(())
    }

    fn lock_is_held(&self, volume: &Volume) -> Verdict {
        let held = self.held.is_some() || !Self::needs_lock(volume);
        require(held, Rule::LockHeld, || volume.device.name.to_string())
    }

    // X

    fn verify(&mut self, x: DevNo, table: &PlannedTable) -> Verdict {
        let volume = self.x(x)?;
        self.lock_is_held(volume)?;
        self.is_live(table)?;
        require(self.slot.is_none(), Rule::SlotIsEmpty, || show(self.slot.as_ref()))?;
        self.unverified = false;
        self.proven = true;
        Ok(())
    }

    fn is_live(&self, table: &PlannedTable) -> Verdict {
        let same = self.live.as_ref() == Some(&normal(table, self.observed));
        require(same, Rule::ExpectedIsLive, || show(self.live.as_ref()))
    }

    fn may_swap(&self, x: DevNo, expect: &PlannedTable, keep_read_ahead: bool) -> Verdict {
        let volume = self.x(x)?;
        let Device { suspended, read_only, .. } = volume.device;
        require(!suspended && !read_only, Rule::XIsActive, || volume.device.name.to_string())?;
        self.lock_is_held(volume)?;
        require(self.proven, Rule::VerifiedBefore, || "not since the lock was taken".into())?;
        self.is_live(expect)?;
        require(self.slot.is_none(), Rule::SlotIsEmpty, || show(self.slot.as_ref()))?;
        require(keep_read_ahead, Rule::ReadAheadKept, || "it would be reset".into())
    }

    fn swap(
        &mut self,
        x: DevNo,
        expect: &PlannedTable,
        table: &PlannedTable,
        keep_read_ahead: bool,
    ) -> Verdict {
        self.may_swap(x, expect, keep_read_ahead)?;
        let table = normal(table, self.observed);
        require(ends(&table) == self.live.as_ref().and_then(ends), Rule::SameLength, || {
            show(Some(&table))
        })?;
        let via_origin = self.live.as_ref().is_some_and(|live| names(live, Role::Origin));
        if names(&table, Role::Origin) {
            self.point_may_begin(&table)?;
        } else if names(&table, Role::Era) && via_origin {
            self.point_may_end(&table)?;
        } else if names(&table, Role::Era) {
            self.era_may_take_over(&table)?;
        } else {
            self.base_has(&table)?;
        }
        self.live = Some(table);
        self.unverified = true;
        Ok(())
    }

    fn era_may_take_over(&self, table: &PlannedTable) -> Verdict {
        let Goal::Reach(Desired::Tracked(wanted)) = self.goal else {
            return Err((Rule::GoalReached, "era is not wanted".into()));
        };
        wholly_tracked(table)?;
        let base = self.base.as_ref().and_then(|base| base.live.as_ref());
        require(base == self.live.as_ref(), Rule::EraIsReady, || show(base))?;
        let era = self.era.as_ref().filter(|era| !era.suspended);
        let era = era.and_then(|era| era.live.as_ref());
        let ready = era
            .is_some_and(|era| era_of(era) == Some(parts_of(wanted)) && ends(era) == ends(table));
        require(ready, Rule::EraIsReady, || show(era))?;
        let kept = wanted.metadata.contents == Contents::Kept;
        require(!kept, Rule::ChainUnbroken, || show(self.live.as_ref()))?;
        self.metadata_is_apart(wanted)?;
        self.discards_are_limited(wanted)
    }

    fn metadata_is_apart(&self, wanted: &Tracked) -> Verdict {
        let x = self.volume.map(|volume| volume.device.number);
        let area = &wanted.metadata;
        let on_x = Some(area.number) == x || area.beneath.iter().any(|d| Some(d.number) == x);
        let own_area = format!("CRYPT-SUBDEV-ERATRACK-{}-metadata", self.observed.stack);
        let marked = |uuid: &str| uuid.starts_with("CRYPT-SUBDEV-ERATRACK-") && uuid != own_area;
        let on_ours = area.beneath.iter().any(|d| d.uuid.iter().any(|uuid| marked(uuid.as_str())));
        require(!on_x && !on_ours, Rule::MetadataApart, || area.number.to_string())
    }

    fn discards_are_limited(&self, wanted: &Tracked) -> Verdict {
        let longest = self.era.as_ref().and_then(|era| era.longest_discard);
        let most = wanted.granularity.bytes();
        let limited = longest.is_some_and(|longest| longest <= most);
        require(limited, Rule::DiscardsLimited, || format!("{longest:?}"))
    }

    fn base_has(&self, table: &PlannedTable) -> Verdict {
        let through = self.goes_through_era();
        let base = self.base.as_ref().and_then(|base| base.live.as_ref());
        require(through && base == Some(table), Rule::TableGivenBack, || show(base))
    }

    fn clear_slot(&mut self, x: DevNo, table: &PlannedTable) -> Verdict {
        let volume = self.x(x)?;
        self.lock_is_held(volume)?;
        let base = self.base.as_ref().and_then(|base| base.live.as_ref());
        let through = self.goes_through_era();
        let ours = |slot| names_ours(slot) || through && Some(slot) == base;
        let clearable = self.slot.as_ref().is_some_and(ours);
        let this = self.slot == Some(normal(table, self.observed));
        require(clearable && this, Rule::SlotIsOurs, || show(self.slot.as_ref()))?;
        self.slot = None;
        Ok(())
    }

    // The metadata

    fn zero(&mut self, device: DevNo, length: Sectors) -> Verdict {
        let fresh = match self.goal {
            Goal::Reach(Desired::Tracked(wanted)) => {
                wanted.metadata.contents == Contents::Fresh
                    && wanted.metadata.number == device
                    && length == Sectors(8)
                    && length <= wanted.metadata.length
            }
            Goal::Reach(Desired::Untracked)
            | Goal::Boundary
            | Goal::PointInTime(_)
            | Goal::EndPointInTime => false,
        };
        let unused = self.era.is_none() && !self.zeroed;
        require(fresh && unused, Rule::ZeroOnlyFresh, || device.to_string())?;
        if let Goal::Reach(Desired::Tracked(wanted)) = self.goal {
            self.metadata_is_apart(wanted)?;
        }
        self.zeroed = true;
        Ok(())
    }

    // Devices of ours

    fn create(&mut self, role: Role, name: &str, uuid: &str) -> Verdict {
        let stack = self.observed.stack.as_str();
        let suffix = match role {
            Role::Era => "era",
            Role::Base => "base",
            Role::Origin => "origin",
            Role::Snapshot => "snapshot",
        };
        let right = name == format!("eratrack-{stack}-{suffix}")
            && uuid == format!("CRYPT-SUBDEV-ERATRACK-{stack}-{suffix}");
        let absent = self.own(role).is_none();
        require(right && absent, Rule::MadeOnce, || format!("{name}, {uuid}"))?;
        // It will take discards as X does, whose table it stands on.
        let discard_unit = self.volume.map_or(0, |volume| volume.device.discards.granularity.0);
        *self.own(role) = Some(Own { discard_unit, ..Own::default() });
        Ok(())
    }

    fn load(&mut self, role: Role, table: &PlannedTable) -> Verdict {
        self.not_in_use(role)?;
        let table = normal(table, self.observed);
        match role {
            Role::Base => {
                let same = self.live.as_ref() == Some(&table);
                require(same, Rule::EraIsReady, || show(Some(&table)))?;
            }
            Role::Era => self.era_may_be_loaded(&table)?,
            Role::Snapshot => self.snapshot_may_be_loaded(&table)?,
            Role::Origin => self.origin_may_be_loaded(&table)?,
        }
        let own = self.own(role).as_mut().ok_or_else(|| (Rule::IsThere, role.to_string()))?;
        require(own.slot.is_none(), Rule::SlotIsEmpty, || show(own.slot.as_ref()))?;
        own.slot = Some(table);
        Ok(())
    }

    /// dm-era reads its metadata when the table is loaded.
    fn era_may_be_loaded(&self, table: &PlannedTable) -> Verdict {
        let Goal::Reach(Desired::Tracked(wanted)) = self.goal else {
            return Err((Rule::GoalReached, "era is not wanted".into()));
        };
        let right = era_of(table) == Some(parts_of(wanted));
        require(right, Rule::EraIsReady, || show(Some(table)))?;
        let base = self.base.as_ref().and_then(|base| base.live.as_ref());
        let ready = base.is_some_and(|base| ends(base) == ends(table));
        require(ready, Rule::EraIsReady, || show(base))?;
        let fresh = wanted.metadata.contents == Contents::Fresh;
        require(!fresh || self.zeroed, Rule::FreshIsZeroed, || show(Some(table)))
    }

    fn activate(&mut self, role: Role) -> Verdict {
        self.not_in_use(role)?;
        let own = self.own(role).as_mut().ok_or_else(|| (Rule::IsThere, role.to_string()))?;
        let table = own.slot.take().ok_or_else(|| (Rule::IsThere, "nothing is loaded".into()))?;
        own.live = Some(table);
        own.suspended = false;
        Ok(())
    }

    fn limit_discards(&mut self, bytes: Bytes) -> Verdict {
        let Goal::Reach(Desired::Tracked(wanted)) = self.goal else {
            return Err((Rule::DiscardsLimited, "era is not wanted".into()));
        };
        let era = self.era.as_mut().filter(|era| era.live.is_some());
        let era = era.ok_or_else(|| (Rule::IsThere, Role::Era.to_string()))?;
        let unit = era.discard_unit;
        let whole = bytes.0 == 0 || unit == 0 || bytes.0.is_multiple_of(unit);
        let right = bytes <= wanted.granularity.bytes() && whole;
        require(right, Rule::DiscardsLimited, || format!("{} bytes", bytes.0))?;
        era.longest_discard = Some(bytes);
        Ok(())
    }

    fn remove(&mut self, role: Role) -> Verdict {
        require(self.own(role).is_some(), Rule::IsThere, || role.to_string())?;
        self.not_in_use(role)?;
        // What goes through an origin without its snapshot is kept by nobody.
        let before: &[Role] = match role {
            Role::Origin => &[],
            Role::Snapshot => &[Role::Origin],
            Role::Era => &[Role::Origin, Role::Snapshot],
            Role::Base => &[Role::Origin, Role::Snapshot, Role::Era],
        };
        let left = before.iter().find(|role| self.own_there(**role).is_some());
        require(left.is_none(), Rule::NotInUse, || format!("{left:?} goes first"))?;
        if role == Role::Snapshot {
            self.nobody_reads_on()?;
        }
        *self.own(role) = None;
        Ok(())
    }

    fn not_in_use(&self, role: Role) -> Verdict {
        let x = [&self.live, &self.slot].into_iter().flatten();
        let own = Role::ALL.into_iter().filter_map(|role| self.own_there(role));
        let own = own.flat_map(|own| [&own.live, &own.slot]).flatten();
        let user = x.chain(own).find(|table| names(table, role));
        require(user.is_none(), Rule::NotInUse, || show(user))
    }

    // Boundaries

    fn era_is_asked(&mut self, from: Boundary, to: Boundary) -> Verdict {
        let goal = matches!(self.goal, Goal::Boundary | Goal::PointInTime(_));
        let right = goal && self.boundary == from;
        require(right, Rule::BoundaryOrder, || format!("{:?}", self.boundary))?;
        let through = self.goes_through_era();
        let awake = self.era.as_ref().is_some_and(|era| !era.suspended && era.live.is_some());
        require(through && awake && self.proven, Rule::IsThere, || Role::Era.to_string())?;
        self.boundary = to;
        Ok(())
    }

    fn drain(&mut self, x: DevNo, table: &PlannedTable, keep_read_ahead: bool) -> Verdict {
        let ready = self.boundary == Boundary::EraRead && matches!(self.goal, Goal::Boundary);
        require(ready, Rule::BoundaryOrder, || format!("{:?}", self.boundary))?;
        self.may_swap(x, table, keep_read_ahead)?;
        self.boundary = Boundary::Drained;
        self.unverified = true;
        Ok(())
    }
}
