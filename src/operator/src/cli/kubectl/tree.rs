//! What belongs to what: trackings, their claims, the volumes, and the snapshots of each.

use std::io::{self, Write};

use clap::Args;
use eratrack_api::{
    ConditionType, EraSnapshot, EraTracking, EraVolume, SnapshotType, condition, names, size,
};
use kube::ResourceExt;

use super::access::Cluster;
use super::error::KubectlError;

/// Of which namespaces.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

/// A line, and those that belong to it.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    caption: String,
    below: Vec<Node>,
}

pub(super) async fn run(
    args: &TreeArgs,
    cluster: &Cluster,
    out: &mut impl Write,
) -> Result<(), KubectlError> {
    let trackings = cluster.trackings(args.all_namespaces).await?;
    let volumes = cluster.volumes(args.all_namespaces).await?;
    let snapshots = cluster.snapshots(args.all_namespaces).await?;
    draw_all(&forest(&trackings, &volumes, &snapshots), out).map_err(KubectlError::Print)
}

fn forest(
    trackings: &[EraTracking],
    volumes: &[EraVolume],
    snapshots: &[EraSnapshot],
) -> Vec<Node> {
    let mut forest: Vec<Node> = trackings
        .iter()
        .map(|tracking| {
            let mine = volumes.iter().filter(|volume| belongs(volume, tracking));
            let below = mine.map(|volume| claim(volume, snapshots)).collect();
            Node { caption: of_tracking(tracking), below }
        })
        .collect();
    let nobodys = volumes.iter().filter(|volume| !trackings.iter().any(|it| belongs(volume, it)));
    let below: Vec<_> = nobodys.map(|volume| claim(volume, snapshots)).collect();
    if !below.is_empty() {
        forest.push(Node { caption: "no EraTracking".to_owned(), below });
    }
    let left: Vec<_> = left(volumes, snapshots).collect();
    if !left.is_empty() {
        forest.push(Node { caption: "not tracked any more".to_owned(), below: left });
    }
    forest
}

fn belongs(volume: &EraVolume, tracking: &EraTracking) -> bool {
    volume.namespace() == tracking.namespace()
        && volume.labels().get(names::LABEL_TRACKING) == Some(&tracking.name_any())
}

fn of_claim<'a>(
    snapshots: &'a [EraSnapshot],
    namespace: Option<&str>,
    claim: &str,
) -> Vec<&'a EraSnapshot> {
    let mut found: Vec<_> = snapshots
        .iter()
        .filter(|it| it.metadata.namespace.as_deref() == namespace && it.spec.claim_name == claim)
        .collect();
    found.sort_by_key(|it| {
        let boundary = it.status.as_ref().and_then(|status| status.boundary_time.as_ref());
        (boundary.is_none(), boundary.map(|time| time.0), it.name_any())
    });
    found
}

/// A claim with its volume, and what was made of it.
fn claim(volume: &EraVolume, snapshots: &[EraSnapshot]) -> Node {
    let name = &volume.spec.claim.name;
    let made = of_claim(snapshots, volume.metadata.namespace.as_deref(), name);
    let below = made.into_iter().map(leaf).collect();
    let volume = Node { caption: of_volume(volume), below };
    Node { caption: format!("claim {name}"), below: vec![volume] }
}

/// Claims that have snapshots and no `EraVolume`.
fn left<'a>(
    volumes: &'a [EraVolume],
    snapshots: &'a [EraSnapshot],
) -> impl Iterator<Item = Node> + 'a {
    let mut claims: Vec<(Option<&str>, &str)> = snapshots
        .iter()
        .map(|it| (it.metadata.namespace.as_deref(), it.spec.claim_name.as_str()))
        .filter(|(namespace, claim)| {
            !volumes.iter().any(|volume| {
                volume.metadata.namespace.as_deref() == *namespace
                    && volume.spec.claim.name == *claim
            })
        })
        .collect();
    claims.sort_unstable();
    claims.dedup();
    claims.into_iter().map(|(namespace, claim)| Node {
        caption: format!("claim {}/{claim}", namespace.unwrap_or_default()),
        below: of_claim(snapshots, namespace, claim).into_iter().map(leaf).collect(),
    })
}

fn of_tracking(tracking: &EraTracking) -> String {
    let name =
        format!("EraTracking {}/{}", tracking.namespace().unwrap_or_default(), tracking.name_any());
    match tracking.status.as_ref().map(|it| (it.matched, it.tracked, it.intact)) {
        Some((Some(matched), Some(tracked), Some(intact))) => {
            format!("{name}: {tracked} of {matched} claims tracked, {intact} intact")
        }
        _ => name,
    }
}

