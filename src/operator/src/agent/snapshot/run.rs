//! Carrying a snapshot on, from whatever state it is found in: decide (`step`), act, write, decide again.
//!
//! Each effect either reaches the API server as a whole or not at all, and what was written decides what comes next.
//! So whoever kills the agent at any moment, its next start goes on here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eratrack_api::{EraSnapshot, EraVolume, Reason};
use eratrack_model::Era;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::base::{Base, Origin, base_of};
use super::error::{Remedy, SnapshotError};
use super::hold::{hold, is_local};
use super::list::List;
use super::progress::Progress;
use super::status;
use super::step::{self, InForce, Recorded, Scope, Step, Volume, next_step};
use super::whole;
use crate::agent::cluster::{Cluster, Key, Notice};
use crate::agent::metrics::Metrics;
use crate::agent::operations::{Operation, Operations};
use crate::agent::slices;
use crate::agent::stacks::{
    Boundary, HeldPoint, Hope, PointState, StackError, Stacks, Tracked, WantedPoint,
};
use crate::agent::volume::trouble;

/// What became of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is complete, by this call. The volume has a new base.
    Completed(Box<EraSnapshot>),
    /// There is nothing (more) to do for it.
    Settled,
    /// Look again at that time, or when the volume changes.
    Waiting(Option<Timestamp>),
    /// Something did not succeed: try again, later each time.
    HeldUp,
    /// The volume's chain is broken.
    Broken(Reason),
}

/// One volume and what its snapshots need.
pub(crate) struct Procedure<'a, C, S> {
    pub(crate) cluster: &'a C,
    pub(crate) operations: &'a Operations<S>,
    pub(crate) volume: &'a EraVolume,
    pub(crate) tracked: Option<&'a Tracked>,
    /// Whether it is not known yet what is in the data path.
    pub(crate) unknown: bool,
    /// Why a snapshot without a base is full.
    pub(crate) full_reason: Reason,
    /// The chain's last complete snapshot as far as this process knows; the API server is asked whether it is.
    pub(crate) known_base: Option<Base>,
    /// What is remembered of earlier tries.
    pub(crate) progress: &'a Progress,
    pub(crate) metrics: &'a Metrics,
    pub(crate) node: &'a str,
    /// The node's permits for boundaries.
    pub(crate) boundaries: Arc<Semaphore>,
    pub(crate) now: fn() -> Timestamp,
}

/// How long a snapshot waits for another volume's boundary.
const TURN: Duration = Duration::from_secs(5);
const NODE_BUSY: &str = "the node is making as many boundaries as it may";

