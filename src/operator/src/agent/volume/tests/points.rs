//! Points in time: held for their reader, and what is said of them.

use std::time::Duration;

use eratrack_api::{ConditionType, EraSnapshotStatus, Reason, condition, names};

use super::World;
use crate::agent::snapshot::step::{is_ready, is_settled};
use crate::agent::stacks::{FoundState, Liveness, PointState};
use crate::agent::testing::at;
use crate::agent::testing::memory::Held;

impl World {
    /// What Readable says of a snapshot, and whether it holds.
    fn readable(&self, name: &str) -> (bool, String) {
        let status = self.memory.get(name).status.unwrap_or_default();
        let found = condition::find(&status.conditions, ConditionType::Readable);
        found.map(|it| (it.is_true(), it.reason.clone())).unwrap_or_default()
    }

    fn is_readable(&self, name: &str) -> bool {
        self.readable(name) == (true, "PointInTime".to_owned())
    }

    fn has_ended(&self, name: &str, reason: Reason) -> bool {
        self.readable(name) == (false, reason.to_string())
    }

    fn status(&self, name: &str) -> EraSnapshotStatus {
        self.memory.get(name).status.unwrap_or_default()
    }

    /// A volume with a snapshot that can be read.
    async fn read() -> Self {
        let mut world = Self::attached().await;
        world.ask_local("a", 600);
        world.until("readable", |world| world.is_readable("a")).await;
        world.see_snapshot("a");
        world
    }

    fn release(&mut self, name: &str) {
        let mut snapshot = self.memory.get(name);
        let release = (names::ANNOTATION_RELEASE.to_owned(), "true".to_owned());
        snapshot.metadata.annotations = Some([release].into());
        self.memory.put(snapshot);
        self.see_snapshot(name);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_held_until_its_reader_releases_it() {
    let mut world = World::read().await;
    let status = world.status("a");
    assert_eq!(status.device.as_deref(), Some("/dev/eratrack/uid-of-a"));
    assert!(status.consistency.is_some() && status.held_until.is_some(), "{status:?}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(world.memory.point().is_some() && world.is_readable("a"));
    world.release("a");
    world.until("said", |world| world.has_ended("a", Reason::Released)).await;
    world.until("ended", |world| world.memory.point().is_none()).await;
    assert!(is_ready(&world.memory.get("a")), "its list stays");
    assert_eq!(world.status("a").device, None);
    assert_eq!(world.memory.detached(), 0, "the chain goes on");
}

#[tokio::test(start_paused = true)]
async fn it_is_never_held_beyond_its_time() {
    let world = World::read().await;
    tokio::time::sleep(Duration::from_secs(610)).await;
    assert_eq!(world.memory.point(), None);
    assert!(world.has_ended("a", Reason::HoldExpired));
}

#[tokio::test(start_paused = true)]
async fn it_is_never_held_beyond_its_time_also_when_nobody_can_be_told() {
    let mut world = World::read().await;
    world.memory.hold(Held::Statuses);
    world.memory.cut_off(true);
    tokio::time::sleep(Duration::from_secs(610)).await;
    assert_eq!(world.memory.point(), None);
    assert!(world.is_readable("a"), "nobody could be told");
    world.memory.cut_off(false);
    world.memory.let_go();
    world.see_snapshot("a");
    world.until("said", |world| world.has_ended("a", Reason::HoldExpired)).await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_its_snapshot_is_deleted_but_not_when_the_watch_loses_sight_of_it() {
    let mut world = World::read().await;
    let snapshot = world.memory.get("a");
    world.delete_snapshot("a");
    world.memory.put(snapshot);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.memory.point().is_some(), "the API server still has it");
    world.memory.delete("a");
    world.until("ended", |world| world.memory.point().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_copies_are_full_says_so_and_never_released() {
    let mut world = World::read().await;
    let full = PointState::Lost(Reason::CopiesFull, "1Gi was overwritten".to_owned());
    world.memory.lose_point(full);
    world.release("a");
    world.until("said", |world| world.has_ended("a", Reason::CopiesFull)).await;
    assert!(world.memory.noticed().contains(&Reason::CopiesFull), "an event");
    assert!(is_ready(&world.memory.get("a")), "what changed is known nevertheless");
    assert_eq!(world.memory.detached(), 0, "the volume and its chain are as ever");
}

#[tokio::test(start_paused = true)]
async fn one_whose_copies_are_full_before_its_list_is_complete_fails() {
    let mut world = World::attached().await;
    world.memory.hold(Held::Slices);
    world.ask_local("a", 600);
    world.until("made", |world| world.status("a").era.is_some()).await;
    world.memory.lose_point(PointState::Lost(Reason::CopiesFull, "full".to_owned()));
    world.memory.let_go();
    world.until("settled", |world| is_settled(&world.memory.get("a"))).await;
    let status = world.status("a");
    let failed = condition::find(&status.conditions, ConditionType::Failed);
    assert_eq!(failed.map(|it| it.reason.as_str()), Some("CopiesFull"));
    assert_eq!(status.device, None);
    world.see_snapshot("a");
    world.until("ended", |world| world.memory.point().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_one_waits_for_it_and_a_list_alone_does_not() {
    let mut world = World::read().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.ask_local("b", 600);
    let waits = |world: &World| {
        world.status("b").conditions.first().is_some_and(|it| it.reason == "PointInTimeHeld")
    };
    world.until("waits", waits).await;
    world.ask("c");
    world.until("complete", |world| is_ready(&world.memory.get("c"))).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(waits(&world));
    world.release("a");
    world.until("readable", |world| world.is_readable("b")).await;
    assert!(world.has_ended("a", Reason::Released));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_ends_takes_it_with_it() {
    let world = World::read().await;
    world.memory.set_live(Liveness::Reloaded { size_bytes: None });
    world.until("said", |world| world.has_ended("a", Reason::PointInTimeLost)).await;
    assert_eq!(world.memory.point(), None);
}

/// What a process that was killed has held, the next one does not vouch for.
#[tokio::test(start_paused = true)]
async fn after_a_restart_it_is_lost_and_the_chain_goes_on() {
    let world = World::read().await;
    let volume = world.memory.volume_now().expect("the volume");
    world.worker.abort();
    world.memory.start(None);
    let found = FoundState::Present(world.memory.stack().expect("still in"));
    let mut world = World::new(world.memory.clone(), Some(found), &volume);
    world.see_snapshot("a");
    world.until("said", |world| world.has_ended("a", Reason::PointInTimeLost)).await;
    world.see_snapshot("a");
    world.ask_local("b", 600);
    world.until("readable", |world| world.is_readable("b")).await;
    assert_eq!(world.status("b").base.map(|base| base.name).as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_keeps_open_is_ended_once_it_is_closed() {
    let mut world = World::read().await;
    world.memory.keep_open(5);
    world.release("a");
    world.until("said", |world| world.has_ended("a", Reason::Released)).await;
    assert!(world.memory.has_remains());
    world.until("ended", |world| !world.memory.has_remains()).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_it_when_tracking_ends_is_told() {
    let mut world = World::read().await;
    world.change(|volume| volume.metadata.deletion_timestamp = Some(eratrack_api::Time(at(40))));
    world.until("said", |world| world.has_ended("a", Reason::PointInTimeLost)).await;
    assert_eq!(world.memory.point(), None);
}
