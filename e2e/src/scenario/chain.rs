//! A replica kept by lists alone, through all that happens to a volume and its agent.

use super::stage::Stage;
use crate::{
    cluster::{Application, NAMESPACE, Replica, Volume},
    demo::Snapshot,
    failure::Outcome,
};

/// A volume, its application, and the replica that follows it.
pub(super) struct Follower {
    pub(super) stage: Stage,
    volume: Volume,
    pub(super) application: Application,
    replica: Replica,
    snapshots: Vec<Snapshot>,
}

impl Follower {
    /// Tracks a fresh volume, and copies all of it after its first snapshot.
    pub(super) fn start(stage: Stage) -> Outcome<Self> {
        let (volume, application) = stage.tracked("data", 128)?;
        Self::follow(stage, volume, application)
    }

    fn follow(stage: Stage, volume: Volume, application: Application) -> Outcome<Self> {
        let replica = Replica::of(&volume);
        let mut follower = Self { stage, volume, application, replica, snapshots: Vec::new() };
        let first = follower.snapshot()?;
        expect(first.kind == "Full", "the first snapshot is full", &first)?;
        follower.stage.node().run(&follower.replica.create())?;
        follower.stage.node().run(&follower.replica.copy_all())?;
        Ok(follower)
    }

    /// Makes a snapshot and waits for it.
    pub(super) fn snapshot(&mut self) -> Outcome<Snapshot> {
        let name = self.ask_for_snapshot()?;
        self.receive(&name)
    }

    fn ask_for_snapshot(&self) -> Outcome<String> {
        let name = format!("s{}", self.snapshots.len());
        self.stage.user.apply(&Snapshot::manifest(&name, "data"))?;
        Ok(name)
    }

    fn receive(&mut self, name: &str) -> Outcome<Snapshot> {
        let snapshot = Snapshot::ready(&self.stage.user, name)?;
        self.snapshots.push(snapshot.clone());
        Ok(snapshot)
    }

    /// Copies what the last snapshot lists, after checking that it continues the one before.
    pub(super) fn copy_increment(&self) -> Outcome {
        let [.., before, last] = self.snapshots.as_slice() else {
            return Err("there is no increment to copy".into());
        };
        let linked = last.kind == "Incremental"
            && last.since == Some(before.era)
            && last.chain == before.chain;
        expect(linked, "the snapshot continues the chain", last)?;
        self.replica.copy_listed(self.stage.node(), &last.blocks).map(drop)
    }

    /// Quiesces, makes the last snapshot, copies its list: volume and replica must be equal.
    pub(super) fn finish(mut self) -> Outcome {
        self.application.quiesce()?;
        self.stage.node().run("sync")?;
        self.snapshot()?;
        self.copy_increment()?;
        self.stage.node().run(&self.replica.compare())?;
        self.application.verify()?;
        self.stage.close()
    }
}

fn expect(holds: bool, what: &str, seen: &Snapshot) -> Outcome {
    if holds { Ok(()) } else { Err(format!("NOT TRUE: {what}\nseen: {seen:?}").into()) }
}

/// `cluster_agent_killed`: SIGKILL as soon as a snapshot is asked for, and as soon as its boundary is made, loses no
/// changed block.
pub(super) fn agent_killed() -> Outcome {
    let mut follower = Follower::start(Stage::open("cluster-agent-killed")?)?;
    for moment in ["/metadata/uid", "/status/era"] {
        follower.application.until_more(20)?;
        let name = follower.ask_for_snapshot()?;
        let object = format!("erasnapshot/{name}");
        follower.stage.user.until(&object, moment, super::stage::SOON, |snapshot| {
            snapshot.pointer(moment).map(drop).ok_or_else(String::new)
        })?;
        follower.stage.node().run("pkill -KILL -x -f '/eratrack agent.*'")?;
        // A new pod starts at once; the old one would be held back longer after each crash.
        let agents = "app.kubernetes.io/component=agent";
        let cluster = follower.stage.cluster().kubectl();
        let delete = ["delete", "pod", "-n", NAMESPACE, "-l", agents, "--force", "--wait=false"];
        cluster.run(&delete)?;
        follower.receive(&name)?;
        follower.copy_increment()?;
    }
    follower.finish()
}

