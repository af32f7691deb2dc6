//! The demo, narrated.

use crate::{cleanup, cluster::Cluster, failure::Outcome};

/// Runs the demo; with `keep` the cluster stays up.
pub(crate) fn run(keep: bool) -> Outcome {
    let cluster = Cluster::start()?;
    println!("{}", cluster.how_to_use());
    if keep {
        cleanup::keep();
    }
    Ok(())
}
