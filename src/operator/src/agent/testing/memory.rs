//! A cluster and a machine in memory. The process under test can be killed at any of its effects; what it does
//! afterwards has none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eratrack_api::{
    ChangedBlockSlice, ConditionType, EraSnapshot, EraSnapshotStatus, EraVolume, EraVolumeStatus,
    Reason, condition,
};
use eratrack_model::Era;
use eratrack_model::extents::{ChangedBlocks, RunList};
use eratrack_model::units::DevNo;
use k8s_openapi::api::core::v1::PersistentVolume;

use super::{at, tracked};
use crate::agent::cluster::{Cluster, ClusterError, Key, Notice};
use crate::agent::discover::{ClaimedVolume, DiscoverError, Node, Refusal};
use crate::agent::stacks::{
    Boundary, Changes, Found, Health, Hope, Liveness, StackError, Stacks, Tracked, Wanted,
};

/// When the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Just before its n-th effect.
    Before(usize),
    /// Just after its n-th effect, of which it never hears.
    After(usize),
}

/// Everything; a clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    kill: Option<Kill>,
    effects: usize,
    dead: bool,
    snapshots: BTreeMap<Key, EraSnapshot>,
    slices: BTreeMap<Key, ChangedBlockSlice>,
    /// Every block written, in order.
    log: Vec<u64>,
    /// How long the log was when an era began.
    began: BTreeMap<u32, usize>,
    /// The last era of each block that was written.
    blocks: BTreeMap<u64, u32>,
    era: u32,
    /// Whether a quota admits no slice.
    quota: bool,
    /// Whether slices cannot be written just now.
    slices_stuck: bool,
    /// Whether statuses of snapshots cannot be written just now.
    statuses_stuck: bool,
    /// How often a list was read.
    reads: usize,
    /// How much of the metadata is in use, in percent.
    used_percent: u64,
    /// The only EraVolume.
    volume: Option<EraVolume>,
    /// Whether the API server can be reached.
    cut_off: bool,
    /// Writes of the EraVolume's status.
    said: usize,
    /// Where the machine has the volume's device.
    device: Option<DevNo>,
    /// The stack, if era is in.
    stack: Option<Tracked>,
    /// How many chains there were.
    chains: usize,
    /// How often era was taken out.
    detached: usize,
    /// What the live table looks like, if it is not ours.
    live: Option<Liveness>,
    /// What era says of itself, if it is not well.
    health: Option<Health>,
}

impl Inner {
    fn record(&self, uid: &str) -> Result<(), StackError> {
        if self.stack.is_some() { Ok(()) } else { Err(StackError::no_record(uid)) }
    }
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process begins, which will be killed then.
    pub(crate) fn start(&self, kill: Option<Kill>) {
        let mut inner = self.inner();
        (inner.kill, inner.effects, inner.dead) = (kill, 0, false);
    }

    /// Whether the process was killed.
    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// From now on no slice is admitted.
    pub(crate) fn refuse_slices(&self) {
        self.inner().quota = true;
    }

    /// Slices cannot be written just now, or can be again.
    pub(crate) fn hold_slices(&self, held: bool) {
        self.inner().slices_stuck = held;
    }

    /// Statuses of snapshots cannot be written just now, or can be again.
    pub(crate) fn hold_statuses(&self, held: bool) {
        self.inner().statuses_stuck = held;
    }

    /// How many boundaries were made.
    pub(crate) fn boundaries(&self) -> usize {
        self.inner().began.len()
    }

    /// How often a list was read.
    pub(crate) fn reads(&self) -> usize {
        self.inner().reads
    }

    /// So much of the metadata is in use, and so many eras have passed.
    pub(crate) fn use_metadata(&self, percent: u64, eras: u32) {
        let mut inner = self.inner();
        inner.used_percent = percent;
        inner.era += eras;
    }

    /// An application writes blocks.
    pub(crate) fn write(&self, blocks: impl IntoIterator<Item = u64>) {
        let mut inner = self.inner();
        for block in blocks {
            let era = inner.era;
            inner.log.push(block);
            inner.blocks.insert(block, era);
        }
    }

    /// Somebody creates or changes a snapshot.
    pub(crate) fn put(&self, snapshot: EraSnapshot) {
        self.inner().snapshots.insert(Key::of(&snapshot), snapshot);
    }

    /// The snapshot as the API server has it.
    pub(crate) fn get(&self, name: &str) -> EraSnapshot {
        let key = Key { namespace: "apps".to_owned(), name: name.to_owned() };
        self.inner().snapshots.get(&key).cloned().expect("the snapshot")
    }

