//! The tests of every tier.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::failure::Outcome;

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

/// Runs the tests.
pub(crate) fn run(_filter: Option<&str>, _tier: Option<Tier>) -> Outcome<ExitCode> {
    Err("the runner is not written yet".into())
}
