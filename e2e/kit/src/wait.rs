use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until something is there, asking again and again; it must not take 30 s.
///
/// # Panics
/// After that.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not there after {} s", DEADLINE.as_secs());
        std::thread::sleep(PAUSE);
    }
}
