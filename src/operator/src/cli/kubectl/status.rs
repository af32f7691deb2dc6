//! What is tracked, and how it is.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use eratrack_api::{
    Condition, ConditionType, EraTracking, EraTrackingStatus, EraVolume, EraVolumeStatus, condition,
};
use kube::ResourceExt;
use serde::Serialize;

use super::access::Cluster;
use super::error::KubectlError;
use crate::cli::device::output::table;

/// Of which namespaces.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document (docs/formats.md)
    Json,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    trackings: Vec<TrackingRow>,
    volumes: Vec<VolumeRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TrackingRow {
    namespace: String,
    name: String,
    matched: Option<u64>,
    tracked: Option<u64>,
    intact: Option<u64>,
    changed_bytes: Option<u64>,
    #[serde(skip)]
    changed: Option<String>,
    last_snapshot: Option<String>,
    next_snapshot: Option<String>,
    ready: Option<Said>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeRow {
    namespace: String,
    claim: String,
    node: Option<String>,
    era: Option<u32>,
    #[serde(rename = "chainID")]
    chain_id: Option<String>,
    metadata_percent: Option<u32>,
    changed_bytes: Option<u64>,
    #[serde(skip)]
    changed: Option<String>,
    last_snapshot: Option<String>,
    attached: Option<Said>,
    intact: Option<Said>,
}

/// A condition, in short.
#[derive(Debug, Serialize)]
struct Said {
    status: &'static str,
    reason: String,
    message: String,
}

pub(super) async fn run(
    args: &StatusArgs,
    cluster: &Cluster,
    out: &mut impl Write,
) -> Result<(), KubectlError> {
    let trackings = cluster.trackings(args.all_namespaces).await?;
    let volumes = cluster.volumes(args.all_namespaces).await?;
    print(args.output, &answer(&trackings, &volumes), out).map_err(KubectlError::Print)
}

fn answer(trackings: &[EraTracking], volumes: &[EraVolume]) -> Answer {
    Answer {
        trackings: trackings.iter().map(TrackingRow::of).collect(),
        volumes: volumes.iter().map(VolumeRow::of).collect(),
    }
}

impl TrackingRow {
    fn of(tracking: &EraTracking) -> Self {
        let unknown = EraTrackingStatus::default();
        let status = tracking.status.as_ref().unwrap_or(&unknown);
        Self {
            namespace: tracking.namespace().unwrap_or_default(),
            name: tracking.name_any(),
            matched: status.matched,
            tracked: status.tracked,
            intact: status.intact,
            changed_bytes: status.changed_bytes,
            changed: status.changed.clone(),
            last_snapshot: status.last_snapshot_time.as_ref().map(|time| time.0.to_string()),
            next_snapshot: status.next_snapshot_time.as_ref().map(|time| time.0.to_string()),
            ready: Said::of(&status.conditions, ConditionType::Ready),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.name.clone(),
            cell(self.matched),
            cell(self.tracked),
            cell(self.intact),
            cell(self.changed.as_ref()),
            cell(self.last_snapshot.as_ref()),
            cell(self.next_snapshot.as_ref()),
            word(self.ready.as_ref()),
        ]
    }
}

impl VolumeRow {
    fn of(volume: &EraVolume) -> Self {
        let unknown = EraVolumeStatus::default();
        let status = volume.status.as_ref().unwrap_or(&unknown);
        let last = status.last_snapshot.as_ref();
        Self {
            namespace: volume.namespace().unwrap_or_default(),
            claim: volume.spec.claim.name.clone(),
            node: volume.spec.node_name.clone(),
            era: status.era,
            chain_id: status.chain.as_ref().map(|chain| chain.id.clone()),
            metadata_percent: status.metadata.as_ref().and_then(|it| it.used_percent),
            changed_bytes: last.and_then(|last| last.changed_bytes),
            changed: last.and_then(|last| last.changed.clone()),
            last_snapshot: last.map(|last| last.name.clone()),
            attached: Said::of(&status.conditions, ConditionType::Attached),
            intact: Said::of(&status.conditions, ConditionType::TrackingIntact),
        }
    }

    fn cells(&self) -> Vec<String> {
        let intact = self.intact.as_ref();
        let next = match intact.map(|said| said.status) {
            Some("True") => "incremental",
            Some("False") => "full",
            _ => "unknown",
        };
        vec![
            self.namespace.clone(),
            self.claim.clone(),
            cell(self.node.as_ref()),
            word(self.attached.as_ref()),
            next.to_owned(),
            word(intact),
            cell(self.era),
            cell(self.metadata_percent.map(|percent| format!("{percent}%"))),
            cell(self.changed.as_ref()),
            cell(self.last_snapshot.as_ref()),
        ]
    }
}

impl Said {
    fn of(conditions: &[Condition], type_: ConditionType) -> Option<Self> {
        let found = condition::find(conditions, type_)?;
        let (reason, message) = (found.reason.clone(), found.message.clone());
        Some(Self { status: found.status.as_str(), reason, message })
    }
}

fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn word(said: Option<&Said>) -> String {
    cell(said.map(|said| &said.reason))
}

fn print(format: Format, answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    if format == Format::Json {
        serde_json::to_writer(&mut *out, answer)?;
        return writeln!(out);
    }
    let trackings: Vec<_> = answer.trackings.iter().map(TrackingRow::cells).collect();
    let head = [
        "NAMESPACE",
        "TRACKING",
        "MATCHED",
        "TRACKED",
        "INTACT",
        "CHANGED",
        "LAST",
        "NEXT",
        "STATE",
    ];
    table(out, &head, &trackings)?;
    writeln!(out)?;
    let volumes: Vec<_> = answer.volumes.iter().map(VolumeRow::cells).collect();
    let head = [
        "NAMESPACE",
        "CLAIM",
        "NODE",
        "STATE",
        "NEXT",
        "BECAUSE",
        "ERA",
        "METADATA",
        "CHANGED",
        "SNAPSHOT",
    ];
    table(out, &head, &volumes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{condition, tracking, volume};
    use super::*;
    use serde_json::{Value, json};

    fn some() -> Answer {
        let ready = condition("Ready", "False", "VolumeNotReady", "volume logs: not in use");
        let status = json!({"matched": 2, "tracked": 1, "intact": 1, "changed": "12Mi", "changedBytes": 12_582_912,
            "lastSnapshotTime": "2026-01-01T10:00:00Z", "conditions": [ready]});
        let intact = json!({"era": 9, "chain": {"id": "x", "startTime": "2026-01-01T00:00:00Z", "startReason": "NoBaseline"},
            "metadata": {"usedPercent": 3},
            "lastSnapshot": {"name": "data-2", "uid": "u", "era": 9, "time": "2026-01-01T10:00:00Z", "changed": "12Mi",
                "changedBytes": 12_582_912},
            "conditions": [condition("Attached", "True", "Attached", ""), condition("TrackingIntact", "True", "ChainIntact", "")]});
        let idle = json!({"conditions": [condition("Attached", "False", "NotInUse", "no mount"),
            condition("TrackingIntact", "False", "NotInUse", "no mount")]});
        let volumes =
            [volume("shop", "data", "daily", &intact), volume("shop", "logs", "daily", &idle)];
        answer(&[tracking("shop", "daily", &status), tracking("shop", "new", &json!({}))], &volumes)
    }

    #[test]
    fn as_a_table() {
        let mut out = Vec::new();
        print(Format::Table, &some(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("golden/status.txt"));
    }

    #[test]
    fn as_json() {
        let mut out = Vec::new();
        print(Format::Json, &some(), &mut out).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        let expected: Value = serde_json::from_str(include_str!("golden/status.json")).unwrap();
        assert_eq!(value, expected);
    }
}
