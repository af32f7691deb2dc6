//! The kernel tier: each binary in a guest of its own, two at a time where the processors are not wanted elsewhere.

use std::{
    collections::BTreeSet,
    sync::{Mutex, mpsc::Receiver},
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

/// How many guests the tests of one binary may end before the rest is given up.
const BOOTS: u32 = 4;
const MEMORY_MIB: u32 = 1024;
/// Few tests, of devices of millions of blocks; for the others their number tells how long they take.
const LONGEST: &str = "kernel_compatible";
const LIMITS: Limits =
    Limits { total: Duration::from_secs(30 * 60), silence: Duration::from_secs(5 * 60) };

/// Runs the kernel tests. Where all of the workspace's tests are built already, theirs are taken from those: built alone,
/// with fewer features, they would be built once more. A second guest begins when `quiet` is hung up: a cluster beside two of
/// them misses its deadlines on two processors.
pub(crate) fn run(
    filter: Filter,
    all_built: bool,
    quiet: &Receiver<()>,
    report: &Report,
) -> Outcome {
    let mut jobs = Vec::new();
    let binaries = if all_built {
        binaries::all()?.into_iter().filter(Binary::is_kernel).collect()
    } else {
        binaries::kernel(filter.0)?
    };
    for binary in binaries {
        let names = binary.list(true)?;
        let chosen: BTreeSet<String> =
            names.into_iter().filter(|test| filter.takes(&binary.full_name(test))).collect();
        if !chosen.is_empty() {
            jobs.push((binary, chosen));
        }
    }
    // Taken from the end: what takes longest begins first, so that no guest is left with it at the end.
    jobs.sort_by_key(|(binary, tests)| (binary.test.as_deref() == Some(LONGEST), tests.len()));
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().ok()?.pop();
    let lane = || {
        while let Some((binary, tests)) = next() {
            run_binary(&binary, tests, report);
        }
    };
    thread::scope(|scope| {
        scope.spawn(lane);
        // An error is what is waited for: nobody is left who could send.
        let _ = quiet.recv();
        lane();
    });
    Ok(())
}

/// A test that ends its guest, or hangs it, costs a boot; the tests after it run in the next guest.
fn run_binary(binary: &Binary, mut left: BTreeSet<String>, report: &Report) {
    for boot in 1..=BOOTS {
        let mut run = Run::new(binary, report, left);
        let (name, program) = (log_name(binary, boot), program(binary, &run.left));
        match guest::run(&name, MEMORY_MIB, &program, LIMITS, |text| run.printed(text)) {
            Ok(ended) => run.ended(&ended),
            Err(error) => run.broken(&failure::explain(&error)),
        }
        left = run.left;
        if left.is_empty() {
            return;
        }
    }
    for test in &left {
        let name = name(binary, test);
        report.test(&name, Verdict::Failed, None);
        report.explain(&name, format!("did not run: tests before it ended {BOOTS} guests"));
    }
}

fn log_name(binary: &Binary, boot: u32) -> String {
    let name = binary.full_name("").trim_end_matches("::").replace("::", ".");
    if boot == 1 { name } else { format!("{name}.{boot}") }
}

fn name(binary: &Binary, test: &str) -> String {
    format!("kernel {}", binary.full_name(test))
}

fn program(binary: &Binary, tests: &BTreeSet<String>) -> Program {
    let mut words = vec![binary.executable.display().to_string()];
    words.extend(["--ignored", "--test-threads=1", "--exact"].map(str::to_owned));
    words.extend(tests.iter().cloned());
    let directory = binary.directory.clone();
    let environment = vec![("CARGO_MANIFEST_DIR".to_owned(), directory.display().to_string())];
    Program { words, directory: Some(directory), environment }
}

/// One boot for one binary, as its tests end.
struct Run<'a> {
    binary: &'a Binary,
    report: &'a Report,
    parser: Parser,
    /// The tests that have not ended.
    left: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// When the test that runs was started; none before the first, for the boot is not its.
    since: Option<Instant>,
}

impl<'a> Run<'a> {
    fn new(binary: &'a Binary, report: &'a Report, left: BTreeSet<String>) -> Self {
        Self {
            binary,
            report,
            parser: Parser::default(),
            left,
            failed: BTreeSet::new(),
            since: None,
        }
    }

    fn printed(&mut self, text: &str) {
        self.since.get_or_insert_with(Instant::now);
        for ended in self.parser.feed(text) {
            self.left.remove(&ended.name);
            self.report.test(&self.name(&ended.name), ended.verdict, self.took());
            if ended.verdict == Verdict::Failed {
                self.failed.insert(ended.name);
            }
            self.since = Some(Instant::now());
        }
    }

    /// The binary ended by itself.
    fn ended(&mut self, guest: &guest::Ended) {
        let kernel =
            format!("the kernel's log ({}) ends with:\n{}", guest.log.display(), guest.console);
        for (test, output) in self.parser.outputs() {
            self.report.explain(&self.name(test), format!("{output}\n{kernel}"));
        }
        if !self.left.is_empty() || (guest.status != 0 && self.failed.is_empty()) {
            self.culprit(&format!("the test binary ended with status {}; {kernel}", guest.status));
        }
    }

    /// The guest ended, or had to be ended.
    fn broken(&mut self, why: &str) {
        let culprit = self.culprit(why);
        for test in &self.failed {
            let lost = format!("what it printed was lost with the guest that {culprit} ended");
            self.report.explain(&self.name(test), lost);
        }
    }

    /// The test that was running has failed.
    fn culprit(&mut self, why: &str) -> String {
        let running = self.parser.running().map(str::to_owned);
        let culprit =
            running.or_else(|| self.left.first().cloned()).unwrap_or_else(|| "(binary)".to_owned());
        self.left.remove(&culprit);
        self.report.test(&self.name(&culprit), Verdict::Failed, self.took());
        self.report.explain(&self.name(&culprit), why.to_owned());
        culprit
    }

    fn took(&self) -> Option<Duration> {
        self.since.map(|since| since.elapsed())
    }

    fn name(&self, test: &str) -> String {
        name(self.binary, test)
    }
}
