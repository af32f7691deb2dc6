//! A control plane with many claims on nodes that are objects alone; the controller, and the agents of all these nodes
//! over a machine in memory (`src/operator/src/agent/testing/fleet.rs`).

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::objects::{self, Claim, NAMESPACES, NODES, PAST, Tracked, WITH_LIST};
use crate::{
    cluster::{Control, NAMESPACE as PRODUCT, Nodes, install_arguments, static_program},
    failure::Outcome,
    process::{self, Background},
    progress, setup, test,
};

/// How long one command of kubectl may take that writes thousands of objects.
const LONG: Duration = Duration::from_secs(900);

/// The cluster while it is there. It ends in the order of the fields.
#[derive(Debug)]
pub(super) struct Fleet {
    controller: Background,
    _agents: Background,
    pub(super) control: Control,
    claims: Vec<Claim>,
}

impl Fleet {
    /// Starts everything, and waits until each claim is tracked. No schedule is at work.
    pub(super) fn start(count: usize) -> Outcome<Self> {
        let program = static_program()?;
        let agents = progress::step("building the agents", || test::unit_tests("eratrack"))?;
        let control = progress::step("starting a control plane", || -> Outcome<Control> {
            let control = Control::start_for(&setup::tools()?, Nodes::Objects)?;
            install(&control)?;
            Ok(control)
        })?;
        let claims = objects::claims(count);
        let what = format!("making {count} claims, each with {PAST} snapshots");
        progress::step(&what, || populate(&control, &claims))?;
        let controller = controller(&control, &program)?;
        let agents = start_agents(&control, &agents)?;
        let fleet = Self { controller, _agents: agents, control, claims };
        progress::step("until all are tracked", || fleet.until_tracked())?;
        Ok(fleet)
    }

    /// Gives each EraTracking these snapshots.
    pub(super) fn schedule(&self, snapshots: &Value) -> Outcome {
        let of = |index| objects::tracking(&objects::namespace(index), Some(snapshots));
        let all: Vec<Value> = (0..NAMESPACES).map(of).collect();
        self.control.kubectl().apply(&objects::list(&all)).map(drop)
    }

    /// A field of the controller's process (proc.5) in MiB.
    pub(super) fn controller_mebibytes(&self, field: &str) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.controller.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
        Ok(f64::from(kib.ok_or_else(|| format!("no {field} of the controller"))?) / 1024.0)
    }

    /// Processor time of the controller in seconds (proc.5: stat, fields 14 and 15).
    pub(super) fn controller_seconds(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.controller.id()))?;
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |index: usize| -> Outcome<u32> {
            Ok(rest.split_whitespace().nth(index).ok_or("a short stat")?.parse()?)
        };
        Ok(f64::from(ticks(11)? + ticks(12)?) / 100.0)
    }

    fn until_tracked(&self) -> Outcome {
        for index in 0..NAMESPACES {
            let user = self.control.kubectl().in_namespace(&objects::namespace(index));
            let here = self.claims.iter().filter(|it| it.namespace == objects::namespace(index));
            let wanted = here.count();
            user.until("eratracking/all", "all tracked", LONG, |tracking| {
                let tracked = &tracking["status"]["intact"];
                (*tracked == wanted).then_some(()).ok_or_else(|| format!("{tracked} are tracked"))
            })?;
        }
        Ok(())
    }
}

/// The chart, whose pods have no node to run on: two processes here stand for them.
fn install(control: &Control) -> Outcome {
    let arguments = install_arguments();
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|it| *it != "--wait").collect();
    control.helm().run(&arguments)?;
    let workloads = ["daemonset/eratrack-agent", "deployment/eratrack-controller"];
    control.kubectl().in_namespace(PRODUCT).run(&[&["delete"], &workloads[..]].concat())?;
    Ok(())
}

