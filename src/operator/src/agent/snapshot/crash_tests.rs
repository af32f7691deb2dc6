//! The process is killed before and after each of its effects, and started again: the list is never short (I1), and
//! deltas join on to each other.

use std::sync::Arc;

use eratrack_api::{Reason, SnapshotType};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;

use super::progress::Progress;
use super::run::{Outcome, Procedure};
use super::step::{is_ready, is_settled};
use crate::agent::cluster::Key;
use crate::agent::metrics::Metrics;
use crate::agent::operations::Operations;
use crate::agent::stacks::{Stacks, Tracked};
use crate::agent::testing::memory::{Kill, Memory};
use crate::agent::testing::{VOLUME_UID, at, era_volume, snapshot, tracked};

fn now() -> Timestamp {
    at(30)
}

pub(super) async fn advance(memory: &Memory, tracked: Option<&Tracked>, name: &str) -> Outcome {
    let operations = Operations::new(Arc::new(memory.clone()), VOLUME_UID);
    let volume = era_volume();
    let procedure = Procedure {
        cluster: memory,
        operations: &operations,
        volume: &volume,
        tracked,
        unknown: false,
        full_reason: Reason::NoBaseline,
        known_base: None,
        progress: &Progress::default(),
        metrics: &Metrics::new(&mut crate::metrics::registry()),
        node: "node1",
        boundaries: Arc::new(Semaphore::new(2)),
        now,
    };
    procedure.advance(&Key { namespace: "apps".into(), name: name.into() }, None).await
}

pub(super) fn asked(name: &str) -> eratrack_api::EraSnapshot {
    snapshot(name, &json!({"nodeName": "node1", "volumeUID": VOLUME_UID}))
}

/// A volume with one complete snapshot, `a`.
pub(super) async fn with_base() -> Memory {
    let memory = Memory::default();
    memory
        .attach(&crate::agent::stacks::Wanted {
            volume_uid: VOLUME_UID.into(),
            device: tracked().number,
            granularity: tracked().granularity,
        })
        .expect("attached");
    memory.write([900, 901]);
    memory.put(asked("a"));
    let outcome = advance(&memory, Some(&tracked()), "a").await;
    assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    memory
}

/// Everything truly written between the two boundaries is in the list.
fn assert_whole(memory: &Memory, name: &str) {
    let snapshot = memory.get(name);
    assert!(is_ready(&snapshot), "{:?}", snapshot.status);
    let status = snapshot.status.expect("a status");
    assert_eq!(status.type_, Some(SnapshotType::Incremental));
    let (since, era) = (status.since_era.expect("since"), status.era.expect("era"));
    let listed = memory.listed(name);
    for block in memory.written(since, era) {
        let found = listed.as_slice().iter().any(|run| (run.first..=run.last).contains(&block));
        assert!(found, "block {block} of {name} is not in {listed}");
    }
}

#[tokio::test]
async fn the_first_is_full_and_says_why() {
    let memory = with_base().await;
    let status = memory.get("a").status.expect("a status");
    assert_eq!(
        (status.type_, status.full_reason.as_deref()),
        (Some(SnapshotType::Full), Some("NoBaseline"))
    );
    assert_eq!(memory.listed("a").to_string(), "0-999");
    assert_eq!(status.changed_bytes, Some(tracked().size_bytes));
}

#[tokio::test]
async fn killed_at_every_effect_the_next_start_finishes() {
    for kill in (0..8).flat_map(|effect| [Kill::Before(effect), Kill::After(effect)]) {
        let memory = with_base().await;
        memory.write([1, 2, 3, 500]);
        memory.put(asked("b"));
        memory.start(Some(kill));
        advance(&memory, Some(&tracked()), "b").await;
        let died = memory.is_dead();
        memory.write([7, 8, 600]);
        memory.start(None);
        advance(&memory, Some(&tracked()), "b").await;
        assert_whole(&memory, "b");

        memory.write([42]);
        memory.put(asked("c"));
        advance(&memory, Some(&tracked()), "c").await;
        assert_whole(&memory, "c");
        let (b, c) = (memory.get("b").status.expect("b"), memory.get("c").status.expect("c"));
        assert_eq!(c.since_era, b.era, "the deltas join on to each other ({kill:?}, died: {died})");
        assert_eq!(memory.slices(), 3, "no slice is left over ({kill:?})");
    }
}

