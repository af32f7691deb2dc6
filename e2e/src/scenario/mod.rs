//! The scenarios of the cluster tier: each in a namespace of its own, on a cluster that they share.

mod admission;
mod admission_rights;
mod block_mode;
mod breakers;
mod chain;
mod definitions;
mod deltas;
mod example_client;
mod keepers;
mod local_snapshot;
mod lvm_lock;
mod main_job;
mod manifests;
mod merging;
mod refusals;
mod replication;
mod rights;
mod schema;
mod schema_cases;
mod stage;
mod two_nodes;
mod uninstall;

pub(crate) use block_mode::{as_block, block_pod};

use crate::failure::Outcome;

/// One test on a real cluster, named `cluster_*`.
pub(crate) struct Scenario {
    /// The name by which it is shown and chosen.
    pub(crate) name: &'static str,
    /// What it does and checks.
    pub(crate) run: fn() -> Outcome,
}

/// Every scenario: groups that run one after the other, of lanes that run at the same time, of scenarios in their order.
pub(crate) fn all() -> Vec<Vec<Vec<Scenario>>> {
    let scenario = |name, run| Scenario { name, run };
    // Each waits most of its time: for the minute to come, for the ten seconds between two boundaries, for a pod.
    let lanes = vec![
        vec![scenario("cluster_main_job", main_job::run as fn() -> Outcome)],
        vec![
            scenario("cluster_schema", definitions::schema),
            scenario("cluster_admission", definitions::admission),
            scenario("cluster_crd_upgrade", definitions::crd_upgrade),
            scenario("cluster_selector_left", chain::selector_left),
        ],
        vec![
            scenario("cluster_refusals", refusals::run),
            scenario("cluster_block_mode", block_mode::run),
            scenario("cluster_merging", merging::run),
        ],
        vec![
            scenario("cluster_lvextend", chain::lvextend),
            scenario("cluster_thin_volume", chain::thin_volume),
            scenario("cluster_local_snapshot", local_snapshot::run),
        ],
        vec![
            scenario("cluster_agent_killed", chain::agent_killed),
            scenario("cluster_volume_remounted", chain::volume_remounted),
            scenario("cluster_lvm_lock", lvm_lock::run),
            scenario("cluster_deltas", deltas::run),
        ],
    ];
    // Nobody kills their agents.
    let long = vec![
        vec![scenario("cluster_breakers_of_nodes", two_nodes::run)],
        vec![scenario("cluster_replication", replication::run)],
    ];
    // Nobody else has anything to do with the API server, or much to do with the node, meanwhile.
    let alone = vec![
        scenario("cluster_breakers", breakers::run),
        scenario("cluster_tracking_again", breakers::tracking_again),
        scenario("cluster_keepers", keepers::run),
    ];
    // It takes eratrack away.
    let last = vec![
        scenario("cluster_uninstall_refused", uninstall::refused),
        scenario("cluster_uninstall", uninstall::uninstall),
    ];
    vec![lanes, long, vec![alone], vec![last]]
}
