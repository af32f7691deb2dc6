//! Plans as people and golden files read them: one step a line.

use std::fmt;

use super::{DeviceRef, Goal, Plan, PlannedTable, Skipped, Step};
use crate::stack::{Contents, CopyStore, Desired, MetadataArea, Tracked};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { goal, steps, skipped } = self;
        writeln!(f, "to {goal}:")?;
        for (index, step) in steps.iter().enumerate() {
            writeln!(f, "{:3}. {step}", index + 1)?;
        }
        if steps.is_empty() {
            writeln!(f, "     nothing to do")?;
        }
        for reason in skipped {
            writeln!(f, "  -  {reason}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reach(Desired::Untracked) => f.write_str("stop tracking"),
            Self::Reach(Desired::Tracked(Tracked { granularity, metadata, discards })) => {
                let MetadataArea { number, length, contents, beneath: _ } = metadata;
                let contents = match contents {
                    Contents::Fresh => "fresh",
                    Contents::Kept => "kept",
                    Contents::Proven => "proven",
                };
                write!(f, "track at {granularity}, metadata on {number} ({length} sectors, ")?;
                write!(f, "{contents}), discards {discards:?}")
            }
            Self::Boundary => f.write_str("draw a boundary"),
            Self::PointInTime(CopyStore { number, beneath: _ }) => {
                write!(f, "keep a point in time, its store on {number}")
            }
            Self::EndPointInTime => f.write_str("end a point in time"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockVolumeGroup { vg } => write!(f, "lock volume group {vg}"),
            Self::UnlockVolumeGroup { vg } => write!(f, "unlock volume group {vg}"),
            Self::VerifyLive { x, table } => write!(f, "verify {x} is live: {}", line(table)),
            Self::ZeroMetadata { device, length } => {
                write!(f, "zero {length} sectors of metadata {device}")
            }
            Self::Create { role, name, uuid } => write!(f, "create {role}: {name}, uuid {uuid}"),
            Self::Load { role, table } => write!(f, "load {role}: {}", line(table)),
            Self::Activate { role } => write!(f, "activate {role}"),
            Self::LimitDiscards { bytes } => {
                write!(f, "limit discards of era to {} bytes", bytes.0)
            }
            Self::SwapIn { x, expect, table, keep_read_ahead } => {
                let kept = kept(*keep_read_ahead);
                write!(f, "swap {x}{kept}: {} -> {}", line(expect), line(table))
            }
            Self::ClearSlot { x, table } => {
                write!(f, "clear the inactive slot of {x}: {}", line(table))
            }
            Self::Remove { role } => write!(f, "remove {role}"),
            Self::Checkpoint => f.write_str("send checkpoint to era"),
            Self::ReadEra => f.write_str("read the era from era's status"),
            Self::Drain { x, table, keep_read_ahead } => {
                write!(f, "drain {x}{}: {}", kept(*keep_read_ahead), line(table))
            }
        }
    }
}

fn kept(read_ahead: bool) -> &'static str {
    if read_ahead { ", keeping read-ahead" } else { "" }
}

fn line(table: &PlannedTable) -> String {
    table.to_string().replace('\n', "; ")
}

impl fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Own(role) => write!(f, "<{role}>"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("no volume group to lock: the device is not LVM's"),
            Self::Zero => f.write_str("metadata is not zeroed: era goes on in it"),
            Self::Build(role) => write!(f, "{role} is not made: it is there, with that table"),
            Self::Remove(role) => write!(f, "{role} is not removed: it is not there"),
            Self::LimitDiscards(bytes) => {
                write!(f, "discards of era are not set: at most {} bytes already", bytes.0)
            }
            Self::Insert(granularity) => {
                write!(f, "the table is not changed: it goes through era at {granularity} already")
            }
            Self::Restore => f.write_str("the table is not changed: it does not go through era"),
            Self::PointInTime => {
                f.write_str("its point in time is not ended: that is its reader's to do")
            }
            Self::EndPointInTime => {
                f.write_str("the table is not changed: it does not go through origin")
            }
        }
    }
}
