//! A line a test, the failures in full, the totals.

use std::{
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    failure::{self, Outcome},
    progress,
};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Well.
    Passed,
    /// Badly; why is told apart.
    Failed,
    /// It did not run, by its own wish.
    Skipped,
}

/// What has been run so far; shared by the threads that run tests.
#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<Results>);

#[derive(Debug, Default)]
struct Results {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<(String, String)>,
}

impl Report {
    /// Shows that a test has ended; `took` where it is known.
    pub(crate) fn test(&self, name: &str, verdict: Verdict, took: Option<Duration>) {
        let mut results = self.results();
        println!("{}", line(name, verdict, took));
        match verdict {
            Verdict::Passed => results.passed += 1,
            Verdict::Failed => results.failed += 1,
            Verdict::Skipped => results.skipped += 1,
        }
    }

    /// Runs the tests of a tier; what keeps them from running is a failure like another.
    pub(crate) fn tier(&self, name: &str, run: impl FnOnce() -> Outcome) {
        if let Err(error) = run() {
            let name = format!("{name} (all)");
            self.test(&name, Verdict::Failed, None);
            self.explain(&name, failure::explain(error.as_ref()));
        }
    }

    /// Keeps why a test failed for the end.
    pub(crate) fn explain(&self, name: &str, why: String) {
        self.results().failures.push((name.to_owned(), why));
    }

    /// Prints the failures and the totals.
    pub(crate) fn conclude(&self) -> ExitCode {
        let results = self.results();
        for (name, why) in &results.failures {
            println!("\n---- {name} ----\n{}", why.trim_end());
        }
        if results.passed + results.failed + results.skipped == 0 {
            println!("\nno test has such a name");
        }
        println!("\n{}", results.totals());
        if results.failed == 0 && results.passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Results {
    fn totals(&self) -> String {
        let totals = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped == 0 { totals } else { format!("{totals}, {} skipped", self.skipped) }
    }
}

fn line(name: &str, verdict: Verdict, took: Option<Duration>) -> String {
    let word = match verdict {
        Verdict::Passed => "ok",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    match took {
        Some(took) => format!("{name} ... {word}, {}", progress::seconds(took)),
        None => format!("{name} ... {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_plain_and_name_the_skipped_only_if_there_are_some() {
        let mut results = Results { passed: 12, failed: 0, ..Results::default() };
        assert_eq!(results.totals(), "12 passed, 0 failed");
        results.skipped = 3;
        assert_eq!(results.totals(), "12 passed, 0 failed, 3 skipped");
    }

    #[test]
    fn a_line_tells_name_verdict_and_time() {
        let took = Some(Duration::from_millis(812));
        assert_eq!(line("kernel dm::x", Verdict::Failed, took), "kernel dm::x ... FAILED, 0.8 s");
        assert_eq!(line("unit era::y", Verdict::Passed, None), "unit era::y ... ok");
    }

    #[test]
    fn a_run_in_which_no_test_passed_fails() {
        let report = Report::default();
        assert_eq!(format!("{:?}", report.conclude()), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn a_tier_that_cannot_run_has_failed() {
        let report = Report::default();
        report.test("a", Verdict::Passed, None);
        report.tier("kernel", || Err("it does not compile".into()));
        assert_eq!(report.results().totals(), "1 passed, 1 failed");
        assert_eq!(report.results().failures[0].1, "error: it does not compile");
    }

    #[test]
    fn one_failure_fails_the_run() {
        let report = Report::default();
        report.test("a", Verdict::Passed, None);
        assert_eq!(format!("{:?}", report.conclude()), format!("{:?}", ExitCode::SUCCESS));
        report.test("b", Verdict::Failed, None);
        assert_eq!(format!("{:?}", report.conclude()), format!("{:?}", ExitCode::FAILURE));
    }
}
