//! Against an API server in memory, which is cut off before and after each write: every list that a status speaks of is
//! whole at every moment, and the next look goes on from there.

#![allow(clippy::needless_pass_by_value)] // a json! literal is handed over, not kept
#![allow(clippy::type_complexity)] // rows of tables

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use eratrack_api::changed_block_slice::summary;
use eratrack_api::{ChangedBlockSlice, EraSnapshot, EraSnapshotStatus};
use eratrack_model::Run;
use eratrack_model::extents::RunList;
use jiff::Timestamp;
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::store::Store;
use super::*;
use crate::agent::slices::slices;
use crate::agent::snapshot::list::List;
use crate::controller::api_error::ApiError;
use crate::controller::testing::{condition, merged, object, snapshot, uid};
use crate::delta::{Slices, read};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
enum Kill {
    Before(usize),
    After(usize),
}

#[derive(Debug, Default)]
struct Inner {
    snapshots: BTreeMap<String, EraSnapshot>,
    slices: BTreeMap<String, ChangedBlockSlice>,
    writes: usize,
    kill: Option<Kill>,
    dead: bool,
}

#[derive(Debug, Default)]
struct Memory(Mutex<Inner>);

fn refused(code: u16, reason: &str, name: &str) -> ApiError {
    let status =
        json!({ "code": code, "reason": reason, "message": reason, "details": { "name": name } });
    ApiError::new("write", name, kube::Error::Api(Box::new(object(status))))
}

impl Inner {
    fn write(
        &mut self,
        effect: impl FnOnce(&mut Self) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let (this, cut) = (self.writes, || refused(503, "ServiceUnavailable", "all"));
        self.writes += 1;
        self.dead |= matches!(self.kill, Some(Kill::Before(at)) if at == this);
        if self.dead {
            return Err(cut());
        }
        effect(self)?;
        self.assert_whole();
        self.dead |= matches!(self.kill, Some(Kill::After(at)) if at == this);
        if self.dead { Err(cut()) } else { Ok(()) }
    }

    /// A reader that comes now finds all of every list, as its status says.
    fn assert_whole(&self) {
        for (name, snapshot) in &self.snapshots {
            let said = snapshot.status.as_ref().and_then(|it| it.slices.clone()).expect("slices");
            let parts: Vec<_> = said
                .indexes()
                .filter_map(|index| self.slices.get(&format!("{name}-{index}")))
                .map(|slice| slice.spec.ranges.as_str())
                .collect();
            let mut found = summary(parts);
            found.first = said.first;
            assert_eq!(found, said, "{name}, after write {}", self.writes);
        }
    }
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("not poisoned")
    }

    /// A complete snapshot with this list.
    fn add(&self, name: &str, since: Option<u32>, era: u32, blocks: &RunList) -> EraSnapshot {
        let list = List::joined(blocks, blocks.blocks());
        let snapshot = made(name, since, era, &list);
        let mut inner = self.inner();
        for slice in slices(&snapshot, &list, Some("n1"), 0) {
            inner.slices.insert(slice.name_any(), slice);
        }
        inner.snapshots.insert(name.to_owned(), snapshot.clone());
        snapshot
    }

    fn begin(&self, kill: Option<Kill>) {
        let mut inner = self.inner();
        (inner.kill, inner.dead, inner.writes) = (kill, false, 0);
    }

    /// One look: what can go goes, and one snapshot is merged.
    async fn look(&self, doomed: &BTreeSet<&str>) -> Result<bool, FoldError> {
        let snapshots = self.inner().snapshots.clone();
        let all: Vec<_> = snapshots.values().collect();
        let gone: Vec<_> =
            all.iter().copied().filter(|it| doomed.contains(it.name_any().as_str())).collect();
        for (snapshot, fate) in fates(&all, &gone) {
            match fate {
                Fate::Drop => self.delete_snapshot(snapshot).await?,
                Fate::Fold(plan) => return fold(self, &plan, now()).await,
                Fate::Stay => {}
            }
        }
        Ok(false)
    }

    async fn settle(&self, doomed: &BTreeSet<&str>) {
        while self.look(doomed).await.expect("merged") {}
    }

    async fn list(&self, name: &str) -> RunList {
        let snapshot = self.inner().snapshots[name].clone();
        read(self, &snapshot).await.expect("a list").runs
    }

    fn status(&self, name: &str) -> EraSnapshotStatus {
        self.inner().snapshots[name].status.clone().expect("a status")
    }
}

