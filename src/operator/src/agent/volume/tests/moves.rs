//! A chain belongs to one object: it does not survive the volume's stay elsewhere (I2).

use std::time::Duration;

use eratrack_api::{EraVolume, EraVolumeStatus};
use serde_json::{Value, json};

use super::{DEVICE, World};
use crate::agent::stacks::{FoundState, Stacks as _, Wanted};
use crate::agent::testing::memory::Memory;
use crate::agent::testing::{VOLUME_UID, at, era_volume, snapshot, tracked};

const AGAIN: &str = "77777777-7777-4777-8777-777777777777";

/// The object deleted and made again under the same name.
fn made_again() -> EraVolume {
    let mut volume = era_volume();
    volume.metadata.uid = Some(AGAIN.to_owned());
    volume
}

/// A boundary that another node made while the volume was there.
fn of_another_node() -> Value {
    json!({"nodeName": "node2", "volumeUID": VOLUME_UID, "type": "Full", "era": 1,
        "chainID": "55555555-5555-4555-8555-555555555555", "boundaryTime": at(100).to_string(),
        "conditions": [{"type": "Ready", "status": "True", "reason": "Complete", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

#[tokio::test(start_paused = true)]
async fn an_object_made_again_begins_another_chain() {
    let mut world = World::attached().await;
    let before = world.complete("a").await;
    world.change(|volume| *volume = made_again());
    let after = world.complete("b").await;
    assert_eq!(after.full_reason.as_deref(), Some("Reattached"));
    assert_ne!(after.chain_id, before.chain_id);
    assert_eq!(after.chain_id, world.memory.chain());
}

#[tokio::test(start_paused = true)]
async fn after_a_stay_on_another_node_the_next_snapshot_is_full() {
    let mut world = World::attached().await;
    let before = world.complete("a").await;
    world.worker.abort();
    // The agent was away. The volume was given to node2, written there, and came back: as another object.
    let memory = world.memory.clone();
    memory.put(snapshot("there", &of_another_node()));
    let found = FoundState::Present(memory.stack().expect("still in"));
    let mut world = World::new(memory, Some(found), &made_again());
    let after = world.complete("b").await;
    assert_eq!(after.full_reason.as_deref(), Some("NodeChanged"));
    assert_ne!(after.chain_id, before.chain_id);
}

#[tokio::test(start_paused = true)]
async fn a_stack_of_a_chain_that_the_status_does_not_name_is_not_taken_over() {
    let world = World::attached().await;
    let mut volume = world.memory.volume_now().expect("the volume");
    let status = volume.status.get_or_insert_default();
    let chain = status.chain.as_mut().expect("a chain");
    "99999999-9999-4999-8999-999999999999".clone_into(&mut chain.id);
    world.worker.abort();
    let first = world.memory.chain();
    let found = FoundState::Present(world.memory.stack().expect("still in"));
    let world = World::new(world.memory.clone(), Some(found), &volume);
    world
        .until("another", |world| world.memory.chain().is_some_and(|now| Some(now) != first))
        .await;
    world.until("said", |world| world.says("TrackingIntact") == "Reattached").await;
}

/// The agent before this one was killed between an insertion at the new size and saying so.
#[tokio::test(start_paused = true)]
async fn a_stack_that_is_not_taken_over_after_the_volume_grew_says_so() {
    let world = World::attached().await;
    let mut volume = world.memory.volume_now().expect("the volume");
    let status = volume.status.get_or_insert_default();
    let chain = status.chain.as_mut().expect("a chain");
    "99999999-9999-4999-8999-999999999999".clone_into(&mut chain.id);
    status.size_bytes = status.size_bytes.map(|size| size / 2);
    world.worker.abort();
    let found = FoundState::Present(world.memory.stack().expect("still in"));
    let mut world = World::new(world.memory.clone(), Some(found), &volume);
    let after = world.complete("b").await;
    assert_eq!(after.full_reason.as_deref(), Some("Resized"));
}

/// What the agent's start did not see comes to light when it attaches.
#[tokio::test(start_paused = true)]
async fn a_stack_that_attaching_finds_is_judged_by_the_same_rule() {
    let memory = Memory::default();
    memory.use_device(DEVICE);
    let wanted = Wanted {
        volume_uid: VOLUME_UID.to_owned(),
        device: DEVICE,
        granularity: tracked().granularity,
    };
    let (left, _) = memory.attach(&wanted).expect("a stack");
    let stuck = FoundState::Stuck("the disk is busy".to_owned());
    let mut world = World::new(memory, Some(stuck), &era_volume());
    let status = world.complete("a").await;
    assert_ne!(status.chain_id, Some(left.chain));
}

#[tokio::test(start_paused = true)]
async fn an_object_of_another_node_made_in_its_place_lets_the_stack_go() {
    let mut world = World::attached().await;
    let mut elsewhere = made_again();
    elsewhere.spec.node_name = Some("node2".to_owned());
    elsewhere.status = Some(EraVolumeStatus::default());
    world.memory.set_volume(Some(elsewhere));
    world.lose_sight();
    world.until("let go", |world| world.memory.chain().is_none()).await;
    world.worker.await.expect("the worker ends");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_left_alone_is_asked_about_again() {
    let mut world = World::attached().await;
    let mut elsewhere = world.memory.volume_now().expect("the volume");
    elsewhere.spec.node_name = Some("node2".to_owned());
    world.memory.set_volume(Some(elsewhere));
    world.lose_sight();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.memory.chain().is_some());
    // Deleted there: no watch of this node tells.
    world.memory.set_volume(None);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.memory.chain(), None);
    world.worker.await.expect("the worker ends");
}

#[tokio::test(start_paused = true)]
async fn one_made_again_just_after_it_was_let_go_is_tracked() {
    let mut world = World::attached().await;
    world.change(|volume| volume.metadata.deletion_timestamp = Some(eratrack_api::Time(at(40))));
    world.until("detached", |world| world.says("Attached") == "Detached").await;
    world.change(|volume| *volume = made_again());
    world.until("attached", |world| world.says("Attached") == "Attached").await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_stands_for_another_persistent_volume_has_another_worker() {
    let mut world = World::attached().await;
    let other = "99999999-9999-4999-8999-999999999999";
    world.change(|volume| {
        *volume = made_again();
        other.clone_into(&mut volume.spec.volume.uid);
    });
    world.worker.await.expect("the worker ends");
    assert_eq!(world.memory.chain(), None, "and takes its own out before");
}
