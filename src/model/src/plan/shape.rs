use std::convert::Infallible;

use super::{DeviceRef, PlannedTable};
use crate::names::Role;
use crate::stack::Tracked;
use crate::table::{Place, Table, Target};
use crate::units::{DevNo, Granularity, Sectors};

/// How much of a thin volume goes through `switch` where nobody knows the pool's chunk.
const LEAST_SWITCHED: Sectors = Sectors(8);

/// X's table while it is tracked, given its original one.
///
/// All of X leads to X-era at the same offset. For a thin volume the first `switched` sectors do
/// so through `switch`, whose second path is never taken but keeps the pool among X's direct
/// dependencies, where LVM looks for it (docs/design/0002-thin-tail.md).
pub fn live_table(original: &Table, era: DevNo, switched: Sectors) -> Table {
    over_era(original, era, |number| number, switched)
}

/// Whether a table is X's while it is tracked, however much of it goes through `switch`.
pub fn is_live_table(live: &Table, original: &Table, era: DevNo) -> bool {
    let switched = live.segments().first().map_or(Sectors(0), |segment| segment.length);
    *live == live_table(original, era, switched)
}

/// X-origin's table, over X-era.
pub fn origin_table(length: Sectors, era: DevNo) -> Table {
    Table::in_sequence([(length, Target::SnapshotOrigin { origin: era })])
}

/// X-era's table.
pub fn era_table(length: Sectors, metadata: DevNo, base: DevNo, granularity: Granularity) -> Table {
    let granularity = granularity.sectors();
    Table::in_sequence([(length, Target::Era { metadata, origin: base, granularity })])
}

/// The table to give X. What goes through `switch` is a whole chunk of the pool: the kernel
/// takes what is aligned in X from the offsets beneath it (`blk_stack_limits`), and X would
/// pass discards on that the pool ignores.
pub(super) fn planned_live(original: &Table, pool_chunk: Option<Sectors>) -> PlannedTable {
    let switched = pool_chunk.unwrap_or(LEAST_SWITCHED);
    over_era(original, DeviceRef::Own(Role::Era), DeviceRef::Number, switched)
}

pub(super) fn planned_era(length: Sectors, wanted: &Tracked) -> PlannedTable {
    let target = Target::Era {
        metadata: DeviceRef::Number(wanted.metadata.number),
        origin: DeviceRef::Own(Role::Base),
        granularity: wanted.granularity.sectors(),
    };
    Table::in_sequence([(length, target)])
}

pub(super) fn planned_origin(length: Sectors) -> PlannedTable {
    Table::in_sequence([(length, Target::SnapshotOrigin { origin: DeviceRef::Own(Role::Era) })])
}

pub(super) fn planned_snapshot(length: Sectors, store: DevNo, chunk: Sectors) -> PlannedTable {
    let (origin, store) = (DeviceRef::Own(Role::Era), DeviceRef::Number(store));
    Table::in_sequence([(length, Target::Snapshot { origin, store, chunk })])
}

/// Whoever reads it is told so.
pub(super) fn planned_error(length: Sectors) -> PlannedTable {
    let target = Target::Other { kind: "error".to_owned(), params: String::new() };
    Table::in_sequence([(length, target)])
}

/// The same table with another device of ours in the place of that one: a thin pool stays where LVM
/// looks for it, and no sector takes another way than the others.
pub(super) fn rerouted(table: &Table, from: DevNo, to: Role) -> PlannedTable {
    let renamed = table.try_map(|number| {
        Ok::<_, Infallible>(if *number == from {
            DeviceRef::Own(to)
        } else {
            DeviceRef::Number(*number)
        })
    });
    match renamed {
        Ok(renamed) => renamed,
    }
}

/// The same table, to stand in a plan.
pub(super) fn planned(table: &Table) -> PlannedTable {
    let named = table.try_map(|number| Ok::<_, Infallible>(DeviceRef::Number(*number)));
    match named {
        Ok(named) => named,
    }
}

fn over_era<D: Copy>(
    original: &Table,
    era: D,
    number: impl Fn(DevNo) -> D,
    switched: Sectors,
) -> Table<D> {
    let length = original.length();
    let linear = |offset| Target::Linear { device: era, offset };
    let Some(pool) = original.thin_pool() else {
        return Table::in_sequence([(length, linear(Sectors(0)))]);
    };
    let start = |device| Place { device, offset: Sectors(0) };
    let switched = switched.min(length);
    let switch = Target::Switch { region: switched, paths: vec![start(era), start(number(pool))] };
    let rest = Sectors(length.0 - switched.0);
    Table::in_sequence([(switched, switch), (rest, linear(switched))])
}
