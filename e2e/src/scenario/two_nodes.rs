//! `cluster_breakers_of_nodes`: a volume on a disk that two nodes share moves from one to the other, and that one is restarted: in
//! order, with the restore unit, and by a power cut.

use super::stage::Stage;
use crate::{
    cluster::{AT_BOOT, Application, Node, SECOND, SHARED_DISK, static_program},
    demo::Snapshot,
    failure::Outcome,
};

/// The label of the node that has the volume; the PersistentVolume's affinity asks for it.
const HERE: &str = "e2e/shared";
const LV: &str = "shared/data";

pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-two-nodes")?;
    let second = stage.second()?;
    let first = stage.node();
    first.run(&format!(
        "vgcreate shared {SHARED_DISK} && lvcreate --yes --size 128M --name data shared"
    ))?;
    let volume = stage.plan("data", 128);
    let anywhere = "{key: kubernetes.io/hostname, operator: In, values: [node1]}";
    let manifest = volume
        .manifest()
        .replace(&volume.device(), "/dev/mapper/shared-data")
        .replace(anywhere, &format!("{{key: {HERE}, operator: Exists}}"));
    label(&stage, first, "=here")?;
    stage.offer(&volume.name, &manifest)?;
    let application = stage.application("data")?;
    stage.track("data")?;
    stage.until_attached("data")?;
    let mut chain = Chain { stage: &stage, application, made: Vec::new() };
    chain.full("NoBaseline")?;
    chain.incremental()?;

    chain.end_pod()?;
    label(&stage, first, "-")?;
    label(&stage, second, "=here")?;
    let uid = ["get", "pv", &volume.name, "-o", "jsonpath={.metadata.uid}"];
    let uid = stage.cluster().kubectl().run(&uid)?;
    // Given up there before anybody else gets it.
    first.run(&format!(
        "until ! dmsetup ls | grep -q {uid}; do sleep 0.2; done; lvchange -an {LV}"
    ))?;
    second.run(&format!("lvchange -ay {LV}"))?;
    chain.start_pod()?;
    chain.full("NodeChanged")?;
    chain.incremental()?;

    install_unit(second)?;
    chain.end_pod()?;
    let program = static_program()?;
    second.run(&format!("{} device seal", program.display()))?;
    restart(&stage, second)?;
    chain.start_pod()?;
    chain.incremental()?;

    restart(&stage, second)?;
    chain.start_pod()?;
    chain.full("NodeRebooted")?;
    chain.incremental()?;
    chain.application.verify()?;
    chain.end_pod()?;
    drop(chain);
    stage.close()
}

/// The snapshots of the volume, in order.
struct Chain<'a> {
    stage: &'a Stage,
    application: Application,
    made: Vec<Snapshot>,
}

impl Chain<'_> {
    fn next(&mut self) -> Outcome<(Option<Snapshot>, Snapshot)> {
        self.application.until_more(20)?;
        let name = format!("s{}", self.made.len());
        self.stage.user.apply(&Snapshot::manifest(&name, "data"))?;
        let made = Snapshot::ready(&self.stage.user, &name)?;
        let before = self.made.last().cloned();
        self.made.push(made.clone());
        Ok((before, made))
    }

    fn full(&mut self, reason: &str) -> Outcome {
        let (before, made) = self.next()?;
        let new = before.is_none_or(|before| before.chain != made.chain);
        if made.kind == "Full" && made.full_reason == reason && new {
            return Ok(());
        }
        Err(format!("not full for {reason}: {made:?}").into())
    }

    fn incremental(&mut self) -> Outcome {
        let (before, made) = self.next()?;
        let linked = before
            .as_ref()
            .is_some_and(|before| made.since == Some(before.era) && made.chain == before.chain);
        if made.kind == "Incremental" && linked && made.blocks.count() > 0 {
            return Ok(());
        }
        Err(format!("does not continue {before:?}: {made:?}").into())
    }

    fn end_pod(&self) -> Outcome {
        self.stage.user.run(&["delete", "pod", "data", "--grace-period=1"]).map(drop)
    }

    /// Anew, also where one is still there from before a restart.
    fn start_pod(&mut self) -> Outcome {
        self.stage.user.run(&["delete", "pod", "data", "--force", "--ignore-not-found"])?;
        self.application = self.stage.application("data")?;
        Ok(())
    }
}

fn label(stage: &Stage, node: &Node, set: &str) -> Outcome {
    let label = format!("{HERE}{set}");
    stage.cluster().kubectl().run(&["label", "node", node.name, &label]).map(drop)
}

/// What `install-unit` gives a node with systemd and udev: here there is neither.
fn install_unit(node: &Node) -> Outcome {
    let program = static_program()?;
    node.run(&format!(
        "cat >{AT_BOOT} <<'END'
#!/bin/sh
mkdir -p /run/udev/data
for device in /sys/block/dm-*; do
    echo 1 >$device/queue/iostats
    echo G:eratrack-counted >/run/udev/data/b$(cat $device/dev)
done
{} device restore
END
chmod +x {AT_BOOT}",
        program.display()
    ))
    .map(drop)
}

/// Its power goes and comes back. What is not the volume's is on the disks before.
fn restart(stage: &Stage, node: &Node) -> Outcome {
    node.run("sync")?;
    node.power_off();
    node.power_on()?;
    stage.until_booted(SECOND)
}
