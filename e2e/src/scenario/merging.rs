//! `cluster_merging`: what a schedule prunes from between two snapshots is in the list of the later one.

use std::time::Duration;

use serde_json::Value;

use super::stage::{Stage, tracking};
use crate::{
    cluster::{Kubectl, Replica, condition},
    demo::Snapshot,
    failure::Outcome,
};

/// The next minute, its snapshot, and the merge.
const NEXT: Duration = Duration::from_secs(240);

/// A replica is made at a snapshot by hand. The schedule keeps one of its own, so each is merged into the next. After some of
/// them, the list of the last one alone makes the replica equal.
pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-merging")?;
    let (volume, application) = stage.tracked("data", 128)?;
    let replica = Replica::of(&volume);
    stage.user.apply(&Snapshot::manifest("by-hand", "data"))?;
    let first = Snapshot::ready(&stage.user, "by-hand")?;
    stage.node().run(&replica.create())?;
    stage.node().run(&replica.copy_all())?;
    let spec = "claims: {names: [data]}, snapshots: {schedule: '* * * * *', keep: {last: 1}}";
    stage.user.apply(&tracking("data", spec))?;
    let mut last = String::new();
    for _ in 0..2 {
        last = merged_after(&stage.user, &last, first.era)?;
        application.until_more(20)?;
    }
    application.quiesce()?;
    stage.node().run("sync")?;
    // One that began before the application was quiet may not have it all.
    let begun = Snapshot::scheduled(&stage.user)?.into_iter().max().unwrap_or(last);
    let name = merged_after(&stage.user, &begun, first.era)?;
    // No further one is to be merged while this one is read.
    let suspend = r#"{"spec":{"snapshots":{"suspend":true}}}"#;
    stage.user.run(&["patch", "eratracking/data", "--type=merge", "-p", suspend])?;
    let snapshot = Snapshot::ready(&stage.user, &name)?;
    if (snapshot.since, &snapshot.chain) != (Some(first.era), &first.chain) {
        return Err(format!("its list does not lead on from the first: {snapshot:?}").into());
    }
    replica.copy_listed(stage.node(), &snapshot.blocks)?;
    stage.node().run(&replica.compare())?;
    application.verify()?;
    stage.close()
}

/// Waits until a scheduled snapshot of a later name than `name` is complete, and its list reaches back to `era`; its name.
fn merged_after(kubectl: &Kubectl, name: &str, era: u64) -> Outcome<String> {
    let what = format!("a scheduled snapshot after {name:?}, since era {era}");
    kubectl.until_any(&["erasnapshots"], &what, NEXT, |one: &Value| {
        let found = one["metadata"]["name"].as_str().unwrap_or_default();
        let ready = condition(one, "Ready").is_some_and(|it| it["status"] == "True");
        let reaches = one["status"]["sinceEra"].as_u64() == Some(era);
        if Snapshot::is_scheduled(one) && found > name && ready && reaches {
            Ok(found.to_owned())
        } else {
            Err(format!("{found}, since {}", one["status"]["sinceEra"]))
        }
    })
}
