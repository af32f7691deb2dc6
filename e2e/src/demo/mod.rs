//! The demo: the main job of eratrack on a real cluster, narrated. The same steps are the first test of the cluster tier.

mod main_job;
mod snapshot;
mod story;

pub(crate) use main_job::MainJob;
pub(crate) use snapshot::Snapshot;
pub(crate) use story::Story;

use std::fs;

use crate::{
    cleanup,
    cluster::{Cluster, Product},
    failure::Outcome,
    paths, progress, setup,
};

/// Runs the demo; with `keep` the cluster stays up.
pub(crate) fn run(keep: bool) -> Outcome {
    setup::packages()?;
    setup::cluster_is_possible()?;
    let tools = setup::tools()?;
    let product = Product::build()?;
    let cluster = Cluster::start(&tools)?;
    progress::step("importing the images on the node", || product.import(cluster.node()))?;
    let mut story = Story::on_terminal();
    let told = MainJob::new(&cluster, &product).run(&mut story);
    if told.is_err() {
        let path = paths::logs().join("demo.diagnosis.log");
        let diagnosis = cluster.diagnosis();
        // What went wrong must not be hidden by a log that cannot be kept.
        match fs::write(&path, &diagnosis) {
            Ok(()) => eprintln!("what the cluster says: {}", path.display()),
            Err(_) => eprintln!("{diagnosis}"),
        }
    }
    if keep {
        cleanup::keep();
        println!("\nThe cluster stays up; `cargo e2e down` ends it. To use it:\n");
        println!("{}", cluster.how_to_use());
    }
    told
}
