//! The worker's step that takes era out because it is wished.

use eratrack_api::{EraVolume, Reason};
use tokio::time::Instant;

use super::chain::Evidence;
use super::retry;
use super::stack::{Absent, Stack};
use super::worker::Worker;
use crate::agent::cluster::Cluster;
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::stacks::Stacks;

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Gives the device its own table back, and says so.
    pub(super) async fn release(&mut self, volume: &EraVolume) {
        let (reason, message) = match self.detach().await {
            Ok(()) => (Reason::Detached, "the device has its original table".to_owned()),
            Err(message) => (Reason::Detaching, message),
        };
        self.stack =
            Stack::Absent(Absent { reason, message, attempts: 0, retry: None, at_mounts: false });
        self.evidence = Evidence::default();
        self.replication.forget();
        self.tell_of_ended().await;
        self.publish(volume).await;
    }

    /// True when nothing is left.
    pub(super) async fn forget(&mut self) -> bool {
        let detached = self.detach().await;
        if detached.is_ok() {
            self.tell_of_ended().await;
            self.context.metrics.forget(&self.key);
            tracing::info!("the volume is not to be tracked any more; its original table is back");
        }
        detached.is_ok()
    }

    async fn detach(&mut self) -> Result<(), String> {
        self.end_replica().await;
        let uid = self.operations.volume_uid().to_owned();
        let others = self.context.holders.take(&uid, &self.key).is_err();
        let done = matches!(&self.stack, Stack::Absent(Absent { reason: Reason::Detached, .. }));
        if !done && !others {
            let detached = self.operations.run(Operation::Detach, S::detach).await;
            if let Err(error) = detached {
                tracing::warn!(error = crate::exit::chain(&error), "cannot take era out yet");
                self.by(Instant::now() + retry::after_stack(&error, 1));
                return Err(error.to_string());
            }
        }
        self.cleared = true;
        if !others {
            self.free_device();
        }
        self.context.holders.give_back(&uid, &self.key);
        Ok(())
    }
}
