//! The kernel tier: each binary in a guest of its own, two at a time.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use super::{
    Filter,
    binaries::{self, Binary},
    libtest::Parser,
    report::{Report, Verdict},
};
use crate::{
    failure::{self, Outcome},
    guest::{self, Limits, Program},
};

const GUESTS: usize = 2;
const MEMORY_MIB: u32 = 1024;
const LIMITS: Limits = Limits { total: Duration::from_mins(30), silence: Duration::from_mins(5) };

/// Runs the kernel tests.
pub(crate) fn run(filter: Filter, report: &Report) -> Outcome {
    let mut jobs = Vec::new();
    for binary in binaries::kernel(filter.0)? {
        let names = binary.list(true)?;
        let chosen: BTreeSet<String> =
            names.into_iter().filter(|test| filter.takes(&binary.full_name(test))).collect();
        if !chosen.is_empty() {
            jobs.push((binary, chosen));
        }
    }
    // Taken from the end: the order of the names is kept.
    jobs.reverse();
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().ok()?.pop();
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                while let Some((binary, tests)) = next() {
                    run_binary(&binary, tests, report);
                }
            });
        }
    });
    Ok(())
}

fn run_binary(binary: &Binary, tests: BTreeSet<String>, report: &Report) {
    let mut run = Run {
        binary,
        report,
        parser: Parser::default(),
        left: tests,
        since: Instant::now(),
        failed: 0,
    };
    let program = program(binary, &run.left);
    let name = binary.full_name("").trim_end_matches("::").replace("::", ".");
    match guest::run(&name, MEMORY_MIB, &program, LIMITS, |text| run.printed(text)) {
        Ok(ended) => run.ended(&ended),
        Err(error) => run.broken(&failure::explain(&error)),
    }
}

fn program(binary: &Binary, tests: &BTreeSet<String>) -> Program {
    let mut words = vec![binary.executable.display().to_string()];
    words.extend(["--ignored", "--test-threads=1", "--exact"].map(str::to_owned));
    words.extend(tests.iter().cloned());
    let directory = binary.directory.clone();
    let environment = vec![("CARGO_MANIFEST_DIR".to_owned(), directory.display().to_string())];
    Program { words, directory: Some(directory), environment }
}

/// One binary, as its tests end.
struct Run<'a> {
    binary: &'a Binary,
    report: &'a Report,
    parser: Parser,
    /// The tests that have not ended.
    left: BTreeSet<String>,
    /// When the test that runs was started.
    since: Instant,
    failed: usize,
}

impl Run<'_> {
    fn printed(&mut self, text: &str) {
        for ended in self.parser.feed(text) {
            self.left.remove(&ended.name);
            self.failed += usize::from(ended.verdict == Verdict::Failed);
            self.report.test(&self.name(&ended.name), ended.verdict, Some(self.since.elapsed()));
            self.since = Instant::now();
        }
        if text.contains("running ") && self.parser.running().is_none() {
            self.since = Instant::now();
        }
    }

    fn ended(mut self, guest: &guest::Ended) {
        for (test, output) in self.parser.outputs() {
            let console = format!(
                "{output}\nthe kernel's log ({}) ends with:\n{}",
                guest.log.display(),
                guest.console
            );
            self.report.explain(&self.name(test), console);
        }
        if !self.left.is_empty() || (guest.status != 0 && self.failed == 0) {
            let why = format!(
                "the test binary ended with status {}; the kernel's log ends with:\n{}",
                guest.status, guest.console
            );
            self.broken(&why);
        }
    }

    /// Whatever has not ended has failed: the first of them for this reason.
    fn broken(&mut self, why: &str) {
        let running = self.parser.running().map(str::to_owned);
        let culprit =
            running.or_else(|| self.left.first().cloned()).unwrap_or_else(|| "(binary)".to_owned());
        self.left.remove(&culprit);
        self.report.test(&self.name(&culprit), Verdict::Failed, Some(self.since.elapsed()));
        self.report.explain(&self.name(&culprit), why.to_owned());
        for test in &self.left {
            self.report.test(&self.name(test), Verdict::Failed, None);
            self.report.explain(
                &self.name(test),
                format!("did not run: {} ended its guest", self.name(&culprit)),
            );
        }
    }

    fn name(&self, test: &str) -> String {
        format!("kernel {}", self.binary.full_name(test))
    }
}
