//! `cluster_block_mode`: a claim that a pod has as a raw device.

use super::stage::Stage;
use crate::{cluster::Volume, demo::Snapshot, failure::Outcome};

/// What is written into the device: at 40 MiB and a half, 3 KiB more than a block of 256 KiB.
const WRITE: &str =
    "dd if=/dev/urandom of=/dev/data bs=1024 seek=41472 count=259 conv=notrunc,fsync";
const WRITTEN: (u64, u64) = (41472 * 1024, 259 * 1024);

pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-block-mode")?;
    let volume = stage.plan("data", 64);
    stage.node().run(&volume.create())?;
    stage.offer(&volume.name, &as_block(&volume.manifest()))?;
    // Another PersistentVolume of the same device: whoever is second is refused.
    let twin = stage.plan("twin", 64);
    stage
        .offer(&twin.name, &as_block(&twin.manifest().replace(&twin.device(), &volume.device())))?;
    stage.user.apply(&block_pod(&volume))?;
    stage.user.run(&["wait", "--for=condition=Ready", "pod/data", "--timeout=90s"])?;
    stage.track("data")?;
    stage.until_attached("data")?;
    stage.user.apply(&Snapshot::manifest("first", "data"))?;
    let first = Snapshot::ready(&stage.user, "first")?;
    stage.user.run(&["exec", "data", "--", "sh", "-c", WRITE])?;
    stage.user.apply(&Snapshot::manifest("second", "data"))?;
    let second = Snapshot::ready(&stage.user, "second")?;
    let linked = first.kind == "Full" && second.since == Some(first.era);
    if !linked || !second.blocks.cover(WRITTEN.0, WRITTEN.1) || second.blocks.count() > 2 {
        return Err(format!("not the two blocks that were written: {second:?}").into());
    }
    stage.user.apply(&block_pod(&twin))?;
    stage.track("twin")?;
    let told = stage.until_reason("eravolume/twin", "Attached", "False", "DeviceClaimed")?;
    let uid = ["get", "pv", &volume.name, "-o", "jsonpath={.metadata.uid}"];
    if !told.contains(&stage.cluster().kubectl().run(&uid)?) {
        return Err(format!("the message does not name who has the device: {told}").into());
    }
    stage.close()
}

/// The manifest of a volume and its claim, as raw devices.
pub(crate) fn as_block(manifest: &str) -> String {
    manifest
        .replace("  mountOptions: [noatime, noinit_itable]\n", "")
        .replace(", fsType: ext4", "")
        .replace("  accessModes:", "  volumeMode: Block\n  accessModes:")
}

/// A pod that has the volume as the device `/dev/data`, and lets it be.
pub(crate) fn block_pod(volume: &Volume) -> String {
    let name = &volume.claim;
    crate::cluster::Application::idle(name, &[name]).replace(
        "volumeMounts: [{name: data, mountPath: /data}]",
        "volumeDevices: [{name: data, devicePath: /dev/data}]",
    )
}
