//! Whether the API server can be reached, as far as the agent's own calls tell: what `/readyz` answers with.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a line must have only failed.
const LOST: Duration = Duration::from_secs(60);
/// A line that has not failed for so long works: a watch does not tell that it came back, only that it failed again, which
/// it would every half minute.
const QUIET: Duration = Duration::from_secs(150);

/// What the agent asks the API server for all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The watch of the `EraVolumes`.
    Volumes,
    /// The watch of the `EraSnapshots`.
    Snapshots,
    /// Writing the statuses of `EraVolumes`.
    Statuses,
}

/// How it is with each line.
#[derive(Debug, Default)]
pub(crate) struct Contact(Mutex<[Failures; 3]>);

/// Failures with no success between.
#[derive(Clone, Copy, Debug, Default)]
struct Failures(Option<(Instant, Instant)>);

impl Failures {
    fn more(&mut self, now: Instant) {
        let first = self.0.filter(|_| !self.are_over(now)).map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    fn are_over(self, now: Instant) -> bool {
        self.0.is_none_or(|(_, last)| now.duration_since(last) > QUIET)
    }

    fn are_lasting(self, now: Instant) -> bool {
        !self.are_over(now) && self.0.is_some_and(|(first, _)| now.duration_since(first) >= LOST)
    }
}

impl Contact {
    /// It did not answer as hoped.
    pub(crate) fn failed(&self, line: Line) {
        self.lock()[line as usize].more(Instant::now());
    }

    /// It did.
    pub(crate) fn worked(&self, line: Line) {
        self.lock()[line as usize] = Failures::default();
    }

    /// Whether a line has only failed for a minute.
    pub(crate) fn is_lost(&self) -> bool {
        let now = Instant::now();
        self.lock().iter().any(|failures| failures.are_lasting(now))
    }

    fn lock(&self) -> MutexGuard<'_, [Failures; 3]> {
        // Nothing can panic while it is held, so it cannot be poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_only_fails_for_a_minute_is_lost() {
        let contact = Contact::default();
        contact.failed(Line::Volumes);
        pass(59).await;
        contact.failed(Line::Volumes);
        assert!(!contact.is_lost());
        pass(1).await;
        assert!(contact.is_lost());
        contact.worked(Line::Statuses);
        assert!(contact.is_lost(), "another line's success");
        contact.worked(Line::Volumes);
        assert!(!contact.is_lost());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_came_back_quietly_is_not_lost() {
        let contact = Contact::default();
        contact.failed(Line::Snapshots);
        pass(151).await;
        assert!(!contact.is_lost());
        contact.failed(Line::Snapshots);
        assert!(!contact.is_lost(), "the first of new failures");
    }
}
