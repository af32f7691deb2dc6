//! Replicas: a file or a device that follows a tracked device.
//!
//! open the target -> what does its checkpoint say? -> [in full: a boundary, then all of the device] ->
//! a point in time -> what changed since the boundary before -> those blocks, from the point in time ->
//! flush -> was the point in time good? -> checkpoint -> the point in time ends.
//!
//! The target equals a point in time of the source after a finished round, and only then: its
//! checkpoint says so. A round that is cut short anywhere is made again from the same boundary, with a
//! new point in time.

mod buffer;
mod checkpoint;
mod copy;
mod decide;
mod error;
mod pace;
mod pieces;
mod replica;
mod target;
mod target_error;
mod verify;

pub use checkpoint::{Checkpoint, State, TargetId};
pub use decide::{Start, Why};
pub use error::ReplicaError;
pub use replica::{Observer, Options, Phase, Progress, Replica, Round};
pub use target::Target;
pub use target_error::TargetError;
