//! The worker's step that looks after era while it is in: is the live table still ours, and does era still record?

use std::time::Duration;

use eratrack_api::{MetadataUse, Reason};
use tokio::time::Instant;

use super::retry;
use super::stack::{Absent, Stack};
use super::worker::Worker;
use crate::agent::cluster::Cluster;
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::stacks::{Health, Hope, Liveness, Stacks, Tracked};

/// How often the live table is looked at: one cheap ioctl.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(3);
/// The least time between two questions to era, each of which costs a commit of its metadata.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// From here on metadata counts as full: dm-era grows it by whole writesets, and at the end of it writes fail.
const FULL_PERCENT: u32 = 90;
/// By how many points the use of the metadata must move to be said again between two boundaries.
const TELL_POINTS: u32 = 10;

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Looks after what is there, and takes out what has failed.
    pub(super) async fn guard(&mut self) {
        if let Stack::Doomed { reason, attempts, retry } = self.stack {
            if Instant::now() < retry {
                self.by(retry);
                return;
            }
            self.take_out(reason, attempts).await;
        }
        self.check_liveness().await;
        self.check_health().await;
    }

    async fn check_liveness(&mut self) {
        let Stack::Present(present) = &mut self.stack else { return };
        let now = Instant::now();
        if now < present.next_liveness {
            let next = present.next_liveness;
            return self.by(next);
        }
        present.next_liveness = now + LIVENESS_INTERVAL;
        let tracked = present.tracked.clone();
        self.by(now + LIVENESS_INTERVAL);
        let looked = self.operations.run(Operation::Liveness, S::liveness).await;
        match looked {
            Ok(Liveness::Intact) => self.check_device(&tracked).await,
            Ok(Liveness::Reloaded { size_bytes }) => {
                let resized = size_bytes.is_some_and(|size| size != tracked.size_bytes);
                let reason = if resized { Reason::Resized } else { Reason::TableReloaded };
                self.end_chain(reason).await;
            }
            Ok(Liveness::Rebooted) => self.end_chain(Reason::NodeRebooted).await,
            Ok(Liveness::Gone) => self.end_chain(Reason::Reattached).await,
            Err(error) if error.hope == Hope::Broken => {
                self.end_chain(error.reason).await;
            }
            Err(error) => {
                tracing::warn!(error = crate::exit::chain(&error), "cannot look at the live table");
            }
        }
    }

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

    /// After the mounts changed: the volume's pods may use another device than before.
    async fn check_device(&mut self, tracked: &Tracked) {
        if !self.mounts.has_changed().unwrap_or(false) {
            return;
        }
        self.mounts.mark_unchanged();
        if !self.still_the_device(tracked).await {
            self.end_chain(Reason::RecordMismatch).await;
        }
    }

    /// Asks era only where something was written since it was last asked.
    async fn check_health(&mut self) {
        let Stack::Present(present) = &mut self.stack else { return };
        let now = Instant::now();
        if now < present.next_health {
            return;
        }
        let counters = self.context.node.write_counters(present.tracked.number);
        if counters.is_some() && counters == present.counters {
            return;
        }
        present.counters = counters;
        self.ask_health().await;
    }

    /// Asks era, and takes it out when it has failed: from then on the user's writes fail with it.
    pub(super) async fn ask_health(&mut self) {
        let Stack::Present(present) = &mut self.stack else { return };
        present.next_health = Instant::now() + HEALTH_INTERVAL;
        let asked = self.operations.run(Operation::Health, S::health).await;
        match asked {
            Ok(Health::Good { era, used_bytes, total_bytes }) => {
                if self.note_metadata(era.0, used_bytes, total_bytes) >= FULL_PERCENT {
                    tracing::error!(used_bytes, total_bytes, "taking era out before it runs full");
                    self.end_chain(Reason::MetadataFull).await;
                }
            }
            Ok(Health::Failed) => {
                tracing::error!("era has failed; taking it out so that writes go on");
                self.end_chain(Reason::MetadataError).await;
            }
            Err(error) if error.hope == Hope::Broken => {
                self.end_chain(error.reason).await;
            }
            Err(error) => tracing::warn!(error = crate::exit::chain(&error), "cannot ask era"),
        }
    }

    /// How much is in use, in percent.
    fn note_metadata(&mut self, era: u32, used: u64, total: u64) -> u32 {
        let Stack::Present(present) = &mut self.stack else { return 0 };
        let percent =
            u32::try_from(used.saturating_mul(100).div_ceil(total.max(1))).unwrap_or(100).min(100);
        let metadata = MetadataUse {
            used_bytes: Some(used),
            total_bytes: Some(total),
            used_percent: Some(percent),
        };
        self.context.metrics.metadata(&self.key, used, total);
        let said = present.facts.metadata.as_ref().and_then(|said| said.used_percent);
        if said.is_none_or(|said| said.abs_diff(percent) >= TELL_POINTS) {
            present.facts.metadata = Some(metadata.clone());
            present.facts.era = present.facts.era.max(Some(era));
        }
        present.metadata = Some(metadata);
        percent
    }

    /// Era reports the same, whether its metadata is full or cannot be written.
    fn told_apart(&self, reason: Reason) -> Reason {
        let Stack::Present(present) = &self.stack else { return reason };
        let percent = present.metadata.as_ref().and_then(|used| used.used_percent);
        let full = reason == Reason::MetadataError && percent >= Some(FULL_PERCENT);
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

    async fn take_out(&mut self, reason: Reason, attempts: u32) {
        self.evidence.seen = Some(reason);
        self.snapshots_due = Some(Instant::now());
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
