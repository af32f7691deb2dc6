//! What eratrack takes of a cluster: memory of its two processes, and requests to the API server while nothing happens.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Application, Cluster, Kubectl, Node, Product, Requests, Volume, ensure_group},
    failure::Outcome,
    progress, setup, wait,
};

const NAMESPACE: &str = "footprint";
const COUNTS: [usize; 2] = [1, 50];
/// A volume as small as a filesystem's maker accepts; memory does not depend on it.
const MEBIBYTES: u64 = 32;
const GOAL_MEBIBYTES: f64 = 32.0;
/// How long requests are counted.
const WATCHED: Duration = Duration::from_secs(120);
const PROCESSES: [&str; 2] = ["agent", "controller"];

pub(super) fn measure() -> Outcome<String> {
    let product = Product::build()?;
    let cluster = Cluster::start(&setup::tools()?)?;
    product.import(cluster.node())?;
    cluster.ensure_installed(|arguments| cluster.helm().run(arguments).map(drop))?;
    ensure_group(cluster.node())?;
    cluster.kubectl().run(&["create", "namespace", NAMESPACE])?;
    let user = cluster.kubectl().in_namespace(NAMESPACE);
    user.apply(TRACKING)?;
    let mut text = format!(
        "image: one static binary of {:.1} MiB (goal: under 16)\n\n\
         volumes  process       resident MiB  peak MiB  goal\n",
        mebibytes(product.image_bytes)
    );
    let (mut there, mut rest) = (0, String::new());
    for count in COUNTS {
        track(&cluster, &user, there, count)?;
        there = count;
        let requests = at_rest(&cluster)?;
        for process in PROCESSES {
            let [resident, peak] = memory(cluster.node(), process)?;
            writeln!(
                text,
                "{count:7}  {process:12} {resident:13.1} {peak:9.1}  {GOAL_MEBIBYTES:4.0}"
            )?;
        }
        rest += &idle(count, &requests)?;
    }
    Ok(text + "\n" + rest.trim_end())
}

/// Every claim of the namespace, with no schedule: nothing happens unless somebody asks.
const TRACKING: &str = "{apiVersion: eratrack.dev/v1alpha1, kind: EraTracking, metadata: {name: all}, \
                        spec: {claims: {selector: {}}}}";

/// Makes volumes until there are `count`, mounts the new ones in one pod, and gives each its first snapshot.
fn track(cluster: &Cluster, user: &Kubectl, there: usize, count: usize) -> Outcome {
    let volumes: Vec<Volume> = (there..count).map(volume).collect();
    progress::step(&format!("tracking {count} volumes"), || {
        let create: Vec<String> = volumes.iter().map(Volume::create).collect();
        cluster.node().run(&format!("set -e\n{}", create.join("\n")))?;
        let manifests: Vec<String> = volumes.iter().map(Volume::manifest).collect();
        user.apply(&manifests.join("---\n"))?;
        let claims: Vec<&str> = volumes.iter().map(|volume| volume.claim.as_str()).collect();
        user.apply(&Application::idle(&format!("pod{count}"), &claims))?;
        user.until("eratracking/all", "all tracked", Duration::from_secs(300), |tracking| {
            let tracked = &tracking["status"]["tracked"];
            (tracked == count).then_some(()).ok_or_else(|| format!("{tracked} are tracked"))
        })?;
        let snapshots: Vec<String> = claims.iter().map(|claim| snapshot(claim)).collect();
        user.apply(&snapshots.join("---\n"))?;
        user.run(&["wait", "--for=condition=Ready", "erasnapshot", "--all", "--timeout=110s"])?;
        Ok(())
    })
}

fn volume(index: usize) -> Volume {
    Volume {
        name: format!("v{index}"),
        namespace: NAMESPACE.to_owned(),
        claim: format!("c{index}"),
        mebibytes: MEBIBYTES,
    }
}

fn snapshot(claim: &str) -> String {
    crate::demo::Snapshot::manifest(&format!("first-{claim}"), claim)
}

/// Waits until only the Lease is written, and then counts.
fn at_rest(cluster: &Cluster) -> Outcome<Requests> {
    progress::step("waiting for rest, and counting requests for two minutes", || {
        let audit = cluster.audit();
        let (mut quiet_since, mut at) = (Instant::now(), audit.now()?);
        wait::until("only the Lease to be written", Duration::from_secs(180), || {
            let busy = audit.since(at).is_ok_and(|requests| requests.keys().any(|it| !it.rests()));
            if busy {
                (quiet_since, at) = (Instant::now(), audit.now().ok()?);
            }
            (quiet_since.elapsed() > Duration::from_secs(15)).then_some(())
        })?;
        let start = audit.now()?;
        // This is the measurement: a stretch of time in which nothing is awaited.
        thread::sleep(WATCHED);
        audit.since(start)
    })
}

/// Resident and peak memory in MiB (proc.5: `VmRSS`, `VmHWM`).
fn memory(node: &Node, process: &str) -> Outcome<[f64; 2]> {
    let status = node.run(&format!(
        "cat /proc/$(pgrep --oldest --full --exact '/eratrack {process}.*')/status"
    ))?;
    let field = |name: &str| -> Outcome<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
        Ok(f64::from(kib.ok_or_else(|| format!("no {name} of {process}"))?) / 1024.0)
    };
    Ok([field("VmRSS:")?, field("VmHWM:")?])
}

fn idle(count: usize, requests: &Requests) -> Outcome<String> {
    let minutes = WATCHED.as_secs_f64() / 60.0;
    let mut text =
        format!("requests a minute at rest, {count} tracked (goal: Lease and watches only)\n");
    for (request, times) in requests {
        let rate = f64::from(u32::try_from(*times)?) / minutes;
        let beyond = if request.rests() { "" } else { "  beyond the goal" };
        writeln!(
            text,
            "  {:20} {:7} {:28} {rate:5.1}{beyond}",
            request.account, request.verb, request.resource
        )?;
    }
    Ok(text)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
