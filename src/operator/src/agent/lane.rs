//! Blocking calls from async code: one at a time, each waited for so long at most.
//!
//! A blocking call cannot be called off. One that hangs in the kernel keeps its turn, so that nothing else is tried on the
//! same thing meanwhile, and no more than one of the process's threads is lost to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

/// What goes one at a time; a clone is the same lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane(Arc<Mutex<()>>);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Late {
    /// An earlier call has not ended; this one was not begun.
    #[error("an earlier operation has not ended after {} s", .0.as_secs())]
    NoTurn(Duration),
    /// It goes on.
    #[error("still under way after {} s", .0.as_secs())]
    UnderWay(Duration),
    /// It panicked.
    #[error("{0}")]
    Panicked(String),
}

impl Lane {
    /// Waits for the turn, and then for the call, so long each.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Late> {
        let turn = tokio::time::timeout(limit, self.0.clone().lock_owned());
        let turn = turn.await.map_err(|_| Late::NoTurn(limit))?;
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            act()
        });
        match tokio::time::timeout(limit, task).await {
            Err(_) => Err(Late::UnderWay(limit)),
            Ok(answer) => answer.map_err(|panic| Late::Panicked(panic.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_keeps_the_others_out() {
        let lane = Lane::default();
        let (end, ended) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel::<()>();
        let hang = lane.call(LIMIT, move || ended.recv().is_ok());
        assert_eq!(tokio::join!(hang, pass()).0, Err(Late::UnderWay(LIMIT)));
        for _ in 0..3 {
            let begun = begun.clone();
            let next = lane.call(LIMIT, move || begun.send(()).is_ok());
            assert_eq!(tokio::join!(next, pass()).0, Err(Late::NoTurn(LIMIT)));
        }
        assert!(begins.try_recv().is_err(), "no thread was given to any of them");
        drop(end);
        assert_eq!(lane.call(LIMIT, || 1).await, Ok(1));
    }

    async fn pass() {
        tokio::task::yield_now().await;
        tokio::time::advance(LIMIT + Duration::from_secs(1)).await;
    }
}
