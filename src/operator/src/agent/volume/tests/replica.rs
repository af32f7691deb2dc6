//! A replica that follows: what is copied when, what is said of it, and what it must not hold up.

use std::time::Duration;

use eratrack_api::{EraVolume, Reason, ReplicaPhase, ReplicaStatus, SnapshotMode, names};
use serde_json::json;

use super::{DEVICE, World};
use crate::agent::snapshot::step::is_ready;
use crate::agent::stacks::{FoundState, Liveness, PointState};
use crate::agent::testing::memory::Memory;
use crate::agent::testing::{VOLUME_UID, at, era_volume, replica_target, snapshot};

fn wished() -> EraVolume {
    let mut volume = era_volume();
    volume.spec.replica = Some(replica_target());
    volume
}

impl World {
    fn replica(&self) -> Option<ReplicaStatus> {
        self.memory.volume_now()?.status?.replica
    }

    fn is_in(&self, phase: ReplicaPhase) -> bool {
        self.replica().is_some_and(|replica| replica.phase == phase)
    }

    fn equals(&self) -> Option<String> {
        self.replica()?.equals.map(|it| it.name)
    }

    /// The volume is used, and its replica has everything but what changed meanwhile.
    async fn seeded() -> Self {
        let memory = Memory::default();
        memory.use_device(DEVICE);
        let world = Self::new(memory, None, &wished());
        world.until("seeded", |world| world.is_in(ReplicaPhase::Seeded)).await;
        world
    }

    /// The controller makes a snapshot for the replica, which comes to an end.
    async fn round(&mut self, name: &str) {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut asked = snapshot(name, &json!({"nodeName": "node1", "volumeUID": VOLUME_UID}));
        asked.spec.mode = SnapshotMode::Local;
        let annotation = (names::ANNOTATION_REPLICATE.to_owned(), "true".to_owned());
        asked.metadata.annotations = Some([annotation].into());
        self.memory.put(asked);
        self.see_snapshot(name);
        self.until("ready", |world| is_ready(&world.memory.get(name))).await;
        self.see_snapshot(name);
        self.until("let go", |world| world.memory.point().is_none()).await;
        self.see_snapshot(name);
    }

