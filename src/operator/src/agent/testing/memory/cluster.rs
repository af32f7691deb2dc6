//! The API server in memory, with the rules that the agent could break.

use eratrack_api::{
    ChangedBlockSlice, ConditionType, EraSnapshot, EraSnapshotStatus, EraVolume, EraVolumeStatus,
    condition,
};
use k8s_openapi::api::core::v1::PersistentVolume;

use super::super::{persistent_volume, replica_target};
use super::{Held, Memory};
use crate::agent::cluster::{Cluster, ClusterError, Key, Notice};

impl Cluster for Memory {
    async fn volume(&self, key: &Key) -> Result<Option<EraVolume>, ClusterError> {
        self.note("volume");
        self.reach(&key.to_string())?;
        Ok(self.inner().volume.clone())
    }

    async fn volumes(&self) -> Result<Vec<EraVolume>, ClusterError> {
        self.note("volumes");
        self.reach("EraVolumes")?;
        Ok(self.inner().volume.iter().cloned().collect())
    }

    async fn persistent_volume(
        &self,
        name: &str,
    ) -> Result<Option<PersistentVolume>, ClusterError> {
        self.note("persistent_volume");
        self.reach(name)?;
        let target = replica_target();
        if name != target.volume.name {
            return Ok(Some(persistent_volume(&serde_json::json!({}))));
        }
        let mut replica = persistent_volume(&serde_json::json!({
            "volumeMode": "Block", "local": {"path": "/dev/vg/copy"},
            "claimRef": {"namespace": "apps", "name": target.claim.name, "uid": target.claim.uid},
        }));
        replica.metadata.uid = Some(target.volume.uid);
        Ok(Some(replica))
    }

    async fn snapshot(&self, key: &Key) -> Result<Option<EraSnapshot>, ClusterError> {
        self.note("snapshot");
        let delay = self.inner().delay;
        tokio::time::sleep(delay).await;
        Ok(self.inner().snapshots.get(key).cloned())
    }

    async fn snapshots_of(&self, claim: &Key) -> Result<Vec<EraSnapshot>, ClusterError> {
        self.note("snapshots_of");
        let inner = self.inner();
        let of_claim = inner.snapshots.values().filter(|it| it.spec.claim_name == claim.name);
        Ok(of_claim.cloned().collect())
    }

    async fn write_volume(
        &self,
        volume: &EraVolume,
        status: &EraVolumeStatus,
    ) -> Result<EraVolume, ClusterError> {
        self.note("write_volume");
        let what = Key::of(volume).to_string();
        self.reach(&what)?;
        let mut inner = self.inner();
        inner.said += 1;
        let there = inner.volume.as_mut().ok_or(ClusterError::Gone { what: what.clone() })?;
        volume_rules(there.status.as_ref(), status)
            .map_err(|message| ClusterError::Rejected { what, message })?;
        there.status = Some(status.clone());
        Ok(there.clone())
    }

    async fn write_snapshot(
        &self,
        snapshot: &EraSnapshot,
        status: &EraSnapshotStatus,
    ) -> Result<EraSnapshot, ClusterError> {
        self.note("write_snapshot");
        let key = Key::of(snapshot);
        let what = key.to_string();
        if self.inner().held.contains(&Held::Statuses) {
            return Err(ClusterError::Timeout { what, seconds: 10 });
        }
        self.effect(&what.clone(), |inner| {
            let Some(there) = inner.snapshots.get_mut(&key) else {
                return Err(ClusterError::Gone { what });
            };
            rules(there.status.as_ref(), status)
                .map_err(|message| ClusterError::Rejected { what, message })?;
            there.status = Some(status.clone());
            Ok(there.clone())
        })?
    }

    async fn slice(&self, key: &Key) -> Result<Option<ChangedBlockSlice>, ClusterError> {
        self.note("slice");
        if self.inner().held.contains(&Held::Reads) {
            return Err(ClusterError::Timeout { what: key.to_string(), seconds: 10 });
        }
        Ok(self.inner().slices.get(key).cloned())
    }

    async fn create_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ClusterError> {
        self.note("create_slice");
        let key = Key::of(slice);
        let what = key.to_string();
        self.effect(&what.clone(), |inner| {
            if inner.held.contains(&Held::Slices) {
                return Err(ClusterError::Timeout { what, seconds: 10 });
            }
            if inner.quota {
                let message = "exceeded quota: lists".to_owned();
                return Err(ClusterError::Quota { what, message });
            }
            if inner.slices.contains_key(&key) {
                return Err(ClusterError::Exists { what });
            }
            inner.slices.insert(key, slice.clone());
            Ok(())
        })?
    }

    async fn delete_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ClusterError> {
        self.note("delete_slice");
        self.effect("delete", |inner| inner.slices.remove(&Key::of(slice))).map(drop)
    }

    fn notice_volume(&self, _: &EraVolume, notice: &Notice) {
        self.note("notice_volume");
        self.inner().noticed_of_volume.push(notice.reason);
    }

    fn notice_snapshot(&self, _: &EraSnapshot, notice: &Notice) {
        self.note("notice_snapshot");
        self.inner().noticed.push(notice.reason);
    }
}

impl Memory {
    fn note(&self, request: &'static str) {
        self.inner().requests.push(request);
    }
}

/// The schema's rule about an `EraVolume`'s era.
fn volume_rules(old: Option<&EraVolumeStatus>, new: &EraVolumeStatus) -> Result<(), String> {
    let Some(old) = old else { return Ok(()) };
    let chain = |status: &EraVolumeStatus| status.chain.as_ref().map(|chain| chain.id.clone());
    if chain(old) == chain(new) && new.era.is_some() && new.era < old.era {
        return Err("an era never goes back within a chain".to_owned());
    }
    Ok(())
}

/// The schema's rules about transitions, as far as the agent could break them.
fn rules(old: Option<&EraSnapshotStatus>, new: &EraSnapshotStatus) -> Result<(), String> {
    let Some(old) = old else { return Ok(()) };
    if condition::is_true(&old.conditions, ConditionType::Failed) && old != new {
        return Err("a failed snapshot stays failed".to_owned());
    }
    if old.era.is_some() && (old.era != new.era || old.chain_id != new.chain_id) {
        return Err("era, chainID and nodeName of a boundary never change".to_owned());
    }
    if old.since_era.is_some() && new.since_era > old.since_era {
        return Err("a delta may only reach further back".to_owned());
    }
    Ok(())
}
