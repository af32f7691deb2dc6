//! A boundary over several volumes: each one's own plan, taken apart so that their middles can happen together.

use super::{Plan, PlannedTable, Step};
use crate::lvm::VgName;
use crate::units::DevNo;

/// One volume's part. Its plan was `before`, checkpoint, read the era, drain or swap, `after`; locks of volume groups are
/// named apart, because several volumes share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The volume group whose lock the plan takes.
    pub lock: Option<VgName>,
    /// What is done while X runs.
    pub before: Vec<Step>,
    /// X, which is suspended together with the others'.
    pub x: DevNo,
    /// What its live table must be before.
    pub expect: PlannedTable,
    /// What it goes on with, if it is another one.
    pub table: Option<PlannedTable>,
    /// What is done once X runs again.
    pub after: Vec<Step>,
}

impl Plan {
    /// The plan's parts; none if it draws no boundary.
    pub fn as_member(&self) -> Option<Member> {
        let at = self.steps.iter().position(|step| *step == Step::Checkpoint)?;
        let (before, rest) = self.steps.split_at(at);
        let (x, expect, table, after) = match rest {
            [Step::Checkpoint, Step::ReadEra, Step::Drain { x, table, .. }, after @ ..] => {
                (*x, table.clone(), None, after)
            }
            [
                Step::Checkpoint,
                Step::ReadEra,
                Step::SwapIn { x, expect, table, .. },
                after @ ..,
            ] => (*x, expect.clone(), Some(table.clone()), after),
            _ => return None,
        };
        let lock = self.steps.iter().find_map(|step| match step {
            Step::LockVolumeGroup { vg } => Some(vg.clone()),
            _ => None,
        });
        let (before, after) = (without_locks(before), without_locks(after));
        Some(Member { lock, before, x, expect, table, after })
    }
}

fn without_locks(steps: &[Step]) -> Vec<Step> {
    let lock = |step: &&Step| {
        matches!(step, Step::LockVolumeGroup { .. } | Step::UnlockVolumeGroup { .. })
    };
    steps.iter().filter(|step| !lock(step)).cloned().collect()
}
