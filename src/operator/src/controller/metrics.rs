//! The controller's figures: counters of what it did, and gauges read from the caches at each scrape. Labels are names
//! of claims and nodes, never blocks or devices.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use eratrack_api::{ConditionType, EraVolume, condition};
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::budget::Usage;
use super::outcome::outcome;
use super::retention::Outcome;
use super::world::World;

type Labels = Vec<(&'static str, String)>;

/// Counters, and whether this process leads.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) leading: Gauge<i64, AtomicI64>,
    pub(crate) reconciliations: Family<Labels, Counter>,
    pub(crate) errors: Family<Labels, Counter>,
    pub(crate) snapshots_created: Counter,
    pub(crate) snapshots_pruned: Counter,
    pub(crate) snapshots_merged: Counter,
    pub(crate) snapshots_failed: Counter,
    pub(crate) volumes_let_go: Family<Labels, Counter>,
}

impl Metrics {
    /// How many volumes were let go for this cause.
    pub(crate) fn let_go(&self, cause: &'static str) -> Counter {
        self.volumes_let_go.get_or_create_owned(&vec![("cause", cause.to_owned())])
    }

    /// Makes them known to a registry, and the gauges over the caches too.
    pub(crate) fn register(&self, registry: &mut Registry, world: &Arc<World>) {
        registry.register("leader", "1 while this process holds the Lease", self.leading.clone());
        registry.register(
            "reconciliations",
            "Objects looked at, by kind",
            self.reconciliations.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed looks, by kind and step",
            self.errors.clone(),
        );
        registry.register(
            "snapshots_created",
            "Scheduled snapshots created",
            self.snapshots_created.clone(),
        );
        registry.register(
            "snapshots_pruned",
            "Scheduled snapshots deleted again",
            self.snapshots_pruned.clone(),
        );
        registry.register(
            "snapshots_merged",
            "Scheduled snapshots merged into the next one before they were deleted",
            self.snapshots_merged.clone(),
        );
        registry.register(
            "snapshots_failed",
            "Snapshots that the controller ended",
            self.snapshots_failed.clone(),
        );
        registry.register(
            "volumes_let_go",
            "Volumes whose tracking ended, by why it was over",
            self.volumes_let_go.clone(),
        );
        registry.register_collector(Box::new(Gauges(world.clone())));
    }
}

