//! What a worker knows of its volume's stack.

use eratrack_api::{MetadataUse, Reason};
use tokio::time::Instant;

use super::refit::Refused;
use super::status::AttachedFacts;
use crate::agent::stacks::Tracked;

/// What is on the machine, as far as the worker knows.
#[derive(Debug)]
pub(super) enum Stack {
    /// No era, and why.
    Absent(Absent),
    /// What an earlier process left could not be cleared up yet.
    Stuck { message: String, attempts: u32, retry: Instant },
    /// Era was in already, of a chain that the object has not been asked about.
    Found(Tracked),
    /// Era is in the data path.
    Present(Box<Present>),
    /// The chain has ended and era is to come out, which did not succeed yet.
    Doomed { reason: Reason, attempts: u32, retry: Instant },
}

/// No era.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) attempts: u32,
    /// When to try again, beside a change of the mounts.
    pub(super) retry: Option<Instant>,
    /// Whether a change of the mounts is a reason to try again.
    pub(super) at_mounts: bool,
}

/// Era is in the data path.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) tracked: Tracked,
    pub(super) facts: AttachedFacts,
    pub(super) next_liveness: Instant,
    pub(super) next_health: Instant,
    /// The device's write counters at the last look.
    pub(super) counters: Option<[u64; 4]>,
    pub(super) metadata: Option<MetadataUse>,
    /// Another granularity, which cannot be had.
    pub(super) refused: Option<Refused>,
}

impl Stack {
    /// The worker has another object now: what is in was another's, and what was said was said of another.
    pub(super) fn of_another_object(&mut self) {
        match self {
            Self::Present(present) => *self = Self::Found(present.tracked.clone()),
            Self::Absent(_) => *self = Self::unknown(),
            Self::Stuck { .. } | Self::Found(_) | Self::Doomed { .. } => {}
        }
    }

    /// Nothing was tried yet.
    pub(super) fn unknown() -> Self {
        Self::Absent(Absent {
            reason: Reason::NotInUse,
            message: "not looked for yet".to_owned(),
            attempts: 0,
            retry: Some(Instant::now()),
            at_mounts: true,
        })
    }
}
