//! Visible progress: on a terminal one line that counts the seconds, elsewhere a line at the start, one at the end, and one
//! every half minute between.

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
    /// What brings a terminal back to the start of the line.
    returned: &'static str,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Line {
    fn start(what: &str) -> Self {
        let start = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        let (every, ending) = if terminal {
            (Duration::from_millis(500), "")
        } else {
            (Duration::from_secs(30), "\n")
        };
        eprint!("{what} …{ending}");
        let (stop, stopped) = mpsc::channel();
        let told = what.to_owned();
        let returned = if terminal { "\r" } else { "" };
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                eprint!("{returned}{told} … {} s{ending}", start.elapsed().as_secs());
                let _ = std::io::stderr().flush();
            }
        });
        let ticker = Some((stop, thread));
        Self { what: what.to_owned(), start, returned, ticker }
    }

    fn end(mut self, succeeded: bool) {
        self.stop();
        let ending = if succeeded { "done" } else { "FAILED" };
        let took = seconds(self.start.elapsed());
        eprintln!("{}{} … {ending}, {took}", self.returned, self.what);
    }

    /// Whether it was still counting.
    fn stop(&mut self) -> bool {
        let Some((stop, thread)) = self.ticker.take() else { return false };
        drop(stop);
        let _ = thread.join();
        true
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The work panicked: what follows begins on a line of its own.
        if self.stop() && !self.returned.is_empty() {
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
