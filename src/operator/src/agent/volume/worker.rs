//! The loop of one volume: what is wished, what is there, what is next.
//!
//! A turn is a pipeline: wish (API server) → guard (machine) → attach (machine) → publish → snapshots → publish. It is
//! taken when the API server has news of the volume or its snapshots, when the machine's mounts change, and every few
//! seconds to look at the live table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eratrack_api::{EraSnapshot, EraVolume, EraVolumeStatus, Reason};
use eratrack_model::units::DevNo;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::chain::Evidence;
use super::retry;
use super::stack::{Absent, Stack};
use super::status::{self, Facts, State};
use crate::agent::cluster::{Cluster, Key};
use crate::agent::discover::Node;
use crate::agent::metrics::Metrics;
use crate::agent::operations::{Operation, Operations};
use crate::agent::stacks::{Found, FoundState, Stacks};

/// How often a volume that nothing happens to is looked at nevertheless.
const IDLE: Duration = Duration::from_secs(600);

/// What all volumes of the node share.
pub(crate) struct Context<C, S, N> {
    pub(crate) cluster: C,
    pub(crate) stacks: Arc<S>,
    pub(crate) node: Arc<N>,
    pub(crate) node_name: String,
    /// The node's permits for boundaries.
    pub(crate) boundaries: Arc<Semaphore>,
    /// Which PersistentVolume (by uid) has which device.
    pub(crate) devices: Mutex<HashMap<DevNo, String>>,
    pub(crate) volumes: Store<EraVolume>,
    pub(crate) snapshots: Store<EraSnapshot>,
    pub(crate) metrics: Metrics,
    pub(crate) now: fn() -> Timestamp,
}

/// One volume.
pub(crate) struct Worker<C, S, N> {
    pub(super) context: Arc<Context<C, S, N>>,
    pub(super) key: Key,
    news: Arc<Notify>,
    pub(super) mounts: watch::Receiver<u64>,
    pub(super) operations: Operations<S>,
    pub(super) stack: Stack,
    pub(super) evidence: Evidence,
    /// The object's uid: one made again under the name knows nothing of what was said.
    object: Option<String>,
    /// The status as it was last read or written.
    pub(super) before: EraVolumeStatus,
    pub(super) persistent: Option<(Instant, PersistentVolume)>,
    pub(super) snapshots_due: Option<Instant>,
    pub(super) last_boundary: Option<Timestamp>,
    publish_attempts: u32,
    /// Whether the API server is to be asked about a volume that the watch does not show.
    ask: bool,
    wake: Instant,
}

/// What the API server wants of the volume.
enum Wish {
    /// Era in its data path.
    Track(Arc<EraVolume>),
    /// Its original table.
    Release(Arc<EraVolume>),
    /// The object is gone: its original table, and then nothing more.
    Forget,
    /// Nothing is known for sure; leave it as it is.
    Leave,
}

/// How a turn ended.
enum Turn {
    /// What could be done is done.
    Done,
    /// The volume was left as it is.
    Left,
    /// The volume is gone, and so is everything of ours.
    Over,
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// For the `EraVolume` of this name, whose PersistentVolume has this uid. `found` is what was on the machine when
    /// the agent came; `news` is told when the API server has any.
    pub(crate) fn new(
        context: Arc<Context<C, S, N>>,
        volume: &EraVolume,
        found: Option<Found>,
        news: Arc<Notify>,
        mounts: watch::Receiver<u64>,
    ) -> Self {
        let mut worker = Self {
            operations: Operations::new(context.stacks.clone(), &volume.spec.volume.uid),
            context,
            key: Key::of(volume),
            news,
            mounts,
            stack: Stack::unknown(),
            evidence: Evidence::default(),
            object: volume.metadata.uid.clone(),
            before: volume.status.clone().unwrap_or_default(),
            persistent: None,
            snapshots_due: Some(Instant::now()),
            last_boundary: None,
            publish_attempts: 0,
            ask: true,
            wake: Instant::now(),
        };
        match found.map(|found| found.state) {
            Some(FoundState::Present(tracked)) => worker.adopt(tracked),
            Some(FoundState::Ended(reason)) => worker.evidence.seen = reason,
            // Attaching, or detaching, clears it up.
            Some(FoundState::Stuck(message)) => tracing::warn!(message, "not cleared up yet"),
            None => {}
        }
        worker
    }

    /// Works until the object is gone.
    pub(crate) async fn run(mut self) {
        let span = tracing::info_span!("volume", key = %self.key);
        async {
            loop {
                let ended = self.turn().await;
                if let Stack::Present(present) = &self.stack {
                    self.wake = self.wake.min(present.next_liveness);
                }
                let for_mounts = match ended {
                    Turn::Over => break,
                    Turn::Left => false,
                    Turn::Done => matches!(&self.stack, Stack::Absent(absent) if absent.at_mounts),
                };
                tokio::select! {
                    () = self.news.notified() => {
                        self.ask = true;
                        self.snapshots_due = Some(Instant::now());
                    }
                    Ok(()) = self.mounts.changed(), if for_mounts => self.mounts.mark_changed(),
                    () = tokio::time::sleep_until(self.wake) => {}
                }
            }
        }
        .instrument(span)
        .await;
    }

    async fn turn(&mut self) -> Turn {
        self.wake = Instant::now() + IDLE;
        match self.wish().await {
            Wish::Track(volume) => self.track(&volume).await,
            Wish::Release(volume) => self.release(&volume).await,
            Wish::Forget if self.forget().await => return Turn::Over,
            Wish::Forget => return Turn::Left,
            // The kernel goes on without us; only remains of a device that is gone may not wait.
            Wish::Leave => {
                self.guard().await;
                return Turn::Left;
            }
        }
        Turn::Done
    }

