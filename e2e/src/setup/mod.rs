//! Installs and builds what the other commands need: Debian packages, Kubernetes, Helm.

mod packages;
mod tools;

pub(crate) use packages::ensure as packages;
pub(crate) use tools::{Tools, ensure as tools};

use crate::failure::Outcome;

/// Everything.
pub(crate) fn run() -> Outcome {
    packages()?;
    let Tools { kube, helm } = tools()?;
    println!("Kubernetes: {}", kube.display());
    println!("Helm: {}", helm.display());
    println!("all is there");
    Ok(())
}
