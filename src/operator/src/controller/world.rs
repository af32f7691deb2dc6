//! What the controller sees: one watch a kind, each object cut down, and for each change the objects to look at again.
//!
//! Slices are not among the kinds: they are data, read by name, never listed or watched.

use std::future::Future;
use std::sync::Arc;

use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::{BoxFuture, FutureExt, try_join_all};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Lookup, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector::ObjectRef};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::budget::Shared;
use super::place::Map;
use super::routes::Routes;
use super::trim::Trim;

/// The labels of an agent's pod, as the chart sets them.
pub(crate) const AGENT_PODS: &str =
    "app.kubernetes.io/name=eratrack,app.kubernetes.io/component=agent";

/// The caches, a kind each.
pub(crate) struct World {
    pub(crate) trackings: Store<EraTracking>,
    pub(crate) volumes: Store<EraVolume>,
    pub(crate) snapshots: Store<EraSnapshot>,
    pub(crate) claims: Store<PersistentVolumeClaim>,
    pub(crate) persistent: Store<PersistentVolume>,
    pub(crate) nodes: Store<Node>,
    pub(crate) agents: Store<Pod>,
    pub(crate) attachments: Store<VolumeAttachment>,
}

/// The other ends of the caches, for [`World::pumps`] or for a test that fills them.
pub(crate) struct Writers {
    pub(crate) trackings: Writer<EraTracking>,
    pub(crate) volumes: Writer<EraVolume>,
    pub(crate) snapshots: Writer<EraSnapshot>,
    pub(crate) claims: Writer<PersistentVolumeClaim>,
    pub(crate) persistent: Writer<PersistentVolume>,
    pub(crate) nodes: Writer<Node>,
    pub(crate) agents: Writer<Pod>,
    pub(crate) attachments: Writer<VolumeAttachment>,
}

/// What is to be looked at again, a queue a kind. Sending never waits; the scheduler at the other end drops doubles.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) trackings: UnboundedSender<ObjectRef<EraTracking>>,
    pub(crate) volumes: UnboundedSender<ObjectRef<EraVolume>>,
    pub(crate) snapshots: UnboundedSender<ObjectRef<EraSnapshot>>,
}

/// The receiving ends of [`Queues`].
pub(crate) struct Work {
    pub(crate) trackings: UnboundedReceiver<ObjectRef<EraTracking>>,
    pub(crate) volumes: UnboundedReceiver<ObjectRef<EraVolume>>,
    pub(crate) snapshots: UnboundedReceiver<ObjectRef<EraSnapshot>>,
}

/// The queues and their ends.
pub(crate) fn queues() -> (Queues, Work) {
    let (trackings, tracking_work) = unbounded();
    let (volumes, volume_work) = unbounded();
    let (snapshots, snapshot_work) = unbounded();
    let work = Work { trackings: tracking_work, volumes: volume_work, snapshots: snapshot_work };
    (Queues { trackings, volumes, snapshots }, work)
}

impl World {
    /// Empty caches and what fills them.
    pub(crate) fn new() -> (Self, Writers) {
        let (trackings, tracking_writer) = reflector::store();
        let (volumes, volume_writer) = reflector::store();
        let (snapshots, snapshot_writer) = reflector::store();
        let (claims, claim_writer) = reflector::store();
        let (persistent, persistent_writer) = reflector::store();
        let (nodes, node_writer) = reflector::store();
        let (agents, agent_writer) = reflector::store();
        let (attachments, attachment_writer) = reflector::store();
        let writers = Writers {
            trackings: tracking_writer,
            volumes: volume_writer,
            snapshots: snapshot_writer,
            claims: claim_writer,
            persistent: persistent_writer,
            nodes: node_writer,
            agents: agent_writer,
            attachments: attachment_writer,
        };
        (
            Self { trackings, volumes, snapshots, claims, persistent, nodes, agents, attachments },
            writers,
        )
    }

    /// Fills the caches from the API server for as long as it is polled.
    pub(crate) fn pumps(
        self: &Arc<Self>,
        client: &Client,
        namespace: &str,
        writers: Writers,
        queues: &Queues,
    ) -> impl Future<Output = ()> + use<> {
        let all = watcher::Config::default();
        let agents = watcher::Config::default().labels(AGENT_PODS);
        let Writers {
            trackings,
            volumes,
            snapshots,
            claims,
            persistent,
            nodes,
            agents: pods,
            attachments,
        } = writers;
        let routes = || (self.clone(), queues.clone());
        let every: Vec<BoxFuture<'static, ()>> = vec![
            pump(watch(Api::all(client.clone()), all.clone()), trackings, routes()).boxed(),
            pump(watch(Api::all(client.clone()), all.clone()), volumes, routes()).boxed(),
            pump(watch(Api::all(client.clone()), all.clone()), snapshots, routes()).boxed(),
            pump(watch(Api::all(client.clone()), all.clone()), claims, routes()).boxed(),
            pump(watch(Api::all(client.clone()), all.clone()), persistent, routes()).boxed(),
            pump(watch(Api::all(client.clone()), all.clone()), nodes, routes()).boxed(),
            pump(watch(Api::namespaced(client.clone(), namespace), agents), pods, routes()).boxed(),
            pump(watch(Api::all(client.clone()), all), attachments, routes()).boxed(),
        ];
        futures::future::join_all(every).map(drop)
    }

    /// Waits until every cache was filled once.
    pub(crate) async fn filled(&self) -> Result<(), reflector::store::WriterDropped> {
        self.filled_for_volumes().await?;
        self.trackings.wait_until_ready().await?;
        self.snapshots.wait_until_ready().await
    }

    /// Waits until every cache was filled once that decides about EraVolumes; the other definitions may be gone.
    pub(crate) async fn filled_for_volumes(&self) -> Result<(), reflector::store::WriterDropped> {
        let each: Vec<BoxFuture<'_, _>> = vec![
            self.volumes.wait_until_ready().boxed(),
            self.claims.wait_until_ready().boxed(),
            self.persistent.wait_until_ready().boxed(),
            self.nodes.wait_until_ready().boxed(),
            self.agents.wait_until_ready().boxed(),
            self.attachments.wait_until_ready().boxed(),
        ];
        try_join_all(each).await.map(drop)
    }

    /// What the lists of all snapshots take, seen from a namespace.
    pub(crate) fn shared(&self, namespace: Option<&str>) -> Shared {
        Shared::of(namespace, self.snapshots.state().iter().map(AsRef::as_ref))
    }

    /// Where nodes and attachments are.
    pub(crate) fn map(&self) -> Map {
        Map { nodes: self.nodes.state(), attachments: self.attachments.state() }
    }
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher::watcher(api, config).default_backoff()
}

