//! The tests of every tier: chosen, run, and reported a line a test.

mod binaries;
mod cluster;
mod kernel;
mod libtest;
mod report;
mod unit;

use std::{path::PathBuf, process::ExitCode, sync::mpsc, thread};

use clap::ValueEnum;

use crate::{cluster::Product, failure::Outcome, setup};
use report::Report;

/// Where a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// On this machine, without privileges
    Unit,
    /// In a guest, on a real kernel with dm-era
    Kernel,
    /// On a real Kubernetes
    Cluster,
}

/// Runs the tests whose name contains `filter`, of one tier or all.
pub(crate) fn run(filter: Option<&str>, tier: Option<Tier>) -> Outcome<ExitCode> {
    setup::packages()?;
    let filter = Filter(filter);
    let report = Report::default();
    let chosen = |it| tier.is_none_or(|tier| tier == it);
    if chosen(Tier::Cluster) && cluster::has(filter) {
        setup::cluster_is_possible()?;
    }
    if chosen(Tier::Unit) {
        report.tier("unit", || unit::run(filter, &report));
    }
    // A compiler at work beside them would take the processors that they need.
    if chosen(Tier::Cluster) && cluster::has(filter) {
        report.tier("image", || Product::build().map(drop));
    }
    // Both wait more than they compute: for disks that are slow on purpose, for the minute, for pods.
    let (busy, quiet) = mpsc::channel();
    thread::scope(|scope| {
        if chosen(Tier::Kernel) {
            let built = chosen(Tier::Unit);
            let report = &report;
            scope.spawn(move || {
                report.tier("kernel", || kernel::run(filter, built, &quiet, report));
            });
        }
        if chosen(Tier::Cluster) {
            cluster::run(filter, &report);
        }
        drop(busy);
    });
    Ok(report.conclude())
}

/// Builds a benchmark of a package that needs a kernel; the program.
pub(crate) fn bench(package: &str, name: &str) -> Outcome<PathBuf> {
    binaries::program(&["--package", package, "--bench", name], name)
}

/// Builds the unit tests of a package that is a program; the test binary.
pub(crate) fn unit_tests(package: &str) -> Outcome<PathBuf> {
    let binary = binaries::of_program(package)?;
    Ok(binary.executable)
}

/// Builds a program of a package as it is released; its path. The kind is cargo's flag: `--bin` or `--bench`.
pub(crate) fn released(package: &str, kind: &str, name: &str) -> Outcome<PathBuf> {
    binaries::program(&["--release", "--package", package, kind, name], name)
}

/// What a test's name must contain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a>(Option<&'a str>);

impl Filter<'_> {
    fn takes(self, name: &str) -> bool {
        self.0.is_none_or(|part| name.contains(part))
    }

    fn takes_all(self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn a_filter_takes_names_that_contain_it() {
        assert!(Filter(None).takes("anything"));
        assert!(Filter(Some("dm::kernel")).takes("eratrack-dm::kernel_x::y"));
        assert!(!Filter(Some("era")).takes("other"));
    }
}
