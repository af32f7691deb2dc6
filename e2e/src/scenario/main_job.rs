//! `cluster_main_job`: the demo, told to a file.

use crate::{
    cluster,
    demo::{MainJob, Story},
    failure::Outcome,
    paths, process,
};

/// Runs the demo's steps; on failure the story's end is in the error.
pub(super) fn run() -> Outcome {
    let shared = cluster::shared()?;
    let path = paths::logs().join("cluster_main_job.log");
    let mut story = Story::in_file(&path)?;
    let job = MainJob::new(&shared.cluster, &shared.product);
    job.run(&mut story).map_err(|error| {
        let told = std::fs::read_to_string(&path).unwrap_or_default();
        format!("{}\n{error}", process::tail(&told, 60))
    })?;
    // Its application would take its share of the node's one processor from the other scenarios.
    let kubectl = shared.cluster.kubectl();
    kubectl.run(&["delete", "namespace", MainJob::NAMESPACE, "--wait=false"]).map(drop)
}