/// Keeps one cache, and passes on who cares. A change to nothing that is kept is passed on to nobody. After a gap in
/// the watch everything is looked at again, since deletions may have been missed.
pub(crate) async fn pump<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut cache: Writer<K>,
    (world, queues): (Arc<World>, Queues),
) where
    K: Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + PartialEq
        + Trim
        + Routes
        + 'static,
{
    let kind = <K as Resource>::kind(&());
    let reader = cache.as_reader();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event.modify(Trim::trim),
            Err(error) => {
                tracing::warn!(%kind, error = crate::exit::chain(&error), "the watch failed; it is tried again");
                continue;
            }
        };
        let unchanged = match &event {
            Event::Apply(new) => {
                reader.get(&ObjectRef::from_obj(new)).is_some_and(|old| old.as_ref() == new)
            }
            Event::Delete(_) | Event::Init | Event::InitApply(_) | Event::InitDone => false,
        };
        cache.apply_watcher_event(&event);
        match event {
            Event::Apply(object) if !unchanged => object.route(&world, &queues),
            Event::Delete(object) => object.route(&world, &queues),
            Event::InitDone => super::routes::everything(&world, &queues),
            Event::Apply(_) | Event::Init | Event::InitApply(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::json;

    use super::*;
    use crate::controller::testing::{era_volume, node, object, tracking};

    /// What is queued by a stream of events about nodes, with one EraTracking and one EraVolume in the caches.
    async fn queued(events: Vec<watcher::Result<Event<Node>>>) -> (Vec<String>, usize) {
        let (world, mut writers) = World::new();
        let all = tracking("all", json!({ "claims": { "selector": {} } }));
        writers.trackings.apply_watcher_event(&Event::Apply(all));
        writers.volumes.apply_watcher_event(&Event::Apply(era_volume("data", json!({}))));
        let world = Arc::new(world);
        let (queues, mut work) = queues();
        pump(stream::iter(events), writers.nodes, (world.clone(), queues)).await;
        let mut names = Vec::new();
        while let Ok(it) = work.trackings.try_recv() {
            names.push(it.name);
        }
        while let Ok(it) = work.volumes.try_recv() {
            names.push(it.name);
        }
        (names, world.nodes.len())
    }

    fn beat(version: &str, zone: &str) -> Node {
        object(json!({
            "metadata": { "name": "n1", "resourceVersion": version, "labels": { "zone": zone } },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-22T12:00:00Z" }] },
        }))
    }

    #[tokio::test]
    async fn a_change_is_passed_on_and_a_heartbeat_is_not() {
        let once = vec!["all".to_owned(), "data".to_owned()];
        let apply = |version: &str, zone: &str| Ok(Event::Apply(beat(version, zone)));
        assert_eq!(queued(vec![apply("1", "a")]).await, (once.clone(), 1));
        assert_eq!(queued(vec![apply("1", "a"), apply("2", "a")]).await, (once.clone(), 1));
        let twice = vec!["all".to_owned(), "all".to_owned(), "data".to_owned(), "data".to_owned()];
        assert_eq!(queued(vec![apply("1", "a"), apply("2", "b")]).await, (twice.clone(), 1));
        assert_eq!(
            queued(vec![apply("1", "a"), Ok(Event::Delete(node("n1", &[])))]).await,
            (twice, 0)
        );
    }

    #[tokio::test]
    async fn after_a_gap_everything_is_looked_at_and_what_is_gone_is_gone() {
        let relist =
            vec![Ok(Event::Init), Ok(Event::InitApply(beat("9", "a"))), Ok(Event::InitDone)];
        assert_eq!(queued(relist).await, (vec!["all".to_owned(), "data".to_owned()], 1));
        let lost = vec![Ok(Event::Apply(beat("1", "a"))), Ok(Event::Init), Ok(Event::InitDone)];
        assert_eq!(queued(lost).await.1, 0);
    }

    #[tokio::test]
    async fn a_watch_that_fails_keeps_what_it_knew() {
        let failed = || Err(watcher::Error::NoResourceVersion);
        assert_eq!(
            queued(vec![Ok(Event::Apply(beat("1", "a"))), failed()]).await.1,
            1,
            "absence is no news"
        );
    }
}
