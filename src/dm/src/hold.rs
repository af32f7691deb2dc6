//! Several devices suspended at once, for a moment, by somebody who survives us.
//!
//! The port has no verb that suspends, and a single volume needs none. For one instant over several there is no other
//! way; so who asks for it names all devices and a deadline, and somebody else holds them: a process that does nothing
//! besides, and that always resumes them.

use std::fmt;
use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use eratrack_model::units::DevNo;
use serde::{Deserialize, Serialize};

use crate::port::DmError;

/// Suspends all, has every era device begin a new era, and resumes all.
pub trait Holder: Send + Sync {
    /// Does it. A table that waits in X's slot is live afterwards; after an error it may be so too, or wait still. The
    /// locks are held until this is over, even if the caller is killed meanwhile.
    ///
    /// After an error all devices run, unless it is [`HoldError::Lost`].
    fn hold(&self, order: &Order, locks: &[File]) -> Result<Held, HoldError>;
}

/// What is held, and how long at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The devices.
    pub members: Vec<Member>,
    /// From the first suspend on. Once it is over nothing is drawn, and all are resumed.
    pub deadline: Duration,
}

/// One volume of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// X, which is suspended.
    pub x: DevNo,
    /// X-era, which is never.
    pub era: DevNo,
    /// Whether a table of ours waits in X's slot.
    pub loaded: bool,
}

/// It is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// When all were suspended, with nothing in flight on any: the one instant.
    pub at: SystemTime,
    /// From before the first suspend to after the last resume: the longest a write can have waited.
    pub held: Duration,
}

/// What was done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// X was suspended.
    Suspend,
    /// X-era was told to begin a new era.
    Checkpoint,
    /// X was resumed.
    Resume,
}

impl Verb {
    /// As the port calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Checkpoint => "message",
            Self::Resume => "swap",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The deadline was over.
    #[error(
        "{} of the group's {of} volumes had writes in flight, or an era that did not begin, after {} ms (first {first})",
        waiting, deadline.as_millis()
    )]
    Late {
        /// How many were not done with it.
        waiting: usize,
        /// How many there are.
        of: usize,
        /// One of them.
        first: DevNo,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The kernel refused something of one of them.
    #[error("{source}")]
    Refused {
        /// Which, by its place in the order.
        member: usize,
        /// What was refused.
        verb: Verb,
        /// How.
        #[source]
        source: DmError,
    },
    /// The helper could not make ready, and has suspended nothing.
    #[error("the helper process of the group could not begin: {0}")]
    NotReady(String),
    /// The helper cannot be started.
    #[error("the helper process of the group cannot be started")]
    Start(#[source] io::Error),
    /// The helper ended without a word: what it had suspended may be so still.
    #[error("the helper process of the group ended before its time")]
    Lost,
    /// Nobody is there who could hold a group.
    #[error("groups of volumes are not for this program")]
    Nobody,
}

/// Refuses every group: who has none needs no helper.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Holder for Nobody {
    fn hold(&self, _order: &Order, _locks: &[File]) -> Result<Held, HoldError> {
        Err(HoldError::Nobody)
    }
}