    /// The blocks that a reader finds in the slices of a complete snapshot, after all the checks it makes.
    pub(crate) fn listed(&self, name: &str) -> RunList {
        let snapshot = self.get(name);
        let promised = snapshot.status.and_then(|status| status.slices).expect("a summary");
        let inner = self.inner();
        let texts: Vec<&str> = (0..promised.count)
            .map(|index| {
                let name = eratrack_api::names::slice_name(name, index);
                let slice =
                    inner.slices.get(&Key { namespace: "apps".to_owned(), name }).expect("a slice");
                assert_eq!(Some(&slice.spec.snapshot.uid), snapshot.metadata.uid.as_ref());
                assert_eq!(slice.spec.count, promised.count);
                slice.spec.ranges.as_str()
            })
            .collect();
        assert_eq!(eratrack_api::changed_block_slice::summary(texts.iter().copied()), promised);
        texts.join(",").parse().expect("ranges")
    }

    /// The blocks that were truly written from the beginning of one era to that of another.
    pub(crate) fn written(&self, since: u32, until: u32) -> Vec<u64> {
        let inner = self.inner();
        inner.log[inner.began[&since]..inner.began[&until]].to_vec()
    }

    /// Changes what the world is like.
    pub(crate) fn set_volume(&self, volume: Option<EraVolume>) {
        self.inner().volume = volume;
    }

    /// The EraVolume as the API server has it.
    pub(crate) fn volume_now(&self) -> Option<EraVolume> {
        self.inner().volume.clone()
    }

    /// The API server cannot be reached, or can be again.
    pub(crate) fn cut_off(&self, cut_off: bool) {
        self.inner().cut_off = cut_off;
    }

    /// A pod uses the volume on this device.
    pub(crate) fn use_device(&self, device: DevNo) {
        self.inner().device = Some(device);
    }

    /// Somebody changes the live table.
    pub(crate) fn set_live(&self, live: Liveness) {
        self.inner().live = Some(live);
    }

    /// Era's metadata fails.
    pub(crate) fn fail_era(&self) {
        self.inner().health = Some(Health::Failed);
    }

    /// Somebody else of this process takes the stack out.
    pub(crate) fn lose_record(&self) {
        self.inner().stack = None;
    }

    /// The metadata is an older copy.
    pub(crate) fn set_back_era(&self) {
        self.inner().era = 0;
    }

    /// The chain of the stack that is in.
    pub(crate) fn chain(&self) -> Option<String> {
        self.inner().stack.as_ref().map(|stack| stack.chain.clone())
    }

    /// The stack that is in.
    pub(crate) fn stack(&self) -> Option<Tracked> {
        self.inner().stack.clone()
    }

    /// How often era was put in.
    pub(crate) fn inserted(&self) -> usize {
        self.inner().chains
    }

    /// How often era was taken out, whether it was in or not.
    pub(crate) fn detached(&self) -> usize {
        self.inner().detached
    }

    /// How often the EraVolume's status was written.
    pub(crate) fn said(&self) -> usize {
        self.inner().said
    }

    /// How many slices there are.
    pub(crate) fn slices(&self) -> usize {
        self.inner().slices.len()
    }

    fn reach(&self, what: &str) -> Result<(), ClusterError> {
        if self.inner().cut_off {
            return Err(ClusterError::Timeout { what: what.to_owned(), seconds: 30 });
        }
        Ok(())
    }

    fn effect<T>(&self, what: &str, act: impl FnOnce(&mut Inner) -> T) -> Result<T, ClusterError> {
        let killed = || ClusterError::Timeout { what: what.to_owned(), seconds: 0 };
        let mut inner = self.inner();
        if inner.dead || inner.kill == Some(Kill::Before(inner.effects)) {
            inner.dead = true;
            return Err(killed());
        }
        let done = act(&mut inner);
        if inner.kill == Some(Kill::After(inner.effects)) {
            inner.dead = true;
            return Err(killed());
        }
        inner.effects += 1;
        Ok(done)
    }
}

fn machine(_: ClusterError) -> StackError {
    StackError::unforeseen("killed".to_owned())
}

impl Stacks for Memory {
    fn recover(&self) -> Result<Vec<Found>, StackError> {
        Ok(Vec::new())
    }

    fn attach(&self, wanted: &Wanted) -> Result<(Tracked, bool), StackError> {
        self.effect("attach", |inner| {
            if let Some(stack) = &inner.stack {
                return (stack.clone(), false);
            }
            let chain = tracked().chain.replacen("4444", &format!("444{}", 4 + inner.chains), 1);
            let stack = Tracked { chain, granularity: wanted.granularity, ..tracked() };
            inner.chains += 1;
            inner.era = 1;
            inner.stack = Some(stack.clone());
            (stack, true)
        })
        .map_err(machine)
    }