impl Slices for Memory {
    type Error = ApiError;

    async fn slice(&self, _: &str, name: &str) -> Result<Option<ChangedBlockSlice>, ApiError> {
        Ok(self.inner().slices.get(name).cloned())
    }
}

impl Store for Memory {
    async fn snapshot(&self, _: &str, name: &str) -> Result<Option<EraSnapshot>, ApiError> {
        Ok(self.inner().snapshots.get(name).cloned())
    }

    async fn create_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ApiError> {
        let name = slice.name_any();
        self.inner().write(|inner| {
            if inner.slices.contains_key(&name) {
                return Err(refused(409, "AlreadyExists", &name));
            }
            inner.slices.insert(name.clone(), slice.clone());
            Ok(())
        })
    }

    async fn delete_slice(&self, slice: &ChangedBlockSlice) -> Result<(), ApiError> {
        self.inner().write(|inner| {
            inner.slices.remove(&slice.name_any());
            Ok(())
        })
    }

    async fn write_status(
        &self,
        snapshot: &EraSnapshot,
        status: &EraSnapshotStatus,
    ) -> Result<(), ApiError> {
        self.inner().write(|inner| {
            let name = snapshot.name_any();
            let there = inner.snapshots.get_mut(&name).expect("there");
            if there.metadata.resource_version != snapshot.metadata.resource_version {
                return Err(refused(409, "Conflict", &name));
            }
            let old = there.status.replace(status.clone()).expect("a status");
            assert!(status.since_era < old.since_era, "sinceEra only falls");
            let fixed =
                |it: &EraSnapshotStatus| (it.era, it.chain_id.clone(), it.boundary_time.clone());
            assert_eq!(fixed(status), fixed(&old));
            there.metadata.resource_version = Some(format!("after-{}", inner.writes));
            Ok(())
        })
    }

    async fn delete_snapshot(&self, snapshot: &EraSnapshot) -> Result<(), ApiError> {
        let name = snapshot.name_any();
        self.inner().write(|inner| {
            inner.snapshots.remove(&name);
            // The garbage collector's part.
            inner.slices.retain(|_, slice| slice.spec.snapshot.name != name);
            Ok(())
        })
    }
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("a time")
}

fn made(name: &str, since: Option<u32>, era: u32, list: &List) -> EraSnapshot {
    let bytes = list.listed_blocks() * BLOCK;
    let status = json!({ "status": {
        "nodeName": "n1", "volumeUID": uid("pv", "data"), "chainID": uid("chain", "1"), "era": era,
        "boundaryTime": "2026-11-22T11:00:00Z", "sizeBytes": BLOCKS * BLOCK, "blockSizeBytes": BLOCK,
        "changedBlocks": list.marked_blocks, "changedBytes": list.marked_blocks * BLOCK,
        "listedBytes": bytes, "ranges": list.ranges(), "slices": list.summary(),
        "conditions": [condition("Ready", "True", "Complete")],
    } });
    let kind = match since {
        Some(since) => json!({ "status": { "type": "Incremental", "sinceEra": since,
                                           "base": { "name": "base", "uid": uid("es", "base") } } }),
        None => json!({ "status": { "type": "Full", "fullReason": "NoBaseline" } }),
    };
    snapshot(name, "data", merged(status, kind))
}

fn blocks(blocks: impl IntoIterator<Item = u64>) -> RunList {
    RunList::new(blocks.into_iter().map(|it| Run { first: it, last: it }))
}

fn every(step: usize, from: u64, to: u64) -> RunList {
    blocks((from..to).step_by(step))
}

/// A full one, one in the middle whose time is over, and the last; lists of some slices.
fn three() -> (Memory, RunList) {
    let memory = Memory::default();
    memory.add("a", None, 5, &RunList::new([Run { first: 0, last: BLOCKS - 1 }]));
    let (b, c) = (every(2, 0, 60_000), every(3, 20_000, 90_000));
    memory.add("b", Some(5), 7, &b);
    memory.add("c", Some(7), 9, &c);
    (memory, b.union(&c))
}