fn populate(control: &Control, claims: &[Claim]) -> Outcome {
    let nodes: Vec<Value> = (0..NODES).map(|it| objects::node_object(&objects::node(it))).collect();
    create(control, &nodes)?;
    let (pods, statuses): (Vec<_>, Vec<_>) =
        (0..NODES).map(|it| objects::agent_pod(&objects::node(it))).unzip();
    // A pod is refused without it.
    let account = control.kubectl().in_namespace(PRODUCT);
    account.until("serviceaccount/default", "to exist", LONG, |_| Ok(()))?;
    create(control, &pods)?;
    say(control, &statuses)?;
    let minutes = minutes()?;
    // Two at a time: as many as there are processors, and the API server wants one of them.
    for pair in (0..NAMESPACES).collect::<Vec<_>>().chunks(2) {
        thread::scope(|scope| -> Outcome {
            let workers: Vec<_> = pair
                .iter()
                .map(|index| {
                    let namespace = objects::namespace(*index);
                    let (minutes, here) =
                        (&minutes, claims.iter().filter(move |it| it.namespace == namespace));
                    let here: Vec<&Claim> = here.collect();
                    let namespace = objects::namespace(*index);
                    scope.spawn(move || {
                        namespace_with(control, &namespace, &here, minutes)
                            .map_err(|error| error.to_string())
                    })
                })
                .collect();
            for worker in workers {
                worker.join().map_err(|_| "a namespace's maker failed")??;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn namespace_with(
    control: &Control,
    namespace: &str,
    claims: &[&Claim],
    minutes: &[(String, String)],
) -> Outcome {
    control.kubectl().run(&["create", "namespace", namespace])?;
    let (bound, statuses): (Vec<_>, Vec<_>) =
        claims.iter().map(|claim| objects::claim_object(claim)).unzip();
    let uids = create(control, &bound)?;
    let volumes: Vec<Value> =
        claims.iter().zip(&uids).map(|(claim, uid)| objects::volume_object(claim, uid)).collect();
    let volumes = create(control, &volumes)?;
    say(control, &statuses)?;
    let tracking = create(control, &[objects::tracking(namespace, None)])?;
    let tracking_uid = tracking.first().ok_or("an EraTracking has a uid")?;
    let tracked = claims.iter().zip(volumes);
    let tracked: Vec<Tracked<'_>> =
        tracked.map(|(claim, volume_uid)| Tracked { claim, volume_uid, tracking_uid }).collect();
    history(control, &tracked, minutes)
}

/// Snapshots of these minutes, the oldest first.
fn history(control: &Control, tracked: &[Tracked<'_>], minutes: &[(String, String)]) -> Outcome {
    let each = || tracked.iter().flat_map(|of| minutes.iter().enumerate().map(move |it| (of, it)));
    let snapshots: Vec<Value> =
        each().map(|(of, (_, (minute, _)))| objects::snapshot(of, minute)).collect();
    let uids = create(control, &snapshots)?;
    let name = |at: usize| snapshots[at]["metadata"]["name"].as_str().unwrap_or_default();
    let (mut statuses, mut slices) = (Vec::new(), Vec::new());
    for (at, (of, (index, (_, time)))) in each().enumerate() {
        let base = (index > 0).then(|| (name(at - 1), uids[at - 1].as_str()));
        statuses.push(objects::snapshot_status(of, (index, name(at)), time, base));
        if index < WITH_LIST {
            slices.push(objects::slice(of, name(at), &uids[at]));
        }
    }
    say(control, &statuses)?;
    create(control, &slices).map(drop)
}

/// The minutes before this one, as names and as times; the oldest first.
fn minutes() -> Outcome<Vec<(String, String)>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let ago = |minutes: usize| -> Outcome<(String, String)> {
        let at = format!("@{}", now - 60 * u64::try_from(minutes)?);
        let date = |format: &str| -> Outcome<String> {
            let mut command = Command::new("date");
            Ok(process::output(command.args(["-u", "-d", &at, format]))?.trim().to_owned())
        };
        Ok((date("+%Y%m%d%H%M")?, date("+%Y-%m-%dT%H:%M:02Z")?))
    };
    // The schedule begins later than this is asked.
    (0..PAST).rev().map(ago).collect()
}

/// Creates objects; their uids, in the same order.
fn create(control: &Control, objects: &[Value]) -> Outcome<Vec<String>> {
    let mut uids = Vec::new();
    for some in objects.chunks(500) {
        let arguments = ["create", "-o", "json", "-f", "-"];
        let manifest = objects::list(some);
        let text = control.kubectl().within(LONG, &arguments, Some(&manifest))?.ok()?;
        // One document for each object, one after the other.
        for made in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            uids.extend(made?["metadata"]["uid"].as_str().map(str::to_owned));
        }
    }
    if uids.len() == objects.len() {
        Ok(uids)
    } else {
        Err(format!("{} of {} objects were made", uids.len(), objects.len()).into())
    }
}

/// Says what has become of objects.
fn say(control: &Control, statuses: &[Value]) -> Outcome {
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--subresource=status",
        "--validate=false",
        "--field-manager=eratrack-agent",
        "-o",
        "name",
        "-f",
        "-",
    ];
    for some in statuses.chunks(500) {
        control.kubectl().within(LONG, &arguments, Some(&objects::list(some)))?.ok()?;
    }
    Ok(())
}

/// The controller, as its own account.
fn controller(control: &Control, program: &Path) -> Outcome<Background> {
    let token = ["create", "token", "eratrack-controller", "--duration=24h"];
    let token = control.kubectl().in_namespace(PRODUCT).run(&token)?;
    let kubeconfig = control.directory().join("controller.token.kubeconfig");
    fs::write(&kubeconfig, control.kubeconfig(token.trim()))?;
    let mut command = control.command(program);
    command.args(["controller", "--namespace", PRODUCT]).env("KUBECONFIG", &kubeconfig);
    Ok(Background::start(&mut command, &control.logs().join("scale.controller.log"))?)
}

/// The agents, each as the agents' account on its node.
fn start_agents(control: &Control, program: &Path) -> Outcome<Background> {
    let directory = control.directory().join("agents");
    fs::create_dir_all(&directory)?;
    for node in (0..NODES).map(objects::node) {
        let bound = format!("--bound-object-name={node}");
        let token = ["create", "token", "eratrack-agent", "--bound-object-kind=Node", &bound];
        let token = control
            .kubectl()
            .in_namespace(PRODUCT)
            .run(&[&token[..], &["--duration=24h"]].concat())?;
        fs::write(directory.join(&node), control.kubeconfig(token.trim()))?;
    }
    let mut command = control.command(program);
    command.args(["agent::testing::fleet::fleet", "--exact", "--ignored", "--nocapture"]);
    command.env("ERATRACK_FLEET", &directory);
    Ok(Background::start(&mut command, &control.logs().join("scale.agents.log"))?)
}

/// What an EraTracking of each namespace is asked for.
pub(super) fn every_minute(keep: &Value) -> Value {
    json!({ "schedule": "* * * * *", "keep": keep })
}
