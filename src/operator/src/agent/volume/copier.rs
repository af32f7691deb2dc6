//! A task of a replica beside the volume's worker: it may take hours, and must hold up nothing that the worker does.
//!
//! It has a thread of its own, which looks at the wish to end after each piece that it copies. What it must know of the
//! volume it asks through the volume's lane, as the worker does. Dropped, it ends by itself; and with it the process may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eratrack_api::Reason;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::agent::operations::{Operation, Operations};
use crate::agent::stacks::{
    Attendant, PointState, ReplicaDone, ReplicaTask, ReplicaTrouble, Stacks, WantedReplica,
};

/// How often a point in time that cannot be looked at just now is looked at before it counts as lost.
const LOOKS: usize = 3;
/// Progress is told so often in all.
const TOLD: u64 = 20;

/// A task under way.
#[derive(Debug)]
pub(super) struct Job {
    /// The uid of the snapshot that is copied, if it copies one.
    pub(super) of: Option<String>,
    /// Whether it copies everything.
    pub(super) seeds: bool,
    shared: Arc<Shared>,
    began: Instant,
    handle: JoinHandle<Result<ReplicaDone, ReplicaTrouble>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: Arc<AtomicBool>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Job {
    /// Begins it; `turn` is given back when it has ended. `told` is told now and then while it goes on, and when it has ended.
    pub(super) fn start<S: Stacks>(
        operations: &Operations<S>,
        turn: Option<OwnedSemaphorePermit>,
        (wanted, task): (WantedReplica, ReplicaTask),
        told: Arc<Notify>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let of = match &task {
            ReplicaTask::Copy(point) => Some(point.uid.clone()),
            ReplicaTask::Look | ReplicaTask::Seed(_) => None,
        };
        let seeds = matches!(task, ReplicaTask::Seed(_));
        let (operations, seen) = (operations.clone(), shared.clone());
        let handle = tokio::spawn(async move {
            let result = run(operations, turn, (wanted, task), (seen, told.clone())).await;
            told.notify_one();
            result
        });
        Self { of, seeds, shared, began: Instant::now(), handle }
    }

    /// How many bytes of how many are copied, once it copies.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let total = self.shared.total.load(Ordering::Relaxed);
        (total > 0).then(|| (self.shared.done.load(Ordering::Relaxed), total))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.handle.is_finished()
    }

    /// What came of it, and how long it took.
    pub(super) async fn result(mut self) -> (Result<ReplicaDone, ReplicaTrouble>, Duration) {
        let ended = (&mut self.handle).await;
        (ended.unwrap_or_else(|panic| Err(failed(panic.to_string()))), self.began.elapsed())
    }

    /// Tells it to end, and waits for that so long at most.
    pub(super) async fn end(mut self, limit: Duration) {
        self.stop();
        if tokio::time::timeout(limit, &mut self.handle).await.is_err() {
            tracing::warn!("a copy has not ended yet; it ends with what it is reading or writing");
        }
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run<S: Stacks>(
    operations: Operations<S>,
    turn: Option<OwnedSemaphorePermit>,
    (wanted, task): (WantedReplica, ReplicaTask),
    (shared, told): (Arc<Shared>, Arc<Notify>),
) -> Result<ReplicaDone, ReplicaTrouble> {
    let runtime = Handle::current();
    let ended = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let (stacks, uid) = (operations.stacks(), operations.volume_uid().to_owned());
        let mut watcher = Watcher { operations, runtime, shared, told, next: 0 };
        stacks.replicate(&uid, &wanted, task, &mut watcher)
    });
    ended.await.unwrap_or_else(|panic| Err(failed(panic.to_string())))
}

struct Watcher<S> {
    operations: Operations<S>,
    runtime: Handle,
    shared: Arc<Shared>,
    told: Arc<Notify>,
    /// How far it is when that is told next.
    next: u64,
}

impl<S: Stacks> Attendant for Watcher<S> {
    fn progress(&mut self, done: u64, total: u64) {
        self.shared.done.store(done, Ordering::Relaxed);
        self.shared.total.store(total, Ordering::Relaxed);
        if done >= self.next {
            self.next = done.saturating_add((total / TOLD).max(1));
            self.told.notify_one();
        }
    }

    fn lost(&mut self) -> Option<String> {
        let mut said = None;
        for _ in 0..LOOKS {
            let look = self.operations.run(Operation::CheckPoint, S::check_point);
            match self.runtime.block_on(look) {
                Ok(PointState::Good) => return None,
                Ok(PointState::Lost(_, message)) => return Some(message),
                Err(error) => said = Some(error.to_string()),
            }
        }
        said
    }

    fn stop(&self) -> Arc<AtomicBool> {
        self.shared.stop.clone()
    }
}

fn failed(message: String) -> ReplicaTrouble {
    ReplicaTrouble { reason: Reason::ReplicaFailed, message, stopped: false }
}
