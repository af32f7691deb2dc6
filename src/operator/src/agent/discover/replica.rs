//! The device of a replica's volume: that of a `local` PersistentVolume which no pod has.
//!
//! Nobody need use the claim for it to be found, and nobody may: the path is the administrator's, in an object of the
//! cluster, and the claim is checked by uid on both sides.

use std::path::PathBuf;

use eratrack_api::{Reason, ReplicaTarget};
use k8s_openapi::api::core::v1::PersistentVolume;

use super::machine::MachineError;

/// A PersistentVolume that belongs to the claim of a replica and is on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaVolume {
    /// The claim's name.
    pub(crate) claim: String,
    /// The PersistentVolume's name, which the kubelet puts into its paths.
    pub(crate) name: String,
    /// `spec.local.path`.
    pub(crate) path: PathBuf,
}

/// Why a replica has no device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaRefusal {
    /// The PersistentVolume is gone or was made again.
    #[error("PersistentVolume {0} of the replica is gone, or was made again")]
    NoVolume(String),
    /// The PersistentVolume belongs to another claim.
    #[error("PersistentVolume {volume} is not bound to claim {claim} (spec.claimRef)")]
    OtherClaim {
        /// The PersistentVolume.
        volume: String,
        /// The claim, with its namespace.
        claim: String,
    },
    /// A directory.
    #[error("PersistentVolume {0} has no volumeMode Block: a replica is a device")]
    NotBlock(String),
    /// Its driver alone knows where it is.
    #[error(
        "PersistentVolume {0} is not of the kind local: the device of a replica is found by spec.local.path alone"
    )]
    NotLocal(String),
    /// There is no block device.
    #[error("{} (spec.local.path) of PersistentVolume {volume} leads to no block device of the node", path.display())]
    NoDevice {
        /// The PersistentVolume.
        volume: String,
        /// Its path.
        path: PathBuf,
    },
    /// A pod has it.
    #[error(
        "a pod has claim {0}: nothing is copied into it meanwhile; delete the pods that use it"
    )]
    Mapped(String),
    /// The machine could not be looked at.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl ReplicaRefusal {
    /// The reason of the condition.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoVolume(_)
            | Self::OtherClaim { .. }
            | Self::NotBlock(_)
            | Self::NotLocal(_)
            | Self::NoDevice { .. } => Reason::ReplicaDeviceNotFound,
            Self::Mapped(_) => Reason::ReplicaInUse,
            Self::Machine(_) => Reason::ReplicaFailed,
        }
    }
}

impl ReplicaVolume {
    /// Checks uid, claim, mode and kind.
    pub(crate) fn new(
        namespace: &str,
        target: &ReplicaTarget,
        persistent: Option<&PersistentVolume>,
    ) -> Result<Self, ReplicaRefusal> {
        let name = target.volume.name.clone();
        let same = |it: &&PersistentVolume| it.metadata.uid.as_ref() == Some(&target.volume.uid);
        let Some(spec) = persistent.filter(same).and_then(|it| it.spec.as_ref()) else {
            return Err(ReplicaRefusal::NoVolume(name));
        };
        let bound = spec.claim_ref.as_ref().is_some_and(|claim| {
            claim.namespace.as_deref() == Some(namespace)
                && claim.name.as_ref() == Some(&target.claim.name)
                && claim.uid.as_ref() == Some(&target.claim.uid)
        });
        if !bound {
            let claim = format!("{namespace}/{}", target.claim.name);
            return Err(ReplicaRefusal::OtherClaim { volume: name, claim });
        }
        if spec.volume_mode.as_deref() != Some("Block") {
            return Err(ReplicaRefusal::NotBlock(name));
        }
        match &spec.local {
            None => Err(ReplicaRefusal::NotLocal(name)),
            Some(local) => {
                let (claim, path) = (target.claim.name.clone(), PathBuf::from(&local.path));
                Ok(Self { claim, name, path })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{persistent_volume, replica_target};
    use serde_json::{Value, json};

    fn found(overrides: &Value) -> Result<ReplicaVolume, String> {
        let mut usual = json!({
            "volumeMode": "Block", "local": {"path": "/dev/vg/copy"},
            "claimRef": {"namespace": "apps", "name": "copy", "uid": replica_target().claim.uid},
        });
        for (key, value) in overrides.as_object().expect("an object") {
            usual[key] = value.clone();
        }
        let mut persistent = persistent_volume(&usual);
        persistent.metadata.uid = Some(replica_target().volume.uid);
        ReplicaVolume::new("apps", &replica_target(), Some(&persistent))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_both_sides_say_is_believed() {
        assert_eq!(found(&json!({})).expect("found").path, PathBuf::from("/dev/vg/copy"));
        let uid = &replica_target().claim.uid;
        let cases = [
            (json!({"claimRef": null}), "not bound to claim apps/copy"),
            (json!({"claimRef": {"namespace": "other", "name": "copy", "uid": uid}}), "not bound"),
            (json!({"claimRef": {"namespace": "apps", "name": "copy", "uid": "x"}}), "not bound"),
            (json!({"volumeMode": "Filesystem"}), "no volumeMode Block"),
            (json!({"volumeMode": null}), "no volumeMode Block"),
            (
                json!({"local": null, "csi": {"driver": "d", "volumeHandle": "h"}}),
                "not of the kind local",
            ),
        ];
        for (overrides, expected) in cases {
            let refusal = found(&overrides).expect_err("refused");
            assert!(refusal.contains(expected), "{overrides}: {refusal}");
        }
        let other = persistent_volume(&json!({}));
        for persistent in [Some(&other), None] {
            let refused = ReplicaVolume::new("apps", &replica_target(), persistent);
            assert!(matches!(refused, Err(ReplicaRefusal::NoVolume(_))), "{refused:?}");
        }
    }
}
