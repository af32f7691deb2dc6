//! The worker's step that carries the volume's snapshots on, one after the other.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{EraSnapshot, EraVolume, LastSnapshot, ObjectRef, Reason};
use eratrack_model::Era;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::retry;
use super::stack::{Present, Stack};
use super::watch_over::watch_over;
use super::worker::Worker;
use crate::agent::cluster::{Cluster, Key};
use crate::agent::discover::Node;
use crate::agent::snapshot::base::{Base, base_of};
use crate::agent::snapshot::run::{Outcome, Procedure};
use crate::agent::snapshot::step;
use crate::agent::stacks::Stacks;

/// What one of the volume's snapshots met with; the others wait behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct Obstacle {
    /// Its uid.
    snapshot: Option<String>,
    attempts: u32,
    until: Option<Instant>,
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Carries on what waits, when there is news or it is time; true when something may have changed for the volume.
    pub(super) async fn snapshots_if_due(&mut self, volume: &EraVolume) -> bool {
        // News may be a reason to look earlier, but not at what did not succeed.
        match self.snapshots_due.map(|due| self.obstacle.until.map_or(due, |until| due.max(until)))
        {
            Some(due) if Instant::now() >= due => self.snapshots_due = None,
            Some(due) => {
                self.by(due);
                return false;
            }
            None => return false,
        }
        let all = self.of_claim(volume);
        self.progress.boundary(latest_boundary(&all));
        let rebased = self.note_base(&all);
        let waiting = waiting(&all);
        self.progress.unsettled(&waiting.iter().filter_map(|it| it.uid()).collect());
        // The watch lags behind.
        let complete = |it: &EraSnapshot| it.uid().is_some_and(|it| self.progress.is_complete(&it));
        let waiting: Vec<_> = waiting.into_iter().filter(|it| !complete(it)).collect();
        let any = !waiting.is_empty();
        for snapshot in waiting {
            if !self.carry_on(volume, &snapshot).await {
                break;
            }
        }
        if let Some(due) = self.snapshots_due {
            self.by(due);
        }
        any || rebased
    }

    fn of_claim(&self, volume: &EraVolume) -> Vec<Arc<EraSnapshot>> {
        let (namespace, claim) = (volume.namespace(), &volume.spec.claim.name);
        self.context.snapshots.state_filter(|snapshot| {
            snapshot.namespace() == namespace && snapshot.spec.claim_name == *claim
        })
    }

    /// Whether the next one can go on after this one.
    async fn carry_on(&mut self, volume: &EraVolume, snapshot: &EraSnapshot) -> bool {
        let started = Instant::now();
        let new = self.progress.begin(snapshot.uid().as_deref().unwrap_or_default());
        let attended = self.attended(volume, &Key::of(snapshot), new.then_some(snapshot)).await;
        let outcome = attended.unwrap_or_else(Outcome::Broken);
        match outcome {
            Outcome::Completed(complete) => {
                self.settled(snapshot);
                self.progress.complete(snapshot.uid().as_deref().unwrap_or_default());
                self.completed(&complete, started.elapsed()).await;
                true
            }
            Outcome::Settled => {
                self.settled(snapshot);
                true
            }
            Outcome::HeldUp => {
                self.held_up(snapshot);
                false
            }
            Outcome::Waiting(None) => {
                let late = step::deadline(snapshot).map(|late| self.instant(late));
                self.due(late.unwrap_or_else(Instant::now));
                true
            }
            Outcome::Waiting(Some(until)) => {
                let until = self.instant(until);
                self.due(until);
                false
            }
            Outcome::Broken(reason) => {
                self.end_chain_with_best_reason(reason).await;
                false
            }
        }
    }

    /// Carries it on while the volume is looked after; an error is why the chain must end before. What is dropped then
    /// in the middle of a request is found again as if the process had been killed.
    async fn attended(
        &self,
        volume: &EraVolume,
        key: &Key,
        new: Option<&EraSnapshot>,
    ) -> Result<Outcome, Reason> {
        let procedure = self.procedure(volume);
        let Stack::Present(present) = &self.stack else {
            return Ok(procedure.advance(key, new).await);
        };
        tokio::select! {
            outcome = procedure.advance(key, new) => Ok(outcome),
            reason = watch_over(&self.operations, &*self.context.node, &present.tracked) => Err(reason),
        }
    }

    fn settled(&mut self, snapshot: &EraSnapshot) {
        self.progress.settled(snapshot.uid().as_deref().unwrap_or_default());
        if self.obstacle.snapshot == snapshot.uid() {
            self.obstacle = Obstacle::default();
        }
    }

    /// Later each time; a boundary not before it may be made.
    fn held_up(&mut self, snapshot: &EraSnapshot) {
        let same = self.obstacle.snapshot == snapshot.uid();
        let attempts = if same { self.obstacle.attempts } else { 0 };
        let mut until = Instant::now() + retry::soon(attempts);
        let last = self.progress.last_boundary();
        let next = last.and_then(|last| last.checked_add(step::BOUNDARY_INTERVAL).ok());
        if let (None, Some(next)) = (step::recorded(snapshot), next) {
            until = until.max(self.instant(next));
        }
        self.obstacle =
            Obstacle { snapshot: snapshot.uid(), attempts: attempts + 1, until: Some(until) };
        self.due(until);
    }

    fn procedure<'a>(&'a self, volume: &'a EraVolume) -> Procedure<'a, C, S> {
        let present = match &self.stack {
            Stack::Present(present) => Some(present),
            Stack::Absent(_) | Stack::Stuck { .. } | Stack::Found(_) | Stack::Doomed { .. } => None,
        };
        let known = self.of_claim(volume);
        Procedure {
            known_base: present.and_then(|present| self.known_base(present, &known)),
            cluster: &self.context.cluster,
            operations: &self.operations,
            volume,
            tracked: present.map(|present| &present.tracked),
            unknown: matches!(&self.stack, Stack::Stuck { .. } | Stack::Found(_)),
            full_reason: present.map_or(Reason::NoBaseline, |present| present.facts.full_reason),
            progress: &self.progress,
            metrics: &self.context.metrics,
            node: &self.context.node_name,
            boundaries: self.context.boundaries.clone(),
            now: self.context.now,
        }
    }

    /// The watch may lag behind what this worker completed itself.
    fn known_base(&self, present: &Present, known: &[Arc<EraSnapshot>]) -> Option<Base> {
        let known = known.iter().map(AsRef::as_ref);
        let seen = base_of(known, self.operations.volume_uid(), &present.tracked.chain);
        let own = present.facts.last_snapshot.as_ref().map(|last| Base {
            snapshot: ObjectRef { name: last.name.clone(), uid: last.uid.clone() },
            era: Era(last.era),
        });
        seen.into_iter().chain(own).max_by_key(|base| base.era)
    }

    async fn completed(&mut self, snapshot: &EraSnapshot, took: Duration) {
        let status = snapshot.status.as_ref();
        let time = status.and_then(|status| status.boundary_time.as_ref()).map(|time| time.0);
        self.context.metrics.snapshot(&self.key, time, took);
        // The boundary has cost a commit anyway: what era says of itself now is said in the status.
        if let Stack::Present(present) = &mut self.stack {
            present.facts.metadata = None;
        }
        self.ask_health().await;
        if let Stack::Present(present) = &mut self.stack {
            // Era may have gone on since the boundary; what the volume says never goes back.
            present.facts.era = present.facts.era.max(status.and_then(|status| status.era));
            present.facts.last_snapshot = last_snapshot(snapshot);
            // Once there was one, that it is gone is why the next one is full, however the chain began.
            present.facts.full_reason = Reason::NoBaseline;
        }
    }

    /// The chain's base may have been deleted, or completed by an earlier process that could not say so any more.
    fn note_base(&mut self, all: &[Arc<EraSnapshot>]) -> bool {
        let uid = self.operations.volume_uid().to_owned();
        let Stack::Present(present) = &mut self.stack else { return false };
        let base = base_of(all.iter().map(AsRef::as_ref), &uid, &present.tracked.chain);
        let base = base
            .and_then(|base| all.iter().find(|it| it.uid().as_ref() == Some(&base.snapshot.uid)));
        let last = base.and_then(|base| last_snapshot(base));
        let newer =
            last.as_ref().map(|it| it.era) >= present.facts.last_snapshot.as_ref().map(|it| it.era);
        // The watch may lag behind what this worker completed itself; only the time it takes to catch up hides a
        // deletion, and the base of a delta is read from the API server anyway.
        let known = present.facts.last_snapshot.as_ref();
        let gone =
            known.is_some_and(|known| !all.iter().any(|it| it.uid().as_ref() == Some(&known.uid)));
        if present.facts.last_snapshot == last || !(newer || gone) {
            return false;
        }
        present.facts.era = present.facts.era.max(last.as_ref().map(|it| it.era));
        present.facts.last_snapshot = last;
        present.facts.full_reason = Reason::NoBaseline;
        true
    }

    fn due(&mut self, then: Instant) {
        self.snapshots_due = Some(self.snapshots_due.map_or(then, |due| due.min(then)));
    }
}