/// What the caches say, at each scrape.
struct Gauges(Arc<World>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

/// A gauge of a volume: name, help, unit, and its value, if the volume has it.
type Figure = (&'static str, &'static str, Option<Unit>, fn(&EraVolume) -> Option<i64>);

const FIGURES: [Figure; 6] = [
    ("volume_ready", "1 if the volume is tracked and its node's agent ready", None, |it| {
        Some(holds(it, ConditionType::Ready))
    }),
    ("volume_tracking_intact", "1 if the next snapshot is incremental", None, |it| {
        Some(holds(it, ConditionType::TrackingIntact))
    }),
    (
        "volume_last_snapshot_timestamp",
        "When the last complete snapshot's boundary was",
        Some(Unit::Seconds),
        |it| Some(it.status.as_ref()?.last_snapshot.as_ref()?.time.0.as_second()),
    ),
    (
        "volume_last_snapshot_changed",
        "What the last complete snapshot says has changed",
        Some(Unit::Bytes),
        |it| it.status.as_ref()?.last_snapshot.as_ref()?.changed_bytes.map(clamped),
    ),
    ("volume_metadata_used", "Metadata of the volume in use", Some(Unit::Bytes), |it| {
        it.status.as_ref()?.metadata.as_ref()?.used_bytes.map(clamped)
    }),
    ("volume_metadata_total", "Metadata of the volume", Some(Unit::Bytes), |it| {
        it.status.as_ref()?.metadata.as_ref()?.total_bytes.map(clamped)
    }),
];

fn clamped(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn holds(volume: &EraVolume, type_: ConditionType) -> i64 {
    let conditions = volume.status.as_ref().map_or(&[][..], |status| &status.conditions);
    i64::from(condition::is_true(conditions, type_))
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let volumes = self.0.volumes.state();
        for (name, help, unit, value) in &FIGURES {
            let mut metric =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for volume in &volumes {
                if let Some(value) = value(volume) {
                    ConstGauge::new(value).encode(metric.encode_family(&labels(volume))?)?;
                }
            }
        }
        self.lists(&mut encoder)?;
        self.snapshots(encoder)
    }
}

impl Gauges {
    /// How near the cluster's lists are to the bound at which no more snapshots are made.
    fn lists(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let all = self.0.snapshots.state();
        let (bytes, objects) = Usage::of(all.iter().map(AsRef::as_ref)).figures();
        let (most_bytes, most_objects) = Usage::of_cluster_at_most().figures();
        let figures = [
            ("lists", "Room that the lists take", Some(&Unit::Bytes), bytes),
            ("lists_limit", "Room that the lists may take", Some(&Unit::Bytes), most_bytes),
            ("lists_objects", "Complete snapshots and slices", None, objects),
            (
                "lists_objects_limit",
                "Complete snapshots and slices there may be",
                None,
                most_objects,
            ),
        ];
        for (name, help, unit, value) in figures {
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(clamped(value)).encode(metric)?;
        }
        Ok(())
    }

    fn snapshots(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let [mut complete, mut pending, mut failed] = [0_i64; 3];
        for snapshot in self.0.snapshots.state() {
            match outcome(&snapshot) {
                Outcome::Complete(_) => complete += 1,
                Outcome::Pending => pending += 1,
                Outcome::Failed => failed += 1,
            }
        }
        let help = "Snapshots there are, by what has become of them";
        let mut metric = encoder.encode_descriptor("snapshots", help, None, MetricType::Gauge)?;
        for (outcome, count) in [("complete", complete), ("pending", pending), ("failed", failed)] {
            ConstGauge::new(count).encode(metric.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}

fn labels(volume: &EraVolume) -> [(&'static str, String); 3] {
    let node = volume.spec.node_name.clone().unwrap_or_default();
    [
        ("namespace", volume.namespace().unwrap_or_default()),
        ("claim", volume.name_any()),
        ("node", node),
    ]
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::controller::testing::{condition, era_volume, snapshot};
    use crate::metrics;

    #[test]
    fn a_scrape_reads_the_caches() {
        let (world, mut writers) = World::new();
        let volume = era_volume(
            "data",
            json!({ "status": {
                "conditions": [condition("Ready", "True", "Tracking")],
                "metadata": { "usedBytes": 4096, "totalBytes": 65536 },
            } }),
        );
        writers.volumes.apply_watcher_event(&Event::Apply(volume));
        let slices = json!({ "count": 2, "bytes": 1000, "sha256": "0".repeat(64) });
        let listed = snapshot("s", "data", json!({ "status": { "slices": slices } }));
        writers.snapshots.apply_watcher_event(&Event::Apply(listed));
        let mut registry = metrics::registry();
        Metrics::default().register(&mut registry, &Arc::new(world));
        let text = metrics::encode(&registry);
        let labels = r#"{namespace="shop",claim="data",node="n1"}"#;
        for line in [
            format!("eratrack_volume_ready{labels} 1"),
            format!("eratrack_volume_tracking_intact{labels} 0"),
            format!("eratrack_volume_metadata_used_bytes{labels} 4096"),
            r#"eratrack_snapshots{outcome="pending"} 1"#.to_owned(),
            "eratrack_snapshots_created_total 0".to_owned(),
            "eratrack_lists_bytes 1000".to_owned(),
            "eratrack_lists_limit_bytes 268435456".to_owned(),
            "eratrack_lists_objects 3".to_owned(),
            "eratrack_lists_objects_limit 100000".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("last_snapshot_timestamp_seconds{"), "there was none:\n{text}");
    }
}