/// `cluster_volume_remounted`: a pod that goes and another that comes keep the chain.
pub(super) fn volume_remounted() -> Outcome {
    let mut follower = Follower::start(Stage::open("cluster-volume-remounted")?)?;
    follower.stage.user.run(&["delete", "pod", "data", "--grace-period=1"])?;
    follower.application = follower.stage.application("data")?;
    follower.application.until_more(20)?;
    follower.snapshot()?;
    follower.copy_increment()?;
    follower.finish()
}

/// `cluster_selector_left`: nobody can make an EraVolume leave the selector of its agent's watch; its chain goes on.
pub(super) fn selector_left() -> Outcome {
    let mut follower = Follower::start(Stage::open("cluster-selector-left")?)?;
    let elsewhere = r#"{"spec":{"nodeName":"elsewhere"}}"#;
    let patch = ["patch", "eravolume/data", "--type=merge", "-p", elsewhere];
    let output = follower.stage.user.kubectl(&patch, None)?;
    if output.success || !output.stderr.contains("nodeName never changes once it is set") {
        return Err(format!("must be refused: `{}`: {}", output.command, output.stderr).into());
    }
    follower.application.until_more(20)?;
    follower.snapshot()?;
    follower.copy_increment()?;
    follower.finish()
}

/// `cluster_lvextend`: LVM takes era out by loading its own table; the chain breaks, says why, and a new one begins.
pub(super) fn lvextend() -> Outcome {
    let stage = Stage::open("cluster-lvextend")?;
    let (volume, application) = stage.tracked("data", 128)?;
    let mut follower = Follower::follow(stage, volume, application)?;
    let name = follower.volume.name.clone();
    follower.stage.node().run(&format!("lvextend --size +64M data/{name}"))?;
    follower.application.until_more(20)?;
    let broken = follower.snapshot()?;
    let reasons = ["TableReloaded", "Resized"];
    let told = broken.kind == "Full" && reasons.contains(&broken.full_reason.as_str());
    expect(told, "the snapshot after lvextend is full, and says why", &broken)?;
    follower.stage.until_attached("data")?;
    follower.stage.node().run(&format!("lvextend --size +64M data/{name}_replica"))?;
    follower.stage.node().run(&follower.replica.copy_all())?;
    follower.application.until_more(20)?;
    follower.finish()
}

/// `cluster_thin_volume`: a thin volume is tracked, and LVM can still make a snapshot of it.
pub(super) fn thin_volume() -> Outcome {
    let stage = Stage::open("cluster-thin-volume")?;
    let volume = stage.plan("data", 128);
    let node = stage.node();
    node.run("lvcreate --yes --type thin-pool --size 256M --name pool data")?;
    node.run(&format!(
        "lvcreate --yes --virtualsize 128M --thinpool pool --name {} data",
        volume.name
    ))?;
    stage.offer(&volume.name, &volume.manifest())?;
    let application = stage.application("data")?;
    stage.track("data")?;
    stage.until_attached("data")?;
    let mut follower = Follower::follow(stage, volume, application)?;
    follower.application.until_more(20)?;
    follower.snapshot()?;
    follower.copy_increment()?;
    let name = follower.volume.name.clone();
    let node = follower.stage.node();
    node.run(&format!("lvcreate --yes --snapshot --name {name}-shot data/{name}"))?;
    node.run(&format!("lvremove --yes data/{name}-shot"))?;
    follower.application.until_more(20)?;
    let after = follower.snapshot()?;
    expect(after.kind == "Full", "the snapshot after lvcreate -s is full", &after)?;
    follower.stage.node().run(&follower.replica.copy_all())?;
    follower.finish()
}
