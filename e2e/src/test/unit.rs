//! The unit tier: every test that needs nothing but this machine.

use std::process::Command;

use super::{
    Filter,
    binaries::{self, Binary},
    libtest::Parser,
    report::{Report, Verdict},
};
use crate::{failure::Outcome, process};

/// Runs the tests of every binary, and those in the documentation.
pub(crate) fn run(filter: Filter, report: &Report) -> Outcome {
    for binary in binaries::all()? {
        run_binary(&binary, filter, report)?;
    }
    run_documentation(filter, report);
    Ok(())
}

fn run_binary(binary: &Binary, filter: Filter, report: &Report) -> Outcome {
    let mut command = Command::new(&binary.executable);
    command.current_dir(&binary.directory).env("CARGO_MANIFEST_DIR", &binary.directory);
    if !filter.takes_all() {
        let chosen: Vec<String> = binary
            .list(false)?
            .into_iter()
            .filter(|test| filter.takes(&binary.full_name(test)))
            .collect();
        if chosen.is_empty() {
            return Ok(());
        }
        command.arg("--exact").args(chosen);
    }
    // What is ignored is not skipped: it is the kernel tier's, or a part of a benchmark.
    let counted = |verdict: Verdict| verdict != Verdict::Skipped;
    follow(&mut command, report, &binary.full_name("(binary)"), counted, |test| {
        format!("unit {}", binary.full_name(test))
    });
    Ok(())
}

fn run_documentation(filter: Filter, report: &Report) {
    let mut command = binaries::cargo();
    command.args(["test", "--workspace", "--doc", "--"]).args(filter.0);
    follow(&mut command, report, "documentation", |_| true, |test| format!("unit {test}"));
}

fn follow(
    command: &mut Command,
    report: &Report,
    what: &str,
    counted: impl Fn(Verdict) -> bool,
    name: impl Fn(&str) -> String,
) {
    let mut parser = Parser::default();
    let mut failed = 0;
    let ending = process::lines(command, |line| {
        for ended in parser.feed(&format!("{line}\n")) {
            failed += usize::from(ended.verdict == Verdict::Failed);
            if counted(ended.verdict) {
                report.test(&name(&ended.name), ended.verdict, None);
            }
        }
    });
    for (test, output) in parser.outputs() {
        report.explain(&name(test), output.clone());
    }
    // Ended badly with no failed test: it crashed, or did not even start.
    if let (Err(error), 0) = (ending, failed) {
        let what = format!("unit {what}");
        report.test(&what, Verdict::Failed, None);
        report.explain(&what, error.to_string());
    }
}
