//! The worker's step that judges what was on the machine before it: whose chain is it, and does it go on?

use tokio::time::Instant;

use super::chain::{self, Whereabouts};
use super::retry;
use super::stack::Stack;
use super::worker::Worker;
use crate::agent::cluster::Cluster;
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::stacks::{FoundState, Stacks};

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// What is known of the machine so far, after so many tries to clear it up.
    pub(super) fn found(&mut self, state: FoundState, attempts: u32) {
        self.cleared = matches!(state, FoundState::Ended(_));
        self.stack = match state {
            FoundState::Present(tracked) => Stack::Found(tracked),
            FoundState::Ended(reason) => {
                self.evidence.seen = reason;
                Stack::unknown()
            }
            FoundState::Stuck(message) => {
                tracing::warn!(message, "not cleared up yet");
                Stack::Stuck { message, attempts, retry: Instant::now() + retry::soon(attempts) }
            }
        };
    }

    /// Tries again what could not be cleared up. Until then nothing else is tried on the device.
    pub(super) async fn clear_up(&mut self) {
        let Stack::Stuck { attempts, retry, .. } = self.stack else { return };
        if Instant::now() >= retry {
            let tried = self.operations.run(Operation::Recover, S::recover_again).await;
            let state = tried.unwrap_or_else(|error| FoundState::Stuck(error.to_string()));
            self.found(state, attempts + 1);
        }
        if let Stack::Stuck { retry, .. } = self.stack {
            self.by(retry);
        }
    }

    /// Takes over what was in place before, if its chain is the object's own. Another one may have been interrupted
    /// unseen, while the volume was in use elsewhere: it ends (I2).
    pub(super) async fn take_over(&mut self) {
        let Stack::Found(tracked) = &self.stack else { return };
        let tracked = tracked.clone();
        let own = self.before.chain.as_ref().is_some_and(|chain| chain.id == tracked.chain);
        if own {
            tracing::info!(chain = tracked.chain, device = %tracked.number, "adopted");
            let uid = self.operations.volume_uid().to_owned();
            self.devices().insert(tracked.number, uid);
            self.cleared = true;
            self.snapshots_due = Some(Instant::now());
            self.stack = Stack::Present(Box::new(self.present(tracked)));
        } else {
            tracing::warn!(chain = tracked.chain, "the object does not name this chain");
            let last = self.last_seen().await;
            self.end_chain(chain::not_own(&tracked, &self.before, last)).await;
        }
    }

    /// Where the volume's last boundary was made.
    pub(super) async fn last_seen(&self) -> Option<Whereabouts> {
        let claimed = self.context.cluster.snapshots_of(&self.key).await;
        let all = claimed.unwrap_or_else(|error| {
            tracing::warn!(error = crate::exit::chain(&error), "where the volume was is not known");
            Vec::new()
        });
        let node = chain::last_node(&all, self.operations.volume_uid())?;
        let here = node == self.context.node_name;
        Some(if here { Whereabouts::Here } else { Whereabouts::Elsewhere })
    }
}
