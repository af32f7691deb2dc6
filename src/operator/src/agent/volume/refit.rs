//! The worker's step that follows a wish for another granularity: only once it is known to fit does the chain end for it.

use eratrack_api::{EraVolume, Granularity, Reason};
use tokio::time::Instant;

use super::retry;
use super::stack::Stack;
use super::worker::Worker;
use crate::agent::cluster::{Cluster, Notice};
use crate::agent::discover::Node;
use crate::agent::operations::Operation;
use crate::agent::stacks::{StackError, Stacks};

/// A wish that cannot come true, for now.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    wish: Granularity,
    retry: Instant,
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Ends the chain for another granularity, if that fits and the last insertion is not just made.
    pub(super) async fn refit(&mut self, volume: &EraVolume) {
        let Stack::Present(present) = &mut self.stack else { return };
        let (wish, now) = (volume.spec.granularity, Instant::now());
        if present.tracked.granularity == wish {
            (present.refused, present.facts.refused) = (None, None);
            return;
        }
        let again = present.refused.as_ref().filter(|it| it.wish == wish).map(|it| it.retry);
        let next = self.pace.next(Reason::GranularityChanged, now);
        let due = again.map_or(next, |again| again.max(next));
        if now < due {
            return self.by(due);
        }
        let checked = self
            .operations
            .run(Operation::CheckRefit, move |stacks, uid| stacks.check_refit(uid, wish))
            .await;
        match checked {
            Ok(()) => self.end_chain(Reason::GranularityChanged).await,
            Err(error) => self.refuse(volume, &error),
        }
    }

    fn refuse(&mut self, volume: &EraVolume, error: &StackError) {
        let Stack::Present(present) = &mut self.stack else { return };
        let wish = volume.spec.granularity;
        let message = format!(
            "granularity {wish} is wished for, but {} stays in force: {error}",
            present.tracked.granularity
        );
        let news = present.facts.refused.is_none();
        let retry = Instant::now() + retry::LATER;
        present.refused = Some(Refused { wish, retry });
        present.facts.refused = Some(message.clone());
        self.by(retry);
        if news {
            let notice = Notice { warning: true, reason: error.reason, message, action: "Track" };
            self.context.cluster.notice_volume(volume, &notice);
        }
    }
}
