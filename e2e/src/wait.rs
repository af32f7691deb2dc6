//! Waiting for a condition, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {seconds} s in vain for {what}{last}")]
pub(crate) struct TimedOut {
    what: String,
    seconds: u64,
    last: String,
}

/// Between two looks: short enough not to be felt, long enough not to be a load.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` finds something.
pub(crate) fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    until_ok(what, deadline, || look().ok_or(""))
}

/// Tries until `attempt` succeeds; the error tells why the last attempt did not.
pub(crate) fn until_ok<T, E: ToString>(
    what: &str,
    deadline: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() >= deadline => {
                let last = error.to_string();
                let last = if last.is_empty() { last } else { format!("; last seen: {last}") };
                return Err(TimedOut { what: what.to_owned(), seconds: deadline.as_secs(), last });
            }
            Err(_) => pause(),
        }
    }
}

/// The pause between two looks, for loops that look at more than one thing.
pub(crate) fn pause() {
    thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_at_once_what_is_there() {
        assert_eq!(until("it", Duration::ZERO, || Some(7)).unwrap(), 7);
    }

    #[test]
    fn tells_why_the_last_attempt_failed() {
        let error = until_ok("the pod", Duration::ZERO, || Err::<(), _>("Pending")).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s in vain for the pod; last seen: Pending");
    }
}