/// Those that are not settled: boundaries that were made first, then by age.
fn waiting(all: &[Arc<EraSnapshot>]) -> Vec<Arc<EraSnapshot>> {
    let mut waiting: Vec<_> = all
        .iter()
        .filter(|snapshot| {
            !step::is_settled(snapshot) && snapshot.metadata.deletion_timestamp.is_none()
        })
        .cloned()
        .collect();
    waiting.sort_by_key(|snapshot| {
        let made = step::recorded(snapshot).map(|(_, recorded)| recorded.era);
        (
            made.is_none(),
            made,
            snapshot.creation_timestamp().map(|time| time.0),
            snapshot.name_any(),
        )
    });
    waiting
}

fn latest_boundary(all: &[Arc<EraSnapshot>]) -> Option<Timestamp> {
    all.iter()
        .filter_map(|snapshot| Some(snapshot.status.as_ref()?.boundary_time.as_ref()?.0))
        .max()
}

/// What the volume says of a complete snapshot.
fn last_snapshot(snapshot: &EraSnapshot) -> Option<LastSnapshot> {
    let status = snapshot.status.as_ref()?;
    Some(LastSnapshot {
        name: snapshot.metadata.name.clone()?,
        uid: snapshot.metadata.uid.clone()?,
        era: status.era?,
        time: status.boundary_time.clone()?,
        changed: status.changed.clone(),
        changed_bytes: status.changed_bytes,
    })
}
