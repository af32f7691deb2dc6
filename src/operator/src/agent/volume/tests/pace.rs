//! Era does not go in and out one after the other.

use std::time::Duration;

use eratrack_api::Granularity;
use tokio::time::Instant;

use super::{DEVICE, World};
use crate::agent::stacks::Liveness;
use crate::agent::testing::memory::{Held, Memory};
use crate::agent::testing::{era_volume, tracked};

#[tokio::test(start_paused = true)]
async fn metadata_that_fails_at_a_boundary_is_not_tried_again_at_once() {
    let mut world = World::attached().await;
    let started = Instant::now();
    // A boundary finds it before the next look at era's health.
    world.memory.fail_era();
    world.ask("a");
    world.until("taken out", |world| world.memory.chain().is_none()).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    world.until("said", |world| world.says("TrackingIntact") == "MetadataError").await;
    world.until("back", |world| world.memory.chain().is_some()).await;
    assert!(started.elapsed() > Duration::from_secs(55), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_reloaded_over_and_over_is_left_in_peace_for_longer_and_longer() {
    let world = World::attached().await;
    for _ in 0..1800 {
        if world.memory.chain().is_some() {
            let size_bytes = Some(tracked().size_bytes);
            world.memory.set_live(Liveness::Reloaded { size_bytes });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // At 0, 1, 3, 7 and 15 minutes, and a bit.
    assert_eq!(world.memory.inserted(), 5);
}

/// A busy node changes its mounts all the time.
#[tokio::test(start_paused = true)]
async fn mounts_that_change_hurry_no_attach_that_failed() {
    let memory = Memory::default();
    memory.use_device(DEVICE);
    memory.hold(Held::Attaches);
    let world = World::new(memory, None, &era_volume());
    world.until("refused", |world| world.says("Attached") == "OperationFailed").await;
    let tried = world.memory.tried();
    for _ in 0..120 {
        world.mounts_change();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // After 2, 4, 8, 16, 32 and 60 s.
    assert!(world.memory.tried() - tried <= 6, "{}", world.memory.tried() - tried);
}

/// The thread that watches them may end.
#[tokio::test(start_paused = true)]
async fn a_volume_is_found_also_when_nobody_tells_of_mounts() {
    let mut world = World::new(Memory::default(), None, &era_volume());
    world.until("looked for", |world| world.says("Attached") == "NotInUse").await;
    world.mounts = tokio::sync::watch::channel(0).0;
    world.memory.use_device(DEVICE);
    let attached = |world: &World| world.says("Attached") == "Attached";
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
    assert!(attached(&world));
}

#[tokio::test(start_paused = true)]
async fn a_granularity_that_is_changed_over_and_over_makes_no_storm() {
    let mut world = World::attached().await;
    for turn in 0..60 {
        let size = [1 << 18, 1 << 20][turn % 2];
        world.change(|volume| volume.spec.granularity = Granularity::from_bytes(size).expect("ok"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(world.memory.inserted() <= 2, "{}", world.memory.inserted());
}
