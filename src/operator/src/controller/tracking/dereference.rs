//! Step 1, from the caches: everything that decides about one EraTracking.

use std::collections::BTreeMap;
use std::sync::Arc;

use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::controller::budget::Shared;
use crate::controller::place::Map;
use crate::controller::world::World;

/// Everything that decides about one EraTracking.
pub(crate) struct Inputs {
    /// The EraTracking itself.
    pub(crate) tracking: Arc<EraTracking>,
    /// All of its namespace, itself among them, but for those that are being deleted.
    pub(crate) trackings: Vec<Arc<EraTracking>>,
    /// The claims of its namespace, by name, but for those that are being deleted: a volume gets its table back
    /// before its driver removes it.
    pub(crate) claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// The volumes that those claims name.
    pub(crate) persistent: BTreeMap<String, Arc<PersistentVolume>>,
    /// Where nodes and attachments are.
    pub(crate) map: Map,
    /// The EraVolumes of its namespace, by name.
    pub(crate) volumes: BTreeMap<String, Arc<EraVolume>>,
    /// The EraSnapshots of its namespace.
    pub(crate) snapshots: Vec<Arc<EraSnapshot>>,
    /// How much of the API server's store the lists of the namespace and of the whole cluster take; only a schedule asks.
    pub(crate) shared: Shared,
}

/// Gathers them.
pub(crate) fn dereference(world: &World, tracking: Arc<EraTracking>) -> Inputs {
    let namespace = tracking.metadata.namespace.clone();
    let here = |other: &Option<String>| *other == namespace;
    let claims = world.claims.state_filter(|it| {
        here(&it.metadata.namespace) && it.metadata.deletion_timestamp.is_none()
    });
    let persistent = claims
        .iter()
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.clone())
        .filter_map(|name| {
            world.persistent.get(&ObjectRef::new(&name)).map(|volume| (name, volume))
        })
        .collect();
    Inputs {
        trackings: world.trackings.state_filter(|it| {
            here(&it.metadata.namespace) && it.metadata.deletion_timestamp.is_none()
        }),
        claims: claims.into_iter().map(|claim| (claim.name_any(), claim)).collect(),
        persistent,
        map: world.map(),
        volumes: world
            .volumes
            .state_filter(|it| here(&it.metadata.namespace))
            .into_iter()
            .map(|volume| (volume.name_any(), volume))
            .collect(),
        snapshots: world.snapshots.state_filter(|it| here(&it.metadata.namespace)),
        shared: match tracking.spec.snapshots {
            Some(_) => world.shared(namespace.as_deref()),
            None => Shared::default(),
        },
        tracking,
    }
}
