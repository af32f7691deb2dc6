//! `cluster_schema` and `cluster_admission`: on a control plane without nodes, where no controller writes in between.

use crate::{
    cluster::{Control, install_arguments},
    failure::Outcome,
    setup,
};

/// The definitions alone, and the manifests that need them.
pub(super) fn schema() -> Outcome {
    let control = Control::start(&setup::tools()?)?;
    control.kubectl().run(&["apply", "--server-side", "-f", "crds"])?;
    control.kubectl().run(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        "crds",
    ])?;
    super::manifests::accepted(control.kubectl())?;
    super::schema::schema(control.kubectl())
}

/// The chart, whose pods have no node to run on.
pub(super) fn admission() -> Outcome {
    let control = Control::start(&setup::tools()?)?;
    super::manifests::refused_values(control.helm())?;
    let arguments = install_arguments();
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|it| *it != "--wait").collect();
    control.helm().run(&arguments)?;
    super::admission::admission(control.kubectl())
}
