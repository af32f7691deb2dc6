//! The agent: attaches, watches and reads the volumes of one node.
//!
//! 1. alone: no other agent is at work on the machine (`sole`)
//! 2. recover: what an earlier process left is finished, undone or adopted (`stacks`, `host`)
//! 3. look after: whatever was found, until a worker takes it or nobody wants it (`strays`)
//! 4. watch: the node's `EraVolumes` and `EraSnapshots`, and the machine's mounts (`watches`, `mounts`)
//! 5. work: one worker a volume (`volume`), which finds its device (`discover`), carries its snapshots on (`snapshot`)
//!    and says what is true
//!
//! The agent writes through `cluster`, and touches the machine through `stacks` and `discover::Node` alone.

mod cluster;
mod contact;
mod discover;
mod dispatch;
mod host;
mod host_replica;
mod kube_cluster;
mod lane;
mod metrics;
mod mounts;
mod operations;
mod rollbacks;
pub(crate) mod slices;
pub(crate) mod snapshot;
mod sole;
mod stacks;
mod strays;
#[cfg(test)]
mod testing;

mod volume;
mod watches;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use eratrack_dm::DmError;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::cli::AgentArgs;
use crate::http_server::{self, ListenError, Readiness};
use crate::shutdown;
use contact::Contact;
use discover::{KubeletNode, Machine, MachineError};
use dispatch::Dispatcher;
use host::HostStacks;
use kube_cluster::KubeCluster;
use metrics::Metrics;
use sole::SoleError;
use stacks::{Found, StackError, Stacks};

/// How many replicas of the node are copied to in full at once, and how many in part.
const CONCURRENT_SEEDS: usize = 1;
const CONCURRENT_COPIES: usize = 2;
/// How many volumes of the node have a boundary at once.
const CONCURRENT_BOUNDARIES: usize = 2;
/// How long a watch may say nothing: it is ended by the API server after 290 s.
const WATCH_SILENCE: Duration = Duration::from_secs(310);
/// How long to wait before recovering again, when it did not work.
const RECOVER_RETRY: Duration = Duration::from_secs(10);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The API server's address or credentials cannot be had.
    #[error("cannot find the API server: no kubeconfig and not in a pod")]
    NoCluster(#[source] Box<kube::Error>),
    /// The machine is not where the arguments say.
    #[error("cannot look at the machine (--host-root)")]
    Machine(#[from] MachineError),
    /// The machine's mounts cannot be watched.
    #[error("cannot watch the machine's mounts")]
    Mounts(#[source] io::Error),
    /// Whether another agent is at work cannot be told.
    #[error(transparent)]
    Sole(#[from] SoleError),
    /// The kernel's device mapper cannot be reached.
    #[error("cannot reach the kernel's device mapper")]
    DeviceMapper(#[source] DmError),
    /// The endpoints cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The signals cannot be had.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A watch came to an end, which it never does.
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}

/// Runs until asked to end. Stacks stay: the kernel goes on without us.
pub(crate) async fn run(args: AgentArgs) -> Result<(), AgentError> {
    let mut registry = crate::metrics::registry();
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::default();
    let served = http_server::serve(args.metrics_addr, readiness.clone(), Arc::new(registry));
    tokio::select! {
        ended = served => ended.map(|never| match never {}).map_err(AgentError::from),
        worked = work(args, metrics, readiness) => worked.map(|never| match never {}),
        asked = shutdown::requested() => asked.map_err(AgentError::Signals),
    }
}

async fn work(
    args: AgentArgs,
    metrics: Metrics,
    readiness: Readiness,
) -> Result<Infallible, AgentError> {
    let (client, watching) =
        clients().await.map_err(|error| AgentError::NoCluster(Box::new(error)))?;
    let machine = Machine::new(&args.host_root)?;
    let mounts = mounts::watch(machine.mountinfo_path()).map_err(AgentError::Mounts)?;
    let node = KubeletNode { machine, kubelet: args.kubelet_dir.clone() };
    let stacks = Arc::new(HostStacks::new(&args).map_err(AgentError::DeviceMapper)?);
    let _sole = sole::alone(&args.host_root).await?;
    let found = recover(&stacks).await;

    let (volumes, volume_news) = watches::volumes(watching.clone(), &args.node_name);
    let (snapshots, snapshot_news) = watches::snapshots(watching, &args.node_name);
    let context = volume::Context {
        cluster: KubeCluster::new(client, &args.node_name),
        stacks,
        node: Arc::new(node),
        node_name: args.node_name,
        boundaries: Arc::new(Semaphore::new(CONCURRENT_BOUNDARIES)),
        seeds: Arc::new(Semaphore::new(CONCURRENT_SEEDS)),
        copies: Arc::new(Semaphore::new(CONCURRENT_COPIES)),
        devices: std::sync::Mutex::default(),
        holders: volume::Holders::default(),
        contact: Contact::default(),
        volumes,
        snapshots,
        metrics,
        now: Timestamp::now,
    };
    let dispatcher = Dispatcher::new(Arc::new(context), mounts, found);
    dispatcher.run(volume_news, snapshot_news, readiness).await
}

/// One for requests, each of which has a deadline where it is made; one for the watches, whose calls have none of their
/// own: it gives a connection up that is silent for longer than the API server lets a watch be.
async fn clients() -> Result<(kube::Client, kube::Client), kube::Error> {
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    let mut watching = config.clone();
    watching.read_timeout = Some(WATCH_SILENCE);
    Ok((kube::Client::try_from(config)?, kube::Client::try_from(watching)?))
}

/// Nothing else is done before this has succeeded: what is on the machine must be known first.
async fn recover<S: Stacks>(stacks: &Arc<S>) -> Vec<Found> {
    loop {
        let stacks = stacks.clone();
        let recovered = tokio::task::spawn_blocking(move || stacks.recover()).await;
        match recovered.unwrap_or_else(|panic| Err(StackError::unforeseen(panic.to_string()))) {
            Ok(found) => {
                tracing::info!(stacks = found.len(), "recovered");
                return found;
            }
            Err(error) => {
                tracing::error!(error = crate::exit::chain(&error), "cannot recover yet");
                tokio::time::sleep(RECOVER_RETRY).await;
            }
        }
    }
}
