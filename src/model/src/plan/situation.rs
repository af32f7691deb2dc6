use super::{Refusal, Step, shape};
use crate::lvm::VgName;
use crate::names::{Mapping, Role};
use crate::stack::{Device, Observed, Subject, Volume};
use crate::table::{Table, Target};
use crate::units::{DevNo, Sectors};

/// Which way X's I/O goes.
pub(super) enum Path<'a> {
    /// Through X's own table, past whatever is there of ours.
    Own,
    /// Through X-era and X-base, exactly as we make it; first through X-origin, if it is given.
    ThroughEra { era: &'a Device, base: &'a Device, origin: Option<&'a Device> },
}

/// What X's inactive slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Empty,
    /// A table that a step of ours left there when it was killed.
    Ours,
    /// Somebody else's.
    Foreign,
}

pub(super) fn volume(observed: &Observed) -> Result<&Volume, Refusal> {
    match &observed.x {
        Subject::Gone => Err(Refusal::Gone),
        Subject::NotDeviceMapper(number) => Err(Refusal::NotDeviceMapper { number: *number }),
        Subject::Mapped(volume) => {
            let top = observed.stack.uuid(Mapping::Top);
            let ours =
                volume.device.uuid.as_ref().is_some_and(|uuid| uuid.is_ours() && *uuid != top);
            let name = volume.device.name.clone();
            if ours { Err(Refusal::OwnDevice { name }) } else { Ok(volume) }
        }
    }
}

pub(super) fn path<'a>(observed: &'a Observed, volume: &Volume) -> Result<Path<'a>, Refusal> {
    let x = &volume.device;
    let ours: Vec<_> = Role::ALL.into_iter().filter_map(|role| observed.own(role)).collect();
    let names_ours = ours.iter().any(|device| names(x.live.as_ref(), device.number));
    if !names_ours {
        return Ok(Path::Own);
    }
    let inconsistent = |what: String| Refusal::Inconsistent { name: x.name.clone(), what };
    let (Some(era), Some(base)) = (&observed.era, &observed.base) else {
        return Err(inconsistent("one of X-era and X-base is missing".to_owned()));
    };
    let tables = x.live.as_ref().zip(base.live.as_ref());
    let goes_through =
        |top| tables.is_some_and(|(live, base)| shape::is_live_table(live, base, top));
    let origin = observed.origin.as_ref().filter(|origin| {
        let length = era.live.as_ref().map_or(Sectors(0), Table::length);
        let over_era = origin.live.as_ref() == Some(&shape::origin_table(length, era.number));
        over_era && goes_through(origin.number)
    });
    if origin.is_none() && !goes_through(era.number) {
        return Err(inconsistent(format!("its table is {:?}", text(x.live.as_ref()))));
    }
    if !names(era.live.as_ref(), base.number) {
        return Err(inconsistent(format!("{} does not map {}", era.name, base.name)));
    }
    Ok(Path::ThroughEra { era, base, origin })
}

pub(super) fn slot(observed: &Observed, x: &Device) -> SlotState {
    let Some(loaded) = &x.inactive else { return SlotState::Empty };
    let ours = Role::ALL.into_iter().filter_map(|role| observed.own(role));
    let names_ours = ours.into_iter().any(|own| names(Some(loaded), own.number));
    // A removal that was killed between load and swap leaves X-base's table there; while X goes
    // through X-era, nobody else has a reason to load exactly that.
    let through = [&observed.era, &observed.origin]
        .into_iter()
        .flatten()
        .any(|top| names(x.live.as_ref(), top.number));
    let original = observed.base.as_ref().is_some_and(|base| base.live.as_ref() == Some(loaded));
    if names_ours || through && original { SlotState::Ours } else { SlotState::Foreign }
}

/// The steps that empty X's slot if a table of ours is in it, which only the holder of the lock
/// may take.
pub(super) fn clear_slot(observed: &Observed, x: &Device) -> Result<Option<Step>, Refusal> {
    match slot(observed, x) {
        SlotState::Empty => Ok(None),
        SlotState::Ours => Ok(clear(x)),
        SlotState::Foreign => {
            Err(Refusal::SlotTaken { name: x.name.clone(), table: text(x.inactive.as_ref()) })
        }
    }
}

/// The step that empties X's slot of what is in it.
pub(super) fn clear(x: &Device) -> Option<Step> {
    let table = shape::planned(x.inactive.as_ref()?);
    Some(Step::ClearSlot { x: x.number, table })
}

pub(super) fn not_suspended(device: &Device) -> Result<(), Refusal> {
    if device.suspended { Err(Refusal::Suspended { name: device.name.clone() }) } else { Ok(()) }
}

/// Nothing is suspended that X's drain would wait for, with X suspended meanwhile.
pub(super) fn can_be_drained(observed: &Observed, x: &Device) -> Result<(), Refusal> {
    let own = Role::ALL.into_iter().filter_map(|role| observed.own(role));
    std::iter::once(x).chain(own).try_for_each(not_suspended)
}

/// The group whose lock a plan for X takes; none if X is not LVM's.
pub(super) fn lock(volume: &Volume) -> Result<Option<VgName>, Refusal> {
    let group = volume.volume_group();
    if group.is_none() && volume.is_lvm() {
        return Err(Refusal::LvmNameUnreadable { name: volume.device.name.clone() });
    }
    Ok(group)
}

/// Fails if somebody besides our own stack has the device open.
pub(super) fn not_busy(observed: &Observed, role: Role) -> Result<(), Refusal> {
    let Some(device) = observed.own(role) else { return Ok(()) };
    let x = match &observed.x {
        Subject::Mapped(volume) => Some(&volume.device),
        Subject::Gone | Subject::NotDeviceMapper(_) => None,
    };
    let ours = Role::ALL.into_iter().filter_map(|role| observed.own(role)).chain(x);
    // A device that names another in both of its tables opens it once (`dm_get_table_device`).
    let by_ours = ours.filter(|above| {
        [&above.live, &above.inactive].into_iter().any(|t| names(t.as_ref(), device.number))
    });
    let by_ours = u32::try_from(by_ours.count()).unwrap_or(u32::MAX);
    let open_count = device.open_count.saturating_sub(by_ours);
    if open_count > 0 {
        return Err(Refusal::Busy { name: device.name.clone(), role, open_count });
    }
    Ok(())
}

/// Whether a table names a device, in whatever target.
pub(super) fn names(table: Option<&Table>, device: DevNo) -> bool {
    let Some(table) = table else { return false };
    let word = device.to_string();
    table.segments().iter().any(|segment| match &segment.target {
        Target::Other { kind: _, params } => params.split(' ').any(|found| found == word),
        known => known.devices().contains(&&device),
    })
}

pub(super) fn text(table: Option<&Table>) -> String {
    table.map_or_else(|| "none".to_owned(), |table| table.to_string().replace('\n', "; "))
}
