//! Visible progress: on a terminal one line that counts the seconds, elsewhere a line at the start and one at the end.

use std::{
    io::{IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Runs `work` and shows that `what` is going on, and how long it took.
pub(crate) fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let line = Line::start(what);
    let result = work();
    line.end(result.is_ok());
    result
}

struct Line {
    what: String,
    start: Instant,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Line {
    fn start(what: &str) -> Self {
        let start = Instant::now();
        let ticker = std::io::stderr().is_terminal().then(|| {
            let (stop, stopped) = mpsc::channel();
            eprint!("{what} …");
            let what = what.to_owned();
            let thread = thread::spawn(move || {
                while stopped.recv_timeout(Duration::from_millis(500))
                    == Err(RecvTimeoutError::Timeout)
                {
                    eprint!("\r{what} … {} s", start.elapsed().as_secs());
                    let _ = std::io::stderr().flush();
                }
            });
            (stop, thread)
        });
        if ticker.is_none() {
            eprintln!("{what} …");
        }
        Self { what: what.to_owned(), start, ticker }
    }

    fn end(mut self, succeeded: bool) {
        let returned = if self.stop() { "\r" } else { "" };
        let ending = if succeeded { "done" } else { "FAILED" };
        eprintln!("{returned}{} … {ending}, {}", self.what, seconds(self.start.elapsed()));
    }

    /// Whether there was a counter to stop.
    fn stop(&mut self) -> bool {
        let Some((stop, thread)) = self.ticker.take() else { return false };
        drop(stop);
        let _ = thread.join();
        true
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.stop() {
            eprintln!();
        }
    }
}

/// A duration as a reader wants it: tenths under ten seconds, minutes over two.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(12)), "12 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn a_step_passes_its_result_on() {
        assert_eq!(step("test", || Ok::<_, ()>(5)), Ok(5));
        assert_eq!(step("test", || Err::<(), _>("no")), Err("no"));
    }
}
