//! One machine: attach, measure and detach stacks.
//!
//! Every operation is the same pipeline: observe, plan (`eratrack_model`), execute step by
//! step, verify. Every operation may be repeated, and finishes or undoes what an earlier one,
//! killed at whatever moment, has left. One operation of a stack at a
//! time, also of two processes: a second one waits.

mod attach;
mod attended;
mod boundaries;
mod changes;
mod detach;
mod ends;
mod error;
mod group;
mod held;
mod mapping;
mod measure;
mod observe;
mod place;
mod point;
mod preview;
mod records;
mod recover;
mod refit;
mod restore;
mod shown;
mod stage;
mod surroundings;
mod target;
mod types;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eratrack_model::check;
use eratrack_model::names::StackId;
use eratrack_model::plan::{Plan, Step};
use eratrack_model::record::Keeper;
use eratrack_model::stack::Observed;

use crate::executor::{Executor, Outcome};
use crate::hold::{Holder, Nobody};
use crate::linux::{Loops, Nodes};
use crate::machine::Machine;
use crate::port::DeviceMapper;
use crate::stack_lock::StackLock;
use crate::store::FileStore;

pub use error::HostError;
pub use group::{GROUP_MAX, GroupError, HOLD_DEADLINE, Joined, Joining};
pub use held::{HeldByHand, Released};
pub use place::{AreaState, Finding, FoundPool, PoolArea, PoolState};
pub use point::{COPIES_TO_COME, PointInTime};
pub use preview::{METADATA_TO_COME, Preview, TOP_TO_COME};
pub use records::Known;
pub use restore::{RestoreOutcome, Restored, SealOutcome};
pub use stage::{StageError, StageRequest};
use surroundings::At;
pub use types::*;

/// A moment just before something changes on the machine, or while something is held there.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// A file or a loop device.
    Machine(&'static str),
    /// A step of a plan.
    Step(&'a Step),
}

/// Told of each [`Moment`]: a trace, or a test that ends the process there.
pub type MomentObserver = Arc<dyn Fn(Moment<'_>) + Send + Sync>;

/// The stacks of one machine.
#[derive(Clone)]
pub struct Host {
    machine: Machine,
    dm: Arc<dyn DeviceMapper>,
    store: FileStore,
    nodes: Nodes,
    loops: Loops,
    lock_deadline: Duration,
    keeper: Keeper,
    observer: MomentObserver,
    holder: Arc<dyn Holder>,
    hold_deadline: Duration,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl Host {
    /// Touches nothing yet.
    pub fn new(config: HostConfig) -> Self {
        let HostConfig { root, dm, store, nodes, lock_deadline, keeper } = config;
        let machine = Machine::new(root);
        let nodes = Nodes::new(nodes);
        Self {
            store: FileStore::new(&machine, store),
            loops: Loops::new(nodes.clone(), &machine.sys()),
            machine,
            dm,
            nodes,
            lock_deadline,
            keeper,
            observer: Arc::new(|_| ()),
            holder: Arc::new(Nobody),
            hold_deadline: HOLD_DEADLINE,
        }
    }

    /// The same host, with somebody who is told of every change just before it happens.
    #[must_use]
    pub fn observed_by(mut self, observer: MomentObserver) -> Self {
        self.observer = observer;
        self
    }

    /// The same host, with somebody who holds groups of volumes.
    #[must_use]
    pub fn with_holder(mut self, holder: Arc<dyn Holder>) -> Self {
        self.holder = holder;
        self
    }

    /// The same with another limit to how long a group is held.
    #[must_use]
    pub fn with_hold_deadline(mut self, deadline: Duration) -> Self {
        self.hold_deadline = deadline;
        self
    }

    fn about_to(&self, what: &'static str) {
        (self.observer)(Moment::Machine(what));
    }

    /// The stack for one operation, which may change it until the lock is dropped.
    fn lock_stack(&self, stack: &StackId) -> Result<StackLock, HostError> {
        Ok(StackLock::take(&self.machine, stack, self.lock_deadline)?)
    }

    /// Has the plan judged by who did not make it, then runs it.
    fn execute(
        &self,
        lock: &StackLock,
        observed: &Observed,
        plan: &Plan,
    ) -> Result<Outcome, HostError> {
        let stack = &observed.stack;
        check::check(plan, observed)
            .map_err(|violation| HostError::Plan { stack: stack.clone(), violation })?;
        let tell = |_, step: &Step| (self.observer)(Moment::Step(step));
        let surroundings = &At { host: self, lock };
        let executor = Executor { dm: &*self.dm, surroundings, stack, observer: &tell };
        Ok(executor.run(plan)?)
    }
}

#[cfg(test)]
mod tests;
