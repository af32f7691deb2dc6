//! Snapshots under way, and what the volume says of them.

use std::time::Duration;

use tokio::time::Instant;

use super::World;
use crate::agent::snapshot::step::is_ready;
use crate::agent::stacks::{FoundState, Liveness};
use crate::agent::testing::memory::Held;

impl World {
    /// The phase of a snapshot.
    fn phase(&self, name: &str) -> String {
        let status = self.memory.get(name).status.unwrap_or_default();
        status.conditions.first().map(|it| it.reason.clone()).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn they_keep_their_distance() {
    let mut world = World::attached().await;
    world.complete("a").await;
    world.ask("b");
    world.until("held up", |world| world.phase("b") == "RateLimited").await;
}

/// Each volume asks this once for each snapshot: what is added here is added a thousand times a minute in a large cluster.
#[tokio::test(start_paused = true)]
async fn a_delta_asks_the_api_server_for_six_things() {
    let mut world = World::attached().await;
    world.complete("a").await;
    world.see_snapshot("a");
    world.until("intact", |world| world.says("TrackingIntact") == "ChainIntact").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.memory.write([1, 2, 3]);
    world.memory.requests();
    world.complete("b").await;
    // The watch lags behind, and then tells of it.
    world.news.notify_one();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.see_snapshot("b");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let expected =
        ["snapshot", "slice", "write_snapshot", "create_slice", "write_snapshot", "write_volume"];
    assert_eq!(world.memory.requests(), expected);
}

/// The watch has not told yet that the base is gone: what the API server says counts.
#[tokio::test(start_paused = true)]
async fn a_base_that_is_gone_is_not_gone_on_from() {
    let mut world = World::attached().await;
    let first = world.complete("a").await;
    world.see_snapshot("a");
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.complete("b").await;
    world.see_snapshot("b");
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.memory.write([1, 2, 3]);
    world.memory.delete("b");
    let third = world.complete("c").await;
    assert_eq!(third.since_era, first.era);
    world.memory.delete("a");
    world.memory.delete("c");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let fourth = world.complete("d").await;
    assert_eq!((fourth.since_era, fourth.full_reason.as_deref()), (None, Some("NoBaseline")));
}

/// A snapshot that is complete is not begun again because the watch still shows it as it was.
#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_behind_costs_no_boundary() {
    let mut world = World::attached().await;
    world.complete("a").await;
    for _ in 0..30 {
        world.news.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.memory.boundaries(), 1);
    assert!(is_ready(&world.memory.get("a")));
}

/// The API server refuses an era that goes back.
#[tokio::test(start_paused = true)]
async fn one_that_completes_late_does_not_set_the_volumes_era_back() {
    let mut world = World::attached().await;
    world.memory.hold(Held::Slices);
    world.ask("a");
    world.until("made", |world| world.phase("a") == "Reading").await;
    world.memory.use_metadata(30, 7);
    let era = |world: &World| world.memory.volume_now().and_then(|it| it.status?.era);
    world.until("said", |world| era(world) > Some(7)).await;
    world.memory.let_go();
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    world.until("intact", |world| world.says("TrackingIntact") == "ChainIntact").await;
}

/// Each boundary makes writers wait for a moment, also one that nobody could write down.
#[tokio::test(start_paused = true)]
async fn boundaries_that_cannot_be_written_down_become_rare_whatever_happens() {
    let mut world = World::attached().await;
    world.memory.hold(Held::Statuses);
    world.ask("a");
    for _ in 0..180 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.news.notify_one();
    }
    // Without news every 5 s it would be 36, with news 180. At 0, 10, 20, 30, 46, 78 and 138 s, give or take.
    let made = world.memory.boundaries();
    assert!((4..=8).contains(&made), "{made}");
    world.memory.let_go();
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    assert_eq!(world.memory.boundaries(), made + 1);
}

/// Reading a list begins a new era.
#[tokio::test(start_paused = true)]
async fn a_list_is_read_once_however_often_its_slices_are_tried() {
    let mut world = World::attached().await;
    world.complete("a").await;
    let read = world.memory.reads();
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.memory.write([1, 2, 3]);
    world.memory.hold(Held::Slices);
    world.ask("b");
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.news.notify_one();
    }
    world.memory.let_go();
    world.until("complete", |world| is_ready(&world.memory.get("b"))).await;
    assert_eq!(world.memory.reads(), read + 1);
    assert_eq!(world.memory.listed("b").to_string(), "1-3");
}

/// The API server may take its time; an era that has failed may not be waited with.
#[tokio::test(start_paused = true)]
async fn era_that_fails_while_a_snapshot_is_under_way_comes_out_at_once() {
    let mut world = World::attached().await;
    world.complete("a").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.memory.delay_requests(Duration::from_secs(300));
    world.ask("b");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    world.memory.fail_era();
    world.until("taken out", |world| world.memory.chain().is_none()).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn while_the_node_makes_as_many_boundaries_as_it_may_it_waits_and_the_volume_is_looked_after()
{
    let mut world = World::attached().await;
    let all = world.context.boundaries.clone().acquire_many_owned(2).await.expect("permits");
    world.ask("a");
    world.until("held up", |world| world.phase("a") == "RateLimited").await;
    let size_bytes = Some(1 << 40);
    world.memory.set_live(Liveness::Reloaded { size_bytes });
    world.until("noticed", |world| world.says("TrackingIntact") == "Resized").await;
    world.until("in again", |world| world.says("Attached") == "Attached").await;
    drop(all);
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    assert_eq!(world.memory.boundaries(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_boundary_that_leaves_little_room_is_the_last_of_its_chain() {
    let mut world = World::attached().await;
    world.memory.use_metadata(95, 0);
    world.ask("a");
    world.until("taken out", |world| world.memory.chain().is_none()).await;
    assert_eq!((world.memory.boundaries(), world.memory.reads()), (1, 0));
    world.until("said", |world| world.says("TrackingIntact") == "MetadataFull").await;
}

/// However the chain began: that its first snapshot was full is long past.
#[tokio::test(start_paused = true)]
async fn a_chain_whose_snapshots_are_all_deleted_has_no_baseline() {
    let mut world = World::attached().await;
    world.memory.set_live(Liveness::Reloaded { size_bytes: Some(1 << 40) });
    world.until("in again", |world| world.says("TrackingIntact") == "Resized").await;
    world.until("in again", |world| world.says("Attached") == "Attached").await;
    world.complete("a").await;
    world.until("intact", |world| world.says("TrackingIntact") == "ChainIntact").await;
    world.delete_snapshot("a");
    world.until("noticed", |world| world.says("TrackingIntact") == "NoBaseline").await;
    // A second start knows it too.
    let volume = world.memory.volume_now().expect("the volume");
    world.worker.abort();
    let found = FoundState::Present(world.memory.stack().expect("still in"));
    let mut world = World::new(world.memory.clone(), Some(found), &volume);
    let status = world.complete("b").await;
    assert_eq!(status.full_reason.as_deref(), Some("NoBaseline"));
}
