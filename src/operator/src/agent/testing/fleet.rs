//! The agents of many nodes in one process, over a real API server and a machine in memory: what `cargo e2e bench scale`
//! starts. All that they ask and write is what the agent itself asks and writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::select_all;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::sync::{Semaphore, watch};

use super::machines::ManyVolumes;
use crate::agent::contact::Contact;
use crate::agent::dispatch::Dispatcher;
use crate::agent::kube_cluster::KubeCluster;
use crate::agent::metrics::Metrics;
use crate::agent::volume::{Context, Holders};
use crate::agent::{AgentError, CONCURRENT_BOUNDARIES, watches};
use crate::http_server::Readiness;

/// A directory of kubeconfigs, each named after its node.
const NODES: &str = "ERATRACK_FLEET";

/// Works until it is ended; an agent that ends by itself has failed.
#[test]
#[ignore = "benchmark: the agents of `cargo e2e bench scale`"]
fn fleet() {
    let directory = std::env::var_os(NODES).expect(NODES);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let agents = kubeconfigs(Path::new(&directory)).into_iter().map(|it| Box::pin(agent(it)));
    let (ended, ..) = runtime.block_on(select_all(agents));
    panic!("an agent ended: {ended}");
}

fn kubeconfigs(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory of kubeconfigs");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// One agent, put together as `work` of the agent does.
async fn agent(kubeconfig: PathBuf) -> AgentError {
    let node = kubeconfig.file_name().expect("a file").to_string_lossy().into_owned();
    let (client, watching) = (client(&kubeconfig).await, client(&kubeconfig).await);
    let (volumes, volume_news) = watches::volumes(watching.clone(), &node);
    let (snapshots, snapshot_news) = watches::snapshots(watching, &node);
    let machine = Arc::new(ManyVolumes::default());
    let context = Context {
        cluster: KubeCluster::new(client, &node),
        stacks: machine.clone(),
        node: machine,
        node_name: node,
        boundaries: Arc::new(Semaphore::new(CONCURRENT_BOUNDARIES)),
        seeds: Arc::new(Semaphore::new(1)),
        copies: Arc::new(Semaphore::new(2)),
        devices: std::sync::Mutex::default(),
        holders: Holders::default(),
        contact: Contact::default(),
        volumes,
        snapshots,
        metrics: Metrics::new(&mut crate::metrics::registry()),
        now: Timestamp::now,
    };
    let (_mounts, seen) = watch::channel(0);
    let dispatcher = Dispatcher::new(Arc::new(context), seen, Vec::new());
    match dispatcher.run(volume_news, snapshot_news, Readiness::default()).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("its context")).expect("a client")
}
