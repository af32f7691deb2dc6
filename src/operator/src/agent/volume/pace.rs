//! How soon era may go into a volume again. Each insertion makes writers wait for a moment and begins with a full
//! snapshot, so that neither a device that fails nor a wish that changes its mind may cause one after the other. Pure.

use std::time::Duration;

use eratrack_api::Reason;
use tokio::time::Instant;

/// The least time between two insertions.
const INTERVAL: Duration = Duration::from_secs(60);
/// The most of it, after chains that ended early one after the other.
const LONGEST: Duration = Duration::from_secs(960);
/// A chain that has lived so long did not end early.
const LONG_LIVED: Duration = Duration::from_secs(600);

/// The insertions of one volume, as far as this process has made them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    inserted: Option<Instant>,
    /// How many chains in a row ended early.
    early: u32,
}

impl Pace {
    /// Era went in.
    pub(super) fn inserted(&mut self, now: Instant) {
        self.inserted = Some(now);
    }

    /// Its chain ended.
    pub(super) fn ended(&mut self, now: Instant) {
        let early = self.inserted.is_some_and(|then| now.duration_since(then) < LONG_LIVED);
        self.early = if early { self.early + 1 } else { 0 };
    }

    /// When era may go in again, after a chain that ended now for this reason.
    pub(super) fn next(&self, reason: Reason, now: Instant) -> Instant {
        let doubled = INTERVAL.saturating_mul(1 << self.early.saturating_sub(1).min(4));
        let spaced = self.inserted.map_or(now, |then| then + doubled.min(LONGEST));
        spaced.max(now + after(reason))
    }
}

/// How long to wait before fresh metadata is tried where the last one failed.
fn after(reason: Reason) -> Duration {
    match reason {
        Reason::MetadataFull | Reason::MetadataError | Reason::MetadataLost => INTERVAL,
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after the end of a chain that lived so many seconds era goes in again.
    fn waits(lived: &[u64], reason: Reason) -> Vec<u64> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let wait = |&lived: &u64| {
            pace.inserted(now);
            now += Duration::from_secs(lived);
            pace.ended(now);
            let next = pace.next(reason, now);
            let waited = next.duration_since(now).as_secs();
            now = next;
            waited
        };
        lived.iter().map(wait).collect()
    }

    #[test]
    fn a_chain_that_lived_long_is_followed_at_once() {
        assert_eq!(waits(&[700, 5, 700], Reason::TableReloaded), [0, 55, 0]);
    }

    #[test]
    fn insertions_keep_their_distance_and_then_become_rare() {
        let waits = waits(&[0; 7], Reason::GranularityChanged);
        assert_eq!(waits, [60, 120, 240, 480, 960, 960, 960]);
    }

    #[test]
    fn metadata_that_failed_is_not_tried_again_at_once() {
        assert_eq!(waits(&[7000], Reason::MetadataError), [60]);
        let now = Instant::now();
        assert_eq!(Pace::default().next(Reason::NodeRebooted, now), now, "the first insertion");
    }
}
