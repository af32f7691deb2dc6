//! What eratrack decides, as data: units, names, tables, stacks and plans.
//!
//! Nothing here touches a machine. `eratrack-dm` observes and acts.
//!
//! [`stack::Observed`] + [`stack::Desired`] -> [`plan::plan`] -> [`plan::Plan`], or a
//! [`refusal::Refusal`] with its reason -> [`check::check`] -> the executor.
//! [`extents::ChangedBlocks`] -> runs -> [`slices::fit`] -> the texts that are published.
//! The lists of several snapshots -> [`delta::path`] -> [`delta::Delta::union`] -> what changed between two of them.

pub mod check;
pub mod continuity;
pub mod delta;
pub mod discards;
pub mod extents;
mod granularity;
pub mod kernel;
pub mod lvm;
pub mod names;
pub mod place;
pub mod plan;
pub mod pool;
pub mod record;
pub mod refusal;
pub mod slices;
pub mod stack;
pub mod table;
pub mod units;

pub use era_metadata::{Era, Run};
