//! What the API server has of this node: two watches, each into a store and a stream of names.

use std::pin::Pin;

use eratrack_api::{EraSnapshot, EraVolume};
use futures::{Stream, StreamExt};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::cluster::Key;

/// News of one claim: something about its volume or its snapshots has changed, or may have.
pub(crate) type News = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The volume of this claim, or a snapshot of it, changed, appeared or went out of sight.
    Of(Key),
    /// It did not succeed; it is tried again.
    Failed,
    /// Everything there was at the start is in the store now, or is again after an interruption.
    Complete,
}

/// The `EraVolumes` of the node.
pub(crate) fn volumes(client: Client, node: &str) -> (Store<EraVolume>, News) {
    watch(client, &format!("spec.nodeName={node}"), Key::of)
}

/// The `EraSnapshots` that the node is to make; told by the claim they are of.
pub(crate) fn snapshots(client: Client, node: &str) -> (Store<EraSnapshot>, News) {
    watch(client, &format!("status.nodeName={node}"), |snapshot: &EraSnapshot| Key {
        namespace: snapshot.namespace().unwrap_or_default(),
        name: snapshot.spec.claim_name.clone(),
    })
}

fn watch<K>(client: Client, fields: &str, claim: fn(&K) -> Key) -> (Store<K>, News)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().fields(fields);
    let news = watcher(Api::all(client), config)
        // Half of an object's bytes, and of no use to us.
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .filter_map(move |event| {
            let item = match event {
                Ok(watcher::Event::Init) => None,
                Ok(watcher::Event::InitDone) => Some(Item::Complete),
                Ok(
                    watcher::Event::Apply(object)
                    | watcher::Event::Delete(object)
                    | watcher::Event::InitApply(object),
                ) => Some(Item::Of(claim(&object))),
                Err(error) => {
                    tracing::warn!(error = crate::exit::chain(&error), kind = %K::kind(&()), "watch");
                    Some(Item::Failed)
                }
            };
            futures::future::ready(item)
        });
    (store, news.boxed())
}
