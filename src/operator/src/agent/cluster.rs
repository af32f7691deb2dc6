//! Kubernetes as the agent needs it: a narrow trait, so that the procedures can be tested against one in memory.

use std::future::Future;

use eratrack_api::{
    ChangedBlockSlice, EraSnapshot, EraSnapshotStatus, EraVolume, EraVolumeStatus, Reason,
};
use k8s_openapi::api::core::v1::PersistentVolume;

/// A namespaced object by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl Key {
    /// From an object's metadata.
    pub(crate) fn of(object: &impl kube::ResourceExt) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the API server answered, as far as it matters what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The object is not there, and the API server said so of this very name.
    #[error("{what} is gone")]
    Gone {
        /// Kind and name.
        what: String,
    },
    /// It is another object by now, or was changed meanwhile.
    #[error("{what} was changed or made again meanwhile: {message}")]
    Conflict {
        /// Kind and name.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// An object of that name is there already.
    #[error("{what} exists already")]
    Exists {
        /// Kind and name.
        what: String,
    },
    /// A quota of the namespace.
    #[error("{what}: {message}")]
    Quota {
        /// Kind and name.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// A rule of the schema: the object went on without us, or the program is wrong.
    #[error("{what} was rejected: {message}")]
    Rejected {
        /// Kind and name.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// Everything else: no connection, no right, overload. It may pass.
    #[error("{what}: the API server did not answer as hoped")]
    Unavailable {
        /// Kind and name.
        what: String,
        /// What came instead.
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("{what}: no answer from the API server within {seconds} s")]
    Timeout {
        /// Kind and name.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
}

/// An event for the person who looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whether somebody should have a look.
    pub(crate) warning: bool,
    /// Why, in one word.
    pub(crate) reason: Reason,
    /// Why, for a person.
    pub(crate) message: String,
    /// What the agent was doing.
    pub(crate) action: &'static str,
}

/// The API server.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// The `EraVolume`, or none if the API server says that just this object does not exist.
    fn volume(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<EraVolume>, ClusterError>> + Send;

    /// The `EraVolumes` of all namespaces and nodes.
    fn volumes(&self) -> impl Future<Output = Result<Vec<EraVolume>, ClusterError>> + Send;

    /// The PersistentVolume, or none if there is none of that name.
    fn persistent_volume(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<PersistentVolume>, ClusterError>> + Send;

    /// The `EraSnapshot`, or none.
    fn snapshot(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<EraSnapshot>, ClusterError>> + Send;

    /// All `EraSnapshots` of a claim, whichever node made them, as a quorum of the store has them.
    fn snapshots_of(
        &self,
        claim: &Key,
    ) -> impl Future<Output = Result<Vec<EraSnapshot>, ClusterError>> + Send;

    /// Applies the agent's part of the status; never creates the object.
    fn write_volume(
        &self,
        volume: &EraVolume,
        status: &EraVolumeStatus,
    ) -> impl Future<Output = Result<EraVolume, ClusterError>> + Send;

    /// Applies the agent's part of the status; never creates the object.
    fn write_snapshot(
        &self,
        snapshot: &EraSnapshot,
        status: &EraSnapshotStatus,
    ) -> impl Future<Output = Result<EraSnapshot, ClusterError>> + Send;

    /// The slice, or none.
    fn slice(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<ChangedBlockSlice>, ClusterError>> + Send;

    /// Creates a slice.
    fn create_slice(
        &self,
        slice: &ChangedBlockSlice,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Deletes a slice; one that is gone already is as good.
    fn delete_slice(
        &self,
        slice: &ChangedBlockSlice,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Tells of a transition of a volume, on the volume and on the `EraTracking` it was made for. Best effort, and later.
    fn notice_volume(&self, volume: &EraVolume, notice: &Notice);

    /// Tells of a transition of a snapshot. Best effort, and later.
    fn notice_snapshot(&self, snapshot: &EraSnapshot, notice: &Notice);
}
