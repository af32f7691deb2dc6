//! The worker's step that says what is true.

use eratrack_api::{EraVolume, Reason};
use tokio::time::Instant;

use super::retry;
use super::stack::{Absent, Stack};
use super::status::{self, Facts, State};
use super::worker::Worker;
use crate::agent::cluster::{Cluster, ClusterError};
use crate::agent::contact::Line;
use crate::agent::discover::Node;
use crate::agent::stacks::Stacks;

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Says what is true, where it is not said yet.
    pub(super) async fn publish(&mut self, volume: &EraVolume) {
        let facts = Facts {
            generation: volume.metadata.generation,
            state: self.state(),
            replica: self.replication.facts(),
        };
        self.context.metrics.observe(&self.key, &facts.state);
        let Some(update) = status::update(&self.before, &facts, (self.context.now)()) else {
            return;
        };
        match self.context.cluster.write_volume(volume, &update.status).await {
            Ok(written) => {
                self.publish_attempts = 0;
                self.context.contact.worked(Line::Statuses);
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
                // Of an object that is gone or another by now, the API server has at least told.
                if !matches!(error, ClusterError::Gone { .. } | ClusterError::Conflict { .. }) {
                    self.context.contact.failed(Line::Statuses);
                }
            }
        }
    }

    fn state(&self) -> State {
        match &self.stack {
            Stack::Present(present) => State::Attached(Box::new(present.facts.clone())),
            Stack::Stuck { message, .. } => State::Unknown {
                reason: Reason::OperationFailed,
                message: format!("what an earlier process left is not cleared up yet: {message}"),
            },
            Stack::Found(_) => State::Unknown {
                reason: Reason::Attaching,
                message: "whose chain it is that is in place is being found out".to_owned(),
            },
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
}
