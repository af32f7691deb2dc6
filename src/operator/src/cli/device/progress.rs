//! How far something is, on a terminal.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::output::size;

/// Not more often than people read.
const PAUSE: Duration = Duration::from_millis(200);

/// One line that is written over and over; nothing where nobody looks.
pub(super) struct Meter {
    on: bool,
    what: &'static str,
    began: Instant,
    from: u64,
    shown: Option<Instant>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let on = io::stderr().is_terminal();
        Self { on, what: "", began: Instant::now(), from: 0, shown: None }
    }

    /// Where something else is printed meanwhile.
    pub(super) fn off() -> Self {
        Self { on: false, ..Self::new() }
    }

    /// So many bytes of so many are done.
    pub(super) fn show(&mut self, what: &'static str, done: u64, total: u64) {
        if !self.on {
            return;
        }
        let now = Instant::now();
        if self.what != what || done < self.from {
            (self.what, self.began, self.from) = (what, now, done);
        }
        if self.shown.is_some_and(|shown| now - shown < PAUSE) {
            return;
        }
        let text = line(what, self.from, done, total, now - self.began);
        self.write(&text);
    }

    /// One of many is being worked at.
    pub(super) fn name(&mut self, what: &str, which: impl Display) {
        if self.on {
            self.write(&format!("{what} {which}"));
        }
    }

    fn write(&mut self, text: &str) {
        self.shown = Some(Instant::now());
        let mut terminal = io::stderr().lock();
        let _ = write!(terminal, "\r\x1b[K{text}").and_then(|()| terminal.flush());
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, from: u64, done: u64, total: u64, took: Duration) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let mut text = format!("{what} {} of {} ({percent} %)", size(done), size(total));
    let millis = took.as_millis();
    let moved = u128::from(done - from);
    if millis >= 1000 && moved > 0 {
        let rate = u64::try_from(moved * 1000 / millis).unwrap_or(u64::MAX);
        let left = u128::from(total.saturating_sub(done)) * millis / moved / 1000;
        let _ = write!(text, ", {}/s, {} left", size(rate), duration(left));
    }
    text
}

fn duration(seconds: u128) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_of_this_run_alone() {
        let (mi, second) = (1 << 20, Duration::from_secs(1));
        let early = line("copying", 0, 10 * mi, 100 * mi, second / 2);
        assert_eq!(early, "copying 10Mi of 100Mi (10 %)");
        let later = line("copying", 50 * mi, 60 * mi, 100 * mi, second * 2);
        assert_eq!(later, "copying 60Mi of 100Mi (60 %), 5Mi/s, 8 s left");
        let long = line("seeding", 0, mi, 1 << 40, second);
        assert_eq!(long, "seeding 1Mi of 1Ti (0 %), 1Mi/s, 291 h 16 min left");
        assert_eq!(line("copying", 0, 0, 0, second), "copying 0 of 0 (0 %)");
    }
}
