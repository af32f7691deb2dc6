//! A worker against a cluster and a machine in memory, in time that passes at once.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{ConditionType, EraSnapshot, EraVolume, Granularity, condition};
use eratrack_model::units::DevNo;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Worker;
use crate::agent::snapshot::step::is_ready;
use crate::agent::stacks::{Found, FoundState, Liveness};
use crate::agent::testing::memory::Memory;
use crate::agent::testing::{CHAIN, VOLUME_UID, at, context, era_volume, snapshot, tracked};

const DEVICE: DevNo = DevNo { major: 253, minor: 3 };
/// Longer than any wait of a worker but one for a wish.
const LONG: Duration = Duration::from_secs(400);

/// A worker and everything around it.
struct World {
    memory: Memory,
    volumes: Writer<EraVolume>,
    snapshots: Writer<EraSnapshot>,
    news: Arc<Notify>,
    mounts: watch::Sender<u64>,
    worker: JoinHandle<()>,
}

impl World {
    /// The volume is known to the API server and in sight of the watch.
    fn new(memory: Memory, found: Option<FoundState>, volume: &EraVolume) -> Self {
        let (context, mut volumes, snapshots) = context(&memory);
        memory.set_volume(Some(volume.clone()));
        volumes.apply_watcher_event(&Event::Apply(volume.clone()));
        let (news, (mounts, seen)) = (Arc::new(Notify::new()), watch::channel(0));
        let found = found.map(|state| Found { volume_uid: VOLUME_UID.to_owned(), state });
        let worker = Worker::new(Arc::new(context), volume, found, news.clone(), seen);
        let worker = tokio::spawn(worker.run());
        Self { memory, volumes, snapshots, news, mounts, worker }
    }

    /// A volume that a pod uses, with era in.
    async fn attached() -> Self {
        let memory = Memory::default();
        memory.use_device(DEVICE);
        let world = Self::new(memory, None, &era_volume());
        world.until("attached", |world| world.says("Attached") == "Attached").await;
        world
    }

    fn mounts_change(&self) {
        self.mounts.send_modify(|changes| *changes += 1);
    }

    /// The API server has this now, and the watch tells.
    fn change(&mut self, change: impl FnOnce(&mut EraVolume)) {
        let mut volume = self.memory.volume_now().expect("the volume");
        change(&mut volume);
        self.memory.set_volume(Some(volume.clone()));
        self.volumes.apply_watcher_event(&Event::Apply(volume));
        self.news.notify_one();
    }

    /// The watch loses sight of the volume.
    fn lose_sight(&mut self) {
        let volume = self.memory.volume_now().unwrap_or_else(era_volume);
        self.volumes.apply_watcher_event(&Event::Delete(volume));
        self.news.notify_one();
    }

    /// Somebody asks for a snapshot.
    fn ask(&mut self, name: &str) {
        let snapshot = snapshot(name, &json!({"nodeName": "node1", "volumeUID": VOLUME_UID}));
        self.memory.put(snapshot.clone());
        self.snapshots.apply_watcher_event(&Event::Apply(snapshot));
        self.news.notify_one();
    }

    /// The reason of a condition, as the API server has it.
    fn says(&self, type_: &str) -> String {
        let status = self.memory.volume_now().and_then(|volume| volume.status).unwrap_or_default();
        let found = status.conditions.into_iter().find(|it| it.type_ == type_);
        found.map(|it| it.reason).unwrap_or_default()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..4000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {what}; the volume is {:?}", self.memory.volume_now());
    }
}

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
    assert_ne!(world.memory.chain(), first);
    let status = world.memory.volume_now().and_then(|volume| volume.status).expect("a status");
    assert_eq!(status.granularity.map(Granularity::bytes), Some(1 << 20));
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

#[tokio::test(start_paused = true)]
async fn snapshots_keep_their_distance() {
    let mut world = World::attached().await;
    world.ask("a");
    world.until("complete", |world| is_ready(&world.memory.get("a"))).await;
    world.ask("b");
    world
        .until("held up", |world| !world.memory.get("b").status.expect("b").conditions.is_empty())
        .await;
    let status = world.memory.get("b").status.expect("a status");
    assert_eq!(status.conditions[0].reason, "RateLimited", "{status:?}");
}
