//! The loop of one volume: what is wished, what is there, what is next.
//!
//! A turn is a pipeline: wish (API server) → guard (machine) → attach (machine) → publish → snapshots → publish. It is
//! taken when the API server has news of the volume or its snapshots, when the machine's mounts change, and every few
//! seconds to look at the live table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eratrack_api::{EraSnapshot, EraVolume, EraVolumeStatus};
use eratrack_model::units::DevNo;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::Store;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::chain::Evidence;
use super::holders::Holders;
use super::pace::Pace;
use super::points::Points;
use super::replica::Replication;
use super::snapshots::Obstacle;
use super::stack::Stack;
use super::wish::Wish;
use crate::agent::cluster::{Cluster, Key};
use crate::agent::contact::Contact;
use crate::agent::discover::Node;
use crate::agent::lane::Lane;
use crate::agent::metrics::Metrics;
use crate::agent::operations::Operations;
use crate::agent::snapshot::progress::Progress;
use crate::agent::stacks::{FoundState, Stacks};

/// How often a volume that nothing happens to is looked at nevertheless.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// What all volumes of the node share.
pub(crate) struct Context<C, S, N> {
    pub(crate) cluster: C,
    pub(crate) stacks: Arc<S>,
    pub(crate) node: Arc<N>,
    pub(crate) node_name: String,
    /// The node's permits for boundaries.
    pub(crate) boundaries: Arc<Semaphore>,
    /// The node's permits for copying everything into a replica.
    pub(crate) seeds: Arc<Semaphore>,
    /// The node's permits for copying a point in time into a replica.
    pub(crate) copies: Arc<Semaphore>,
    /// Which PersistentVolume (by uid) has which device.
    pub(crate) devices: Mutex<HashMap<DevNo, String>>,
    pub(crate) holders: Holders,
    pub(crate) contact: Contact,
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
    /// Looking for the device, which a hung mount may keep for ever.
    pub(super) finding: Lane,
    pub(super) stack: Stack,
    pub(super) evidence: Evidence,
    pub(super) pace: Pace,
    /// Whether any stack that is on the machine was put in by this worker, for this object.
    pub(super) cleared: bool,
    /// The object's uid: one made again under the name knows nothing of what was said.
    pub(super) object: Option<String>,
    /// The status as it was last read or written.
    pub(super) before: EraVolumeStatus,
    pub(super) persistent: Option<(Instant, PersistentVolume)>,
    pub(super) snapshots_due: Option<Instant>,
    pub(super) progress: Progress,
    pub(super) obstacle: Obstacle,
    pub(super) points: Points,
    pub(super) replication: Replication,
    pub(super) publish_attempts: u32,
    /// When to ask the API server about a volume that the watch does not show.
    pub(super) ask_at: Instant,
    wake: Instant,
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
    /// For the `EraVolume` of this name, whose PersistentVolume has this uid. `news` is told when the
    /// API server has any.
    pub(crate) fn new(
        context: Arc<Context<C, S, N>>,
        volume: &EraVolume,
        news: Arc<Notify>,
        mounts: watch::Receiver<u64>,
    ) -> Self {
        let (key, uid) = (Key::of(volume), &volume.spec.volume.uid);
        // The first one has what is on the machine; what another may have put in is judged once it is free.
        let cleared = context.holders.take(uid, &key).is_ok();
        Self {
            operations: Operations::new(context.stacks.clone(), uid),
            context,
            key,
            news,
            mounts,
            finding: Lane::default(),
            stack: Stack::unknown(),
            evidence: Evidence::default(),
            pace: Pace::default(),
            cleared,
            object: volume.metadata.uid.clone(),
            before: volume.status.clone().unwrap_or_default(),
            persistent: None,
            snapshots_due: Some(Instant::now()),
            progress: Progress::default(),
            obstacle: Obstacle::default(),
            points: Points::default(),
            replication: Replication::default(),
            publish_attempts: 0,
            ask_at: Instant::now(),
            wake: Instant::now(),
        }
    }

    /// Works until the object is gone. `found` is what was on the machine before.
    pub(crate) async fn run(mut self, found: Option<FoundState>) {
        let span = tracing::info_span!("volume", key = %self.key);
        async {
            if let Some(state) = found {
                self.found(state, 0);
            }
            let told = self.replication.told.clone();
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
                        self.ask_at = Instant::now();
                        self.snapshots_due = Some(Instant::now());
                    }
                    () = told.notified() => {}
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
                self.look_after_points().await;
                return Turn::Left;
            }
        }
        Turn::Done
    }

    async fn track(&mut self, volume: &EraVolume) {
        self.follow(volume);
        self.clear_up().await;
        self.take_over().await;
        self.guard().await;
        self.look_after_replica(volume).await;
        self.look_after_points().await;
        self.refit(volume).await;
        self.attach_if_due(volume).await;
        self.publish(volume).await;
        if self.snapshots_if_due(volume).await {
            self.publish(volume).await;
            // A point in time may be held for the replica now.
            self.by(Instant::now());
        }
    }

    /// The object may have been made again.
    fn follow(&mut self, volume: &EraVolume) {
        if self.object != volume.metadata.uid {
            self.object.clone_from(&volume.metadata.uid);
            self.before = volume.status.clone().unwrap_or_default();
            self.cleared = false;
            self.stack.of_another_object();
        }
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
