//! The worker's step that has a replica follow: look at it → copy everything, beside whatever else goes on → copy each point
//! in time that is held for it.
//!
//! What the status says the replica equals is taken back, by the API server's word, before the first byte of a copy is
//! written. What it equals from then on is said when the machine has written that down.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{
    EraSnapshot, EraVolume, ReplicaPhase, ReplicaStatus, ReplicaTarget, Time, names,
};
use kube::ResourceExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::copier::Job;
use super::replica_status::{Doing, ReplicaFacts, current, stands, unknown};
use super::retry;
use super::stack::Stack;
use super::worker::Worker;
use crate::agent::cluster::Cluster;
use crate::agent::discover::{Node, ReplicaRefusal, ReplicaVolume};
use crate::agent::operations::Operation;
use crate::agent::snapshot::step::BOUNDARY_INTERVAL;
use crate::agent::stacks::{
    ReplicaDone, ReplicaPoint, ReplicaTask, ReplicaTrouble, Stacks, Standing, WantedReplica,
};

/// How long looking for the device may take.
const FIND_LIMIT: Duration = Duration::from_secs(30);
/// How long a copy is waited for that is to end: as long as one piece takes on a slow disk.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait for another volume's boundary, or copy.
const TURN: Duration = Duration::from_secs(5);

/// What is known of the volume's replica.
#[derive(Debug, Default)]
pub(super) struct Replication {
    /// Told by a copy that goes on or has ended.
    pub(super) told: Arc<Notify>,
    /// What is to follow which chain.
    wish: Option<(ReplicaTarget, String)>,
    job: Option<Job>,
    standing: Option<Standing>,
    trouble: Option<ReplicaTrouble>,
    attempts: u32,
    retry: Option<Instant>,
    /// The uid of the last snapshot that it has done with.
    over: Option<String>,
    status: Option<ReplicaStatus>,
}

impl Replication {
    /// Whether the point in time of that snapshot need not be held for it any more.
    pub(super) fn has_done_with(&self, snapshot_uid: &str) -> bool {
        self.wish.is_none() || self.over.as_deref() == Some(snapshot_uid)
    }

    /// There is none any more.
    pub(super) fn forget(&mut self) {
        self.status = None;
    }

    /// What is true of it; none if there is no replica.
    pub(super) fn facts(&self) -> Option<ReplicaFacts> {
        let current = current(self.standing.as_ref(), self.trouble.as_ref());
        self.status.clone().map(|status| ReplicaFacts { status, current })
    }

    fn doing(&self) -> Doing {
        match &self.job {
            Some(job) if job.seeds => Doing::Seeding,
            Some(job) if job.of.is_some() => Doing::Copying,
            Some(_) | None => Doing::Nothing,
        }
    }

    fn say(&mut self, doing: Doing) {
        let Some(status) = &mut self.status else { return };
        *status = match &self.standing {
            Some(standing) => stands(status, standing, doing),
            None => ReplicaStatus { phase: ReplicaPhase::Waiting, ..status.clone() },
        };
        if let Some((done, total)) = self.job.as_ref().and_then(Job::progress) {
            (status.copied_bytes, status.total_bytes) = (Some(done), Some(total));
        }
    }

    fn failed(&mut self, trouble: ReplicaTrouble, now: Instant) {
        tracing::warn!(reason = %trouble.reason, message = trouble.message, "nothing is copied");
        self.standing = None;
        self.retry = Some(now + retry::soon(self.attempts));
        self.attempts += 1;
        if !trouble.stopped {
            self.trouble = Some(trouble);
            // Nobody has looked whether it still does.
            if let Some(status) = &mut self.status {
                status.equals = None;
            }
        }
    }
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Has the replica follow, if one is wished for and the volume is tracked.
    pub(super) async fn look_after_replica(&mut self, volume: &EraVolume) {
        let chain = match &self.stack {
            Stack::Present(present) => Some(present.tracked.chain.clone()),
            _ => None,
        };
        let wish = volume.spec.replica.clone().zip(chain);
        if self.replication.wish != wish {
            self.end_replica().await;
            self.replication.wish = wish;
        }
        self.name_replica(volume.spec.replica.as_ref());
        if self.replication.wish.is_some() {
            self.take_replica_result().await;
            self.replicate(volume).await;
        }
        let doing = self.replication.doing();
        self.replication.say(doing);
    }

