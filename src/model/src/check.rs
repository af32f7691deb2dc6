//! Judges plans, without knowing how they are made.
//!
//! The checker walks through the steps with a small model of the three devices and holds each
//! step against a rule. It shares no code with the planner: a mistake there must not be repeated
//! here. The executor refuses a plan that does not pass.

mod rules;
mod tables;

use std::fmt;

use thiserror::Error;

use crate::plan::{Plan, Step};
use crate::stack::Observed;

/// A plan that must not be executed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {rule} ({found})")]
pub struct Violation {
    /// Where.
    pub place: Place,
    /// Which rule is broken.
    pub rule: Rule,
    /// What was found instead.
    pub found: String,
}

/// Where in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a step, counted from 1 as a shown plan counts them.
    Step(usize, Box<Step>),
    /// After the last step.
    End,
}

/// What every plan keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rule {
    /// X is changed only where X is a device-mapper device.
    #[error("only a mapped device changes its table")]
    XIsMapped,
    /// Steps speak of the observed X.
    #[error("a step must be about the observed device")]
    RightX,
    /// What a step expects is what is there.
    #[error("the live table must be the expected one")]
    ExpectedIsLive,
    /// A swap would resume what somebody else suspended, or make X writable.
    #[error("a device is swapped only while active and writable")]
    XIsActive,
    /// A table in the slot would be replaced or activated.
    #[error("the inactive slot must be empty")]
    SlotIsEmpty,
    /// Only our own tables may be cleared away.
    #[error("only a table of ours may be cleared from the slot")]
    SlotIsOurs,
    /// X keeps its length.
    #[error("a device keeps its length")]
    SameLength,
    /// Every sector of X goes through X-era, at its own place.
    #[error("all of the device must lead to its era device at the same offset")]
    WhollyTracked,
    /// X-era is live, over X-base, which has X's old table.
    #[error("era must be live over a base with the device's old table")]
    EraIsReady,
    /// Not X, nor anything of ours.
    #[error("metadata must not lie on what is tracked")]
    MetadataApart,
    /// Discards are limited before anything goes through X-era.
    #[error("discards of era must be limited to no more than one block first")]
    DiscardsLimited,
    /// Without X-era X has the table that it had before.
    #[error("a device gets back the table that its base has")]
    TableGivenBack,
    /// Swaps of X follow a proof of X's live table.
    #[error("a swap needs the live table verified before it")]
    VerifiedBefore,
    /// Swaps of X are verified.
    #[error("a swap must be verified at once")]
    VerifiedAfter,
    /// X's read-ahead stays as it was set.
    #[error("a swap must keep the read-ahead")]
    ReadAheadKept,
    /// LVM's lock is held while X's table is looked at and changed.
    #[error("the volume group's lock must be held")]
    LockHeld,
    /// The lock that is taken is the right one, taken once and given back.
    #[error("the volume group's lock must be taken once and given back")]
    LockBalanced,
    /// Metadata is zeroed only if nothing relies on it.
    #[error("only fresh metadata that no era device uses may be zeroed")]
    ZeroOnlyFresh,
    /// Fresh metadata must not be read as if it were valid.
    #[error("fresh metadata must be zeroed before era reads it")]
    FreshIsZeroed,
    /// Nobody recorded what was written while X did not go through era.
    #[error("a chain must not go on in metadata that the device went without")]
    ChainUnbroken,
    /// Devices are made under our names alone, once.
    #[error("a device of ours is made once, under its own name and uuid")]
    MadeOnce,
    /// A device must be there to be used.
    #[error("the device must be there, in the state that the step needs")]
    IsThere,
    /// Nothing in use is removed, loaded or activated.
    #[error("a device in use must be left alone")]
    NotInUse,
    /// Checkpoint, then the era's number, then the drain.
    #[error("a boundary is a checkpoint, then the era's number, then a drain")]
    BoundaryOrder,
    /// A snapshot of X-era, then an origin over X-era, are live before X is swapped.
    #[error(
        "a point in time needs a snapshot of the era device, then an origin over it, both live"
    )]
    PointIsReady,
    /// Whoever reads a point in time gets errors before X goes past the copies.
    #[error("a point in time must give errors before the volume goes past its copies")]
    PointIsCutOff,
    /// No sector of X takes another way than the others, and all go on through X-era.
    #[error(
        "a point in time must change which device of ours the table leads to, and nothing else"
    )]
    SameShape,
    /// A write to X would wait for itself.
    #[error("the store of a point in time must not lie on what is tracked")]
    StoreApart,
    /// The plan does what it is for.
    #[error("the plan must reach its goal")]
    GoalReached,
}

/// Passes a plan, or says where it breaks which rule.
pub fn check(plan: &Plan, observed: &Observed) -> Result<(), Violation> {
    let mut state = rules::State::new(plan, observed);
    for (index, step) in plan.steps.iter().enumerate() {
        state.take(step).map_err(|(rule, found)| {
            let place = Place::Step(index + 1, Box::new(step.clone()));
            Violation { place, rule, found }
        })?;
    }
    state.end().map_err(|(rule, found)| Violation { place: Place::End, rule, found })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(number, step) => write!(f, "step {number}, {step}"),
            Self::End => f.write_str("after the last step"),
        }
    }
}

type Verdict = Result<(), (Rule, String)>;

fn require(holds: bool, rule: Rule, found: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err((rule, found())) }
}
