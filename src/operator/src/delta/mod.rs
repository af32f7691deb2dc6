//! Lists of changed blocks, read from their slices and proven whole.
//!
//! `head` (what a snapshot's status says) → `eratrack_model::delta::path` (which lists are needed) → `read` (slices by
//! name, one after the other, each checked by `assemble`) → `eratrack_model::delta::Delta::and`. What is not as the status says is an
//! error: there is no list then, never a short one.

mod assemble;
mod error;
mod head;
mod read;
#[cfg(test)]
mod tests;

pub(crate) use error::{ListError, ReadError};
pub(crate) use read::{KubeSlices, Slices, between, read};
