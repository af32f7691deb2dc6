//! What eratrack decides, as data: units, names, tables, stacks and plans.
//!
//! Nothing here touches a machine. `eratrack-dm` observes and acts.

pub mod names;
pub mod plan;
pub mod stack;
pub mod table;
pub mod units;

pub use era_metadata::{Era, Run};
