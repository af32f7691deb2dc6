//! Replicas: a file or a device that follows a tracked device.
//!
//! open the target -> what does its checkpoint say? -> [in full: a boundary, then all of the device] ->
//! a point in time -> what changed since the boundary before -> those blocks, from the point in time ->
//! flush -> was the point in time good? -> checkpoint -> the point in time ends.
//!
//! The target equals a point in time of the source after a finished round, and only then: its
//! checkpoint says so. Of a device that is opened by number ([`Follower::of_device`]) it is also seen whether somebody
//! else has written to it since. A round that is cut short anywhere is made again from the same boundary, with a
//! new point in time.

mod buffer;
mod checkpoint;
mod copy;
mod decide;
mod error;
mod follower;
mod ledger;
mod pace;
mod pieces;
mod proof;
mod replica;
mod target;
mod target_error;
mod verify;

pub use checkpoint::{Checkpoint, Label, State, TargetId};
pub use decide::{Start, Why};
pub use error::ReplicaError;
pub use follower::{Account, Follower, Manner, Phase, Point, Progress, Seeded, Watch};
pub use proof::Proof;
pub use replica::{Observer, Options, Replica, Round};
pub use target::Target;
pub use target_error::TargetError;
