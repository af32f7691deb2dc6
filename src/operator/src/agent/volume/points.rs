//! The worker's step that looks after the point in time that is held: it ends when its reader releases it, when its time
//! is over, or when it is lost; and whoever reads the snapshot is told how it was until then.
//!
//! See it released → look whether it is good → say so → end it: what was read before the release is what was looked at.
//! A process that is killed in between leaves a point in time that the next start ends, and says of it that it is lost.

use std::sync::Arc;

use eratrack_api::{EraSnapshot, Reason};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::retry;
use super::stack::Stack;
use super::worker::Worker;
use crate::agent::cluster::{Cluster, ClusterError, Key, Notice};
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::snapshot::hold::{Hold, Verdict, is_readable, next};
use crate::agent::snapshot::status;
use crate::agent::stacks::{HeldPoint, PointState, Stacks};

const UNRELEASED: &str =
    "it ended before it was released: era came out of the volume, or the agent was restarted";

/// What is remembered of points in time that have ended.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// What nobody could be told yet, and of which snapshot (uid).
    unsaid: Option<(String, Verdict)>,
    /// Remains on the machine: how often their end was tried, and when it is tried again.
    remains: Option<(u32, Instant)>,
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Ends what is to end, and says of each that it has ended.
    pub(super) async fn look_after_points(&mut self) {
        self.end_remains().await;
        if let Some(held) = self.operations.held_point() {
            self.look_after_point(&held).await;
        }
        self.tell_of_ended().await;
    }

    async fn look_after_point(&mut self, held: &HeldPoint) {
        let now = (self.context.now)();
        let snapshot = match self.snapshot_of(held).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(error = crate::exit::chain(&error), "whose point in time is held?");
                if now >= held.until {
                    self.end_point().await;
                }
                return;
            }
        };
        let Some(state) = self.state_of(held, now).await else { return };
        let copied = self.replication.has_done_with(&held.snapshot_uid);
        match next(held, snapshot.as_deref(), &state, (now, copied)) {
            Hold::Keep => {
                let until = self.instant(held.until);
                self.by(until);
            }
            Hold::Drop => self.end_point().await,
            Hold::End(verdict) => self.end_with(held, snapshot.as_deref(), verdict).await,
        }
    }

    /// As the watch has it. What it does not have is gone only if the API server says so.
    pub(super) async fn snapshot_of(
        &self,
        held: &HeldPoint,
    ) -> Result<Option<Arc<EraSnapshot>>, ClusterError> {
        let is_it = |snapshot: &EraSnapshot| snapshot.uid().as_ref() == Some(&held.snapshot_uid);
        let seen = self.seen_snapshots().into_iter().find(|snapshot| is_it(snapshot));
        if seen.is_some() {
            return Ok(seen);
        }
        let all = self.context.cluster.snapshots_of(&self.key).await?;
        Ok(all.into_iter().find(is_it).map(Arc::new))
    }

    /// None if that cannot be told just now, and there is time to look again.
    async fn state_of(&mut self, held: &HeldPoint, now: Timestamp) -> Option<PointState> {
        let looked = self.operations.run(Operation::CheckPoint, S::check_point).await;
        match looked {
            Ok(state) => Some(state),
            Err(error) if now < held.until => {
                tracing::warn!(
                    error = crate::exit::chain(&error),
                    "cannot look at a point in time"
                );
                None
            }
            Err(error) => Some(PointState::Lost(Reason::PointInTimeLost, error.to_string())),
        }
    }

    /// Says it first, so that nobody takes what comes after for good; but nothing is held for longer than it may.
    async fn end_with(
        &mut self,
        held: &HeldPoint,
        snapshot: Option<&EraSnapshot>,
        verdict: Verdict,
    ) {
        let said = match snapshot {
            Some(snapshot) => self.say_of(&Key::of(snapshot), &held.snapshot_uid, &verdict).await,
            None => Ok(()),
        };
        if let Err(error) = said {
            tracing::warn!(error = crate::exit::chain(&error), "the end of a point in time waits");
            if verdict.reason == Reason::Released {
                return;
            }
            self.points.unsaid = Some((held.snapshot_uid.clone(), verdict));
        }
        self.end_point().await;
    }

    /// Once: the watch may lag behind what was said already.
    async fn say_of(&self, key: &Key, uid: &str, verdict: &Verdict) -> Result<(), ClusterError> {
        let now = self.context.cluster.snapshot(key).await?;
        let same = |snapshot: &EraSnapshot| snapshot.uid().as_deref() == Some(uid);
        let Some(snapshot) = now.filter(|snapshot| same(snapshot) && is_readable(snapshot)) else {
            return Ok(());
        };
        let status = status::with_verdict(&snapshot, verdict);
        match self.context.cluster.write_snapshot(&snapshot, &status).await {
            Err(ClusterError::Gone { .. }) => return Ok(()),
            written => written?,
        };
        let Verdict { reason, at: _, message } = verdict.clone();
        tracing::info!(%key, %reason, message, "the point in time ends");
        let warning = reason != Reason::Released;
        let notice = Notice { warning, reason, message, action: "PointInTime" };
        self.context.cluster.notice_snapshot(&snapshot, &notice);
        Ok(())
    }

    async fn end_point(&mut self) {
        let attempts = self.points.remains.map_or(0, |(attempts, _)| attempts);
        let ended = self.operations.run(Operation::EndPoint, S::end_point).await;
        self.points.remains = ended.err().map(|error| {
            tracing::warn!(error = crate::exit::chain(&error), "a point in time is not ended yet");
            (attempts + 1, Instant::now() + retry::soon(attempts))
        });
        // The next one may have waited for this.
        self.snapshots_due = Some(Instant::now());
    }

    /// A reader that has not closed the device yet keeps what is left of it.
    async fn end_remains(&mut self) {
        // Taking era out ends them too.
        if !matches!(self.stack, Stack::Present(_)) {
            self.points.remains = None;
        }
        match self.points.remains {
            Some((_, due)) if Instant::now() < due => self.by(due),
            Some(_) => self.end_point().await,
            None => {}
        }
    }

    /// An earlier process has held them, or the stack came out with them.
    pub(super) async fn tell_of_ended(&mut self) {
        let held = self.operations.held_point().map(|held| held.snapshot_uid);
        for snapshot in self.seen_snapshots() {
            let uid = snapshot.uid().unwrap_or_default();
            if !is_readable(&snapshot) || held.as_ref() == Some(&uid) {
                continue;
            }
            let verdict = self.verdict_of(&uid);
            let said = self.say_of(&Key::of(&*snapshot), &uid, &verdict).await;
            match said {
                Ok(()) => self.points.unsaid = None,
                Err(error) => {
                    tracing::warn!(error = crate::exit::chain(&error), "a reader is told later");
                }
            }
        }
    }

    fn verdict_of(&self, uid: &str) -> Verdict {
        if let Some((of, verdict)) = &self.points.unsaid
            && of == uid
        {
            return verdict.clone();
        }
        let (reason, message) = (Reason::PointInTimeLost, UNRELEASED.to_owned());
        Verdict { reason, at: (self.context.now)(), message }
    }

    /// Those of this node.
    fn seen_snapshots(&self) -> Vec<Arc<EraSnapshot>> {
        let Key { namespace, name } = &self.key;
        self.context.snapshots.state_filter(|snapshot| {
            snapshot.namespace().as_ref() == Some(namespace) && snapshot.spec.claim_name == *name
        })
    }
}
