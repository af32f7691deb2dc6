//! The worker's step that looks after era while it is in: is the live table still ours, and does era still record?

use eratrack_api::{MetadataUse, Reason};
use tokio::time::Instant;

use super::stack::Stack;
use super::trouble;
use super::watch_over::{HEALTH_INTERVAL, LIVENESS_INTERVAL};
use super::worker::Worker;
use crate::agent::cluster::Cluster;
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::stacks::{Health, Stacks, Tracked};

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

    pub(super) async fn check_liveness(&mut self) {
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
        match trouble::of_table(&looked, &tracked) {
            Some(reason) => self.end_chain(reason).await,
            None if looked.is_ok() => self.check_device(&tracked).await,
            None => {}
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
        if let Ok(Health::Good { era, used_bytes, total_bytes }) = asked {
            self.note_metadata(era.0, used_bytes, total_bytes);
        }
        if let Some(reason) = trouble::of_health(&asked) {
            tracing::error!(%reason, ?asked, "taking era out, so that writes go on");
            self.end_chain(reason).await;
        }
    }

    fn note_metadata(&mut self, era: u32, used: u64, total: u64) {
        let Stack::Present(present) = &mut self.stack else { return };
        let percent = trouble::percent(used, total);
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
    }
}
