//! `cluster_keepers`: what happens to eratrack and to the API server while a volume is written, and breaks no chain.

use super::{chain::Follower, stage::Stage};
use crate::{
    cluster::{LVM_DISK, NAMESPACE},
    failure::Outcome,
};

/// Its name, and what is done.
type Keeper = (&'static str, fn(&Stage) -> Outcome);

const KEEPERS: [Keeper; 3] = [
    ("the agent and the controller are upgraded", upgrade),
    ("the controller is restarted", restart_controller),
    ("the API server is away", api_server_away),
];

pub(super) fn run() -> Outcome {
    let mut follower = Follower::start(Stage::open("cluster-keepers")?)?;
    for (what, happens) in KEEPERS {
        follower.application.until_more(10)?;
        happens(&follower.stage).map_err(|error| format!("{what}: {error}"))?;
        follower.application.until_more(10)?;
        follower.snapshot()?;
        follower.copy_increment().map_err(|error| format!("{what}: {error}"))?;
    }
    follower.finish()
}

/// Other pods of both, as for another version.
fn upgrade(stage: &Stage) -> Outcome {
    let before = pods(stage)?;
    let words = "upgrade eratrack charts/eratrack --reuse-values --wait --timeout=180s";
    let mut arguments: Vec<&str> = words.split(' ').collect();
    arguments.extend(["--namespace", NAMESPACE]);
    arguments.extend(["--set-string", "agent.podAnnotations.e2e=upgraded"]);
    arguments.extend(["--set-string", "controller.podAnnotations.e2e=upgraded"]);
    stage.cluster().helm().run(&arguments)?;
    let rollout =
        ["rollout", "status", "-n", NAMESPACE, "--timeout=100s", "daemonset/eratrack-agent"];
    stage.cluster().kubectl().run(&rollout)?;
    replaced(stage, &before)
}

fn restart_controller(stage: &Stage) -> Outcome {
    let kubectl = stage.cluster().kubectl();
    let of = ["-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller"];
    kubectl.run(&[&["delete", "pod"][..], &of].concat())?;
    let rollout = ["rollout", "status", "-n", NAMESPACE, "--timeout=100s", "deployment"];
    kubectl.run(&rollout).map(drop)
}

/// The volume is written meanwhile, as its disk tells: nobody else writes to that now.
fn api_server_away(stage: &Stage) -> Outcome {
    let node = stage.node();
    let disk = LVM_DISK.trim_start_matches("/dev/");
    let until = format!(
        "writes() {{ awk '{{print $5}}' /sys/block/{disk}/stat; }}
begun=$(writes)
until [ $(writes) -gt $((begun + 50)) ]; do sleep 0.2; done"
    );
    stage.cluster().without_api_server(|| node.run(&until).map(drop))
}

/// The names of all pods of eratrack's: each has one of its own.
fn pods(stage: &Stage) -> Outcome<Vec<String>> {
    let list = ["get", "pods", "-n", NAMESPACE, "-o", "name"];
    let names = stage.cluster().kubectl().run(&list)?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// Waits until none of them is there: one that ends may outlast the rollout.
fn replaced(stage: &Stage, before: &[String]) -> Outcome {
    let mut wait = vec!["wait", "-n", NAMESPACE, "--for=delete", "--timeout=60s"];
    wait.extend(before.iter().map(String::as_str));
    stage.cluster().kubectl().run(&wait).map(drop)
}
