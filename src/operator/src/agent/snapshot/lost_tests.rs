//! A list that somebody took away or changed: nobody gets past it unaware, and the chain of what follows is whole.

use eratrack_api::{EraSnapshot, Reason, SnapshotType};
use futures::executor::block_on;

use super::crash_tests::{advance, asked, with_base};
use super::run::Outcome;
use super::step::{is_ready, is_settled};
use crate::agent::cluster::{Cluster, ClusterError, Key};
use crate::agent::testing::memory::{Held, Kill, Memory};
use crate::agent::testing::tracked;
use crate::delta::{ReadError, Slices, between, read};

impl Slices for Memory {
    type Error = ClusterError;

    async fn slice(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<eratrack_api::ChangedBlockSlice>, ClusterError> {
        Cluster::slice(self, &Key { namespace: namespace.to_owned(), name: name.to_owned() }).await
    }
}

async fn made(memory: &Memory, name: &str) -> EraSnapshot {
    memory.put(asked(name));
    advance(memory, Some(&tracked()), name).await;
    memory.get(name)
}

/// Complete snapshots `a` (full) and `b`.
async fn two() -> Memory {
    let memory = with_base().await;
    memory.write([1, 2, 500]);
    assert!(is_ready(&made(&memory, "b").await));
    memory
}

fn full_reason(snapshot: &EraSnapshot) -> Option<&str> {
    snapshot.status.as_ref()?.full_reason.as_deref()
}

fn type_of(snapshot: &EraSnapshot) -> Option<SnapshotType> {
    snapshot.status.as_ref()?.type_
}

/// `c` is full and says why, so does everything else; `d` goes on from it.
async fn assert_loud(memory: &Memory, case: &str) {
    let c = made(memory, "c").await;
    assert_eq!(
        (type_of(&c), full_reason(&c)),
        (Some(SnapshotType::Full), Some("SlicesLost")),
        "{case}"
    );
    assert!(is_ready(&c), "{case}");
    let b = memory.get("b");
    let status = b.status.as_ref().expect("a status");
    let said: Vec<_> =
        status.conditions.iter().map(|it| (it.is_true(), it.reason.as_str())).collect();
    assert_eq!(said, [(false, "SlicesLost"), (true, "SlicesLost")], "{case}");
    assert!(
        status.conditions[0].message.contains("b-0"),
        "{case}: {}",
        status.conditions[0].message
    );
    assert_eq!(memory.noticed_of_volume(), [Reason::SlicesLost], "{case}");
    let of_snapshots = memory.noticed();
    assert_eq!(
        of_snapshots.iter().filter(|it| **it == Reason::SlicesLost).count(),
        2,
        "{case}: on b and c"
    );
    memory.write([7]);
    let d = made(memory, "d").await;
    let status = d.status.as_ref().expect("a status");
    assert_eq!(status.since_era, c.status.and_then(|it| it.era), "{case}: d goes on from c");
    assert_eq!(memory.listed("d").to_string(), "7", "{case}");
}

#[tokio::test]
async fn after_a_slice_is_gone_or_edited_the_next_snapshot_is_full_loudly() {
    let memory = two().await;
    memory.lose_slice("b-0");
    assert_loud(&memory, "gone").await;
    let memory = two().await;
    memory.edit_slice("b-0", |slice| {
        slice.spec.ranges = "1,3,500".to_owned();
        slice.spec.blocks = 3;
    });
    let c = made(&memory, "c").await;
    assert_eq!(full_reason(&c), Some("SlicesLost"));
    let b = memory.get("b").status.expect("a status");
    assert!(b.conditions[0].message.contains("sha256"), "{}", b.conditions[0].message);
}

#[tokio::test]
async fn a_list_that_is_whole_is_no_reason_to_be_full() {
    let memory = two().await;
    memory.write([3]);
    let c = made(&memory, "c").await;
    assert_eq!(type_of(&c), Some(SnapshotType::Incremental));
    assert_eq!(memory.noticed_of_volume(), []);
}

#[tokio::test]
async fn a_base_that_is_on_its_way_out_may_lose_its_list() {
    let memory = two().await;
    let mut b = memory.get("b");
    b.metadata.deletion_timestamp = b.metadata.creation_timestamp.clone();
    memory.put(b);
    memory.lose_slice("b-0");
    memory.write([3]);
    let c = made(&memory, "c").await;
    assert_eq!(type_of(&c), Some(SnapshotType::Incremental));
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_no_loss() {
    let memory = two().await;
    memory.put(asked("c"));
    memory.hold(Held::Reads);
    let outcome = advance(&memory, Some(&tracked()), "c").await;
    assert!(matches!(outcome, Outcome::HeldUp), "{outcome:?}");
    assert_eq!(type_of(&memory.get("c")), None);
    assert!(is_ready(&memory.get("b")));
}

#[tokio::test]
async fn killed_anywhere_the_snapshot_after_a_lost_list_is_full() {
    for kill in (0..8).flat_map(|effect| [Kill::Before(effect), Kill::After(effect)]) {
        let memory = two().await;
        memory.lose_slice("b-0");
        memory.write([1, 9]);
        memory.put(asked("c"));
        memory.start(Some(kill));
        advance(&memory, Some(&tracked()), "c").await;
        memory.start(None);
        advance(&memory, Some(&tracked()), "c").await;
        let c = memory.get("c");
        assert!(is_settled(&c) && is_ready(&c), "{kill:?}");
        assert_eq!(full_reason(&c), Some("SlicesLost"), "{kill:?}");
        memory.write([42]);
        let d = made(&memory, "d").await;
        assert_eq!(
            d.status.and_then(|it| it.since_era),
            c.status.and_then(|it| it.era),
            "{kill:?}"
        );
    }
}

#[tokio::test]
async fn killed_anywhere_and_deleted_then_a_snapshot_leaves_no_slice() {
    for kill in (0..8).flat_map(|effect| [Kill::Before(effect), Kill::After(effect)]) {
        let memory = two().await;
        // More than one slice, so that it can be killed between two.
        memory.write((0..60_000).step_by(2));
        memory.put(asked("c"));
        memory.start(Some(kill));
        advance(&memory, Some(&tracked()), "c").await;
        memory.delete("c");
        memory.start(None);
        advance(&memory, Some(&tracked()), "c").await;
        memory.collect_garbage();
        assert_eq!(memory.slices(), 2, "those of a and b ({kill:?})");
    }
}

#[tokio::test]
async fn what_an_agent_writes_a_reader_reads() {
    let memory = two().await;
    memory.write((0..1000).step_by(2));
    let (a, b, c) = (memory.get("a"), memory.get("b"), made(&memory, "c").await);
    let list = block_on(read(&memory, &c)).expect("a list");
    assert_eq!(list.runs, memory.listed("c"));
    let all = [a, b, c];
    let joined = block_on(between(&memory, &all, &all[0], &all[2])).expect("a union");
    assert_eq!(joined.runs, memory.listed("b").union(&memory.listed("c")));
    memory.lose_slice("b-0");
    let error = block_on(between(&memory, &all, &all[0], &all[2])).expect_err("a part is lost");
    assert!(matches!(error, ReadError::List(_)), "{error}");
}
