//! From the first pod to the wish to let go.

use std::time::Duration;

use eratrack_api::{ConditionType, Granularity, condition};
use tokio::time::Instant;

use super::{DEVICE, LONG, World};
use crate::agent::cluster::Key;
use crate::agent::snapshot::step::is_ready;
use crate::agent::stacks::{FoundState, Liveness};
use crate::agent::testing::memory::{Held, Memory};
use crate::agent::testing::{CHAIN, VOLUME_UID, at, era_volume, tracked};

#[tokio::test(start_paused = true)]
async fn era_goes_in_when_a_pod_first_uses_the_volume() {
    let world = World::new(Memory::default(), None, &era_volume());
    world.until("looked for", |world| world.says("Attached") == "NotInUse").await;
    tokio::time::sleep(LONG).await;
    assert_eq!(world.memory.said(), 1, "an unused volume is not spoken of again");
    world.memory.use_device(DEVICE);
    world.mounts_change();
    world.until("attached", |world| world.says("Attached") == "Attached").await;
    assert_eq!(world.says("TrackingIntact"), "NoBaseline");
    let said = world.memory.said();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.memory.said(), said, "nothing is written while nothing happens");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_left_the_selector_is_not_let_go() {
    let mut world = World::attached().await;
    let chain = world.memory.chain();
    let mut elsewhere = world.memory.volume_now().expect("the volume");
    elsewhere.spec.node_name = Some("node2".to_owned());
    world.memory.set_volume(Some(elsewhere));
    world.lose_sight();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.memory.chain(), chain);

    world.memory.cut_off(true);
    world.lose_sight();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.memory.chain(), chain, "no answer is no wish");

    world.memory.cut_off(false);
    world.memory.set_volume(None);
    world.lose_sight();
    world.until("let go", |world| world.memory.chain().is_none()).await;
    world.worker.await.expect("the worker ends");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_a_wish() {
    let mut world = World::attached().await;
    world.change(|volume| volume.metadata.deletion_timestamp = Some(eratrack_api::Time(at(40))));
    world.until("detached", |world| world.says("Attached") == "Detached").await;
    assert_eq!(world.memory.chain(), None);
    let status = world.memory.volume_now().and_then(|volume| volume.status).expect("a status");
    assert_eq!((status.chain, status.era), (None, None));
    assert!(!condition::is_true(&status.conditions, ConditionType::Attached));
}

