//! Many tracked claims with a snapshot of each every minute: the API server, etcd, the garbage collector, the controller
//! and the code of the agents are real; the nodes, their kernels and their devices are not.

mod figures;
mod fleet;
mod objects;

use std::{
    env,
    fmt::Write as _,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use self::{
    figures::{Sizes, Store, Window, kept},
    fleet::{Fleet, every_minute},
};
use crate::{cluster::ETCD, failure::Outcome, process, progress};

/// How many claims, if the environment says nothing else.
const CLAIMS: usize = 1000;
/// Merges are counted by the snapshot, whatever the number of claims.
const CLAIMS_MERGED: usize = 100;
const CLAIMS_VARIABLE: &str = "ERATRACK_BENCH_CLAIMS";
/// How many snapshots of a claim are kept by default.
const KEPT: usize = 24;
/// Until as many are there, and each new one has the oldest deleted.
const BEFORE: u64 = 3;
const COUNTED: u64 = 5;
/// When the work of a minute is done: 1,000 snapshots begin over 50 s.
const SECOND: u64 = 58;

pub(super) fn measure() -> Outcome<String> {
    let count = claims(CLAIMS)?;
    let fleet = Fleet::start(count)?;
    fleet.schedule(&every_minute(&json!({})))?;
    let dropping = counted(&fleet, BEFORE, COUNTED)?;
    let mut text =
        dropping.table(&format!("{count} claims, the newest {KEPT} of each are kept"))?;
    let memory = ["VmRSS:", "VmHWM:"].map(|field| fleet.controller_mebibytes(field));
    let [resident, peak] = memory;
    writeln!(text, "controller: {:.1} MiB resident, {:.1} at its peak", resident?, peak?)?;
    let events = each(&dropping, "events");
    text += &kept(count, KEPT, sizes(&fleet)?, events);
    Ok(text.trim_end().to_owned())
}

/// The same under another policy: the oldest stays, for the hours that are to come, and what goes lies between it and others.
pub(super) fn merging() -> Outcome<String> {
    let count = claims(CLAIMS_MERGED)?;
    let fleet = Fleet::start(count)?;
    fleet.schedule(&every_minute(&json!({ "last": KEPT - 2, "hourly": 24 })))?;
    let window = counted(&fleet, BEFORE, COUNTED)?;
    let table =
        window.table(&format!("{count} claims, one of each is merged into the next one"))?;
    Ok(table.trim_end().to_owned())
}

fn claims(otherwise: usize) -> Outcome<usize> {
    Ok(env::var(CLAIMS_VARIABLE).ok().map_or(Ok(otherwise), |it| it.parse())?)
}

/// How often something of this kind was created for each snapshot.
fn each(window: &Window, resource: &str) -> f64 {
    let created =
        window.requests.iter().filter(|(it, _)| it.verb == "create" && it.resource == resource);
    let count: usize = created.map(|(_, count)| *count).sum();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let count = count as f64;
    count / window.snapshots()
}

/// Lets some minutes pass, and counts for some more.
fn counted(fleet: &Fleet, before: u64, minutes: u64) -> Outcome<Window> {
    progress::step(&format!("{before} minutes before anything is counted"), || pass(before))?;
    let start = Look::at(fleet)?;
    progress::step(&format!("{minutes} minutes that are counted"), || pass(minutes))?;
    let end = Look::at(fleet)?;
    let requests = fleet.control.audit().with_collector_since(start.audit)?;
    Ok(Window {
        minutes: end.time.duration_since(start.time)?.as_secs_f64() / 60.0,
        requests,
        before: start.store,
        after: end.store,
        controller_seconds: end.controller_seconds - start.controller_seconds,
        missed: end.missed - start.missed,
    })
}

/// This is the measurement: a stretch of time, from the end of a minute's work to that of another's.
fn pass(minutes: u64) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let end = (now.as_secs() / 60 + minutes) * 60 + SECOND;
    thread::sleep(Duration::from_secs(end).saturating_sub(now));
    Ok(())
}

/// What is there at one moment.
struct Look {
    time: SystemTime,
    audit: usize,
    store: Store,
    controller_seconds: f64,
    missed: f64,
}

impl Look {
    fn at(fleet: &Fleet) -> Outcome<Self> {
        let audit = fleet.control.audit().now()?;
        let mut command = fleet.control.command("curl");
        command.args(["--silent", "--fail"]).arg(format!("{ETCD}/metrics"));
        let store = Store::read(&process::output(&mut command)?)?;
        let trackings = fleet.control.kubectl().json(&["get", "eratrackings", "-A"])?;
        let missed = |it: &Value| it["status"]["missedRuns"].as_f64().unwrap_or_default();
        let missed = trackings["items"].as_array().into_iter().flatten().map(missed).sum();
        let controller_seconds = fleet.controller_seconds()?;
        Ok(Self { time: SystemTime::now(), audit, store, controller_seconds, missed })
    }
}

/// Of the newest of each kind in a namespace: as JSON, which is how etcd has our kinds.
fn sizes(fleet: &Fleet) -> Outcome<Sizes> {
    let user = fleet.control.kubectl().in_namespace(&objects::namespace(0));
    let size = |kind: &str| -> Outcome<f64> {
        let arguments =
            ["get", kind, "--sort-by=.metadata.creationTimestamp", "--show-managed-fields"];
        let all = user.json(&arguments)?;
        let newest = all["items"].as_array().and_then(|items| items.last());
        let length = newest.map_or(0, |it| it.to_string().len());
        Ok(f64::from(u32::try_from(length)?))
    };
    Ok(Sizes {
        snapshot: size("erasnapshots")?,
        slice: size("changedblockslices")?,
        event: size("events.events.k8s.io")?,
    })
}
