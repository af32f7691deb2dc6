//! Who hears of what: starts a worker for each of the node's volumes, and wakes it at news.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::AgentError;
use super::cluster::{Cluster, Key};
use super::discover::Node;
use super::stacks::{Found, FoundState, Stacks};
use super::strays;
use super::volume::{Context, Worker};
use super::watches::Item;
use crate::http_server::Readiness;

/// The workers and how to wake them.
pub(crate) struct Dispatcher<C, S, N> {
    context: Arc<Context<C, S, N>>,
    mounts: watch::Receiver<u64>,
    /// What was on the machine and has no worker yet, by the PersistentVolume's uid.
    found: HashMap<String, Found>,
    workers: HashMap<Key, Arc<Notify>>,
    running: JoinSet<Key>,
}

impl<C: Cluster, S: Stacks, N: Node> Dispatcher<C, S, N> {
    /// `found` is what was on the machine when the agent came.
    pub(crate) fn new(
        context: Arc<Context<C, S, N>>,
        mounts: watch::Receiver<u64>,
        found: HashMap<String, Found>,
    ) -> Self {
        Self { context, mounts, found, workers: HashMap::new(), running: JoinSet::new() }
    }

    /// Dispatches until a watch ends, which it never does.
    pub(crate) async fn run(
        mut self,
        mut volumes: impl Stream<Item = Item> + Unpin,
        mut snapshots: impl Stream<Item = Item> + Unpin,
        readiness: Readiness,
    ) -> Result<Infallible, AgentError> {
        let (mut volumes_known, mut snapshots_known, mut started) = (false, false, false);
        loop {
            tokio::select! {
                item = volumes.next() => match item.ok_or(AgentError::WatchEnded("EraVolumes"))? {
                    Item::Of(key) if started => self.tell(&key),
                    Item::Of(_) => {}
                    Item::Complete => volumes_known = true,
                },
                item = snapshots.next() => match item.ok_or(AgentError::WatchEnded("EraSnapshots"))? {
                    Item::Of(key) if started => self.tell(&key),
                    Item::Of(_) => {}
                    Item::Complete => snapshots_known = true,
                },
                Some(ended) = self.running.join_next() => self.ended(ended),
            }
            if volumes_known && snapshots_known {
                // Also after an interruption: what changed meanwhile was not told one by one.
                (volumes_known, snapshots_known) = (false, started);
                self.tell_all();
                if !std::mem::replace(&mut started, true) {
                    self.take_in_strays();
                    readiness.set(true);
                    tracing::info!(volumes = self.workers.len(), "ready");
                }
            }
        }
    }

    fn tell(&mut self, key: &Key) {
        if let Some(news) = self.workers.get(key) {
            news.notify_one();
            return;
        }
        let reference = ObjectRef::new(&key.name).within(&key.namespace);
        let Some(volume) = self.context.volumes.get(&reference) else { return };
        let news = Arc::new(Notify::new());
        let found = self.found.remove(&volume.spec.volume.uid);
        let worker =
            Worker::new(self.context.clone(), &volume, found, news.clone(), self.mounts.clone());
        self.workers.insert(key.clone(), news);
        let key = key.clone();
        self.running.spawn(async move {
            worker.run().await;
            key
        });
    }

    fn tell_all(&mut self) {
        let known: Vec<Key> =
            self.context.volumes.state().iter().map(|it| Key::of(&**it)).collect();
        let all: Vec<Key> = known.into_iter().chain(self.workers.keys().cloned()).collect();
        for key in all {
            self.tell(&key);
        }
    }

    fn take_in_strays(&mut self) {
        for found in std::mem::take(&mut self.found).into_values() {
            if matches!(found.state, FoundState::Ended(_)) {
                continue;
            }
            tokio::spawn(strays::look_after(self.context.clone(), found.volume_uid));
        }
    }

    fn ended(&mut self, ended: Result<Key, tokio::task::JoinError>) {
        match ended {
            Ok(key) => {
                self.workers.remove(&key);
                // The name may have been given to a new volume while the old one was on its way out.
                self.tell(&key);
            }
            Err(error) => {
                // A worker that panicked knows nothing any more; a new process recovers what is there.
                tracing::error!(%error, "a worker failed; ending, so that the next start recovers");
                std::process::exit(1);
            }
        }
    }
}
