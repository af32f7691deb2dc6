//! Points in time.

use std::convert::Infallible;

use super::super::tables::{ends, names, show};
use super::super::{Rule, Verdict, require};
use super::{Boundary, Own, State};
use crate::names::Role;
use crate::plan::{DeviceRef, Goal, PlannedTable};
use crate::table::Target;

const ERA: DeviceRef = DeviceRef::Own(Role::Era);

impl State<'_> {
    /// X leads to X-origin, and that to X-era.
    pub(super) fn goes_through_origin(&self) -> bool {
        let named = self.live.as_ref().is_some_and(|live| names(live, Role::Origin));
        named && self.origin.as_ref().is_some_and(is_origin_over_era)
    }

    pub(super) fn snapshot_may_be_loaded(&self, table: &PlannedTable) -> Verdict {
        let store = match self.goal {
            Goal::PointInTime(store) => store,
            Goal::EndPointInTime | Goal::Reach(_) => return self.is_cut_off(table),
            Goal::Boundary => {
                return Err((Rule::GoalReached, "no point in time is wanted".into()));
            }
        };
        let number = DeviceRef::Number(store.number);
        let right = match table.segments() {
            [only] => match only.target {
                Target::Snapshot { origin: ERA, store, chunk } => {
                    store == number && chunk.0.is_power_of_two() && chunk.0 >= 8
                }
                _ => false,
            },
            _ => false,
        };
        require(right && self.is_as_long_as_era(table), Rule::PointIsReady, || show(Some(table)))?;
        // An origin cuts writes as the snapshots want it that were there when it went live.
        require(self.origin.is_none(), Rule::PointIsReady, || "origin is there".into())?;
        let x = self.volume.map(|volume| volume.device.number);
        let tracked = store.beneath.iter().any(|device| {
            let ours = |uuid: &str| uuid.starts_with("CRYPT-SUBDEV-ERATRACK-");
            Some(device.number) == x || device.uuid.iter().any(|uuid| ours(uuid.as_str()))
        });
        let apart = Some(store.number) != x && !tracked;
        require(apart, Rule::StoreApart, || store.number.to_string())
    }

    pub(super) fn origin_may_be_loaded(&self, table: &PlannedTable) -> Verdict {
        let wanted = matches!(self.goal, Goal::PointInTime(_));
        require(wanted, Rule::GoalReached, || "no point in time is wanted".into())?;
        let right = is_over_era(table) && self.is_as_long_as_era(table);
        require(right, Rule::PointIsReady, || show(Some(table)))?;
        let snapshot = self.snapshot.as_ref().filter(|snapshot| !snapshot.suspended);
        let live = snapshot.and_then(|snapshot| snapshot.live.as_ref());
        require(live.is_some(), Rule::PointIsReady, || "no snapshot is live".into())
    }

    pub(super) fn point_may_begin(&mut self, table: &PlannedTable) -> Verdict {
        let wanted = matches!(self.goal, Goal::PointInTime(_));
        let ready = wanted && self.boundary == Boundary::EraRead;
        require(ready, Rule::BoundaryOrder, || format!("{:?}", self.boundary))?;
        let origin = self.origin.as_ref().filter(|origin| is_origin_over_era(origin));
        require(origin.is_some() && self.snapshot.is_some(), Rule::PointIsReady, || {
            show(origin.and_then(|origin| origin.live.as_ref()))
        })?;
        self.has_shape_of_live(table, Role::Era, Role::Origin)?;
        self.boundary = Boundary::Drained;
        Ok(())
    }

    pub(super) fn point_may_end(&self, table: &PlannedTable) -> Verdict {
        let wanted = matches!(self.goal, Goal::EndPointInTime);
        require(wanted, Rule::GoalReached, || "the point in time is wanted".into())?;
        require(self.goes_through_origin(), Rule::PointIsReady, || show(self.live.as_ref()))?;
        self.nobody_reads_on()?;
        self.has_shape_of_live(table, Role::Origin, Role::Era)
    }

    /// An error as long as what was shown.
    fn is_cut_off(&self, table: &PlannedTable) -> Verdict {
        let shown = self.snapshot.as_ref().and_then(|snapshot| snapshot.live.as_ref());
        let right = is_error(table) && shown.and_then(ends) == ends(table);
        require(right, Rule::PointIsCutOff, || show(Some(table)))
    }

    /// What X holds by now is no point in time.
    pub(super) fn nobody_reads_on(&self) -> Verdict {
        let shown = self.snapshot.as_ref().and_then(|snapshot| snapshot.live.as_ref());
        require(shown.is_none_or(is_error), Rule::PointIsCutOff, || show(shown))
    }

    /// X's live table with one device of ours in the place of another.
    fn has_shape_of_live(&self, table: &PlannedTable, from: Role, to: Role) -> Verdict {
        let renamed = self.live.as_ref().map(|live| {
            live.try_map(|device| {
                let named = *device == DeviceRef::Own(from);
                Ok::<_, Infallible>(if named { DeviceRef::Own(to) } else { *device })
            })
        });
        let same = renamed == Some(Ok(table.clone()));
        require(same, Rule::SameShape, || show(Some(table)))
    }

    fn is_as_long_as_era(&self, table: &PlannedTable) -> bool {
        let era = self.era.as_ref().filter(|era| !era.suspended);
        era.and_then(|era| era.live.as_ref()).is_some_and(|era| ends(era) == ends(table))
    }
}

fn is_error(table: &PlannedTable) -> bool {
    matches!(table.segments(), [only] if matches!(&only.target, Target::Other { kind, .. } if kind == "error"))
}

fn is_origin_over_era(origin: &Own) -> bool {
    !origin.suspended && origin.live.as_ref().is_some_and(is_over_era)
}

fn is_over_era(table: &PlannedTable) -> bool {
    match table.segments() {
        [only] => only.target == Target::SnapshotOrigin { origin: ERA },
        _ => false,
    }
}
