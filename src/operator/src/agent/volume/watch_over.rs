//! Looking after era while something else takes its time, or has nobody else to do it.

use std::time::Duration;

use eratrack_api::Reason;
use tokio::time::Instant;

use super::trouble;
use crate::agent::discover::Node;
use crate::agent::operations::{Operation, Operations};
use crate::agent::stacks::{Stacks, Tracked};

/// How often the live table is looked at: one cheap ioctl.
pub(super) const LIVENESS_INTERVAL: Duration = Duration::from_secs(3);
/// The least time between two questions to era, each of which costs a commit of its metadata.
pub(super) const HEALTH_INTERVAL: Duration = Duration::from_secs(10);

/// Ends only when the chain must, and says why: to be waited for beside whatever takes its time. A device that is
/// reloaded, and more so an era that fails, cannot wait for the API server.
pub(crate) async fn watch_over<S: Stacks, N: Node>(
    operations: &Operations<S>,
    node: &N,
    tracked: &Tracked,
) -> Reason {
    let (mut next_health, mut asked_at) = (Instant::now() + HEALTH_INTERVAL, None);
    loop {
        tokio::time::sleep(LIVENESS_INTERVAL).await;
        let looked = operations.run(Operation::Liveness, S::liveness).await;
        if let Some(reason) = trouble::of_table(&looked, tracked) {
            return reason;
        }
        let counters = node.write_counters(tracked.number);
        let unwritten = counters.is_some() && counters == asked_at;
        if Instant::now() < next_health || unwritten {
            continue;
        }
        (next_health, asked_at) = (Instant::now() + HEALTH_INTERVAL, counters);
        let asked = operations.run(Operation::Health, S::health).await;
        if let Some(reason) = trouble::of_health(&asked) {
            return reason;
        }
    }
}
