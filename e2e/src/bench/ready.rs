//! From a snapshot's creation, or the time it was scheduled for, to Ready: of a volume of 1 TiB in which nothing changes.
//!
//! Clocks are read where the objects are seen, in a watch on this machine. What the list alone takes, the agent says.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use super::quantile;
use crate::{
    cluster::{Cluster, Kubectl, NAMESPACE as PRODUCT, Product, Volume, condition, ensure_group},
    demo::Snapshot,
    failure::Outcome,
    progress,
    scenario::{as_block, block_pod},
    setup,
};

const NAMESPACE: &str = "ready";
const MEBIBYTES: u64 = 1 << 20;
const ROUNDS: usize = 10;
/// How many times the schedule fires.
const FIRINGS: usize = 5;
/// Longer than the least time between two boundaries of a volume.
const APART: Duration = Duration::from_secs(11);
const DEADLINE: Duration = Duration::from_secs(600);

const GOAL_READY: f64 = 2.0;
const GOAL_LIST: f64 = 0.1;

/// The default, and the finest that an administrator allows by default.
const GRANULARITIES: [&str; 2] = ["256Ki", "64Ki"];

pub(super) fn measure() -> Outcome<String> {
    let product = Product::build()?;
    let cluster = Cluster::start(&setup::tools()?)?;
    product.import(cluster.node())?;
    cluster.ensure_installed(|arguments| cluster.helm().run(arguments).map(drop))?;
    let user = prepare(&cluster)?;
    let mut text =
        "1 TiB, nothing changed, seconds           rounds  fastest  median  longest  goal\n"
            .to_owned();
    for granularity in GRANULARITIES {
        let what = format!("{ROUNDS} snapshots by hand at {granularity}");
        let mut rounds = progress::step(&what, || by_hand(&cluster, &user, granularity))?;
        text += &rounds.table(granularity)?;
    }
    let mut ready = progress::step(&format!("{FIRINGS} times of a schedule"), || scheduled(&user))?;
    text += &row("256Ki: scheduled time to Ready", &mut ready, GOAL_READY)?;
    Ok(
        text + "clocks are read where a watch shows the object; list and boundary are the agent's figures"
    )
}

/// A thin volume for each granularity: each has all of 1 TiB, and next to nothing is written to it.
fn prepare(cluster: &Cluster) -> Outcome<Kubectl> {
    ensure_group(cluster.node())?;
    cluster.node().run("lvcreate --yes --type thin-pool --size 2G --name pool data")?;
    cluster.kubectl().run(&["create", "namespace", NAMESPACE])?;
    let user = cluster.kubectl().in_namespace(NAMESPACE);
    for granularity in GRANULARITIES {
        let volume = volume(granularity);
        let create = "lvcreate --yes --virtualsize 1T --thinpool pool --name";
        cluster.node().run(&format!("{create} {} data", volume.name))?;
        user.apply(&as_block(&volume.manifest()))?;
        user.apply(&block_pod(&volume))?;
        user.apply(&tracking(granularity, ""))?;
        let object = format!("eravolume/{}", volume.claim);
        user.until_condition(&object, "Attached", "True", DEADLINE)?;
        let first = format!("{}-0", volume.claim);
        user.apply(&Snapshot::manifest(&first, &volume.claim))?;
        user.until_condition(&format!("erasnapshot/{first}"), "Ready", "True", DEADLINE)?;
    }
    Ok(user)
}

fn volume(granularity: &str) -> Volume {
    let claim = claim(granularity);
    Volume { name: claim.clone(), namespace: NAMESPACE.to_owned(), claim, mebibytes: MEBIBYTES }
}

fn claim(granularity: &str) -> String {
    format!("at{}", granularity.to_lowercase())
}

fn tracking(granularity: &str, more: &str) -> String {
    let name = claim(granularity);
    format!(
        "{{apiVersion: eratrack.dev/v1alpha1, kind: EraTracking, metadata: {{name: {name}}}, \
         spec: {{claims: {{names: [{name}]}}, granularity: {granularity}{more}}}}}"
    )
}

/// Seconds of each round.
#[derive(Debug, Default)]
struct Rounds {
    ready: Vec<f64>,
    boundary: Vec<f64>,
    list: Vec<f64>,
}

impl Rounds {
    fn table(&mut self, granularity: &str) -> Outcome<String> {
        let name = |what: &str| format!("{granularity}: {what}");
        let ready = row(&name("created to Ready"), &mut self.ready, GOAL_READY)?;
        let boundary = row(&name("  the boundary in it"), &mut self.boundary, f64::NAN)?;
        Ok(ready + &boundary + &row(&name("  the list in it"), &mut self.list, GOAL_LIST)?)
    }
}

fn row(name: &str, values: &mut [f64], goal: f64) -> Outcome<String> {
    let [Some(fastest), Some(median), Some(longest)] =
        [0.0, 0.5, 1.0].map(|at| quantile(values, at))
    else {
        return Err(format!("nothing was measured of {name}").into());
    };
    let goal = if goal.is_nan() { String::new() } else { goal.to_string() };
    let mut line = String::new();
    write!(line, "{name:40} {:7} {fastest:8.3} {median:7.3} {longest:8.3}  {goal}", values.len())?;
    Ok(line.trim_end().to_owned() + "\n")
}

