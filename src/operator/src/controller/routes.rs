//! Who is looked at again when something changes. Too many costs a look into the caches; too few would wait for ever.

use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use kube::runtime::reflector::{self, ObjectRef, Store};

use super::outcome::{is_made_for_a_tracking, is_pending};
use super::world::{Queues, World};

/// Who cares about an object of the kind.
pub(crate) trait Routes {
    /// Queues everybody who cares about this one.
    fn route(&self, world: &World, queues: &Queues);
}

/// Queues everything there is.
pub(crate) fn everything(world: &World, queues: &Queues) {
    send_where(&world.trackings, &queues.trackings, |_| true);
    send_where(&world.volumes, &queues.volumes, |_| true);
    send_where(&world.snapshots, &queues.snapshots, |_| true);
}

fn send_where<K>(
    cache: &Store<K>,
    queue: &UnboundedSender<ObjectRef<K>>,
    cares: impl Fn(&K) -> bool,
) where
    K: kube::Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    for object in cache.state_filter(cares) {
        send(queue, ObjectRef::from_obj(object.as_ref()));
    }
}

fn send<K: reflector::Lookup>(queue: &UnboundedSender<ObjectRef<K>>, object: ObjectRef<K>) {
    // The receiver is gone only when the process ends.
    let _ = queue.unbounded_send(object);
}

/// The EraTrackings of a namespace: few, and each may select any claim of it.
fn trackings_of(namespace: &str, world: &World, queues: &Queues) {
    let here = |it: &EraTracking| it.metadata.namespace.as_deref() == Some(namespace);
    send_where(&world.trackings, &queues.trackings, here);
}

fn volume_named(namespace: &str, claim: &str, queues: &Queues) {
    send(&queues.volumes, ObjectRef::new(claim).within(namespace));
}

impl Routes for EraTracking {
    fn route(&self, world: &World, queues: &Queues) {
        // Its neighbours too: a claim it gives up may become theirs.
        trackings_of(&self.namespace().unwrap_or_default(), world, queues);
        // Those that nobody asks for any more.
        send_where(&world.volumes, &queues.volumes, |it| {
            it.metadata.namespace == self.metadata.namespace && !is_made_for_a_tracking(it)
        });
    }
}

impl Routes for EraVolume {
    fn route(&self, world: &World, queues: &Queues) {
        let namespace = self.namespace().unwrap_or_default();
        let claim = self.name_any();
        trackings_of(&namespace, world, queues);
        volume_named(&namespace, &claim, queues);
        send_where(&world.snapshots, &queues.snapshots, |it| {
            it.metadata.namespace.as_deref() == Some(&namespace) && it.spec.claim_name == claim
        });
    }
}

impl Routes for EraSnapshot {
    fn route(&self, world: &World, queues: &Queues) {
        trackings_of(&self.namespace().unwrap_or_default(), world, queues);
        send(&queues.snapshots, ObjectRef::from_obj(self));
        // Those of the same claim that wait for their turn, or for room.
        send_where(&world.snapshots, &queues.snapshots, |it| {
            it.metadata.namespace == self.metadata.namespace
                && it.spec.claim_name == self.spec.claim_name
                && it.metadata.name != self.metadata.name
                && is_pending(it)
        });
    }
}

impl Routes for PersistentVolumeClaim {
    fn route(&self, world: &World, queues: &Queues) {
        let namespace = self.namespace().unwrap_or_default();
        trackings_of(&namespace, world, queues);
        volume_named(&namespace, &self.name_any(), queues);
    }
}

impl Routes for PersistentVolume {
    fn route(&self, world: &World, queues: &Queues) {
        let Some(claim) = self.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
            return;
        };
        let (Some(namespace), Some(name)) = (&claim.namespace, &claim.name) else { return };
        trackings_of(namespace, world, queues);
        volume_named(namespace, name, queues);
    }
}

impl Routes for VolumeAttachment {
    fn route(&self, world: &World, queues: &Queues) {
        let Some(name) = &self.spec.source.persistent_volume_name else { return };
        if let Some(volume) = world.persistent.get(&ObjectRef::new(name)) {
            volume.route(world, queues);
        }
    }
}

impl Routes for Node {
    fn route(&self, world: &World, queues: &Queues) {
        // A node with other labels may be the one that an affinity means.
        everything(world, queues);
    }
}

impl Routes for Pod {
    fn route(&self, world: &World, queues: &Queues) {
        let node = self.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if node.is_some() {
            send_where(&world.volumes, &queues.volumes, |it| it.spec.node_name.as_deref() == node);
        }
    }
}