    /// A copy that is under way ends; whoever begins another looks at the replica first.
    pub(super) async fn end_replica(&mut self) {
        if let Some(job) = self.replication.job.take() {
            job.end(END_LIMIT).await;
        }
        let (told, status) = (self.replication.told.clone(), self.replication.status.take());
        self.replication = Replication { told, status, ..Replication::default() };
    }

    /// What was said of the same claim before stays said until more is known.
    fn name_replica(&mut self, target: Option<&ReplicaTarget>) {
        let Some(target) = target else {
            self.replication.status = None;
            return;
        };
        let claim = &target.claim.name;
        let known = self.replication.status.take().or_else(|| self.before.replica.clone());
        let known = known.filter(|status| status.claim_name == *claim);
        self.replication.status = Some(known.unwrap_or_else(|| unknown(claim)));
    }

    async fn take_replica_result(&mut self) {
        let Some(job) = self.replication.job.take_if(|job| job.has_ended()) else { return };
        let (of, seeds) = (job.of.clone(), job.seeds);
        let (result, took) = job.result().await;
        let now = (self.context.now)();
        let this = &mut self.replication;
        if of.is_some() {
            this.over.clone_from(&of);
        }
        match result {
            Ok(ReplicaDone { standing, done, bytes, verified }) => {
                tracing::info!(?standing, done, bytes, verified, ?took, "replica");
                let cut_short = matches!(standing, Standing::Following(_, None));
                this.standing = Some(standing);
                this.attempts = 0;
                if !cut_short {
                    this.trouble = None;
                }
                if let (true, true, Some(status)) = (done, of.is_some() || seeds, &mut this.status)
                {
                    (status.copied_bytes, status.total_bytes) = (Some(bytes), Some(bytes));
                    status.duration_milliseconds = u64::try_from(took.as_millis()).ok();
                    status.verified_time =
                        if verified { Some(Time(now)) } else { status.verified_time.take() };
                }
            }
            Err(trouble) => this.failed(trouble, Instant::now()),
        }
        // A point in time may have been held for it.
        self.by(Instant::now());
    }

    async fn replicate(&mut self, volume: &EraVolume) {
        let held = self.held_for_replica().await;
        if let Some(job) = &self.replication.job {
            let copied = |held: &EraSnapshot| job.of.is_some() && job.of == held.uid();
            // A point in time costs the application something, and this one nobody copies.
            if (job.seeds || job.of.is_some()) && !held.as_deref().is_some_and(copied) {
                self.let_go(held.as_deref());
            }
            return;
        }
        if let Some(retry) = self.replication.retry.filter(|retry| Instant::now() < *retry) {
            self.let_go(held.as_deref());
            return self.by(retry);
        }
        match (self.replication.standing.clone(), held) {
            (None, _) => self.start_task(volume, ReplicaTask::Look, Doing::Nothing).await,
            (Some(Standing::Unseeded(_)), held) => {
                self.let_go(held.as_deref());
                self.begin_seed(volume).await;
            }
            (Some(Standing::Seeding(_)), held) => {
                self.let_go(held.as_deref());
                self.start_task(volume, ReplicaTask::Seed(None), Doing::Seeding).await;
            }
            (Some(Standing::Seeded(since) | Standing::Following(since, _)), Some(snapshot)) => {
                self.copy_point(volume, &snapshot, since).await;
            }
            (Some(Standing::Seeded(_) | Standing::Following(..)), None) => {}
        }
    }

    /// The snapshot whose point in time is held for the replica, unless it has done with it.
    async fn held_for_replica(&self) -> Option<Arc<EraSnapshot>> {
        let held = self.operations.held_point()?;
        if self.replication.has_done_with(&held.snapshot_uid) {
            return None;
        }
        let snapshot = self.snapshot_of(&held).await.ok().flatten()?;
        snapshot.annotations().contains_key(names::ANNOTATION_REPLICATE).then_some(snapshot)
    }

    fn let_go(&mut self, snapshot: Option<&EraSnapshot>) {
        if let Some(snapshot) = snapshot {
            self.replication.over = snapshot.uid();
        }
    }