/// One after the other, no sooner than the product makes them.
fn by_hand(cluster: &Cluster, user: &Kubectl, granularity: &str) -> Outcome<Rounds> {
    let claim = claim(granularity);
    let mut rounds = Rounds::default();
    let mut before = Figures::of_agent(cluster)?;
    for index in 1..=ROUNDS {
        rounds.ready.push(round(user, &claim, index)?);
        let after = Figures::of_agent(cluster)?;
        rounds.boundary.push(after.boundary.one_since(before.boundary)?);
        rounds.list.push(after.list.one_since(before.list)?);
        before = after;
    }
    Ok(rounds)
}

/// Seconds from where a watch shows the snapshot to where it shows it as Ready.
fn round(user: &Kubectl, claim: &str, index: usize) -> Outcome<f64> {
    let name = format!("{claim}-{index}");
    let manifest = Snapshot::manifest(&name, claim);
    let creator = user.clone();
    // The watch is there long before.
    let created = thread::spawn(move || {
        thread::sleep(APART);
        creator.apply(&manifest).map_err(|error| error.to_string())
    });
    let mut seen = None;
    let took = user.until(&format!("erasnapshot/{name}"), "Ready", DEADLINE, |object| {
        let first = *seen.get_or_insert_with(Instant::now);
        is_ready(object).then(|| first.elapsed().as_secs_f64()).ok_or_else(String::new)
    });
    created.join().map_err(|_| "the snapshot's maker failed")??;
    took
}

fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|it| it["status"] == "True")
}

/// Seconds from each full minute to where a watch shows that minute's snapshot as Ready.
fn scheduled(user: &Kubectl) -> Outcome<Vec<f64>> {
    let granularity = GRANULARITIES[0];
    user.apply(&tracking(granularity, ", snapshots: {schedule: '* * * * *'}"))?;
    let (mut last, mut seconds) = (String::new(), Vec::new());
    while seconds.len() < FIRINGS {
        let (name, at) =
            user.until_any(&["erasnapshots"], "one of the schedule", DEADLINE, |it| {
                let name = it["metadata"]["name"].as_str().unwrap_or_default();
                let next = Snapshot::is_scheduled(it) && name > last.as_str() && is_ready(it);
                next.then(|| (name.to_owned(), SystemTime::now())).ok_or_else(String::new)
            })?;
        last = name;
        // The schedule's are full minutes, and none takes one.
        seconds.push(at.duration_since(UNIX_EPOCH)?.as_secs_f64() % 60.0);
    }
    Ok(seconds)
}

/// What a histogram has seen: how often, and seconds in all.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Histogram {
    count: f64,
    sum: f64,
}

impl Histogram {
    fn read(metrics: &str, name: &str) -> Outcome<Self> {
        let value = |suffix: &str| -> Outcome<f64> {
            let key = format!("eratrack_agent_{name}_seconds_{suffix} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&key));
            Ok(line.ok_or_else(|| format!("the agent has no figure {key}"))?.parse()?)
        };
        Ok(Self { count: value("count")?, sum: value("sum")? })
    }

    /// The seconds of the only one since an earlier look.
    fn one_since(self, earlier: Self) -> Outcome<f64> {
        let (count, sum) = (self.count - earlier.count, self.sum - earlier.sum);
        if (count - 1.0).abs() > 0.5 {
            return Err(format!("{count} instead of one were measured in a round").into());
        }
        Ok(sum)
    }
}

/// What the agent says of its own work.
#[derive(Clone, Copy, Debug)]
struct Figures {
    boundary: Histogram,
    list: Histogram,
}

impl Figures {
    fn of_agent(cluster: &Cluster) -> Outcome<Self> {
        let pods = "app.kubernetes.io/component=agent";
        let address = ["get", "pods", "-n", PRODUCT, "-l", pods, "-o"];
        let path = "jsonpath={.items[0].status.podIP}";
        let address = cluster.kubectl().run(&[&address[..], &[path]].concat())?;
        let metrics = cluster
            .node()
            .run(&format!("curl --silent --fail http://{}:8081/metrics", address.trim()))?;
        let read = |name| Histogram::read(&metrics, name);
        Ok(Self { boundary: read("boundary")?, list: read("list")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_observation_is_told_by_the_difference() {
        let metrics = |count, sum| {
            format!(
                "# TYPE eratrack_agent_list_seconds histogram\n\
                 eratrack_agent_list_seconds_sum {sum}\neratrack_agent_list_seconds_count {count}\n"
            )
        };
        let read = |count, sum| Histogram::read(&metrics(count, sum), "list").unwrap();
        let (before, after) = (read(2, 0.5), read(3, 0.625));
        assert!((after.one_since(before).unwrap() - 0.125).abs() < 1e-9);
        assert!(after.one_since(after).is_err(), "none");
        assert!(Histogram::read(&metrics(1, 0.5), "boundary").is_err(), "another figure");
    }

    #[test]
    fn a_row_has_median_longest_and_goal() {
        let row = row("256Ki: created to Ready", &mut [0.3, 0.1, 0.2], 2.0).unwrap();
        assert_eq!(
            row,
            "256Ki: created to Ready                        3    0.100   0.200    0.300  2\n"
        );
    }
}
