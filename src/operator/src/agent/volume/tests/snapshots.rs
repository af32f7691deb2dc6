//! Snapshots under way, and what the volume says of them.

use super::World;
use crate::agent::snapshot::step::is_ready;

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

/// The API server refuses an era that goes back.
#[tokio::test(start_paused = true)]
async fn one_that_completes_late_does_not_set_the_volumes_era_back() {
    let mut world = World::attached().await;
    world.memory.hold_slices(true);
    world.ask("a");
    world.until("made", |world| world.phase("a") == "Reading").await;
    world.memory.use_metadata(30, 7);
    let era = |world: &World| world.memory.volume_now().and_then(|it| it.status?.era);
    world.until("said", |world| era(world) > Some(7)).await;
    world.memory.hold_slices(false);
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    world.until("intact", |world| world.says("TrackingIntact") == "ChainIntact").await;
}
