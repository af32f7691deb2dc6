//! Who hears of what: starts a worker for each of the node's volumes, and wakes it at news.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::AgentError;
use super::cluster::{Cluster, Key};
use super::contact::Line;
use super::discover::Node;
use super::stacks::{Found, Stacks};
use super::strays::Stray;
use super::volume::{Context, Worker};
use super::watches::Item;
use crate::http_server::Readiness;

/// How often it is looked whether the API server can be reached.
const CHECK: Duration = Duration::from_secs(10);

/// The workers and how to wake them.
pub(crate) struct Dispatcher<C, S, N> {
    context: Arc<Context<C, S, N>>,
    mounts: watch::Receiver<u64>,
    /// What was on the machine and has no worker yet, by the PersistentVolume's uid.
    strays: HashMap<String, Stray>,
    workers: HashMap<Key, Arc<Notify>>,
    running: JoinSet<Key>,
}

/// Which stores have all there is.
#[derive(Clone, Copy, Default)]
struct Known {
    volumes: bool,
    snapshots: bool,
    started: bool,
}

impl Known {
    fn all(self) -> bool {
        self.volumes && self.snapshots
    }
}

impl<C: Cluster, S: Stacks, N: Node> Dispatcher<C, S, N> {
    /// `found` is what was on the machine when the agent came. It is looked after from now on.
    pub(crate) fn new(
        context: Arc<Context<C, S, N>>,
        mounts: watch::Receiver<u64>,
        found: Vec<Found>,
    ) -> Self {
        let stray =
            |found: Found| (found.volume_uid.clone(), Stray::look_after(context.clone(), found));
        let strays = found.into_iter().map(stray).collect();
        Self { context, mounts, strays, workers: HashMap::new(), running: JoinSet::new() }
    }

    /// Dispatches until a watch ends, which it never does.
    pub(crate) async fn run(
        mut self,
        mut volumes: impl Stream<Item = Item> + Unpin,
        mut snapshots: impl Stream<Item = Item> + Unpin,
        readiness: Readiness,
    ) -> Result<Infallible, AgentError> {
        let mut known = Known::default();
        let mut check = tokio::time::interval(CHECK);
        loop {
            let complete = tokio::select! {
                item = volumes.next() => {
                    let item = item.ok_or(AgentError::WatchEnded("EraVolumes"))?;
                    let complete = self.hear(Line::Volumes, item, known);
                    known.volumes |= complete;
                    complete
                }
                item = snapshots.next() => {
                    let item = item.ok_or(AgentError::WatchEnded("EraSnapshots"))?;
                    let complete = self.hear(Line::Snapshots, item, known);
                    known.snapshots |= complete;
                    complete
                }
                Some(ended) = self.running.join_next() => {
                    self.ended(ended);
                    false
                }
                _ = check.tick() => {
                    readiness.set(known.started && !self.context.contact.is_lost());
                    false
                }
            };
            // Also after an interruption: what changed meanwhile was not told one by one.
            if complete && known.all() {
                self.tell_all();
                if !std::mem::replace(&mut known.started, true) {
                    readiness.set(true);
                    tracing::info!(volumes = self.workers.len(), "ready");
                }
            }
        }
    }

    /// True when a store has all there is. Nobody is told of anything before both have.
    fn hear(&mut self, line: Line, item: Item, known: Known) -> bool {
        match &item {
            Item::Failed => self.context.contact.failed(line),
            Item::Of(_) | Item::Complete => self.context.contact.worked(line),
        }
        match item {
            Item::Of(key) if known.started => self.tell(&key),
            Item::Of(_) | Item::Failed => {}
            Item::Complete => return true,
        }
        false
    }