    async fn until_equal(&self, name: &str) {
        self.until("equal", |world| world.equals().as_deref() == Some(name)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_copied_in_full_once_and_then_what_changed() {
    let mut world = World::seeded().await;
    assert_eq!(world.says("ReplicaCurrent"), "ReplicaSeeding");
    world.memory.write([3, 4]);
    world.round("a").await;
    world.until_equal("a").await;
    assert_eq!(world.says("ReplicaCurrent"), "ReplicaFollowing");
    world.memory.write([9]);
    world.round("b").await;
    world.until_equal("b").await;
    let copies = world.memory.replica_copies();
    let blocks: Vec<_> = copies.iter().map(|(_, _, blocks)| blocks.clone()).collect();
    assert_eq!(blocks, [vec![3, 4], vec![9]]);
    assert_eq!(copies[1].0, copies[0].1, "from the point in time that it equalled");
    assert_eq!(world.memory.replica_seeds(), (1, 0, false));
    let status = world.replica().expect("a status");
    assert_eq!((status.copied_bytes, status.total_bytes), (Some(4096), Some(4096)));
    assert!(status.duration_milliseconds.is_some(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_point_in_time_of_somebody_elses_is_neither_copied_nor_released() {
    let mut world = World::seeded().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.ask_local("mine", 600);
    world.until("ready", |world| is_ready(&world.memory.get("mine"))).await;
    world.see_snapshot("mine");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.memory.point().is_some());
    assert_eq!(world.memory.replica_copies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_be_used_says_why_and_holds_nothing_up() {
    let memory = Memory::default();
    memory.use_device(DEVICE);
    memory.refuse_replica(Some(Reason::ReplicaInUse));
    let mut world = World::new(memory, None, &wished());
    world.until("said", |world| world.says("ReplicaCurrent") == "ReplicaInUse").await;
    assert_eq!(world.says("Attached"), "Attached");
    assert!(world.memory.noticed_of_volume().contains(&Reason::ReplicaInUse), "an event");
    // The volume's snapshots go on, and one that was made for it is not held in vain.
    world.round("a").await;
    world.complete("b").await;
    world.memory.refuse_replica(None);
    world.until("seeded", |world| world.is_in(ReplicaPhase::Seeded)).await;
    world.round("c").await;
    world.until_equal("c").await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_lost_point_in_time_does_not_count_and_the_next_has_all_of_it() {
    let mut world = World::seeded().await;
    world.round("a").await;
    world.until_equal("a").await;
    let (_, since, _) = world.memory.replica_copies()[0].clone();
    world.memory.write([5]);
    world.memory.hang_copies(true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut asked = snapshot("b", &json!({"nodeName": "node1", "volumeUID": VOLUME_UID}));
    asked.spec.mode = SnapshotMode::Local;
    let annotation = (names::ANNOTATION_REPLICATE.to_owned(), "true".to_owned());
    asked.metadata.annotations = Some([annotation].into());
    world.memory.put(asked);
    world.see_snapshot("b");
    until_now("made", || world.memory.get("b").status.is_some_and(|it| it.era.is_some())).await;
    world.see_snapshot("b");
    until_now("copying", || world.is_in(ReplicaPhase::Copying)).await;
    assert_eq!(world.equals(), None, "it is a mix");
    world.memory.lose_point(PointState::Lost(Reason::CopiesFull, "full".to_owned()));
    world.memory.hang_copies(false);
    world.until("said", |world| world.says("ReplicaCurrent") == "ReplicaFailed").await;
    world.see_snapshot("b");
    world.until("ended", |world| world.memory.point().is_none()).await;
    world.memory.write([6]);
    world.until("looked", |world| world.is_in(ReplicaPhase::Following)).await;
    assert_eq!(world.says("ReplicaCurrent"), "ReplicaFailed", "until a copy succeeds");
    world.round("c").await;
    world.until_equal("c").await;
    let (from, _, blocks) = world.memory.replica_copies()[1].clone();
    assert_eq!((from, blocks), (since, vec![5, 6]));
    assert_eq!(world.says("ReplicaCurrent"), "ReplicaFollowing");
    assert!(!world.memory.replica_seeds().2, "nothing untrue was said");
}

/// While a copy hangs, time does not pass by itself.
async fn until_now(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_micros(200));
    }
    panic!("never {what}");
}

/// A volume whose replica is being copied to in full, which does not come to an end.
async fn seeding() -> World {
    let memory = Memory::default();
    memory.use_device(DEVICE);
    memory.hang_copies(true);
    let world = World::new(memory, None, &wished());
    until_now("seeding", || world.replica().is_some_and(|it| it.copied_bytes == Some(2048))).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_copy_under_way_holds_up_neither_snapshots_nor_the_end_of_tracking() {
    let mut world = seeding().await;
    world.ask("list");
    until_now("complete", || is_ready(&world.memory.get("list"))).await;
    world.change(|volume| volume.metadata.deletion_timestamp = Some(eratrack_api::Time(at(40))));
    until_now("detached", || world.memory.detached() == 1).await;
    assert_eq!(world.memory.replica_seeds(), (0, 1, false), "it ended before");
}

#[tokio::test(start_paused = true)]
async fn a_copy_ends_with_its_process_and_with_the_wish() {
    let world = seeding().await;
    world.worker.abort();
    until_now("ended", || world.memory.replica_seeds().1 == 1).await;

    let mut world = seeding().await;
    world.change(|volume| volume.spec.replica = None);
    until_now("ended", || world.memory.replica_seeds().1 == 1).await;
    world.memory.hang_copies(false);
    world.until("said", |world| world.replica().is_none()).await;
    assert_eq!(world.says("ReplicaCurrent"), "", "nothing is said of what is not wished for");
    assert_eq!(world.says("Attached"), "Attached");
}

#[tokio::test(start_paused = true)]
async fn a_full_copy_that_was_cut_short_goes_on_with_the_next_process() {
    let world = seeding().await;
    let volume = world.memory.volume_now().expect("the volume");
    world.worker.abort();
    until_now("ended", || world.memory.replica_seeds().1 == 1).await;
    world.memory.start(None);
    world.memory.hang_copies(false);
    let boundaries = world.memory.boundaries();
    let found = FoundState::Present(world.memory.stack().expect("still in"));
    let world = World::new(world.memory.clone(), Some(found), &volume);
    world.until("seeded", |world| world.is_in(ReplicaPhase::Seeded)).await;
    assert_eq!(world.memory.boundaries(), boundaries, "it began at the first one's");
}

#[tokio::test(start_paused = true)]
async fn another_chain_and_a_strange_write_have_it_looked_at_again() {
    let mut world = World::seeded().await;
    world.round("a").await;
    world.until_equal("a").await;
    world.memory.set_live(Liveness::Reloaded { size_bytes: None });
    world.until("detached", |world| world.memory.detached() > 0).await;
    world.memory.spoil_replica();
    world.until("seeded again", |world| world.is_in(ReplicaPhase::Seeded)).await;
    assert_eq!(world.equals(), None);
    let why = world.replica().and_then(|it| it.full_reason);
    assert_eq!(why.as_deref(), Some("somebody wrote"));
    assert_eq!(world.memory.replica_seeds().0, 2);
}
