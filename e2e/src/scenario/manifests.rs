//! What the repository offers to apply, and values that the chart must refuse: tried, but nothing is kept.

use std::fs;

use crate::{
    cluster::{Helm, Kubectl, NAMESPACE},
    failure::Outcome,
    paths,
};

/// Every manifest and sample is accepted as it stands. Needs the definitions.
pub(super) fn accepted(admin: &Kubectl) -> Outcome {
    admin.run(&["apply", "--server-side", "-f", "manifests/namespace.yaml"])?;
    for manifest in ["manifests/install.yaml", "manifests/uninstall.yaml"] {
        admin.run(&["apply", "--server-side", "--dry-run=server", "-f", manifest])?;
    }
    for sample in samples()? {
        // One has a generated name, which cannot be applied.
        admin.run(&["create", "--dry-run=server", "-n", NAMESPACE, "-f", &sample])?;
    }
    Ok(())
}

fn samples() -> Outcome<Vec<String>> {
    let mut samples = Vec::new();
    for entry in fs::read_dir(paths::workspace().join("manifests/samples"))? {
        samples.push(format!("manifests/samples/{}", entry?.file_name().display()));
    }
    if samples.is_empty() {
        return Err("there is no sample".into());
    }
    Ok(samples)
}

/// Values that would do harm, with a part of what Helm says.
const REFUSED: [(&str, &str); 4] = [
    // Two agents on one node would work on the same devices.
    ("agent.updateStrategy.rollingUpdate.maxSurge=1", "maxSurge"),
    ("agent.updateStrategy.type=Recreate", "updateStrategy"),
    ("controller.replicas=0", "replicas"),
    ("agent.metadataDirectory=/data", "metadataDirectory"),
];

/// The chart refuses values that would do harm, and takes others of the same kind.
pub(super) fn refused_values(helm: &Helm) -> Outcome {
    let template = |value: &str| {
        helm.helm(&[
            "template",
            "eratrack",
            "charts/eratrack",
            "--namespace",
            NAMESPACE,
            "--set",
            value,
        ])
    };
    for (value, word) in REFUSED {
        let output = template(value)?;
        if output.success || !output.stderr.contains(word) {
            return Err(format!("`{}` must be refused: {}", output.command, output.stderr).into());
        }
    }
    for value in ["agent.updateStrategy.rollingUpdate.maxUnavailable=10%", "controller.replicas=2"]
    {
        template(value)?.ok()?;
    }
    Ok(())
}