#[tokio::test(start_paused = true)]
async fn a_reloaded_table_ends_the_chain_and_the_next_snapshot_is_full() {
    let mut world = World::attached().await;
    world.ask("a");
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    world.until("intact", |world| world.says("TrackingIntact") == "ChainIntact").await;
    let first = world.memory.chain();
    world.memory.set_live(Liveness::Reloaded { size_bytes: Some(tracked().size_bytes) });
    world.until("noticed", |world| world.says("TrackingIntact") == "TableReloaded").await;
    world.until("in again", |world| world.says("Attached") == "Attached").await;
    assert_ne!(world.memory.chain(), first);
    world.ask("b");
    world.until("complete", |world| is_ready(&world.memory.get("b"))).await;
    let status = world.memory.get("b").status.expect("a status");
    assert_eq!(status.full_reason.as_deref(), Some("TableReloaded"));
    assert_ne!(status.chain_id, first);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_the_boundary_finds_makes_the_snapshot_full() {
    let mut world = World::attached().await;
    world.ask("a");
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.memory.set_live(Liveness::Reloaded { size_bytes: Some(1 << 40) });
    world.ask("b");
    world.until("complete", |world| is_ready(&world.memory.get("b"))).await;
    let status = world.memory.get("b").status.expect("a status");
    assert_eq!(status.full_reason.as_deref(), Some("Resized"));
    assert_eq!(status.chain_id, world.memory.chain());
}

#[tokio::test(start_paused = true)]
async fn another_size_is_called_so() {
    let world = World::attached().await;
    world.memory.set_live(Liveness::Reloaded { size_bytes: Some(1 << 40) });
    world.until("noticed", |world| world.says("TrackingIntact") == "Resized").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_put_back_to_an_earlier_snapshot_is_called_so() {
    let mut world = World::attached().await;
    world.complete("a").await;
    world.memory.set_live(Liveness::RolledBack);
    world.until("noticed", |world| world.says("TrackingIntact") == "RolledBack").await;
    let status = world.complete("b").await;
    assert_eq!(status.full_reason.as_deref(), Some("RolledBack"));
}

/// LVM takes the device away for it.
#[tokio::test(start_paused = true)]
async fn a_volume_put_back_while_it_was_away_is_called_so_too() {
    let mut world = World::attached().await;
    world.complete("a").await;
    world.memory.roll_back();
    world.memory.set_live(Liveness::Gone);
    world.until("noticed", |world| world.says("TrackingIntact") == "Reattached").await;
    let status = world.complete("b").await;
    assert_eq!(status.full_reason.as_deref(), Some("RolledBack"));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_merely_away_is_attached_again() {
    let mut world = World::attached().await;
    world.complete("a").await;
    world.memory.set_live(Liveness::Gone);
    let status = world.complete("b").await;
    assert_eq!(status.full_reason.as_deref(), Some("Reattached"));
}

#[tokio::test(start_paused = true)]
async fn a_stack_without_a_record_is_not_called_attached() {
    let world = World::attached().await;
    world.memory.lose_record();
    world.until("noticed", |world| world.says("TrackingIntact") == "RecordMismatch").await;
    world.until("in again", |world| world.memory.chain().is_some()).await;
}

/// A PersistentVolume that is bound anew has two EraVolumes until the old one is let go.
#[tokio::test(start_paused = true)]
async fn a_stack_has_one_worker() {
    let memory = Memory::default();
    memory.use_device(DEVICE);
    let (context, stores) = World::context(&memory);
    let older = Key { namespace: "apps".to_owned(), name: "older".to_owned() };
    context.holders.take(VOLUME_UID, &older).expect("nobody's yet");
    let world = World::begin(memory, context, stores, None, &era_volume());
    world.until("refused", |world| world.says("Attached") == "DeviceClaimed").await;
    assert_eq!((world.memory.chain(), world.memory.detached()), (None, 0));
    world.context.holders.give_back(VOLUME_UID, &older);
    world.until("attached", |world| world.says("Attached") == "Attached").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_another_workers_is_not_taken_out() {
    let memory = Memory::default();
    let (context, stores) = World::context(&memory);
    let older = Key { namespace: "apps".to_owned(), name: "older".to_owned() };
    context.holders.take(VOLUME_UID, &older).expect("nobody's yet");
    let mut world = World::begin(memory, context, stores, None, &era_volume());
    world.until("refused", |world| world.says("Attached") == "DeviceClaimed").await;
    world.change(|volume| volume.metadata.deletion_timestamp = Some(eratrack_api::Time(at(40))));
    world.until("detached", |world| world.says("Attached") == "Detached").await;
    assert_eq!(world.memory.detached(), 0);
    assert_eq!(
        world.context.holders.take(VOLUME_UID, &older),
        Ok(()),
        "it is still the older one's"
    );
}

#[tokio::test(start_paused = true)]
async fn failed_metadata_comes_out_at_once_and_back_later() {
    let world = World::attached().await;
    let first = world.memory.chain();
    let started = Instant::now();
    world.memory.fail_era();
    world.until("taken out", |world| world.memory.chain().is_none()).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    world.until("said", |world| world.says("TrackingIntact") == "MetadataError").await;
    assert_eq!(world.says("Attached"), "Attaching");
    world.until("back", |world| world.memory.chain().is_some()).await;
    assert!(started.elapsed() > Duration::from_secs(55), "{:?}", started.elapsed());
    assert_ne!(world.memory.chain(), first);
    world.until("said", |world| world.says("Attached") == "Attached").await;
    assert_eq!(world.says("TrackingIntact"), "MetadataError");
}

#[tokio::test(start_paused = true)]
async fn another_granularity_begins_another_chain() {
    let mut world = World::attached().await;
    let first = world.memory.chain();
    world.change(|volume| volume.spec.granularity = Granularity::from_bytes(1 << 20).expect("1Mi"));
    world.until("noticed", |world| world.says("TrackingIntact") == "GranularityChanged").await;
    world.until("in again", |world| world.says("Attached") == "Attached").await;
    assert_ne!(world.memory.chain(), first);
    let status = world.memory.volume_now().and_then(|volume| volume.status).expect("a status");
    assert_eq!(status.granularity.map(Granularity::bytes), Some(1 << 20));
}

#[tokio::test(start_paused = true)]
async fn a_granularity_that_does_not_fit_leaves_the_chain_alone_and_is_told() {
    let mut world = World::attached().await;
    let first = world.memory.chain();
    world.memory.hold(Held::Refits);
    world.change(|volume| volume.spec.granularity = Granularity::from_bytes(4096).expect("4Ki"));
    let message = |world: &World| {
        let status = world.memory.volume_now().and_then(|volume| volume.status);
        let conditions = status.unwrap_or_default().conditions;
        condition::find(&conditions, ConditionType::Attached).map(|it| it.message.clone())
    };
    let told = |world: &World| message(world).is_some_and(|it| it.contains("granularity 4Ki"));
    world.until("told", told).await;
    assert_eq!(
        (world.memory.chain(), world.says("Attached").as_str()),
        (first.clone(), "Attached")
    );
    world.memory.let_go();
    world
        .until("in again", |world| {
            world.memory.stack().is_some_and(|stack| stack.granularity.bytes() == 4096)
        })
        .await;
    world.until("said", |world| world.says("TrackingIntact") == "GranularityChanged").await;
    assert!(!told(&world));
}

#[tokio::test(start_paused = true)]
async fn an_adopted_stack_keeps_its_chain_and_nothing_is_said() {
    let before = World::attached().await;
    let volume = before.memory.volume_now().expect("the volume");
    before.worker.abort();
    let said = before.memory.said();
    let world = World::new(before.memory.clone(), Some(FoundState::Present(tracked())), &volume);
    tokio::time::sleep(LONG).await;
    assert_eq!(world.memory.chain().as_deref(), Some(CHAIN));
    assert_eq!(world.memory.said(), said);
}

/// A snapshot whose boundary is made waits for it: its chain may well be whole.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_cleared_up_is_tried_again_before_anything_else() {
    let mut before = World::attached().await;
    before.memory.hold(Held::Slices);
    before.ask("a");
    before.until("made", |world| world.memory.boundaries() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let volume = before.memory.volume_now().expect("the volume");
    before.worker.abort();
    let memory = before.memory.clone();
    memory.let_go();
    memory.stick(3);
    let chain = memory.chain();
    let stuck = FoundState::Stuck("the disk is busy".to_owned());
    let mut world = World::new(memory, Some(stuck), &volume);
    world.see_snapshot("a");
    world.until("said", |world| world.says("Attached") == "OperationFailed").await;
    world.until("taken over", |world| world.says("Attached") == "Attached").await;
    assert_eq!(world.memory.chain(), chain, "the chain goes on");
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_is_named_also_when_the_pod_comes_later() {
    let before = World::attached().await;
    let volume = before.memory.volume_now().expect("the volume");
    before.worker.abort();
    let memory = Memory::default();
    let ended = FoundState::Ended(Some(eratrack_api::Reason::NodeRebooted));
    let world = World::new(memory, Some(ended), &volume);
    world.until("noticed", |world| world.says("TrackingIntact") == "NodeRebooted").await;
    assert_eq!(world.says("Attached"), "NotInUse");
    // A second start knows of it by the status alone.
    let volume = world.memory.volume_now().expect("the volume");
    world.worker.abort();
    let world = World::new(world.memory.clone(), None, &volume);
    world.memory.use_device(DEVICE);
    world.mounts_change();
    world.until("attached", |world| world.says("Attached") == "Attached").await;
    assert_eq!(world.says("TrackingIntact"), "NodeRebooted");
}

/// At ten hundredths of room left the user's writes are not yet in danger; once it is full they fail.
#[tokio::test(start_paused = true)]
async fn metadata_that_is_nearly_full_comes_out_before_a_write_fails() {
    let world = World::attached().await;
    let first = world.memory.chain();
    world.memory.use_metadata(80, 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.memory.chain(), first, "there is room enough");
    world.memory.use_metadata(91, 1);
    world.until("taken out", |world| world.memory.chain().is_none()).await;
    world.until("said", |world| world.says("TrackingIntact") == "MetadataFull").await;
    world.memory.use_metadata(5, 0);
    world.until("back", |world| world.memory.chain().is_some()).await;
    assert_ne!(world.memory.chain(), first);
}