impl<C: Cluster, S: Stacks> Procedure<'_, C, S> {
    /// Goes on until it is complete, has failed, or must wait. `new` is a snapshot that this process has done nothing for
    /// yet, as the watch has it.
    pub(crate) async fn advance(&self, key: &Key, new: Option<&EraSnapshot>) -> Outcome {
        let span = tracing::info_span!("snapshot", %key);
        async {
            let mut at = None;
            match self.try_advance(key, new, &mut at).await {
                Ok(outcome) => outcome,
                Err(error) => self.mend(at.as_ref(), &error).await,
            }
        }
        .instrument(span)
        .await
    }

    async fn try_advance(
        &self,
        key: &Key,
        new: Option<&EraSnapshot>,
        at: &mut Option<EraSnapshot>,
    ) -> Result<Outcome, SnapshotError> {
        let Some(mut snapshot) = self.current(key, new).await? else { return Ok(Outcome::Settled) };
        let mut completed = false;
        let resumed = step::recorded(&snapshot).is_some();
        loop {
            *at = Some(snapshot.clone());
            let held = self.operations.held_point().map(|held| held.snapshot_uid);
            snapshot = match next_step(&snapshot, self.view(held.as_deref()), (self.now)()) {
                Step::Settled if completed => return Ok(Outcome::Completed(Box::new(snapshot))),
                Step::Settled => return Ok(Outcome::Settled),
                Step::Wait { reason, message, until } => {
                    self.say(&snapshot, reason, &message).await?;
                    return Ok(Outcome::Waiting(until));
                }
                Step::Fail { reason, message } => {
                    self.fail(&snapshot, reason, &message).await?;
                    return Ok(Outcome::Settled);
                }
                Step::Boundary => {
                    // Writers wait during a boundary, so only a few volumes of a node have one at a time.
                    let Ok(permit) = self.boundaries.clone().try_acquire_owned() else {
                        self.say(&snapshot, Reason::RateLimited, NODE_BUSY).await?;
                        return Ok(Outcome::Waiting((self.now)().checked_add(TURN).ok()));
                    };
                    self.boundary(&snapshot, permit).await?
                }
                Step::Publish(recorded) => {
                    completed = true;
                    self.publish(&snapshot, recorded, resumed).await?
                }
            };
        }
    }

    /// The snapshot as it is now. Of a new one without a boundary the watch says all: were it gone, or had an earlier process
    /// made its boundary after all, the API server would refuse what is written next.
    async fn current(
        &self,
        key: &Key,
        new: Option<&EraSnapshot>,
    ) -> Result<Option<EraSnapshot>, SnapshotError> {
        match new.filter(|new| step::recorded(new).is_none()) {
            Some(new) => Ok(Some(new.clone())),
            None => self.cluster.snapshot(key).await.map_err(cluster("read the EraSnapshot")),
        }
    }

    fn view<'v>(&'v self, held: Option<&'v str>) -> Volume<'v> {
        Volume {
            uid: self.operations.volume_uid(),
            chain: match self.tracked {
                Some(tracked) => InForce::Chain(&tracked.chain),
                None if self.unknown => InForce::Unknown,
                None => InForce::Nothing,
            },
            last_boundary: self.progress.last_boundary(),
            held,
        }
    }

    async fn boundary(
        &self,
        snapshot: &EraSnapshot,
        permit: OwnedSemaphorePermit,
    ) -> Result<EraSnapshot, SnapshotError> {
        let tracked = self.tracked()?;
        // One that fails, or that nobody hears of, has made writers wait all the same.
        self.progress.boundary(Some((self.now)()));
        let begun = Instant::now();
        let made = self.draw(snapshot, permit).await;
        let (boundary, held) = made.map_err(SnapshotError::Boundary)?;
        self.metrics.boundary(begun.elapsed());
        self.progress.boundary(Some(boundary.time));
        roomy(boundary)?;
        let origin = self.origin(tracked, boundary).await?;
        tracing::info!(era = boundary.era.0, chain = tracked.chain, "boundary made");
        let mut status = status::with_boundary(snapshot, boundary, tracked, &origin, (self.now)());
        if let Some(held) = held {
            status = status::with_point(status, &held);
        }
        let written = self.cluster.write_snapshot(snapshot, &status).await;
        let written = written.map_err(cluster("write the boundary down"))?;
        if let Origin::Lost { snapshot: base, why } = &origin {
            self.base_lost(&written, base, why).await;
        }
        Ok(written)
    }

    /// The boundary, and in mode Local the point in time that it is.
    async fn draw(
        &self,
        snapshot: &EraSnapshot,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Boundary, Option<HeldPoint>), StackError> {
        let (operations, permit) = (self.operations, Some(permit));
        if !is_local(snapshot) {
            let made = operations.run_with(Operation::Boundary, permit, S::boundary).await;
            return made.map(|boundary| (boundary, None));
        }
        let snapshot_uid = snapshot.uid().unwrap_or_default();
        let wanted = WantedPoint { snapshot_uid, hold: hold(snapshot) };
        let act = move |stacks: &S, uid: &str| stacks.begin_point(uid, &wanted);
        let made = operations.run_with(Operation::BeginPoint, permit, act).await;
        made.map(|(boundary, held)| (boundary, Some(held)))
    }

    /// After whatever else it takes: a point in time that is said to be readable is good up to here.
    async fn look_at_point(&self, snapshot: &EraSnapshot) -> Result<(), SnapshotError> {
        if !is_local(snapshot) {
            return Ok(());
        }
        let looked = self.operations.run(Operation::CheckPoint, S::check_point).await;
        match looked.map_err(SnapshotError::Read)? {
            PointState::Good => Ok(()),
            PointState::Lost(reason, message) => Err(SnapshotError::Lost { reason, message }),
        }
    }

    /// A base that this process knows is asked for by name: to find it the API server need not look at every snapshot of the
    /// namespace. Were there a newer one that it does not know, the list would go back further than it must.
    async fn origin(&self, tracked: &Tracked, boundary: Boundary) -> Result<Origin, SnapshotError> {
        let namespace = self.volume.namespace().unwrap_or_default();
        if let Some(known) = &self.known_base {
            let key = Key { namespace: namespace.clone(), name: known.snapshot.name.clone() };
            let read = self.cluster.snapshot(&key).await;
            let there = read.map_err(cluster("read the base"))?;
            let base = base_of(&there, self.operations.volume_uid(), &tracked.chain);
            if let Some(base) = base.filter(|base| base == known) {
                return self.origin_from(base, there.into_iter().collect(), boundary).await;
            }
        }
        let claim = Key { namespace, name: self.volume.spec.claim.name.clone() };
        let all = self.cluster.snapshots_of(&claim).await;
        let all = all.map_err(cluster("list the claim's EraSnapshots"))?;
        match base_of(&all, self.operations.volume_uid(), &tracked.chain) {
            None => Ok(Origin::Nothing(self.full_reason)),
            Some(base) => self.origin_from(base, all, boundary).await,
        }
    }

    async fn origin_from(
        &self,
        base: Base,
        all: Vec<EraSnapshot>,
        boundary: Boundary,
    ) -> Result<Origin, SnapshotError> {
        if base.era < boundary.era {
            return self.whole(base, all).await;
        }
        // Eras only grow: this metadata is not the one that the base was read from, and has not seen every write.
        Err(SnapshotError::Boundary(StackError {
            hope: Hope::Broken,
            reason: Reason::RecordMismatch,
            message: format!(
                "the boundary is at era {}, but {} of the same chain had its own at era {}",
                boundary.era, base.snapshot.name, base.era
            ),
        }))
    }

    /// The base, if its list can still be read.
    async fn whole(&self, base: Base, all: Vec<EraSnapshot>) -> Result<Origin, SnapshotError> {
        let uid = Some(&base.snapshot.uid);
        let Some(snapshot) = all.into_iter().find(|it| it.metadata.uid.as_ref() == uid) else {
            return Ok(Origin::Base(base));
        };
        let lost = whole::lost(self.cluster, &snapshot).await;
        match lost.map_err(cluster("read the base's slices"))? {
            None => Ok(Origin::Base(base)),
            Some(why) => Ok(Origin::Lost { snapshot: Box::new(snapshot), why: why.to_string() }),
        }
    }

    /// Says it on everything that somebody may look at. That the new snapshot is full is written down already, so that
    /// nothing here must succeed.
    async fn base_lost(&self, snapshot: &EraSnapshot, base: &EraSnapshot, why: &str) {
        let reason = Reason::SlicesLost;
        let name = base.name_any();
        let message = format!("full, because the list of {name} cannot be read any more: {why}");
        tracing::warn!(%reason, message, "the base's list is lost");
        self.notice(snapshot, true, reason, &message);
        let notice = Notice {
            warning: true,
            reason,
            message: format!("{} is {message}", snapshot.name_any()),
            action: "Snapshot",
        };
        self.cluster.notice_volume(self.volume, &notice);
        if let Err(error) = self.fail(base, reason, why).await {
            tracing::warn!(
                error = crate::exit::chain(&error),
                "the base still says that it is ready"
            );
        }
    }

    async fn publish(
        &self,
        snapshot: &EraSnapshot,
        recorded: Recorded,
        resumed: bool,
    ) -> Result<EraSnapshot, SnapshotError> {
        let list = self.list(snapshot, recorded).await?;
        slices::publish(self.cluster, snapshot, &list, self.node, resumed)
            .await
            .map_err(cluster("write the slices"))?;
        self.look_at_point(snapshot).await?;
        let status = status::complete(snapshot, &list, (self.now)());
        let written = self.cluster.write_snapshot(snapshot, &status).await;
        let written = written.map_err(cluster("complete the EraSnapshot"))?;
        let message = written
            .status
            .as_ref()
            .and_then(|status| status.conditions.iter().find(|condition| condition.is_true()))
            .map(|condition| condition.message.clone())
            .unwrap_or_default();
        // No event: it would be one for every snapshot, and say what the snapshot itself says.
        tracing::info!(era = recorded.era.0, message, "snapshot complete");
        Ok(written)
    }

    async fn list(
        &self,
        snapshot: &EraSnapshot,
        recorded: Recorded,
    ) -> Result<List, SnapshotError> {
        let blocks = blocks(snapshot);
        let Scope::Since(Era(since)) = recorded.scope else {
            return Ok(List::full(blocks));
        };
        let uid = snapshot.uid().unwrap_or_default();
        if let Some(list) = self.progress.list(&uid, recorded) {
            return Ok(list);
        }
        let begun = Instant::now();
        let read = self
            .operations
            .run(Operation::Changes, move |stacks, uid| {
                stacks.changes(uid, Era(since)).map(|changes| List::incremental(&changes))
            })
            .await;
        let list = read.map_err(SnapshotError::Read)?;
        self.metrics.list(begun.elapsed());
        self.progress.keep(&uid, recorded, &list);
        Ok(list)
    }

    async fn mend(&self, snapshot: Option<&EraSnapshot>, error: &SnapshotError) -> Outcome {
        tracing::warn!(error = crate::exit::chain(error), "snapshot held up");
        let Some(snapshot) = snapshot else { return Outcome::HeldUp };
        let (outcome, written) = match error.remedy() {
            Remedy::Forget => (Outcome::Settled, Ok(())),
            Remedy::Break { chain } => (Outcome::Broken(chain), Ok(())),
            Remedy::Retry { say: None } => (Outcome::HeldUp, Ok(())),
            Remedy::Retry { say: Some((reason, message)) } => {
                (Outcome::HeldUp, self.say(snapshot, reason, &message).await)
            }
            Remedy::Fail { reason, message } => {
                (Outcome::Settled, self.fail(snapshot, reason, &message).await)
            }
            Remedy::FailAndBreak { reason, message, chain } => {
                (Outcome::Broken(chain), self.fail(snapshot, reason, &message).await)
            }
        };
        match written {
            // A chain that broke is broken, whoever hears of it; the snapshot fails by itself at the next look.
            Err(error) if !matches!(outcome, Outcome::Broken(_)) => {
                tracing::warn!(error = crate::exit::chain(&error), "the snapshot's status waits");
                Outcome::HeldUp
            }
            _ => outcome,
        }
    }

    async fn say(
        &self,
        snapshot: &EraSnapshot,
        reason: Reason,
        message: &str,
    ) -> Result<(), SnapshotError> {
        let Some(status) = status::waiting(snapshot, reason, message, (self.now)()) else {
            return Ok(());
        };
        let written = self.cluster.write_snapshot(snapshot, &status).await;
        written.map_err(cluster("say what the snapshot waits for"))?;
        if worth_an_event(reason) && status::phase(snapshot) != Some(reason) {
            self.notice(snapshot, reason == Reason::OperationFailed, reason, message);
        }
        Ok(())
    }

    async fn fail(
        &self,
        snapshot: &EraSnapshot,
        reason: Reason,
        message: &str,
    ) -> Result<(), SnapshotError> {
        let status = status::failed(snapshot, reason, message, (self.now)());
        let written = self.cluster.write_snapshot(snapshot, &status).await;
        written.map_err(cluster("say that the snapshot failed"))?;
        tracing::warn!(%reason, message, "snapshot failed");
        self.notice(snapshot, true, reason, message);
        Ok(())
    }

    fn notice(&self, snapshot: &EraSnapshot, warning: bool, reason: Reason, message: &str) {
        let notice = Notice { warning, reason, message: message.to_owned(), action: "Snapshot" };
        self.cluster.notice_snapshot(snapshot, &notice);
    }

    fn tracked(&self) -> Result<&Tracked, SnapshotError> {
        self.tracked.ok_or_else(|| {
            SnapshotError::Boundary(StackError {
                hope: Hope::Later,
                reason: Reason::NotAttached,
                message: "era is not in the volume's data path".to_owned(),
            })
        })
    }
}

/// A turn that comes by itself is nobody's business.
fn worth_an_event(reason: Reason) -> bool {
    reason != Reason::RateLimited
}

/// Reading a list takes more of the metadata for a while; there must be some left.
fn roomy(boundary: Boundary) -> Result<(), SnapshotError> {
    if !trouble::is_full(boundary.used_percent) {
        return Ok(());
    }
    Err(SnapshotError::Boundary(StackError {
        hope: Hope::Broken,
        reason: Reason::MetadataFull,
        message: format!("{} % of the metadata is in use", boundary.used_percent),
    }))
}

/// How many blocks the volume had at the boundary.
fn blocks(snapshot: &EraSnapshot) -> u64 {
    let status = snapshot.status.as_ref();
    let size = status.and_then(|status| status.size_bytes).unwrap_or_default();
    let block = status.and_then(|status| status.block_size_bytes).unwrap_or(1);
    size.div_ceil(block.max(1))
}

fn cluster(
    step: &'static str,
) -> impl FnOnce(crate::agent::cluster::ClusterError) -> SnapshotError {
    move |source| SnapshotError::Cluster { step, source }
}