    /// A watch with a field selector loses sight of an object that merely left the selector, and a 404 may mean that
    /// the kind is missing: only a deletion timestamp, or a `NotFound` of this very name, is a wish.
    async fn wish(&mut self) -> Wish {
        let reference = ObjectRef::new(&self.key.name).within(&self.key.namespace);
        if let Some(volume) = self.context.volumes.get(&reference) {
            return self.wish_of(volume);
        }
        if !self.ask {
            return Wish::Leave;
        }
        match self.context.cluster.volume(&self.key).await {
            Ok(Some(volume)) => {
                self.ask = false;
                self.wish_of(Arc::new(volume))
            }
            Ok(None) => Wish::Forget,
            Err(error) => {
                tracing::warn!(
                    error = crate::exit::chain(&error),
                    "whether the volume is gone is not known"
                );
                self.by(Instant::now() + retry::soon(4));
                Wish::Leave
            }
        }
    }

    fn wish_of(&self, volume: Arc<EraVolume>) -> Wish {
        if volume.spec.node_name.as_deref() != Some(&self.context.node_name) {
            Wish::Leave
        } else if volume.metadata.deletion_timestamp.is_some() {
            Wish::Release(volume)
        } else {
            Wish::Track(volume)
        }
    }

    async fn track(&mut self, volume: &EraVolume) {
        if !self.follow(volume).await {
            return;
        }
        self.guard().await;
        self.attach_if_due(volume).await;
        self.publish(volume).await;
        if self.snapshots_if_due(volume).await {
            self.publish(volume).await;
        }
    }

    /// The name may stand for another PersistentVolume by now; a wish for another granularity ends the chain. False while
    /// the last PersistentVolume's stack is still in.
    async fn follow(&mut self, volume: &EraVolume) -> bool {
        if volume.spec.volume.uid != self.operations.volume_uid() {
            if !self.forget().await {
                return false;
            }
            self.operations = Operations::new(self.context.stacks.clone(), &volume.spec.volume.uid);
            self.stack = Stack::unknown();
            self.evidence = Evidence::default();
            self.persistent = None;
            self.last_boundary = None;
        }
        if self.object != volume.metadata.uid {
            self.object.clone_from(&volume.metadata.uid);
            self.before = volume.status.clone().unwrap_or_default();
        }
        if let Stack::Present(present) = &self.stack
            && present.tracked.granularity != volume.spec.granularity
        {
            self.end_chain(Reason::GranularityChanged, Duration::ZERO).await;
        }
        true
    }

    async fn release(&mut self, volume: &EraVolume) {
        let (reason, message) = match self.detach().await {
            Ok(()) => (Reason::Detached, "the device has its original table".to_owned()),
            Err(message) => (Reason::Detaching, message),
        };
        self.stack =
            Stack::Absent(Absent { reason, message, attempts: 0, retry: None, at_mounts: false });
        self.evidence = Evidence::default();
        self.publish(volume).await;
    }

    /// True when nothing is left.
    async fn forget(&mut self) -> bool {
        let detached = self.detach().await;
        if detached.is_ok() {
            self.context.metrics.forget(&self.key);
            tracing::info!("the volume is not to be tracked any more; its original table is back");
        }
        detached.is_ok()
    }

    async fn detach(&mut self) -> Result<(), String> {
        let done = matches!(&self.stack, Stack::Absent(Absent { reason: Reason::Detached, .. }));
        if !done {
            let detached = self.operations.run(Operation::Detach, S::detach).await;
            if let Err(error) = detached {
                tracing::warn!(error = crate::exit::chain(&error), "cannot take era out yet");
                self.by(Instant::now() + retry::after_stack(&error, 1));
                return Err(error.to_string());
            }
        }
        self.free_device();
        Ok(())
    }

    /// Says what is true, where it is not said yet.
    pub(super) async fn publish(&mut self, volume: &EraVolume) {
        let facts = Facts { generation: volume.metadata.generation, state: self.state() };
        self.context.metrics.observe(&self.key, &facts.state);
        let Some(update) = status::update(&self.before, &facts, (self.context.now)()) else {
            return;
        };
        match self.context.cluster.write_volume(volume, &update.status).await {
            Ok(written) => {
                self.publish_attempts = 0;
                self.before = written.status.unwrap_or_default();
                for notice in &update.notices {
                    tracing::info!(reason = %notice.reason, message = notice.message, "transition");
                    self.context.cluster.notice_volume(volume, notice);
                }
            }
            Err(error) => {
                tracing::warn!(error = crate::exit::chain(&error), "the volume's status waits");
                self.by(Instant::now() + retry::soon(self.publish_attempts));
                self.publish_attempts += 1;
            }
        }
    }

    fn state(&self) -> State {
        match &self.stack {
            Stack::Present(present) => State::Attached(Box::new(present.facts.clone())),
            Stack::Absent(Absent { reason, message, .. }) => State::Detached {
                reason: *reason,
                message: message.clone(),
                broken: self.broken(*reason),
            },
            Stack::Doomed { reason, .. } => State::Detached {
                reason: Reason::Detaching,
                message: format!("era is to be taken out: {}", reason.means()),
                broken: Some(*reason),
            },
        }
    }

    fn broken(&self, reason: Reason) -> Option<Reason> {
        if reason == Reason::Detached {
            return None;
        }
        self.evidence.seen.or_else(|| super::chain::broken_for(&self.before))
    }

    /// Wakes no later than then.
    pub(super) fn by(&mut self, then: Instant) {
        self.wake = self.wake.min(then);
    }

    /// The moment that a point in time will be.
    pub(super) fn instant(&self, then: Timestamp) -> Instant {
        let left = then.duration_since((self.context.now)());
        Instant::now() + Duration::try_from(left).unwrap_or_default()
    }
}
