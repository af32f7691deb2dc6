//! `cluster_schema`, `cluster_admission` and `cluster_crd_upgrade`: on a control plane without nodes, where no controller writes in between.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    cluster::{Control, NAMESPACE, install_arguments},
    failure::Outcome,
    paths, process, setup,
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
    install(&control, CHART)?;
    super::admission::admission(control.kubectl())
}

const CHART: &str = "charts/eratrack";

fn install(control: &Control, chart: &str) -> Outcome {
    let arguments = install_arguments();
    let arguments = arguments.iter().map(String::as_str).filter(|it| *it != "--wait");
    let arguments: Vec<&str> = arguments.map(|it| if it == CHART { chart } else { it }).collect();
    control.helm().run(&arguments).map(drop)
}

/// An upgrade of the chart upgrades the definitions, which Helm would not do by itself.
pub(super) fn crd_upgrade() -> Outcome {
    let control = Control::start(&setup::tools()?)?;
    let older = older_chart()?;
    install(&control, &older.display().to_string())?;
    let described = || -> Outcome<bool> {
        let crd = control.kubectl().json(&["get", "crd", "eravolumes.eratrack.dev"])?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        Ok(!schema["properties"]["status"]["properties"]["sizeBytes"].is_null())
    };
    if described()? {
        return Err("the older chart has the field already".into());
    }
    control.helm().run(&[
        "upgrade",
        "eratrack",
        CHART,
        "--namespace",
        NAMESPACE,
        "--reuse-values",
    ])?;
    if described()? { Ok(()) } else { Err("the upgraded definition lacks the field".into()) }
}

/// A copy of the chart whose EraVolumes know no size.
fn older_chart() -> Outcome<PathBuf> {
    let copy = paths::cache().join("older-chart");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    process::output(Command::new("cp").arg("-r").arg(paths::workspace().join(CHART)).arg(&copy))?;
    let crd = copy.join("files/crds/eratrack.dev_eravolumes.yaml");
    let text = fs::read_to_string(&crd)?;
    let lines: Vec<&str> = text.lines().collect();
    let field = "              sizeBytes:";
    let at = lines.iter().position(|it| *it == field).ok_or("there is no status.sizeBytes")?;
    let deeper = |line: &&&str| line.starts_with(&" ".repeat(16));
    let length = 1 + lines[at + 1..].iter().take_while(deeper).count();
    fs::write(&crd, [&lines[..at], &lines[at + length..]].concat().join("\n") + "\n")?;
    Ok(copy)
}