    /// Everything is copied from a boundary on, so that what changes meanwhile can be fetched.
    async fn begin_seed(&mut self, volume: &EraVolume) {
        let last = self.progress.last_boundary();
        if let Some(next) = last.and_then(|last| last.checked_add(BOUNDARY_INTERVAL).ok())
            && (self.context.now)() < next
        {
            let next = self.instant(next);
            return self.by(next);
        }
        let Ok(permit) = self.context.boundaries.clone().try_acquire_owned() else {
            return self.by(Instant::now() + TURN);
        };
        self.progress.boundary(Some((self.context.now)()));
        let made = self.operations.run_with(Operation::Boundary, Some(permit), S::boundary).await;
        match made {
            Ok(boundary) => {
                self.progress.boundary(Some(boundary.time));
                let task = ReplicaTask::Seed(Some(boundary.era));
                self.start_task(volume, task, Doing::Seeding).await;
            }
            // Whatever ends the chain is found by who looks after it.
            Err(error) => {
                let reason = eratrack_api::Reason::ReplicaFailed;
                let message = error.to_string();
                let trouble = ReplicaTrouble { reason, message, stopped: false };
                self.replication.failed(trouble, Instant::now());
            }
        }
    }

    async fn copy_point(
        &mut self,
        volume: &EraVolume,
        snapshot: &EraSnapshot,
        since: eratrack_model::Era,
    ) {
        let status = snapshot.status.as_ref();
        let boundary = status.and_then(|it| Some((it.era?, it.boundary_time.as_ref()?.0)));
        // The watch has not shown it yet: there will be news.
        let Some((era, time)) = boundary else { return };
        let read = self
            .operations
            .run(Operation::Changes, move |stacks, uid| stacks.changes(uid, since))
            .await;
        let changes = match read {
            Ok(changes) => changes.runs,
            Err(error) => {
                tracing::warn!(%error, "what the replica lacks is read again");
                return self.by(Instant::now() + TURN);
            }
        };
        let (name, uid) = (snapshot.name_any(), snapshot.uid().unwrap_or_default());
        let era = eratrack_model::Era(era);
        let point = ReplicaPoint { name, uid, era, time, since, changes };
        self.start_task(volume, ReplicaTask::Copy(Box::new(point)), Doing::Copying).await;
    }

    /// Finds the device and begins, once it is its turn: a device that is found long before it is opened may be another by
    /// then. What the replica equalled is taken back before anything is written to it.
    async fn start_task(&mut self, volume: &EraVolume, task: ReplicaTask, doing: Doing) {
        let Some((target, _)) = self.replication.wish.clone() else { return };
        let turns = match doing {
            Doing::Nothing => None,
            Doing::Seeding => Some(self.context.seeds.clone()),
            Doing::Copying => Some(self.context.copies.clone()),
        };
        let Ok(turn) = turns.map(Semaphore::try_acquire_owned).transpose() else {
            return self.by(Instant::now() + TURN);
        };
        let wanted = match self.find_replica(&target).await {
            Ok(wanted) => wanted,
            Err(trouble) => {
                self.replication.failed(trouble, Instant::now());
                return self.by(Instant::now());
            }
        };
        if doing != Doing::Nothing {
            self.replication.say(doing);
            self.publish(volume).await;
            let said = self.before.replica.as_ref();
            if said.is_none_or(|said| said.equals.is_some()) {
                return self.by(Instant::now() + TURN);
            }
        }
        let told = self.replication.told.clone();
        self.replication.job = Some(Job::start(&self.operations, turn, (wanted, task), told));
    }

    async fn find_replica(&self, target: &ReplicaTarget) -> Result<WantedReplica, ReplicaTrouble> {
        let refused = |refusal: &ReplicaRefusal| ReplicaTrouble {
            reason: refusal.reason(),
            message: refusal.to_string(),
            stopped: false,
        };
        let failed = |message: String| ReplicaTrouble {
            reason: eratrack_api::Reason::ReplicaFailed,
            message,
            stopped: false,
        };
        let found = self.context.cluster.persistent_volume(&target.volume.name).await;
        let persistent = found.map_err(|error| failed(crate::exit::chain(&error)))?;
        let volume = ReplicaVolume::new(&self.key.namespace, target, persistent.as_ref())
            .map_err(|error| refused(&error))?;
        let node = self.context.node.clone();
        let found = self.finding.call(FIND_LIMIT, move || node.find_replica(&volume)).await;
        let device = found.map_err(|late| failed(late.to_string()))?;
        Ok(WantedReplica {
            uid: target.volume.uid.clone(),
            claim: target.claim.name.clone(),
            device: device.map_err(|error| refused(&error))?,
            max_rate: target.max_bytes_per_second,
            verify: target.verify,
        })
    }
}