    fn liveness(&self, uid: &str) -> Result<Liveness, StackError> {
        let inner = self.inner();
        inner.record(uid)?;
        Ok(inner.live.unwrap_or(Liveness::Intact))
    }

    fn health(&self, uid: &str) -> Result<Health, StackError> {
        let inner = self.inner();
        inner.record(uid)?;
        let used_bytes = 4096 + inner.used_percent * 10_000;
        let well = Health::Good { era: Era(inner.era), used_bytes, total_bytes: 1_000_000 };
        Ok(inner.health.unwrap_or(well))
    }

    fn boundary(&self, _: &str) -> Result<Boundary, StackError> {
        if self.inner().health == Some(Health::Failed) {
            let message = "the era device has failed".to_owned();
            return Err(StackError { hope: Hope::Broken, reason: Reason::MetadataError, message });
        }
        if self.inner().live.is_some() {
            let message = "253:3 no longer goes through era".to_owned();
            return Err(StackError { hope: Hope::Broken, reason: Reason::TableReloaded, message });
        }
        self.effect("boundary", |inner| {
            inner.era += 1;
            let (era, length) = (inner.era, inner.log.len());
            inner.began.insert(era, length);
            Boundary { era: Era(era), time: at(25) }
        })
        .map_err(machine)
    }

    fn changes(&self, _: &str, since: Era) -> Result<Changes, StackError> {
        self.effect("changes", |inner| {
            inner.reads += 1;
            let changed = inner.blocks.iter().filter(|(_, era)| **era >= since.0);
            let marked: era_metadata::BlockSet = changed.map(|(&block, _)| block).collect();
            let marked_blocks = marked.count();
            Changes { runs: ChangedBlocks::new(marked, 0, u64::MAX), marked_blocks }
        })
        .map_err(machine)
    }

    fn detach(&self, _: &str) -> Result<(), StackError> {
        self.effect("detach", |inner| {
            inner.detached += 1;
            (inner.stack, inner.live, inner.health) = (None, None, None);
        })
        .map_err(machine)
    }
}

impl Node for Memory {
    fn find(&self, _: &ClaimedVolume) -> Result<DevNo, DiscoverError> {
        self.inner().device.ok_or_else(|| Refusal::NotInUse.into())
    }

    fn write_counters(&self, _: DevNo) -> Option<[u64; 4]> {
        None
    }
}

impl Cluster for Memory {
    async fn volume(&self, key: &Key) -> Result<Option<EraVolume>, ClusterError> {
        self.reach(&key.to_string())?;
        Ok(self.inner().volume.clone())
    }

    async fn volumes(&self) -> Result<Vec<EraVolume>, ClusterError> {
        self.reach("EraVolumes")?;
        Ok(self.inner().volume.iter().cloned().collect())
    }

    async fn persistent_volume(
        &self,
        name: &str,
    ) -> Result<Option<PersistentVolume>, ClusterError> {
        self.reach(name)?;
        Ok(Some(super::persistent_volume(&serde_json::json!({}))))
    }

    async fn snapshot(&self, key: &Key) -> Result<Option<EraSnapshot>, ClusterError> {
        Ok(self.inner().snapshots.get(key).cloned())
    }

    async fn snapshots_of(&self, claim: &Key) -> Result<Vec<EraSnapshot>, ClusterError> {
        let inner = self.inner();
        let of_claim = inner.snapshots.values().filter(|it| it.spec.claim_name == claim.name);
        Ok(of_claim.cloned().collect())
    }

    async fn write_volume(
        &self,
        volume: &EraVolume,
        status: &EraVolumeStatus,
    ) -> Result<EraVolume, ClusterError> {
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
        let key = Key::of(snapshot);
        let what = key.to_string();
        if self.inner().statuses_stuck {
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
        Ok(self.inner().slices.get(key).cloned())
    }

    async fn create_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ClusterError> {
        let key = Key::of(slice);
        let what = key.to_string();
        self.effect(&what.clone(), |inner| {
            if inner.slices_stuck {
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
        self.effect("delete", |inner| inner.slices.remove(&Key::of(slice))).map(drop)
    }

    fn notice_volume(&self, _: &EraVolume, _: &Notice) {}

    fn notice_snapshot(&self, _: &EraSnapshot, _: &Notice) {}
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