fn of_volume(volume: &EraVolume) -> String {
    let status = volume.status.as_ref();
    let name = &volume.spec.volume.name;
    let node = volume
        .spec
        .node_name
        .as_deref()
        .map_or_else(|| "on no known node".to_owned(), |node| format!("on {node}"));
    let mut said = vec![format!("volume {name} {node}")];
    said.extend(status.and_then(|it| it.size_bytes).map(size::for_people));
    said.extend(status.and_then(|it| it.granularity).map(|it| format!("blocks of {it}")));
    said.extend(status.and_then(|it| it.era).map(|era| format!("era {era}")));
    let intact = status
        .and_then(|it| condition::find(&it.conditions, ConditionType::TrackingIntact))
        .map(|it| it.reason.clone());
    said.extend(intact);
    said.join(", ")
}

fn leaf(snapshot: &EraSnapshot) -> Node {
    Node { caption: of_snapshot(snapshot), below: Vec::new() }
}

fn of_snapshot(snapshot: &EraSnapshot) -> String {
    let name = snapshot.name_any();
    let Some(status) = &snapshot.status else { return format!("{name}: Pending") };
    let ready = condition::find(&status.conditions, ConditionType::Ready);
    if !ready.is_some_and(eratrack_api::Condition::is_true) {
        let phase = ready.map_or("Pending", |it| &it.reason);
        return format!("{name}: {phase}");
    }
    let era = status.era.unwrap_or_default();
    let listed = size::for_people(status.listed_bytes.unwrap_or_default());
    match status.type_ {
        Some(SnapshotType::Incremental) => {
            let since = status.since_era.unwrap_or_default();
            let changed = size::for_people(status.changed_bytes.unwrap_or_default());
            let more = if changed == listed { String::new() } else { format!(", {listed} listed") };
            format!("{name}: Incremental, eras {since} to {era}, {changed} changed{more}")
        }
        Some(SnapshotType::Full) | None => {
            let why = status.full_reason.as_deref().unwrap_or("unknown");
            format!("{name}: Full ({why}), era {era}, {listed}")
        }
    }
}

fn draw_all(forest: &[Node], out: &mut impl Write) -> io::Result<()> {
    forest.iter().try_for_each(|tree| {
        writeln!(out, "{}", tree.caption)?;
        branches(&tree.below, "", out)
    })
}

fn branches(nodes: &[Node], indent: &str, out: &mut impl Write) -> io::Result<()> {
    for (index, node) in nodes.iter().enumerate() {
        let (bend, below) =
            if index + 1 == nodes.len() { ("└─", "  ") } else { ("├─", "│ ") };
        writeln!(out, "{indent}{bend}{}", node.caption)?;
        branches(&node.below, &format!("{indent}{below}"), out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{condition, snapshot, tracking, volume};
    use super::*;
    use serde_json::{Value, json};

    fn ready(second: u32, mut status: Value) -> Value {
        status["boundaryTime"] = json!(format!("2026-01-01T00:00:0{second}Z"));
        status["conditions"] = json!([condition("Ready", "True", "Complete", "")]);
        status
    }

    #[test]
    fn everything_hangs_where_it_belongs() {
        let counts = json!({"matched": 1, "tracked": 1, "intact": 1});
        let trackings = [tracking("shop", "daily", &counts), tracking("shop", "idle", &json!({}))];
        let status = json!({"era": 9, "granularity": "256Ki", "sizeBytes": 1_u64 << 30,
            "conditions": [condition("TrackingIntact", "True", "ChainIntact", "")]});
        let volumes =
            [volume("shop", "data", "daily", &status), volume("shop", "logs", "gone", &json!({}))];
        let full = json!({"type": "Full", "fullReason": "NoBaseline", "era": 5, "listedBytes": 1_u64 << 30});
        let delta = json!({"type": "Incremental", "sinceEra": 5, "era": 9, "changedBytes": 12 << 20, "listedBytes": 12 << 20});
        let wider = json!({"type": "Incremental", "sinceEra": 9, "era": 11, "changedBytes": 12 << 20, "listedBytes": 90 << 20});
        let failed = json!({"conditions": [condition("Ready", "False", "ChainBroken", "")]});
        let snapshots = [
            snapshot("shop", "data", "data-4", &failed),
            snapshot("shop", "data", "data-3", &ready(3, wider)),
            snapshot("shop", "data", "data-1", &ready(1, full.clone())),
            snapshot("shop", "data", "data-2", &ready(2, delta)),
            snapshot("shop", "old", "old-1", &ready(1, full)),
            snapshot("other", "data", "data-9", &json!({})),
        ];
        let mut out = Vec::new();
        draw_all(&forest(&trackings, &volumes, &snapshots), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("golden/tree.txt"));
    }
}
