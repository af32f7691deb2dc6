//! The agent's figures, a few a volume.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use eratrack_api::Reason;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::cluster::Key;
use super::volume::State;

/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Volume {
    namespace: String,
    volume: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    reason: ReasonLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// The figures.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    attached: Family<Volume, Gauge>,
    chain_intact: Family<Volume, Gauge>,
    metadata_used: Family<Volume, Gauge>,
    metadata_total: Family<Volume, Gauge>,
    last_boundary: Family<Volume, Gauge<f64, AtomicU64>>,
    chains_started: Counter,
    chains_broken: Family<Ended, Counter>,
    snapshot_seconds: Histogram,
    boundary_seconds: Histogram,
    list_seconds: Histogram,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            attached: Family::default(),
            chain_intact: Family::default(),
            metadata_used: Family::default(),
            metadata_total: Family::default(),
            last_boundary: Family::default(),
            chains_started: Counter::default(),
            chains_broken: Family::default(),
            snapshot_seconds: Histogram::new(BUCKETS),
            boundary_seconds: Histogram::new(BUCKETS),
            list_seconds: Histogram::new(BUCKETS),
        };
        let agent = registry.sub_registry_with_prefix("agent");
        agent.register(
            "attached",
            "Whether era is in the volume's data path",
            metrics.attached.clone(),
        );
        agent.register(
            "chain_intact",
            "Whether the volume's next snapshot is incremental",
            metrics.chain_intact.clone(),
        );
        agent.register_with_unit(
            "metadata_used",
            "Metadata of the volume in use",
            Unit::Bytes,
            metrics.metadata_used.clone(),
        );
        agent.register_with_unit(
            "metadata_total",
            "Metadata of the volume",
            Unit::Bytes,
            metrics.metadata_total.clone(),
        );
        agent.register_with_unit(
            "last_boundary_timestamp",
            "When the volume's last complete snapshot had its boundary, in Unix time",
            Unit::Seconds,
            metrics.last_boundary.clone(),
        );
        agent.register("chains_started", "Chains begun", metrics.chains_started.clone());
        agent.register(
            "chains_broken",
            "Chains that ended, by reason",
            metrics.chains_broken.clone(),
        );
        agent.register_with_unit(
            "snapshot",
            "From taking a snapshot up to its complete list",
            Unit::Seconds,
            metrics.snapshot_seconds.clone(),
        );
        agent.register_with_unit(
            "boundary",
            "Making a boundary, of which writers wait for a part",
            Unit::Seconds,
            metrics.boundary_seconds.clone(),
        );
        agent.register_with_unit(
            "list",
            "Reading what changed from era's metadata, and making it fit",
            Unit::Seconds,
            metrics.list_seconds.clone(),
        );
        metrics
    }

    /// What is true of a volume.
    pub(crate) fn observe(&self, key: &Key, state: &State) {
        let volume = label(key);
        let (attached, intact) = match state {
            State::Attached(facts) => (1, i64::from(facts.last_snapshot.is_some())),
            State::Unknown { .. } | State::Detached { .. } => (0, 0),
        };
        self.attached.get_or_create(&volume).set(attached);
        self.chain_intact.get_or_create(&volume).set(intact);
    }

    /// What era says of its metadata.
    pub(crate) fn metadata(&self, key: &Key, used: u64, total: u64) {
        let volume = label(key);
        self.metadata_used.get_or_create(&volume).set(i64::try_from(used).unwrap_or(i64::MAX));
        self.metadata_total.get_or_create(&volume).set(i64::try_from(total).unwrap_or(i64::MAX));
    }

    /// A snapshot is complete.
    pub(crate) fn snapshot(&self, key: &Key, boundary: Option<Timestamp>, took: Duration) {
        self.snapshot_seconds.observe(took.as_secs_f64());
        if let Some(boundary) = boundary {
            let seconds = Duration::try_from(boundary.as_duration()).unwrap_or_default();
            self.last_boundary.get_or_create(&label(key)).set(seconds.as_secs_f64());
        }
    }

    /// A boundary was made.
    pub(crate) fn boundary(&self, took: Duration) {
        self.boundary_seconds.observe(took.as_secs_f64());
    }

    /// A list was read.
    pub(crate) fn list(&self, took: Duration) {
        self.list_seconds.observe(took.as_secs_f64());
    }

    /// A chain began.
    pub(crate) fn started(&self) {
        self.chains_started.inc();
    }

    /// A chain ended.
    pub(crate) fn broken(&self, reason: Reason) {
        self.chains_broken.get_or_create(&Ended { reason: ReasonLabel(reason) }).inc();
    }

    /// The volume is gone.
    pub(crate) fn forget(&self, key: &Key) {
        let volume = label(key);
        self.attached.remove(&volume);
        self.chain_intact.remove(&volume);
        self.metadata_used.remove(&volume);
        self.metadata_total.remove(&volume);
        self.last_boundary.remove(&volume);
    }
}

fn label(key: &Key) -> Volume {
    Volume { namespace: key.namespace.clone(), volume: key.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scraper_sees() {
        let mut registry = crate::metrics::registry();
        let metrics = Metrics::new(&mut registry);
        let key = Key { namespace: "apps".into(), name: "data".into() };
        metrics.metadata(&key, 4096, 8192);
        metrics.broken(Reason::TableReloaded);
        metrics.snapshot(
            &key,
            Timestamp::from_second(1_800_000_000).ok(),
            Duration::from_millis(20),
        );
        metrics.boundary(Duration::from_millis(5));
        metrics.list(Duration::from_millis(60));
        let text = crate::metrics::encode(&registry);
        for line in [
            "eratrack_agent_metadata_used_bytes{namespace=\"apps\",volume=\"data\"} 4096",
            "eratrack_agent_chains_broken_total{reason=\"TableReloaded\"} 1",
            "eratrack_agent_last_boundary_timestamp_seconds{namespace=\"apps\",volume=\"data\"} 1800000000.0",
            "eratrack_agent_snapshot_seconds_bucket{le=\"0.03\"} 1",
            "eratrack_agent_boundary_seconds_bucket{le=\"0.01\"} 1",
            "eratrack_agent_list_seconds_bucket{le=\"0.1\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.forget(&key);
        assert!(!crate::metrics::encode(&registry).contains("apps"));
    }
}
