//! A worker against a cluster and a machine in memory, in time that passes at once.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{EraSnapshot, EraSnapshotStatus, EraVolume, SnapshotMode};
use eratrack_model::units::DevNo;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

mod guard;
mod life;
mod moves;
mod pace;
mod points;
mod replica;
mod snapshots;

use super::{Context, Worker};
use crate::agent::snapshot::step::is_ready;
use crate::agent::stacks::FoundState;
use crate::agent::testing::memory::Memory;
use crate::agent::testing::{VOLUME_UID, context, era_volume, snapshot};

const DEVICE: DevNo = DevNo { major: 253, minor: 3 };
/// Longer than any wait of a worker but one for a wish.
const LONG: Duration = Duration::from_secs(400);

type MemoryContext = Context<Memory, Memory, Memory>;
type Stores = (Writer<EraVolume>, Writer<EraSnapshot>);

/// A worker and everything around it.
struct World {
    context: Arc<MemoryContext>,
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
        let (context, stores) = Self::context(&memory);
        Self::begin(memory, context, stores, found, volume)
    }

    fn context(memory: &Memory) -> (MemoryContext, Stores) {
        let (context, volumes, snapshots) = context(memory);
        (context, (volumes, snapshots))
    }

    fn begin(
        memory: Memory,
        context: MemoryContext,
        (mut volumes, snapshots): Stores,
        found: Option<FoundState>,
        volume: &EraVolume,
    ) -> Self {
        let context = Arc::new(context);
        memory.set_volume(Some(volume.clone()));
        volumes.apply_watcher_event(&Event::Apply(volume.clone()));
        let (news, (mounts, seen)) = (Arc::new(Notify::new()), watch::channel(0));
        let worker = Worker::new(context.clone(), volume, news.clone(), seen);
        let worker = tokio::spawn(worker.run(found));
        Self { context, memory, volumes, snapshots, news, mounts, worker }
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

    /// Somebody asks for a snapshot that can be read, for so many seconds.
    fn ask_local(&mut self, name: &str, hold_seconds: u32) {
        let mut asked = snapshot(name, &json!({"nodeName": "node1", "volumeUID": VOLUME_UID}));
        asked.spec.mode = SnapshotMode::Local;
        asked.spec.hold_seconds = Some(hold_seconds);
        self.memory.put(asked);
        self.see_snapshot(name);
    }

    /// The watch tells of a snapshot that is there.
    fn see_snapshot(&mut self, name: &str) {
        self.snapshots.apply_watcher_event(&Event::Apply(self.memory.get(name)));
        self.news.notify_one();
    }

    /// Somebody deletes a snapshot, and the watch tells.
    fn delete_snapshot(&mut self, name: &str) {
        self.snapshots.apply_watcher_event(&Event::Delete(self.memory.get(name)));
        self.memory.delete(name);
        self.news.notify_one();
    }

    /// The reason of a condition, as the API server has it.
    fn says(&self, type_: &str) -> String {
        let status = self.memory.volume_now().and_then(|volume| volume.status).unwrap_or_default();
        let found = status.conditions.into_iter().find(|it| it.type_ == type_);
        found.map(|it| it.reason).unwrap_or_default()
    }

    /// Somebody asks for a snapshot, which becomes complete.
    async fn complete(&mut self, name: &str) -> EraSnapshotStatus {
        self.ask(name);
        self.until("complete", |world| is_ready(&world.memory.get(name))).await;
        self.memory.get(name).status.expect("a status")
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
