use std::collections::BTreeMap;

use eratrack_api::changed_block_slice::summary;
use eratrack_api::{
    ChangedBlockSlice, ChangedBlockSliceFields, Encoding, EraSnapshot, SnapshotRef, names,
};
use eratrack_model::delta::{DeltaError, Reach};
use eratrack_model::extents::RunList;
use eratrack_model::slices::{SliceLimits, fit};
use eratrack_model::{Era, Run};
use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const BLOCKS: u64 = 5000;
const BLOCK: u64 = 4096;

#[derive(Debug, thiserror::Error)]
#[error("no connection")]
struct Silent;

/// Slices by name; those of the names in `silent` cannot be read.
#[derive(Clone, Default)]
struct Stored {
    slices: BTreeMap<String, ChangedBlockSlice>,
    silent: Option<String>,
}

impl Slices for Stored {
    type Error = Silent;

    async fn slice(&self, _: &str, name: &str) -> Result<Option<ChangedBlockSlice>, Silent> {
        if self.silent.as_deref() == Some(name) {
            return Err(Silent);
        }
        Ok(self.slices.get(name).cloned())
    }
}

impl Stored {
    /// A complete snapshot with this list, its slices of at most `bytes`.
    fn add(
        &mut self,
        name: &str,
        since: Option<u32>,
        era: u32,
        list: &RunList,
        bytes: usize,
    ) -> EraSnapshot {
        let fitted = fit(list.iter(), SliceLimits::new(bytes, 16).unwrap());
        let uid = format!("uid-of-{name}");
        let count = u32::try_from(fitted.slices.len()).unwrap();
        for (index, part) in (0..).zip(&fitted.slices) {
            let fields = ChangedBlockSliceFields {
                snapshot: SnapshotRef { name: name.into(), uid: uid.clone() },
                node_name: Some(format!("node{index}")),
                index,
                count,
                block_size_bytes: BLOCK,
                blocks: part.blocks,
                first: part.first,
                last: part.last,
                encoding: Encoding::List,
                ranges: part.ranges.clone(),
            };
            let name = names::slice_name(name, index);
            self.slices.insert(name.clone(), ChangedBlockSlice::new(&name, fields));
        }
        let ranges: usize = fitted.slices.iter().map(|it| it.ranges.split(',').count()).sum();
        let mut status = json!({
            "volumeUID": "v", "chainID": "c", "era": era, "sizeBytes": BLOCKS * BLOCK - 512, "blockSizeBytes": BLOCK,
            "slices": summary(fitted.slices.iter().map(|it| it.ranges.as_str())), "ranges": ranges,
            "listedBytes": (fitted.listed_blocks * BLOCK).min(BLOCKS * BLOCK - 512),
            "type": "Full", "fullReason": "NoBaseline",
            "conditions": [{"type": "Ready", "status": "True", "reason": "Complete", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        if let Some(since) = since {
            status["type"] = json!("Incremental");
            status["sinceEra"] = json!(since);
            status["fullReason"] = json!(null);
        }
        serde_json::from_value(json!({
            "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot",
            "metadata": {"name": name, "namespace": "apps", "uid": uid},
            "spec": {"claimName": "data"}, "status": status,
        }))
        .unwrap()
    }

    fn fields(&mut self, name: &str) -> &mut ChangedBlockSliceFields {
        &mut self.slices.get_mut(name).unwrap().spec
    }
}

fn list(text: &str) -> RunList {
    text.parse().unwrap()
}

/// A list of thirty single blocks in slices of at most 41 bytes.
fn three() -> (Stored, EraSnapshot) {
    let mut stored = Stored::default();
    let long: Vec<String> = (0..30).map(|n| (n * 3).to_string()).collect();
    let snapshot = stored.add("s", Some(3), 5, &list(&long.join(",")), 41);
    assert!(stored.slices.len() > 1);
    (stored, snapshot)
}

fn error(stored: &Stored, snapshot: &EraSnapshot) -> String {
    block_on(read(stored, snapshot)).unwrap_err().to_string()
}

#[test]
fn a_list_is_what_was_written_whichever_node_wrote_it() {
    let (stored, snapshot) = three();
    let delta = block_on(read(&stored, &snapshot)).unwrap();
    assert_eq!(delta.runs.blocks(), 30);
    assert_eq!((delta.head.reach, delta.head.era), (Reach::Since(Era(3)), Era(5)));
    let mut none = Stored::default();
    let unchanged = none.add("u", Some(3), 5, &RunList::default(), 41);
    assert!(block_on(read(&none, &unchanged)).unwrap().runs.is_empty());
    let mut all = Stored::default();
    let full = all.add("f", None, 5, &list("0-4999"), 41);
    let delta = block_on(read(&all, &full)).unwrap();
    assert_eq!(delta.head.reach, Reach::Full("NoBaseline".into()));
}

#[test]
fn a_slice_that_is_gone_is_named_and_one_that_cannot_be_read_is_not_lost() {
    let (mut stored, snapshot) = three();
    stored.silent = Some("s-1".into());
    let silent = block_on(read(&stored, &snapshot)).unwrap_err();
    assert!(matches!(silent, ReadError::Slice { .. }), "{silent}");
    stored.silent = None;
    stored.slices.remove("s-1");
    let gone = block_on(read(&stored, &snapshot)).unwrap_err();
    assert!(
        matches!(&gone, ReadError::List(ListError::Missing { slice }) if slice == "s-1"),
        "{gone}"
    );
}

#[test]
fn every_edit_of_a_slice_is_noticed() {
    type Edit = fn(&mut ChangedBlockSliceFields);
    let edits: [(&str, Edit); 11] = [
        ("snapshot.name", |it| it.snapshot.name = "t".into()),
        ("snapshot.uid", |it| it.snapshot.uid = "other".into()),
        ("index", |it| it.index = 0),
        ("count", |it| it.count += 1),
        ("blockSizeBytes", |it| it.block_size_bytes *= 2),
        ("blocks", |it| it.blocks += 1),
        ("first", |it| it.first += 1),
        ("last", |it| it.last += 1),
        ("blocks", |it| it.ranges.push_str(",4998")),
        ("number", |it| it.ranges = "9-3".into()),
        ("number", |it| it.ranges.insert(0, ',')),
    ];
    for (field, edit) in edits {
        let (mut stored, snapshot) = three();
        edit(stored.fields("s-1"));
        let said = error(&stored, &snapshot);
        assert!(said.contains("s-1") && said.contains(field), "{field}: {said}");
    }
}

#[test]
fn an_edit_that_contradicts_nothing_else_is_noticed_by_the_digest() {
    let (mut stored, snapshot) = three();
    let slice = stored.fields("s-1");
    let other = slice.ranges.replacen(
        &format!(",{}", slice.first + 3),
        &format!(",{}", slice.first + 2),
        1,
    );
    assert_ne!(slice.ranges, other);
    slice.ranges = other;
    let said = error(&stored, &snapshot);
    assert!(said.contains("slices.sha256"), "{said}");
}

#[test]
fn a_status_that_lacks_a_figure_or_is_not_ready_has_no_list() {
    let (stored, snapshot) = three();
    let mut pending = snapshot.clone();
    pending.status.as_mut().unwrap().conditions.clear();
    assert_eq!(error(&stored, &pending), "EraSnapshot s has no list: it is Pending");
    let mut odd = snapshot.clone();
    odd.status.as_mut().unwrap().block_size_bytes = Some(5000);
    assert!(error(&stored, &odd).contains("status.blockSizeBytes"));
    let mut many = snapshot;
    many.status.as_mut().unwrap().slices.as_mut().unwrap().count = 17;
    assert!(error(&stored, &many).contains("status.slices.count"));
}

#[test]
fn a_block_beyond_the_volume_is_refused() {
    let mut stored = Stored::default();
    let snapshot = stored.add("s", Some(3), 5, &list("4999-5000"), 41);
    assert!(error(&stored, &snapshot).contains("last 5000, expected 4999"));
}

#[test]
fn between_two_snapshots_only_what_is_needed_is_read() {
    let mut stored = Stored::default();
    let all = [
        stored.add("a", None, 2, &list("0-4999"), 41),
        stored.add("b", Some(2), 4, &list("1,5"), 41),
        stored.add("c", Some(4), 6, &list("2-4"), 41),
        stored.add("d", Some(6), 8, &list("9"), 41),
    ];
    let found = |from: usize, to: usize| block_on(between(&stored, &all, &all[from], &all[to]));
    assert_eq!(found(0, 2).unwrap().runs, list("1-5"));
    assert_eq!(found(1, 2).unwrap().runs, list("2-4"));
    let mut lost = stored.clone();
    lost.slices.remove("b-0");
    let all_but_b = block_on(between(&lost, &all, &all[1], &all[3])).unwrap();
    assert_eq!(all_but_b.runs, list("2-4,9"), "b itself is not needed");
    let with_b = block_on(between(&lost, &all, &all[0], &all[3])).unwrap_err();
    assert!(matches!(with_b, ReadError::List(ListError::Missing { .. })), "{with_b}");
    let gap = block_on(between(&stored, &all[..2], &all[0], &all[3])).unwrap_err();
    assert!(matches!(gap, ReadError::Delta(DeltaError::Gap { .. })), "{gap}");
}

fn lists() -> impl Strategy<Value = RunList> {
    prop::collection::vec((0..BLOCKS, 0..20u64), 1..100).prop_map(|runs| {
        let runs = runs.into_iter();
        RunList::new(runs.map(|(first, more)| Run { first, last: (first + more).min(BLOCKS - 1) }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_it_is_cut_a_list_reads_back(list in lists(), bytes in 41..900usize) {
        let mut stored = Stored::default();
        let snapshot = stored.add("s", Some(3), 5, &list, bytes);
        let delta = block_on(read(&stored, &snapshot)).unwrap();
        prop_assert!(list.iter().all(|run| delta.runs.contains(run.first) && delta.runs.contains(run.last)));
        prop_assert!(bytes < 850 || delta.runs == list);
    }

    /// Whatever character is changed, the list is never another one.
    #[test]
    fn no_edit_gives_another_list(
        list in lists(),
        at in any::<prop::sample::Index>(),
        which in any::<prop::sample::Index>(),
        with in prop::sample::select(&b"0123456789,-"[..]),
    ) {
        let mut stored = Stored::default();
        let snapshot = stored.add("s", Some(3), 5, &list, 64);
        let before = block_on(read(&stored, &snapshot)).unwrap();
        let name = which.get(&stored.slices.keys().cloned().collect::<Vec<_>>()).clone();
        let ranges = &mut stored.fields(&name).ranges;
        let mut bytes = ranges.clone().into_bytes();
        let index = at.index(bytes.len());
        bytes[index] = with;
        *ranges = String::from_utf8(bytes).unwrap();
        match block_on(read(&stored, &snapshot)) {
            Ok(after) => prop_assert_eq!(after, before, "unchanged after all"),
            Err(error) => prop_assert!(matches!(error, ReadError::List(_)), "{}", error),
        }
    }
}
