//! What every reconciliation has at hand.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::Granularity;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::events::Events;
use super::metrics::Metrics;
use super::volume::Patience;
use super::world::World;

/// At most this many snapshots a second are created in the cluster.
const SNAPSHOTS_PER_SECOND: u32 = 20;

/// The administrator's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The finest granularity.
    pub(crate) min_granularity: Granularity,
    /// The most complete snapshots of a claim that are kept.
    pub(crate) keep_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_granularity: Granularity::default(), keep_max: eratrack_api::names::KEEP_MAX }
    }
}

/// What every reconciliation has at hand.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) settings: Settings,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pacer: Pacer,
    /// What is made of agents that stay away.
    pub(crate) patience: Patience,
    /// The time; another one in tests.
    pub(crate) now: fn() -> Timestamp,
}

/// Lets through so many a second, one by one.
#[derive(Debug, Default)]
pub(crate) struct Pacer(Mutex<Option<Instant>>);

impl Pacer {
    /// Waits for the next turn.
    pub(crate) async fn turn(&self) {
        let mut next = self.0.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at).await;
        }
        *next = Some(Instant::now() + Duration::from_secs(1) / SNAPSHOTS_PER_SECOND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_a_second_pass_whoever_asks() {
        let pacer = Arc::new(Pacer::default());
        let begin = Instant::now();
        let asking: Vec<_> = (0..5)
            .map(|_| {
                let pacer = pacer.clone();
                tokio::spawn(async move {
                    for _ in 0..SNAPSHOTS_PER_SECOND {
                        pacer.turn().await;
                    }
                })
            })
            .collect();
        for one in asking {
            one.await.expect("it ended");
        }
        let gaps = 5 * SNAPSHOTS_PER_SECOND - 1;
        let least = Duration::from_secs(1) * gaps / SNAPSHOTS_PER_SECOND;
        let passed = begin.elapsed();
        // The clock counts in milliseconds, and each turn may be late by one.
        assert!(
            passed >= least && passed <= least + Duration::from_millis(gaps.into()),
            "{passed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_rest_nothing_is_made_up_for() {
        let pacer = Pacer::default();
        pacer.turn().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let begin = Instant::now();
        pacer.turn().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        pacer.turn().await;
        assert!(begin.elapsed() >= Duration::from_secs(1) / SNAPSHOTS_PER_SECOND);
    }
}
