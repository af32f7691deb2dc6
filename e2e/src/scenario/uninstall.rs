//! `helm uninstall` while volumes are tracked: refused while one cannot have its table back, and clean otherwise.

use std::time::Duration;

use super::stage::{SOON, Stage};
use crate::{
    cluster::{Kubectl, NAMESPACE},
    failure::Outcome,
};

/// What takes the agent, a restart of its pod and a whole attachment.
const AGENT_BACK: Duration = Duration::from_secs(180);

/// `cluster_uninstall_refused`: while a volume's agent is away, `helm uninstall` fails, says which and why, and leaves a
/// controller at work; once the agent is back, so is the tracking.
pub(super) fn refused() -> Outcome {
    let stage = Stage::open("cluster-uninstall-refused")?;
    let (_, application) = stage.tracked("data", 128)?;
    let (kubectl, helm) =
        (stage.cluster().kubectl().in_namespace(NAMESPACE), stage.cluster().helm());
    let nowhere = "agent.nodeSelector.example\\.com/no-such-label=x";
    let arguments =
        ["upgrade", "eratrack", "charts/eratrack", "--namespace", NAMESPACE, "--reuse-values"];
    helm.run(
        &[&arguments[..], &["--set", "uninstall.timeoutSeconds=30", "--set", nowhere]].concat(),
    )?;
    kubectl.run(&[
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app.kubernetes.io/component=agent",
        "--timeout=60s",
    ])?;

    let output = helm.helm(&["uninstall", "eratrack", "--namespace", NAMESPACE])?;
    let said = output.report();
    for words in [
        "cluster-uninstall-refused/data: no agent is ready on node",
        "start its pod",
        "still tracked",
    ] {
        if output.success || !said.contains(words) {
            return Err(format!("must be refused with {words:?}, but: {said}").into());
        }
    }
    helm.run(&["status", "eratrack", "--namespace", NAMESPACE])?;
    leads(&kubectl)?;
    application.until_more(20)?;

    let anywhere = r#"[{"op": "remove", "path": "/spec/template/spec/nodeSelector/example.com~1no-such-label"}]"#;
    kubectl.run(&["patch", "daemonset", "eratrack-agent", "--type=json", "-p", anywhere])?;
    stage.user.until("eravolume/data", "made anew and attached", AGENT_BACK, |value| {
        let attached =
            crate::cluster::condition(value, "Attached").ok_or("no such condition yet")?;
        let kept = value["metadata"]["deletionTimestamp"].is_null();
        if kept && attached["status"] == "True" { Ok(()) } else { Err(String::new()) }
    })?;
    application.until_more(20)?;
    application.verify()?;
    stage.close()
}

/// Waits until the controller has the Lease.
fn leads(kubectl: &Kubectl) -> Outcome {
    kubectl.until("lease/eratrack-controller", "held by the controller", SOON, |value| {
        let holder = value["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if holder.starts_with("controller_") {
            Ok(())
        } else {
            Err(format!("it is held by {holder:?}"))
        }
    })
}

/// `cluster_uninstall`: `helm uninstall` takes era out of every volume first, and the definitions stay.
pub(super) fn uninstall() -> Outcome {
    let stage = Stage::open("cluster-uninstall")?;
    let volume = stage.volume("data", 128)?;
    let application = stage.application("data")?;
    let (table, incarnation) = (stage.table(&volume)?, application.incarnation()?);
    stage.track("data")?;
    stage.until_attached("data")?;
    stage.cluster().helm().run(&["uninstall", "eratrack", "--namespace", NAMESPACE, "--wait"])?;
    if stage.table(&volume)? != table {
        return Err(format!("the table is {}, it was {table}", stage.table(&volume)?).into());
    }
    let same = application.incarnation()? == incarnation;
    if !same {
        return Err("the application was restarted".into());
    }
    application.until_more(20)?;
    stage.node().run("sync && echo 3 > /proc/sys/vm/drop_caches")?;
    application.verify()?;
    stage.cluster().kubectl().run(&["get", "crd", "eratrackings.eratrack.dev"])?;
    stage.close()
}
