//! Operations on one volume's stack from async code: one at a time, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::Reason;
use tokio::sync::OwnedSemaphorePermit;

use super::lane::{Lane, Late};
use super::stacks::{HeldPoint, Hope, StackError, Stacks};

/// How long an operation may take before the agent stops waiting for it.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an attach may take: it allocates and zeroes the metadata.
const ATTACH_LIMIT: Duration = Duration::from_secs(300);
/// How long reading a list may take.
const READ_LIMIT: Duration = Duration::from_secs(300);

/// What is done, which decides how long it may take and what it means if it takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Clears up what an earlier process left.
    Recover,
    /// Puts era in.
    Attach,
    /// Looks whether another granularity would fit.
    CheckRefit,
    /// Looks at the live table.
    Liveness,
    /// Asks era.
    Health,
    /// Makes a boundary.
    Boundary,
    /// Begins a point in time, which allocates the room for its copies.
    BeginPoint,
    /// Looks whether a point in time is good.
    CheckPoint,
    /// Ends a point in time.
    EndPoint,
    /// Reads a list.
    Changes,
    /// Takes era out, or cleans up.
    Detach,
}

impl Operation {
    /// Its name in spans and messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Recover => "recover",
            Self::Attach => "attach",
            Self::CheckRefit => "check another granularity",
            Self::Liveness => "liveness",
            Self::Health => "health",
            Self::Boundary => "boundary",
            Self::BeginPoint => "begin a point in time",
            Self::CheckPoint => "check a point in time",
            Self::EndPoint => "end a point in time",
            Self::Changes => "changes",
            Self::Detach => "detach",
        }
    }

    fn limit(self) -> Duration {
        match self {
            Self::Attach => ATTACH_LIMIT,
            Self::Changes => READ_LIMIT,
            Self::Recover
            | Self::CheckRefit
            | Self::Liveness
            | Self::Health
            | Self::Boundary
            | Self::BeginPoint
            | Self::CheckPoint
            | Self::EndPoint
            | Self::Detach => LIMIT,
        }
    }

    fn too_slow(self) -> Reason {
        match self {
            Self::Boundary | Self::BeginPoint => Reason::BoundaryTimeout,
            Self::Recover
            | Self::Attach
            | Self::CheckRefit
            | Self::Liveness
            | Self::Health
            | Self::CheckPoint
            | Self::EndPoint
            | Self::Changes
            | Self::Detach => Reason::OperationFailed,
        }
    }
}

/// The operations of one volume.
pub(crate) struct Operations<S> {
    stacks: Arc<S>,
    volume_uid: String,
    lane: Lane,
}

/// The same volume, and the same lane.
impl<S> Clone for Operations<S> {
    fn clone(&self) -> Self {
        let (stacks, volume_uid) = (self.stacks.clone(), self.volume_uid.clone());
        Self { stacks, volume_uid, lane: self.lane.clone() }
    }
}

impl<S: Stacks> Operations<S> {
    /// For the stack of this PersistentVolume.
    pub(crate) fn new(stacks: Arc<S>, volume_uid: &str) -> Self {
        Self { stacks, volume_uid: volume_uid.to_owned(), lane: Lane::default() }
    }

    /// The point in time that this process holds of it.
    pub(crate) fn held_point(&self) -> Option<HeldPoint> {
        self.stacks.held_point(&self.volume_uid)
    }

    /// The machine's stacks, for what does not go through the lane.
    pub(crate) fn stacks(&self) -> Arc<S> {
        self.stacks.clone()
    }

    /// The PersistentVolume's uid.
    pub(crate) fn volume_uid(&self) -> &str {
        &self.volume_uid
    }

    /// Runs one operation on the blocking pool.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        act: impl FnOnce(&S, &str) -> Result<T, StackError> + Send + 'static,
    ) -> Result<T, StackError> {
        self.run_with(operation, None, act).await
    }

    /// The same, holding one of the node's permits until the operation has really ended.
    pub(crate) async fn run_with<T: Send + 'static>(
        &self,
        operation: Operation,
        permit: Option<OwnedSemaphorePermit>,
        act: impl FnOnce(&S, &str) -> Result<T, StackError> + Send + 'static,
    ) -> Result<T, StackError> {
        let (stacks, uid) = (self.stacks.clone(), self.volume_uid.clone());
        let span = tracing::info_span!("operation", name = operation.as_str(), volume_uid = uid);
        let called = self.lane.call(operation.limit(), move || {
            let _permit = permit;
            span.in_scope(|| act(&stacks, &uid))
        });
        called.await.unwrap_or_else(|late| {
            let reason = match late {
                Late::NoTurn(_) | Late::UnderWay(_) => operation.too_slow(),
                Late::Panicked(_) => Reason::OperationFailed,
            };
            let message = format!("{}: {late}", operation.as_str());
            Err(StackError { hope: Hope::Soon, reason, message })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::memory::Memory;
    use std::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_keeps_the_others_out_and_is_reported() {
        let operations = Operations::new(Arc::new(Memory::default()), "v");
        let (end, ended) = mpsc::channel::<()>();
        let hang = operations.run(Operation::Boundary, move |_, _| {
            let _ = ended.recv();
            Ok(())
        });
        let (slow, ()) = tokio::join!(hang, pass());
        assert_eq!(slow.unwrap_err().reason, Reason::BoundaryTimeout);
        let (next, ()) = tokio::join!(operations.run(Operation::Health, |_, _| Ok(())), pass());
        let message = next.unwrap_err().message;
        assert_eq!(message, "health: an earlier operation has not ended after 60 s");
        drop(end);
        assert_eq!(operations.run(Operation::Health, |_, _| Ok(1)).await, Ok(1));
    }

    async fn pass() {
        tokio::task::yield_now().await;
        tokio::time::advance(LIMIT + Duration::from_secs(1)).await;
    }
}
