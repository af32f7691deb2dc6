use std::convert::Infallible;

use super::{DeviceRef, PlannedTable};
use crate::names::Role;
use crate::stack::Tracked;
use crate::table::{Place, Table, Target};
use crate::units::{DevNo, Granularity, Sectors};

/// How much of a thin volume goes through `switch`: the least that stays aligned on every disk.
const SWITCHED: Sectors = Sectors(8);

/// X's table while it is tracked, given its original one.
///
/// All of X leads to X-era at the same offset. For a thin volume the first 4 KiB do so through
/// `switch`, whose second path is never taken but keeps the pool among X's direct dependencies,
/// where LVM looks for it (docs/design/0002-thin-tail.md).
pub fn live_table(original: &Table, era: DevNo) -> Table {
    over_era(original, era, |number| number)
}

/// X-era's table.
pub fn era_table(length: Sectors, metadata: DevNo, base: DevNo, granularity: Granularity) -> Table {
    let granularity = granularity.sectors();
    Table::in_sequence([(length, Target::Era { metadata, origin: base, granularity })])
}

pub(super) fn planned_live(original: &Table) -> PlannedTable {
    over_era(original, DeviceRef::Own(Role::Era), DeviceRef::Number)
}

pub(super) fn planned_era(length: Sectors, wanted: &Tracked) -> PlannedTable {
    let target = Target::Era {
        metadata: DeviceRef::Number(wanted.metadata.number),
        origin: DeviceRef::Own(Role::Base),
        granularity: wanted.granularity.sectors(),
    };
    Table::in_sequence([(length, target)])
}

/// The same table, to stand in a plan.
pub(super) fn planned(table: &Table) -> PlannedTable {
    let named = table.try_map(|number| Ok::<_, Infallible>(DeviceRef::Number(*number)));
    match named {
        Ok(named) => named,
    }
}

/// The thin pool that a table maps to, if it is a thin volume's.
pub(super) fn thin_pool(table: &Table) -> Option<DevNo> {
    table.segments().iter().find_map(|segment| match segment.target {
        Target::Thin { pool, id: _, origin: _ } => Some(pool),
        _ => None,
    })
}

fn over_era<D: Copy>(original: &Table, era: D, number: impl Fn(DevNo) -> D) -> Table<D> {
    let length = original.length();
    let linear = |offset| Target::Linear { device: era, offset };
    let Some(pool) = thin_pool(original) else {
        return Table::in_sequence([(length, linear(Sectors(0)))]);
    };
    let start = |device| Place { device, offset: Sectors(0) };
    let switch = Target::Switch { region: SWITCHED, paths: vec![start(era), start(number(pool))] };
    let switched = SWITCHED.min(length);
    let rest = Sectors(length.0 - switched.0);
    Table::in_sequence([(switched, switch), (rest, linear(switched))])
}
