//! A cluster and a machine in memory. The process under test can be killed at any of its effects; what it does
//! afterwards has none.

mod cluster;
mod machine;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eratrack_api::{ChangedBlockSlice, EraSnapshot, EraVolume, Reason};
use eratrack_model::extents::RunList;
use eratrack_model::units::DevNo;

use crate::agent::cluster::{ClusterError, Key};
use crate::agent::stacks::{
    Health, HeldPoint, Insertion, Liveness, PointState, StackError, Tracked,
};

/// When the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Just before its n-th effect.
    Before(usize),
    /// Just after its n-th effect, of which it never hears.
    After(usize),
}

/// What the API server, or the machine, does not take for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    /// Slices.
    Slices,
    /// Reading slices.
    Reads,
    /// Statuses of snapshots.
    Statuses,
    /// Attaches.
    Attaches,
    /// Other granularities.
    Refits,
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
    /// What cannot be written just now.
    held: BTreeSet<Held>,
    /// How long a request about a snapshot takes.
    delay: Duration,
    /// How often a list was read.
    reads: usize,
    /// Events on snapshots.
    noticed: Vec<Reason>,
    noticed_of_volume: Vec<Reason>,
    /// How much of the metadata is in use, in percent.
    used_percent: u64,
    /// The only EraVolume.
    volume: Option<EraVolume>,
    /// What was asked of the API server, in order.
    requests: Vec<&'static str>,
    /// Whether the API server can be reached.
    cut_off: bool,
    /// Writes of the EraVolume's status.
    said: usize,
    /// Where the machine has the volume's device.
    device: Option<DevNo>,
    /// The stack, if era is in.
    stack: Option<Tracked>,
    /// How often it cannot be cleared up.
    stuck: usize,
    /// How often an attach was tried.
    tried: usize,
    /// What was written to the device, if that is known.
    counters: Option<[u64; 4]>,
    /// How often era was asked.
    asked: usize,
    /// How many chains there were.
    chains: usize,
    /// How often era was taken out.
    detached: usize,
    /// What the live table looks like, if it is not ours.
    live: Option<Liveness>,
    /// What era says of itself, if it is not well.
    health: Option<Health>,
    /// What the next insertion of era is, if it is not a plain one.
    insertion: Option<Insertion>,
    /// The point in time that is held.
    point: Option<HeldPoint>,
    /// How it was lost, if it was.
    lost: Option<PointState>,
    /// How often its end still meets with a reader that has it open; none if nothing is left of one.
    reader: Option<usize>,
    /// The volume's replica.
    replica: replica::FakeReplica,
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

    /// A new process begins, which will be killed then. It holds no point in time.
    pub(crate) fn start(&self, kill: Option<Kill>) {
        let mut inner = self.inner();
        inner.point = None;
        (inner.kill, inner.effects, inner.dead) = (kill, 0, false);
    }

    /// The volume is put back to an earlier snapshot while era is not in.
    pub(crate) fn roll_back(&self) {
        self.inner().insertion = Some(Insertion::RolledBack);
    }

    /// Whether the process was killed.
    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// From now on no slice is admitted.
    pub(crate) fn refuse_slices(&self) {
        self.inner().quota = true;
    }

    /// From now on a request about a snapshot takes so long.
    pub(crate) fn delay_requests(&self, delay: Duration) {
        self.inner().delay = delay;
    }

    /// From now on these do not succeed.
    pub(crate) fn hold(&self, held: Held) {
        self.inner().held.insert(held);
    }

    /// Everything succeeds again.
    pub(crate) fn let_go(&self) {
        self.inner().held.clear();
    }

    /// How many boundaries were made.
    pub(crate) fn boundaries(&self) -> usize {
        self.inner().began.len()
    }

    /// The events on volumes.
    pub(crate) fn noticed_of_volume(&self) -> Vec<Reason> {
        self.inner().noticed_of_volume.clone()
    }

    /// The events on snapshots.
    pub(crate) fn noticed(&self) -> Vec<Reason> {
        self.inner().noticed.clone()
    }

    /// What was asked of the API server since this was last asked, events included.
    pub(crate) fn requests(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.inner().requests)
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

    /// Somebody deletes a snapshot.
    pub(crate) fn delete(&self, name: &str) {
        self.inner().snapshots.retain(|key, _| key.name != name);
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

    /// From now on it is known how much was written to the device.
    pub(crate) fn count_writes(&self, requests: u64) {
        self.inner().counters = Some([requests, requests * 8, 0, 0]);
    }

    /// How often era was asked, which costs a commit of its metadata.
    pub(crate) fn asked(&self) -> usize {
        self.inner().asked
    }

    /// No pod uses the volume any more.
    pub(crate) fn unuse_device(&self) {
        self.inner().device = None;
    }

    /// How often an attach was tried.
    pub(crate) fn tried(&self) -> usize {
        self.inner().tried
    }

    /// What is there cannot be cleared up so many times.
    pub(crate) fn stick(&self, times: usize) {
        self.inner().stuck = times;
    }

    /// The metadata is an older copy.
    pub(crate) fn set_back_era(&self) {
        self.inner().era = 0;
    }

    /// The point in time that is held.
    pub(crate) fn point(&self) -> Option<HeldPoint> {
        self.inner().point.clone()
    }

    /// What was read from the point in time does not count.
    pub(crate) fn lose_point(&self, state: PointState) {
        self.inner().lost = Some(state);
    }

    /// A reader has the device open for so many attempts to end it.
    pub(crate) fn keep_open(&self, attempts: usize) {
        self.inner().reader = Some(attempts);
    }

    /// Whether a reader's device is left.
    pub(crate) fn has_remains(&self) -> bool {
        self.inner().reader.is_some()
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

    /// Somebody deletes a slice.
    pub(crate) fn lose_slice(&self, name: &str) {
        self.inner().slices.retain(|key, _| key.name != name);
    }

    /// Somebody who may do anything changes a slice.
    pub(crate) fn edit_slice(&self, name: &str, edit: impl FnOnce(&mut ChangedBlockSlice)) {
        let key = Key { namespace: "apps".to_owned(), name: name.to_owned() };
        edit(self.inner().slices.get_mut(&key).expect("the slice"));
    }

    /// As the garbage collector does: what has no owner that is there goes; what names no owner would stay for good.
    pub(crate) fn collect_garbage(&self) {
        let mut inner = self.inner();
        let uids: BTreeSet<_> =
            inner.snapshots.values().filter_map(|it| it.metadata.uid.clone()).collect();
        inner.slices.retain(|_, slice| {
            let owners = slice.metadata.owner_references.as_deref().unwrap_or_default();
            owners.is_empty() || owners.iter().any(|owner| uids.contains(&owner.uid))
        });
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
