//! An `EraSnapshot`, from its creation to its list.
//!
//! - `step`: what to do next (pure)
//! - `base`, `status`, `list`: what is written (pure)
//! - `whole`: whether the list of the base can still be read
//! - `hold`: how long a point in time is held (pure)
//! - `run`: does it, and decides again
//! - `progress`: what is remembered between two tries
//! - `error`: what follows when something fails

pub(crate) mod base;
mod error;
pub(crate) mod hold;
pub(crate) mod list;
pub(crate) mod progress;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod step;
mod whole;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod lost_tests;
