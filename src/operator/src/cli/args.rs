//! The arguments of the roles. Every one can also be given by its environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use eratrack_api::Granularity;
use eratrack_model::units::Bytes;

use super::size;

/// What the controller is told by the administrator.
#[derive(Clone, Debug, Args)]
pub(crate) struct ControllerArgs {
    /// The controller's own namespace, where its Lease is and the agents run
    #[arg(long, env = "ERATRACK_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// The Lease that only one controller holds
    #[arg(
        long,
        env = "ERATRACK_LEASE_NAME",
        default_value = "eratrack-controller",
        value_name = "NAME"
    )]
    pub(crate) lease_name: String,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(
        long,
        env = "ERATRACK_METRICS_ADDR",
        default_value = "0.0.0.0:8080",
        value_name = "ADDR"
    )]
    pub(crate) metrics_addr: SocketAddr,
    /// The finest granularity a user may ask for; finer costs more metadata
    #[arg(long, env = "ERATRACK_MIN_GRANULARITY", default_value = "64Ki", value_name = "SIZE")]
    pub(crate) min_granularity: Granularity,
    /// The most snapshots of a claim that an EraTracking may keep
    #[arg(long, env = "ERATRACK_KEEP_MAX", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=128), value_name = "COUNT")]
    pub(crate) keep_max: u32,
}

/// What an agent is told by the administrator.
#[derive(Clone, Debug, Args)]
pub(crate) struct AgentArgs {
    /// The node this agent works on
    #[arg(long, env = "ERATRACK_NODE_NAME", value_name = "NODE")]
    pub(crate) node_name: String,
    /// Where the machine's own file system is seen
    #[arg(long, env = "ERATRACK_HOST_ROOT", default_value = "/proc/1/root", value_name = "DIR")]
    pub(crate) host_root: PathBuf,
    /// The machine's directory for metadata and records
    #[arg(
        long,
        env = "ERATRACK_METADATA_DIR",
        default_value = "/var/lib/eratrack",
        value_name = "DIR"
    )]
    pub(crate) metadata_dir: PathBuf,
    /// The machine's directory of the kubelet
    #[arg(
        long,
        env = "ERATRACK_KUBELET_DIR",
        default_value = "/var/lib/kubelet",
        value_name = "DIR"
    )]
    pub(crate) kubelet_dir: PathBuf,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(
        long,
        env = "ERATRACK_METRICS_ADDR",
        default_value = "0.0.0.0:8081",
        value_name = "ADDR"
    )]
    pub(crate) metrics_addr: SocketAddr,
    /// The most metadata one volume may take
    #[arg(long, env = "ERATRACK_METADATA_MAX_PER_VOLUME", default_value = "1Gi", value_parser = size::parse, value_name = "SIZE")]
    pub(crate) metadata_max_per_volume: Bytes,
    /// The most metadata all volumes of the node may take
    #[arg(long, env = "ERATRACK_METADATA_MAX_PER_NODE", default_value = "10Gi", value_parser = size::parse, value_name = "SIZE")]
    pub(crate) metadata_max_per_node: Bytes,
    /// The same as a share of the metadata directory's file system, in percent; the smaller one counts
    #[arg(long, env = "ERATRACK_METADATA_MAX_PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PERCENT")]
    pub(crate) metadata_max_percent: u8,
    /// How much of the metadata directory's file system must stay free
    #[arg(long, env = "ERATRACK_METADATA_FREE_PERCENT", default_value_t = 15, value_parser = clap::value_parser!(u8).range(0..=99), value_name = "PERCENT")]
    pub(crate) metadata_free_percent: u8,
    /// How much of a volume can be overwritten while a Local snapshot of it is held; room for that is taken in the
    /// metadata directory. By default a tenth of the volume, from 64 MiB to 1 GiB, or less where there is less
    #[arg(long, env = "ERATRACK_COPIES_PER_VOLUME", value_parser = size::parse, value_name = "SIZE")]
    pub(crate) copies_per_volume: Option<Bytes>,
}

/// What uninstalling needs.
#[derive(Clone, Debug, Args)]
pub(crate) struct UninstallArgs {
    /// The controller's namespace
    #[arg(long, env = "ERATRACK_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// The controller's Lease, which is taken so that no controller acts meanwhile
    #[arg(
        long,
        env = "ERATRACK_LEASE_NAME",
        default_value = "eratrack-controller",
        value_name = "NAME"
    )]
    pub(crate) lease_name: String,
    /// How long the volumes may take, in seconds (`300s`)
    #[arg(long, env = "ERATRACK_TIMEOUT", default_value = "300s", value_parser = seconds, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// Parses `300s` (or `300`).
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.strip_suffix('s')
        .unwrap_or(text)
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| format!("{text:?} is no number of seconds, such as 300s"))
}
