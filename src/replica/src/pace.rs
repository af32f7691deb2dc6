//! Not faster than so many bytes a second.

use std::time::{Duration, Instant};

/// What was copied, and how fast that may be.
pub(crate) struct Pace {
    most: Option<u64>,
    began: Instant,
    done: u64,
}

impl Pace {
    /// From now on; without a limit there is nothing to wait for.
    pub(crate) fn new(most: Option<u64>) -> Self {
        Self { most, began: Instant::now(), done: 0 }
    }

    /// So many bytes more; how long to wait before the next.
    pub(crate) fn after(&mut self, bytes: u64) -> Duration {
        self.after_at(bytes, Instant::now())
    }

    fn after_at(&mut self, bytes: u64, now: Instant) -> Duration {
        self.done = self.done.saturating_add(bytes);
        let Some(most) = self.most.filter(|most| *most > 0) else { return Duration::ZERO };
        let nanos = u128::from(self.done) * 1_000_000_000 / u128::from(most);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        due.saturating_sub(now.saturating_duration_since(self.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_early_waits_for_its_time() {
        let mut pace = Pace::new(Some(1000));
        let at = |ms| pace_began() + Duration::from_millis(ms);
        pace.began = pace_began();
        assert_eq!(pace.after_at(500, at(0)), Duration::from_millis(500));
        assert_eq!(pace.after_at(500, at(900)), Duration::from_millis(100));
        assert_eq!(pace.after_at(100, at(5000)), Duration::ZERO);
        assert_eq!(Pace::new(None).after(1 << 40), Duration::ZERO);
    }

    fn pace_began() -> Instant {
        use std::sync::OnceLock;
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        *BEGAN.get_or_init(Instant::now)
    }
}
