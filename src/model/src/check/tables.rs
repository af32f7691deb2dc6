use std::convert::Infallible;

use super::{Rule, Verdict, require};
use crate::names::Role;
use crate::plan::{DeviceRef, PlannedTable};
use crate::stack::{Device, Observed, Tracked};
use crate::table::{Table, Target};
use crate::units::{DevNo, Sectors};

/// Every segment leads to X-era at its own offset, whatever the way.
pub(super) fn wholly_tracked(table: &PlannedTable) -> Verdict {
    let era = DeviceRef::Own(Role::Era);
    let astray = table.segments().iter().find(|segment| {
        let (device, offset) = match &segment.target {
            Target::Linear { device, offset } => (*device, *offset),
            // One region, never given another path: all of it takes the first.
            Target::Switch { region, paths } if *region >= segment.length => match paths.first() {
                Some(first) => (first.device, first.offset),
                None => return true,
            },
            _ => return true,
        };
        device != era || offset != segment.start
    });
    require(astray.is_none(), Rule::WhollyTracked, || show(Some(table)))
}

/// Metadata and granularity of a table that is era over X-base and nothing else.
pub(super) fn era_of(table: &PlannedTable) -> Option<(DeviceRef, Sectors)> {
    match table.segments() {
        [segment] => match &segment.target {
            Target::Era { metadata, origin: DeviceRef::Own(Role::Base), granularity } => {
                Some((*metadata, *granularity))
            }
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn parts_of(wanted: &Tracked) -> (DeviceRef, Sectors) {
    let sectors = Sectors(wanted.granularity.bytes().0 / 512);
    (DeviceRef::Number(wanted.metadata.number), sectors)
}

pub(super) fn ends(table: &PlannedTable) -> Option<u64> {
    table.segments().last().map(|last| last.start.0 + last.length.0)
}

pub(super) fn names(table: &PlannedTable, role: Role) -> bool {
    table.devices().any(|device| *device == DeviceRef::Own(role))
}

pub(super) fn names_ours(table: &PlannedTable) -> bool {
    Role::ALL.into_iter().any(|role| names(table, role))
}

pub(super) fn show(table: Option<&PlannedTable>) -> String {
    table.map_or_else(|| "no table".to_owned(), |table| table.to_string().replace('\n', "; "))
}

/// A kernel's table with our devices named by role.
pub(super) fn by_role(table: &Table, observed: &Observed) -> PlannedTable {
    renamed(table.try_map(|number| Ok::<_, Infallible>(role_of(*number, observed))))
}

/// A planned table likewise: a plan may name a device that exists either way.
pub(super) fn normal(table: &PlannedTable, observed: &Observed) -> PlannedTable {
    renamed(table.try_map(|device| {
        Ok::<_, Infallible>(match device {
            DeviceRef::Number(number) => role_of(*number, observed),
            DeviceRef::Own(role) => DeviceRef::Own(*role),
        })
    }))
}

fn renamed(table: Result<PlannedTable, Infallible>) -> PlannedTable {
    match table {
        Ok(table) => table,
    }
}

fn role_of(number: DevNo, observed: &Observed) -> DeviceRef {
    let Observed { era, base, origin, snapshot, .. } = observed;
    let own =
        [(era, Role::Era), (base, Role::Base), (origin, Role::Origin), (snapshot, Role::Snapshot)];
    let is = |device: &Option<Device>| device.as_ref().is_some_and(|d| d.number == number);
    let found = own.into_iter().find(|(device, _)| is(device));
    found.map_or(DeviceRef::Number(number), |(_, role)| DeviceRef::Own(role))
}