#[tokio::test]
async fn one_from_the_middle_is_merged_into_the_next_and_goes() {
    let (memory, both) = three();
    memory.settle(&["b"].into()).await;
    assert_eq!(memory.inner().snapshots.keys().collect::<Vec<_>>(), ["a", "c"]);
    let status = memory.status("c");
    assert_eq!((status.since_era, status.era), (Some(5), Some(9)));
    assert_eq!(status.changed_blocks, Some(both.blocks()));
    assert_eq!(status.listed_bytes, Some(both.blocks() * BLOCK));
    assert!(status.conditions[0].is_true());
    assert_eq!(memory.list("c").await, both);
    let slices = status.slices.expect("slices");
    assert_eq!(slices.first, 16);
    assert_eq!(memory.inner().slices.len(), 1 + slices.count as usize, "none is left over");
}

#[tokio::test]
async fn killed_at_every_write_the_next_look_finishes() {
    let mut kills = 0;
    for at in 0.. {
        let mut died = false;
        for kill in [Kill::Before(at), Kill::After(at)] {
            let (memory, both) = three();
            memory.begin(Some(kill));
            let ended = memory.look(&["b"].into()).await;
            died |= memory.inner().dead;
            assert_eq!(ended.is_err(), memory.inner().dead, "{kill:?}: {ended:?}");
            memory.begin(None);
            memory.settle(&["b"].into()).await;
            let status = memory.status("c");
            assert_eq!(status.since_era, Some(5), "{kill:?}");
            assert_eq!(memory.list("c").await, both, "{kill:?}");
            let count = status.slices.expect("slices").count as usize;
            assert_eq!(memory.inner().slices.len(), 1 + count, "{kill:?}: none is left over");
            assert_eq!(memory.inner().snapshots.len(), 2, "{kill:?}");
        }
        kills += usize::from(died);
        if !died {
            break;
        }
    }
    assert!(kills >= 7, "slices, the status, slices, the snapshot: {kills} writes");
}

#[tokio::test]
async fn merged_again_the_slices_go_back_to_the_first_place() {
    let (memory, both) = three();
    memory.settle(&["b"].into()).await;
    let d = every(5, 0, 1000);
    memory.add("d", Some(9), 11, &d);
    memory.settle(&["c"].into()).await;
    let e = every(7, 0, 1000);
    memory.add("e", Some(11), 12, &e);
    memory.settle(&["c", "d"].into()).await;
    let status = memory.status("e");
    assert_eq!((status.since_era, memory.list("e").await), (Some(5), both.union(&d).union(&e)));
    // Into one that was merged into before.
    memory.add("f", Some(12), 13, &every(11, 0, 1000));
    memory.settle(&["e"].into()).await;
    assert_eq!(memory.status("f").slices.map(|it| it.first), Some(16));
    memory.settle(&["c", "d", "e"].into()).await;
    assert_eq!(memory.inner().snapshots.keys().collect::<Vec<_>>(), ["a", "f"]);
}

#[tokio::test]
async fn many_at_once_go_one_after_the_other_into_the_one_that_stays() {
    let memory = Memory::default();
    memory.add("a", None, 1, &RunList::new([Run { first: 0, last: BLOCKS - 1 }]));
    let mut all = RunList::default();
    for (index, name) in (0_u32..).zip(["b", "c", "d", "e", "f"]) {
        let list = blocks([u64::from(index), 100]);
        memory.add(name, Some(index + 1), index + 2, &list);
        all = all.union(&list);
    }
    let doomed = ["b", "c", "d", "e"].into();
    let mut places = Vec::new();
    while memory.look(&doomed).await.expect("merged") {
        places.push(memory.status("f").slices.expect("slices").first);
    }
    assert_eq!(places, [16, 0, 16, 0]);
    assert_eq!(memory.list("f").await, all);
    assert_eq!(memory.status("f").since_era, Some(1));
    assert_eq!(memory.inner().slices.len(), 2);
}

#[tokio::test]
async fn the_oldest_goes_as_it_is() {
    let (memory, _) = three();
    memory.settle(&["a", "b"].into()).await;
    assert_eq!(memory.status("c").since_era, Some(7), "nothing is left to lead on from");
    assert_eq!(memory.inner().snapshots.len(), 1);
}