    fn tell(&mut self, key: &Key) {
        if let Some(news) = self.workers.get(key) {
            news.notify_one();
            return;
        }
        let reference = ObjectRef::new(&key.name).within(&key.namespace);
        let Some(volume) = self.context.volumes.get(&reference) else { return };
        let news = Arc::new(Notify::new());
        let stray = self.strays.remove(&volume.spec.volume.uid);
        let worker = Worker::new(self.context.clone(), &volume, news.clone(), self.mounts.clone());
        self.workers.insert(key.clone(), news);
        let key = key.clone();
        self.running.spawn(async move {
            let found = if let Some(stray) = stray { Some(stray.let_go().await) } else { None };
            worker.run(found).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::stacks::{FoundState, Wanted};
    use crate::agent::testing::memory::Memory;
    use crate::agent::testing::{VOLUME_UID, context, era_volume, tracked};
    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use kube::runtime::watcher::Event;
    use serde_json::json;

    async fn settle() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn send(to: &UnboundedSender<Item>, item: Item) {
        to.unbounded_send(item).expect("sent");
    }

    #[tokio::test(start_paused = true)]
    async fn work_begins_when_both_watches_know_everything() {
        let memory = Memory::default();
        memory.set_volume(Some(era_volume()));
        let (context, mut volumes, _snapshots) = context(&memory);
        volumes.apply_watcher_event(&Event::Apply(era_volume()));
        let (_mounts, seen) = watch::channel(0);
        let ((tell_volumes, heard_volumes), (tell_snapshots, heard_snapshots)) =
            (unbounded(), unbounded());
        let dispatcher = Dispatcher::new(Arc::new(context), seen, Vec::new());
        let run = dispatcher.run(heard_volumes, heard_snapshots, Readiness::default());
        let run = tokio::spawn(run);

        send(&tell_volumes, Item::Of(Key::of(&era_volume())));
        send(&tell_volumes, Item::Complete);
        settle().await;
        assert_eq!(memory.said(), 0, "the snapshots are not known yet");
        send(&tell_snapshots, Item::Complete);
        settle().await;
        assert_eq!(memory.said(), 1);

        drop(tell_volumes);
        let ended = run.await.expect("no panic").expect_err("a watch that ends is an error");
        assert!(matches!(ended, AgentError::WatchEnded("EraVolumes")), "{ended}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_interruption_every_volume_is_looked_at_again() {
        let memory = Memory::default();
        memory.set_volume(Some(era_volume()));
        let (context, mut volumes, _snapshots) = context(&memory);
        volumes.apply_watcher_event(&Event::Apply(era_volume()));
        let (_mounts, seen) = watch::channel(0);
        let ((tell_volumes, heard_volumes), (tell_snapshots, heard_snapshots)) =
            (unbounded(), unbounded());
        let dispatcher = Dispatcher::new(Arc::new(context), seen, Vec::new());
        tokio::spawn(dispatcher.run(heard_volumes, heard_snapshots, Readiness::default()));
        send(&tell_volumes, Item::Complete);
        send(&tell_snapshots, Item::Complete);
        settle().await;
        // Deleted for good while the watch was interrupted: the new list just lacks it.
        memory.set_volume(None);
        volumes.apply_watcher_event(&Event::Delete(era_volume()));
        assert_eq!(memory.detached(), 0);
        send(&tell_volumes, Item::Complete);
        settle().await;
        assert_eq!(memory.detached(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_on_the_machine_is_handed_to_its_worker() {
        let memory = Memory::default();
        let wanted = Wanted {
            volume_uid: VOLUME_UID.to_owned(),
            device: tracked().number,
            granularity: tracked().granularity,
        };
        let (there, _) = memory.attach(&wanted).expect("a stack");
        let mut volume = era_volume();
        let chain = json!({"id": there.chain, "startTime": "2026-01-01T00:00:00Z", "startReason": "NoBaseline"});
        volume.status = serde_json::from_value(json!({ "chain": chain })).expect("a status");
        memory.set_volume(Some(volume.clone()));
        let (context, mut volumes, _snapshots) = context(&memory);
        volumes.apply_watcher_event(&Event::Apply(volume));
        let (_mounts, seen) = watch::channel(0);
        let ((tell_volumes, heard_volumes), (tell_snapshots, heard_snapshots)) =
            (unbounded(), unbounded());
        let state = FoundState::Present(there.clone());
        let found = vec![Found { volume_uid: VOLUME_UID.to_owned(), state }];
        let dispatcher = Dispatcher::new(Arc::new(context), seen, found);
        tokio::spawn(dispatcher.run(heard_volumes, heard_snapshots, Readiness::default()));
        send(&tell_volumes, Item::Complete);
        send(&tell_snapshots, Item::Complete);
        tokio::time::sleep(Duration::from_secs(2000)).await;
        assert_eq!(memory.chain(), Some(there.chain));
        assert_eq!((memory.said(), memory.detached()), (1, 0), "attached, said once, left alone");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_cannot_watch_is_not_ready_until_it_can() {
        let memory = Memory::default();
        let (context, ..) = context(&memory);
        let (_mounts, seen) = watch::channel(0);
        let ((tell_volumes, heard_volumes), (tell_snapshots, heard_snapshots)) =
            (unbounded(), unbounded());
        let readiness = Readiness::default();
        let dispatcher = Dispatcher::new(Arc::new(context), seen, Vec::new());
        tokio::spawn(dispatcher.run(heard_volumes, heard_snapshots, readiness.clone()));
        send(&tell_volumes, Item::Complete);
        settle().await;
        assert!(!readiness.get(), "the snapshots are not known yet");
        send(&tell_snapshots, Item::Complete);
        settle().await;
        assert!(readiness.get());
        for _ in 0..8 {
            send(&tell_snapshots, Item::Failed);
            tokio::time::sleep(CHECK).await;
        }
        settle().await;
        assert!(!readiness.get());
        send(&tell_snapshots, Item::Complete);
        tokio::time::sleep(CHECK).await;
        settle().await;
        assert!(readiness.get());
    }
}
