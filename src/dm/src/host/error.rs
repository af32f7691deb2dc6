use era_metadata::sizing::SizingError;
use eratrack_model::check::Violation;
use eratrack_model::names::{DmName, StackId};
use eratrack_model::plan::Step;
use eratrack_model::refusal::Refusal;
use eratrack_model::units::DevNo;

use super::group::GROUP_MAX;
use super::stage::StageError;
use crate::executor::{StepError, StepErrorKind};
use crate::hold::HoldError;
use crate::linux::LoopError;
use crate::lvm_tool::LvmError;
use crate::machine::MachineError;
use crate::pool::PoolError;
use crate::port::{DmError, DmErrorKind};
use crate::stack_lock::StackLockError;
use crate::store::StoreError;

/// Why an operation of [`Host`](super::Host) did not succeed. X is never left suspended, and
/// repeating the operation, or detaching, is always right.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The plan is refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No room, or no place, for the metadata; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No metadata can be large enough; nothing was changed.
    #[error(transparent)]
    Sizing(#[from] SizingError),
    /// The plan broke a rule and was not begun: a mistake of this program's.
    #[error("the plan for stack {stack} is wrong and was not begun: {violation}")]
    Plan {
        /// The stack.
        stack: StackId,
        /// The rule.
        #[source]
        violation: Violation,
    },
    /// Another operation of ours is at work on the stack; nothing was changed.
    #[error(transparent)]
    Lock(#[from] StackLockError),
    /// A step of the plan did not go as planned.
    #[error("{}", with_cause(.0))]
    Step(#[from] StepError),
    /// The kernel refused a question.
    #[error(transparent)]
    DeviceMapper(#[from] DmError),
    /// The kernel could not take its metadata snapshot, which begins a new era.
    #[error("no metadata snapshot could be taken: {0}")]
    NewEra(#[source] DmError),
    /// A loop device could not be had.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A file of the machine's cannot be read, written or understood.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// X does not go through its X-era any more, or not on this chain: it is broken.
    #[error(
        "the device {x} of stack {stack} no longer goes through its era device on this chain: {found}"
    )]
    NotIntact {
        /// X, as the record has it.
        x: DevNo,
        /// The stack.
        stack: StackId,
        /// What was found.
        found: String,
    },
    /// What is written down of the stack is not, or not any more, of the caller's chain: it is broken.
    #[error("stack {stack} is not on this chain any more: {found}")]
    OtherRecord {
        /// The stack.
        stack: StackId,
        /// What was found.
        found: String,
    },
    /// dm-era reports `Error`: detach at once.
    #[error(
        "the era device of stack {stack} has failed: its metadata is full or cannot be written; detach it"
    )]
    EraFailed {
        /// The stack.
        stack: StackId,
    },
    /// A person holds the metadata snapshot, so that no newer one can be read.
    #[error(
        "a metadata snapshot of stack {stack} is held by hand: read that one, or give it back with `eratrack device release {stack}`"
    )]
    Held {
        /// The stack.
        stack: StackId,
    },
    /// More was overwritten than the store of a point in time holds.
    #[error(
        "the point in time of stack {stack} is lost: more than {copies} of the device was overwritten while it was read; give it more room for copies, or read faster"
    )]
    PointInTimeLost {
        /// The stack.
        stack: StackId,
        /// How much the store holds.
        copies: eratrack_model::units::Bytes,
    },
    /// The device of a point in time cannot be made where readers find it, or not be removed.
    #[error("the device of a point in time at {} cannot be changed: {source}", path.display())]
    Shown {
        /// Where.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The stack is not ours to meddle with.
    #[error("stack {stack} is kept by {keeper}; it is not changed from here")]
    KeptByAnother {
        /// The stack.
        stack: StackId,
        /// By whom.
        keeper: &'static str,
    },
    /// Nothing can be put over a device; nothing was changed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A pool could not be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// LVM did not make or find a volume for the metadata.
    #[error(transparent)]
    Lvm(#[from] LvmError),
    /// A group could not be held; no boundary was drawn.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// A group has no volumes, or too many.
    #[error(
        "a group of {volumes} volumes on one machine cannot be held: it may have 1 to {GROUP_MAX}"
    )]
    GroupSize {
        /// How many.
        volumes: usize,
    },
    /// A volume of a group stands on another one of it, and would wait for it.
    #[error(
        "device {upper} stands on device {lower}, which is of the same group and would be suspended beneath it: track them apart"
    )]
    GroupNested {
        /// The upper one.
        upper: DevNo,
        /// The lower one.
        lower: DevNo,
    },
    /// A device of ours is open.
    #[error("device {name} is open {open_count} times; close what uses it")]
    InUse {
        /// Its name.
        name: DmName,
        /// How often.
        open_count: u32,
    },
    /// A device cannot be opened.
    #[error("device {device} cannot be opened")]
    Open {
        /// The device.
        device: DevNo,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The metadata cannot be read.
    #[error("the metadata of stack {stack} cannot be read: {source}")]
    Metadata {
        /// The stack.
        stack: StackId,
        /// Which block, and what is wrong with it.
        #[source]
        source: era_metadata::Error,
    },
    /// What was found is not what it must be.
    #[error("stack {stack}: {what}")]
    Unexpected {
        /// The stack.
        stack: StackId,
        /// What was expected and what was found.
        what: String,
    },
}

