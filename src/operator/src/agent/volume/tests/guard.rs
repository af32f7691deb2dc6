//! What happens to the device, and how soon it is noticed.

use std::time::Duration;

use eratrack_model::units::DevNo;
use tokio::time::Instant;

use super::{LONG, World};
use crate::agent::stacks::Liveness;
use crate::agent::testing::tracked;

/// "Within seconds."
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_table_of_somebody_elses_is_noticed_within_seconds() {
    let world = World::attached().await;
    let started = Instant::now();
    world.memory.set_live(Liveness::Reloaded { size_bytes: Some(tracked().size_bytes) });
    world.until("noticed", |world| world.says("TrackingIntact") == "TableReloaded").await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

/// Its extents may be given to another volume at once.
#[tokio::test(start_paused = true)]
async fn remains_of_a_device_that_is_gone_are_removed_within_seconds() {
    let world = World::attached().await;
    world.memory.set_live(Liveness::Gone);
    tokio::time::sleep(SOON).await;
    assert_eq!(world.memory.chain(), None);
}

#[tokio::test(start_paused = true)]
async fn also_while_the_object_says_that_the_volume_is_elsewhere() {
    let mut world = World::attached().await;
    let mut elsewhere = world.memory.volume_now().expect("the volume");
    elsewhere.spec.node_name = Some("node2".to_owned());
    world.memory.set_volume(Some(elsewhere));
    world.lose_sight();
    tokio::time::sleep(LONG).await;
    assert!(world.memory.chain().is_some());
    world.memory.set_live(Liveness::Gone);
    tokio::time::sleep(SOON).await;
    assert_eq!(world.memory.chain(), None);
}

#[tokio::test(start_paused = true)]
async fn another_device_at_the_next_mount_ends_the_chain() {
    let mut world = World::attached().await;
    let before = world.complete("a").await;
    world.memory.use_device(DevNo { major: 253, minor: 4 });
    world.mounts_change();
    world.until("noticed", |world| world.says("TrackingIntact") == "RecordMismatch").await;
    let after = world.complete("b").await;
    assert_eq!(after.full_reason.as_deref(), Some("RecordMismatch"));
    assert_ne!(after.chain_id, before.chain_id);
    let device = world.memory.stack().map(|stack| stack.number.to_string());
    assert_eq!(device.as_deref(), Some("253:4"));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_found_at_the_next_look_ends_nothing() {
    let world = World::attached().await;
    let chain = world.memory.chain();
    world.memory.unuse_device();
    world.mounts_change();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.memory.chain(), chain, "no pod uses it just now");
}

/// Each question is a commit of the metadata with two flushes.
#[tokio::test(start_paused = true)]
async fn an_idle_volume_is_hardly_asked_and_a_busy_one_every_ten_seconds() {
    let world = World::attached().await;
    world.memory.count_writes(7);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = world.memory.asked();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.memory.asked() - asked <= 10, "{}", world.memory.asked() - asked);
    let asked = world.memory.asked();
    for writes in 8..68 {
        world.memory.count_writes(writes);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let busy = world.memory.asked() - asked;
    assert!((4..=7).contains(&busy), "{busy}");
}