/// The point in time goes with its process: so one whose boundary was written down fails, and what comes after it has the
/// changes that it would have had.
#[tokio::test]
async fn a_point_in_time_killed_at_every_effect_is_whole_or_fails_and_loses_no_change() {
    let mut ends = [0, 0];
    for kill in (0..8).flat_map(|effect| [Kill::Before(effect), Kill::After(effect)]) {
        let memory = with_base().await;
        memory.write([1, 2, 3, 500]);
        let mut local = asked("b");
        local.spec.mode = eratrack_api::SnapshotMode::Local;
        memory.put(local);
        memory.start(Some(kill));
        advance(&memory, Some(&tracked()), "b").await;
        memory.write([7, 8, 600]);
        memory.start(None);
        advance(&memory, Some(&tracked()), "b").await;
        let b = memory.get("b");
        assert!(is_settled(&b), "{kill:?}");
        let conditions = b.status.expect("a status").conditions;
        let failed = conditions.iter().find(|it| it.type_ == "Failed");
        assert!(failed.is_none_or(|it| it.reason == "PointInTimeLost"), "{kill:?}: {conditions:?}");
        ends[usize::from(failed.is_some())] += 1;
        memory.write([42]);
        memory.put(asked("c"));
        advance(&memory, Some(&tracked()), "c").await;
        assert_whole(&memory, "c");
        if failed.is_some() {
            let c = memory.listed("c");
            assert!(c.to_string().starts_with("1-3,"), "{kill:?}: {c}");
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "(complete, failed): {ends:?}");
}

#[tokio::test]
async fn slices_of_an_earlier_try_that_the_list_has_no_place_for_are_removed() {
    let memory = with_base().await;
    memory.write((0..60_000).step_by(2));
    memory.put(asked("b"));
    // The boundary, its record, the changes, two slices; then the end.
    memory.start(Some(Kill::Before(5)));
    advance(&memory, Some(&tracked()), "b").await;
    assert!(memory.is_dead());
    let tried = memory.slices();
    memory.write(0..60_000);
    memory.start(None);
    advance(&memory, Some(&tracked()), "b").await;
    assert_whole(&memory, "b");
    assert_eq!(memory.listed("b").to_string(), "0-59999");
    assert!(tried > 2, "{tried} slices before");
    assert_eq!(memory.slices(), 2, "one of a, one of b");
}

#[tokio::test]
async fn an_unchanged_volume_has_no_slices() {
    let memory = with_base().await;
    memory.put(asked("b"));
    advance(&memory, Some(&tracked()), "b").await;
    let status = memory.get("b").status.expect("a status");
    assert!(is_ready(&memory.get("b")));
    assert_eq!(status.slices.map(|slices| slices.count), Some(0));
    assert_eq!(status.changed.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_chain_that_ended_meanwhile_fails_it() {
    let memory = with_base().await;
    memory.write([5]);
    memory.put(asked("b"));
    memory.start(Some(Kill::After(1)));
    advance(&memory, Some(&tracked()), "b").await;
    memory.start(None);
    let next = Tracked { chain: "55555555-5555-4555-8555-555555555555".into(), ..tracked() };
    advance(&memory, Some(&next), "b").await;
    assert!(is_settled(&memory.get("b")) && !is_ready(&memory.get("b")));
    memory.put(asked("c"));
    advance(&memory, Some(&next), "c").await;
    assert_eq!(memory.get("c").status.and_then(|it| it.type_), Some(SnapshotType::Full));
}

#[tokio::test]
async fn a_base_from_after_the_boundary_ends_the_chain() {
    let memory = with_base().await;
    memory.put(asked("b"));
    memory.set_back_era();
    let outcome = advance(&memory, Some(&tracked()), "b").await;
    assert!(matches!(outcome, Outcome::Broken(Reason::RecordMismatch)), "{outcome:?}");
    assert_eq!(
        memory.get("b").status.and_then(|it| it.era),
        None,
        "it can be the next chain's first"
    );
}

#[tokio::test]
async fn a_quota_fails_it_with_the_servers_words() {
    let memory = with_base().await;
    memory.write([5]);
    memory.put(asked("b"));
    memory.refuse_slices();
    advance(&memory, Some(&tracked()), "b").await;
    let status = memory.get("b").status.expect("a status");
    let failed = &status.conditions[1];
    assert_eq!((failed.type_.as_str(), failed.reason.as_str()), ("Failed", "QuotaExceeded"));
    assert!(failed.message.contains("exceeded quota: lists"), "{}", failed.message);
}

#[tokio::test]
async fn without_era_it_waits_and_says_so() {
    let memory = Memory::default();
    memory.put(asked("a"));
    for _ in 0..3 {
        let outcome = advance(&memory, None, "a").await;
        assert!(matches!(outcome, Outcome::Waiting(None)), "{outcome:?}");
    }
    assert_eq!(memory.noticed(), [Reason::NotAttached], "an event, once");
    let status = memory.get("a").status.expect("a status");
    assert_eq!(status.conditions[0].reason, "NotAttached");
    assert_eq!(status.node_name.as_deref(), Some("node1"));
}