fn with_cause(error: &StepError) -> String {
    format!("{error}: {}", error.source)
}

/// Somebody has a device of ours open, which X does not go through any more.
fn is_in_use(error: &StepError) -> bool {
    let busy =
        matches!(&*error.source, StepErrorKind::DeviceMapper(e) if e.kind == DmErrorKind::Busy);
    busy && matches!(*error.step, Step::Remove { .. })
}

/// What is in flight on X did not end: X has the table that it had.
fn is_too_slow(error: &StepError) -> bool {
    matches!(&*error.source, StepErrorKind::DeviceMapper(e) if e.kind == DmErrorKind::Deadline)
}

impl HostError {
    /// The reason for a condition, from the documented list of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Store(store) => store.reason(),
            Self::Sizing(_) | Self::GroupSize { .. } => "LimitExceeded",
            Self::Step(step) if is_in_use(step) => "DeviceBusy",
            Self::Step(step) if is_too_slow(step) => match *step.step {
                Step::Drain { .. } => "BoundaryTimeout",
                _ => "DeviceBusy",
            },
            Self::Step(step) => match *step.source {
                StepErrorKind::Lock(_) | StepErrorKind::Changed { .. } => "DeviceBusy",
                StepErrorKind::EraFailed { .. } => "MetadataError",
                StepErrorKind::DeviceMapper(_)
                | StepErrorKind::Machine(_)
                | StepErrorKind::Limit { .. }
                | StepErrorKind::Status { .. } => "OperationFailed",
            },
            Self::Lock(StackLockError::Deadline { .. })
            | Self::Held { .. }
            | Self::InUse { .. } => "DeviceBusy",
            Self::NotIntact { .. } => "TableReloaded",
            Self::OtherRecord { .. } => "RecordMismatch",
            Self::PointInTimeLost { .. } => "CopiesFull",
            Self::EraFailed { .. } => "MetadataError",
            Self::Metadata { .. } => "MetadataLost",
            Self::Pool(error) => error.reason(),
            Self::Lvm(error) => error.reason(),
            Self::Stage(stage) => stage.reason(),
            Self::Hold(HoldError::Late { .. }) => "BoundaryTimeout",
            Self::Plan { .. }
            | Self::Hold(_)
            | Self::GroupNested { .. }
            | Self::Lock(StackLockError::Io { .. })
            | Self::DeviceMapper(_)
            | Self::NewEra(_)
            | Self::Loop(_)
            | Self::Machine(_)
            | Self::KeptByAnother { .. }
            | Self::Shown { .. }
            | Self::Open { .. }
            | Self::Unexpected { .. } => "OperationFailed",
        }
    }

    /// Whether asking again soon may succeed although nobody changed anything: somebody else
    /// is at work on the device just now.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_transient(),
            Self::Lock(StackLockError::Deadline { .. }) | Self::Hold(_) => true,
            Self::Step(step) => {
                is_in_use(step)
                    || is_too_slow(step)
                    || matches!(
                        *step.source,
                        StepErrorKind::Lock(_) | StepErrorKind::Changed { .. }
                    )
            }
            _ => false,
        }
    }
}

impl StoreError {
    /// The reason for a condition, from the documented list of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::VolumeLimit { .. } | Self::NodeLimit { .. } => "LimitExceeded",
            Self::NoSpace { .. } | Self::CopyOnWrite { .. } => "MetadataNoSpace",
            Self::CopiesRoom { .. } => "CopiesNoSpace",
            Self::Record { .. } => "RecordMismatch",
            Self::Exists { .. } | Self::Io { .. } => "OperationFailed",
        }
    }
}
