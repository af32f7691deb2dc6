//! The scenarios of the cluster tier: each in a namespace of its own, on a cluster that they share.

mod main_job;

use crate::failure::Outcome;

/// One test on a real cluster, named `cluster_*`.
pub(crate) struct Scenario {
    /// The name by which it is shown and chosen.
    pub(crate) name: &'static str,
    /// What it does and checks.
    pub(crate) run: fn() -> Outcome,
}

/// Every scenario, in the order in which they run.
pub(crate) fn all() -> Vec<Scenario> {
    vec![Scenario { name: "cluster_main_job", run: main_job::run }]
}
