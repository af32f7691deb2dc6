//! Installs and builds what the other commands need: Debian packages, Kubernetes, Helm.

mod packages;
mod tools;

pub(crate) use packages::{ensure as packages, ensure_valgrind as valgrind};
pub(crate) use tools::{Tools, ensure as tools};

use crate::failure::Outcome;

/// What a cluster needs besides packages: root, for network namespaces, and the built tools. Found out before
/// anything long begins.
pub(crate) fn cluster_is_possible() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(
            "a cluster needs root: its network is a namespace with devices of its own".into()
        );
    }
    tools().map(drop)
}

/// Everything.
pub(crate) fn run() -> Outcome {
    packages()?;
    let Tools { kube, helm } = tools()?;
    println!("Kubernetes: {}", kube.display());
    println!("Helm: {}", helm.display());
    println!("all is there");
    Ok(())
}