#[tokio::test]
async fn what_is_not_whole_is_neither_merged_nor_deleted() {
    let spoil: [(&str, fn(&mut Inner)); 3] = [
        ("gone", |inner| {
            inner.slices.remove("b-1");
        }),
        ("changed", |inner| {
            let slice = inner.slices.get_mut("b-0").expect("there");
            slice.spec.ranges = slice.spec.ranges.replacen("0,2", "0,3", 1);
        }),
        ("the next one's", |inner| {
            inner.slices.remove("c-0");
        }),
    ];
    for (case, spoil) in spoil {
        let (memory, _) = three();
        spoil(&mut memory.inner());
        let before = memory.inner().snapshots.clone();
        let error = memory.look(&["b"].into()).await.expect_err(case);
        assert!(matches!(error, FoldError::List(_)), "{case}: {error}");
        assert_eq!(memory.inner().snapshots, before, "{case}");
        assert_eq!(memory.inner().writes, 0, "{case}");
    }
}

#[tokio::test]
async fn what_somebody_changed_meanwhile_is_looked_at_again() {
    let (memory, both) = three();
    let snapshots = memory.inner().snapshots.clone();
    let plan = Fold { gone: snapshots["b"].clone(), into: snapshots["c"].clone() };
    // By an older view: it was done already.
    memory.settle(&["b"].into()).await;
    assert!(!fold(&memory, &plan, now()).await.expect("nothing"));
    assert_eq!(memory.list("c").await, both);
    // Another object of that name.
    let (memory, _) = three();
    let mut other = plan.clone();
    other.into.metadata.uid = Some(uid("es", "another"));
    assert!(!fold(&memory, &other, now()).await.expect("nothing"));
    assert_eq!(memory.inner().writes, 0);
}

#[test]
fn one_that_is_being_made_keeps_its_base() {
    let list = List::joined(&RunList::default(), 0);
    let (a, b) = (made("a", None, 5, &list), made("b", Some(5), 7, &list));
    let reading = json!({ "status": { "conditions": [condition("Ready", "False", "Reading")] } });
    let pending: EraSnapshot =
        object(merged(serde_json::to_value(made("p", Some(7), 9, &list)).expect("JSON"), reading));
    let failed: EraSnapshot = object(merged(
        serde_json::to_value(&pending).expect("JSON"),
        json!({ "status": { "conditions": [condition("Failed", "True", "ChainBroken")] } }),
    ));
    let fate = |all: &[&EraSnapshot]| fates(all, &[&b]).remove(0).1;
    assert_eq!(fate(&[&a, &b, &pending]), Fate::Stay);
    assert_eq!(fate(&[&a, &b, &failed]), Fate::Drop);
    let chain: Value = json!({ "status": { "chainID": uid("chain", "2") } });
    let next = serde_json::to_value(made("c", Some(7), 9, &list)).expect("JSON");
    let elsewhere: EraSnapshot = object(merged(next, chain));
    assert_eq!(fate(&[&a, &b, &elsewhere]), Fate::Drop, "of another chain");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From each that stays to each later one that stays, the lists in between say what was written in between.
    #[test]
    fn what_remains_leads_on_as_before(
        lists in prop::collection::vec(prop::collection::btree_set(0_u64..200, 0..20), 2..10),
        doomed in prop::collection::vec(any::<bool>(), 10),
    ) {
        let names: Vec<_> = (0..lists.len()).map(|it| format!("s{it}")).collect();
        let memory = Memory::default();
        for (index, list) in lists.iter().enumerate() {
            let era = u32::try_from(index).expect("few") * 2 + 2;
            memory.add(&names[index], (index > 0).then_some(era - 2), era, &blocks(list.iter().copied()));
        }
        let last = lists.len() - 1;
        let gone: BTreeSet<_> = (0..last).filter(|it| doomed[*it]).map(|it| names[it].as_str()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(memory.settle(&gone));
        let left: Vec<_> = (0..=last).filter(|it| !gone.contains(names[*it].as_str())).collect();
        prop_assert_eq!(memory.inner().snapshots.len(), left.len());
        for pair in left.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let written: BTreeSet<u64> = lists[from + 1..=to].iter().flatten().copied().collect();
            let listed = runtime.block_on(memory.list(&names[to]));
            prop_assert_eq!(listed, blocks(written));
            prop_assert_eq!(memory.status(&names[to]).since_era, memory.status(&names[from]).era);
        }
    }
}
