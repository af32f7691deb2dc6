//! Which PersistentVolume an `EraVolume` means, checked against the PersistentVolume itself. Pure.

use std::path::PathBuf;

use eratrack_api::EraVolume;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};

use super::Refusal;

/// A PersistentVolume that belongs to the claim, may be tracked, and can be found on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedVolume {
    /// The PersistentVolume's name, which the kubelet puts into its paths.
    pub(crate) name: String,
    /// The PersistentVolume's uid.
    pub(crate) uid: String,
    /// How pods see it.
    pub(crate) mode: Mode,
    /// Who provides it.
    pub(crate) source: Source,
}

/// `spec.volumeMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A directory in the pod.
    Filesystem,
    /// A device in the pod.
    Block,
}

/// The kinds of PersistentVolume whose device can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `spec.local`.
    Local {
        /// A device, or the mount point of one.
        path: PathBuf,
    },
    /// `spec.csi`.
    Csi {
        /// The driver's name.
        driver: String,
        /// The driver's name for the volume.
        handle: String,
    },
}

impl ClaimedVolume {
    /// Checks uid, claim, access modes and kind.
    pub(crate) fn new(volume: &EraVolume, persistent: &PersistentVolume) -> Result<Self, Refusal> {
        let wanted = &volume.spec.volume;
        let uid = persistent.metadata.uid.clone().unwrap_or_default();
        if uid != wanted.uid {
            return Err(Refusal::OtherVolume {
                name: wanted.name.clone(),
                wanted: wanted.uid.clone(),
                found: uid,
            });
        }
        let spec = persistent.spec.as_ref().ok_or_else(|| Refusal::NotBlockBacked {
            what: format!("PersistentVolume {} has no spec", wanted.name),
        })?;
        check_claim(volume, spec)?;
        check_access(spec)?;
        Ok(Self {
            name: wanted.name.clone(),
            uid,
            mode: match spec.volume_mode.as_deref() {
                Some("Block") => Mode::Block,
                _ => Mode::Filesystem,
            },
            source: source(&wanted.name, spec)?,
        })
    }
}

fn check_claim(volume: &EraVolume, spec: &PersistentVolumeSpec) -> Result<(), Refusal> {
    let namespace = volume.metadata.namespace.as_deref();
    let wanted = &volume.spec.claim;
    let bound = spec.claim_ref.as_ref().is_some_and(|claim| {
        claim.namespace.as_deref() == namespace
            && claim.name.as_deref() == Some(&wanted.name)
            && claim.uid.as_deref() == Some(&wanted.uid)
    });
    if bound {
        return Ok(());
    }
    Err(Refusal::OtherClaim {
        volume: volume.spec.volume.name.clone(),
        claim: format!("{}/{}", namespace.unwrap_or_default(), wanted.name),
    })
}

/// Another node's writes would be unseen: one writer at a time, or none of our business.
fn check_access(spec: &PersistentVolumeSpec) -> Result<(), Refusal> {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let single_writer =
        modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod");
    if single_writer && !modes.iter().any(|mode| mode == "ReadWriteMany") {
        return Ok(());
    }
    Err(Refusal::AccessMode { modes: modes.join(", ") })
}

fn source(name: &str, spec: &PersistentVolumeSpec) -> Result<Source, Refusal> {
    if let Some(local) = &spec.local {
        return Ok(Source::Local { path: PathBuf::from(&local.path) });
    }
    if let Some(csi) = &spec.csi {
        return Ok(Source::Csi { driver: csi.driver.clone(), handle: csi.volume_handle.clone() });
    }
    Err(match block_kind(spec) {
        Some(kind) => Refusal::Kind { volume: name.to_owned(), kind },
        None => Refusal::NotBlockBacked {
            what: format!("PersistentVolume {name} is neither csi nor local"),
        },
    })
}

/// The kinds of Kubernetes' own that are block devices.
fn block_kind(spec: &PersistentVolumeSpec) -> Option<&'static str> {
    let kinds = [
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("fc", spec.fc.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
    ];
    kinds.into_iter().find(|(_, is)| *is).map(|(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{CLAIM_UID, VOLUME_UID, era_volume, persistent_volume};
    use serde_json::{Value, json};

    fn claimed(overrides: &Value) -> Result<ClaimedVolume, Refusal> {
        ClaimedVolume::new(&era_volume(), &persistent_volume(overrides))
    }

    #[test]
    fn local_and_csi_are_understood() {
        let local = claimed(&json!({})).expect("a local volume");
        assert_eq!(local.source, Source::Local { path: "/dev/vg/data".into() });
        assert_eq!(local.mode, Mode::Filesystem);
        let csi = claimed(&json!({
            "local": null, "volumeMode": "Block", "accessModes": ["ReadWriteOncePod", "ReadOnlyMany"],
            "csi": {"driver": "topolvm.io", "volumeHandle": "h"},
        }))
        .expect("a CSI volume");
        assert_eq!(csi.source, Source::Csi { driver: "topolvm.io".into(), handle: "h".into() });
        assert_eq!(csi.mode, Mode::Block);
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            (json!({"accessModes": ["ReadWriteMany"]}), "access modes [ReadWriteMany]"),
            (json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}), "access modes"),
            (json!({"accessModes": ["ReadOnlyMany"]}), "access modes [ReadOnlyMany]"),
            (json!({"local": null, "nfs": {"server": "s", "path": "/"}}), "neither csi nor local"),
            (
                json!({"local": null, "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}),
                "of the kind iscsi",
            ),
            (
                json!({"claimRef": {"namespace": "other", "name": "data", "uid": CLAIM_UID}}),
                "apps/data",
            ),
            (
                json!({"claimRef": {"namespace": "apps", "name": "data", "uid": VOLUME_UID}}),
                "apps/data",
            ),
            (json!({"claimRef": null}), "apps/data"),
        ];
        for (overrides, expected) in cases {
            let refusal = claimed(&overrides).expect_err("refused").to_string();
            assert!(refusal.contains(expected), "{overrides}: {refusal}");
        }
    }

    #[test]
    fn a_volume_made_again_under_the_name_is_another() {
        let mut other = persistent_volume(&json!({}));
        other.metadata.uid = Some(CLAIM_UID.to_owned());
        let refusal = ClaimedVolume::new(&era_volume(), &other).expect_err("refused");
        assert!(matches!(refusal, Refusal::OtherVolume { .. }), "{refusal}");
    }
}
