//! What is wished of a volume: the API server's word, and never its silence.

use std::sync::Arc;

use eratrack_api::EraVolume;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::retry;
use super::worker::{IDLE, Worker};
use crate::agent::cluster::Cluster;
use crate::agent::discover::Node;
use crate::agent::stacks::Stacks;

/// What the API server wants of the volume.
pub(super) enum Wish {
    /// Era in its data path.
    Track(Arc<EraVolume>),
    /// Its original table.
    Release(Arc<EraVolume>),
    /// The object is gone: its original table, and then nothing more.
    Forget,
    /// Nothing is known for sure; leave it as it is.
    Leave,
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// A watch with a field selector loses sight of an object that merely left the selector, and a 404 may mean that
    /// the kind is missing: only a deletion timestamp, or a `NotFound` of this very name, is a wish.
    pub(super) async fn wish(&mut self) -> Wish {
        let reference = ObjectRef::new(&self.key.name).within(&self.key.namespace);
        if let Some(volume) = self.context.volumes.get(&reference) {
            return self.wish_of(volume);
        }
        if Instant::now() < self.ask_at {
            self.by(self.ask_at);
            return Wish::Leave;
        }
        match self.context.cluster.volume(&self.key).await {
            Ok(Some(volume)) => {
                // No watch of this node tells when it is deleted there.
                self.ask_at = Instant::now() + IDLE;
                self.wish_of(Arc::new(volume))
            }
            Ok(None) => Wish::Forget,
            Err(error) => {
                tracing::warn!(
                    error = crate::exit::chain(&error),
                    "whether the volume is gone is not known"
                );
                self.by(Instant::now() + retry::soon(4));
                Wish::Leave
            }
        }
    }

    fn wish_of(&self, volume: Arc<EraVolume>) -> Wish {
        if volume.spec.node_name.as_deref() != Some(&self.context.node_name) {
            // Its node never changes: one of another node in its place says that ours is gone, and its chain with it.
            if volume.metadata.uid == self.object { Wish::Leave } else { Wish::Forget }
        } else if volume.spec.volume.uid != self.operations.volume_uid() {
            // The name stands for another PersistentVolume by now, which gets a worker of its own.
            Wish::Forget
        } else if volume.metadata.deletion_timestamp.is_some() {
            Wish::Release(volume)
        } else {
            Wish::Track(volume)
        }
    }
}
