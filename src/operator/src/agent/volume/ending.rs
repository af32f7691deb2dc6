//! The worker's step that ends a chain: era comes out, because nobody can vouch for it any more.

use eratrack_api::Reason;
use tokio::time::Instant;

use super::retry;
use super::stack::{Absent, Stack};
use super::trouble;
use super::worker::Worker;
use crate::agent::cluster::Cluster;
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::stacks::Stacks;

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// The chain is broken. A look at the live table may tell better how.
    pub(super) async fn end_chain_with_best_reason(&mut self, reason: Reason) {
        if let Stack::Present(present) = &mut self.stack {
            present.next_liveness = Instant::now();
        }
        self.check_liveness().await;
        if matches!(self.stack, Stack::Present(_)) {
            self.end_chain(reason).await;
        }
    }

    /// Era reports the same, whether its metadata is full or cannot be written.
    fn told_apart(&self, reason: Reason) -> Reason {
        let Stack::Present(present) = &self.stack else { return reason };
        let percent = present.metadata.as_ref().and_then(|used| used.used_percent);
        let full = reason == Reason::MetadataError && percent.is_some_and(trouble::is_full);
        if full { Reason::MetadataFull } else { reason }
    }

    /// The chain ends: era comes out, what remains is removed, and in due time a new chain may begin.
    pub(super) async fn end_chain(&mut self, reason: Reason) {
        let reason = self.told_apart(reason);
        tracing::warn!(%reason, "the chain ends");
        self.context.metrics.broken(reason);
        self.pace.ended(Instant::now());
        self.take_out(reason, 0).await;
    }

    pub(super) async fn take_out(&mut self, reason: Reason, attempts: u32) {
        self.evidence.seen = Some(reason);
        self.snapshots_due = Some(Instant::now());
        self.end_replica().await;
        let out = self.operations.run(Operation::Detach, S::detach).await;
        match out {
            Ok(()) => {
                self.cleared = true;
                self.free_device();
                let retry = self.pace.next(reason, Instant::now());
                self.by(retry);
                self.stack = Stack::Absent(Absent {
                    reason: Reason::Attaching,
                    message: reason.means().to_owned(),
                    attempts: 0,
                    retry: Some(retry),
                    at_mounts: false,
                });
            }
            Err(error) => {
                tracing::error!(error = crate::exit::chain(&error), "cannot take era out");
                let retry = Instant::now() + retry::after_stack(&error, attempts);
                self.by(retry);
                self.stack = Stack::Doomed { reason, attempts: attempts + 1, retry };
            }
        }
    }
}
