//! `cluster_refusals`: what cannot be tracked gets a condition that says why, and is left exactly as it was.

use super::stage::{SOON, Stage, tracking};
use crate::{
    cluster::{Application, Volume},
    failure::Outcome,
};

/// A claim that cannot be tracked, and what is said of it.
struct Refusal {
    object: &'static str,
    condition: &'static str,
    reason: &'static str,
    /// What the message must name.
    names: &'static str,
}

const REFUSALS: &[Refusal] = &[
    refusal("eratracking/nowhere", "Ready", "ClaimNotFound", "nowhere"),
    refusal("eratracking/unbound", "Ready", "ClaimNotBound", "unbound"),
    refusal("eratracking/younger", "Ready", "ClaimTaken", "idle"),
    refusal("eratracking/fine", "Ready", "LimitExceeded", "4Ki"),
    refusal("eravolume/idle", "Attached", "NotInUse", ""),
    refusal("eravolume/directory", "Attached", "SharedFilesystem", ""),
    refusal("eravolume/many", "Attached", "AccessModeUnsupported", "ReadWriteMany"),
    refusal("eravolume/disk", "Attached", "NotDeviceMapper", "7:77"),
    refusal("eravolume/memory", "Attached", "NotBlockBacked", "tmpfs"),
    refusal("eravolume/snapshots", "Attached", "VolumeHasSnapshots", ""),
];

const fn refusal(
    object: &'static str,
    condition: &'static str,
    reason: &'static str,
    names: &'static str,
) -> Refusal {
    Refusal { object, condition, reason, names }
}

/// Makes everything that can be refused, then looks at each.
pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-refusals")?;
    let volumes =
        [stage.volume("idle", 64)?, stage.volume("snapshots", 64)?, stage.volume("fine", 64)?];
    prepare(&stage)?;
    let tables = tables(&stage, &volumes)?;
    let claims = ["nowhere", "unbound", "idle", "directory", "many", "disk", "memory", "snapshots"];
    let named = claims.map(|claim| tracking(claim, &format!("claims: {{names: [{claim}]}}")));
    let fine = tracking("fine", "claims: {names: [fine]}, granularity: 4Ki");
    stage.user.apply(&[&named.join("\n---\n"), "\n---\n", &fine].concat())?;
    // Younger by its creation time, which counts in seconds.
    stage.until_reason("eravolume/idle", "Attached", "False", "NotInUse")?;
    stage.user.apply(&tracking("younger", "claims: {names: [idle]}"))?;
    let wrong: Vec<String> =
        REFUSALS.iter().filter_map(|it| judge(&stage, it).err()).map(|it| it.to_string()).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n").into());
    }
    if self::tables(&stage, &volumes)? != tables {
        return Err("the table of a device was changed that cannot be tracked".into());
    }
    events(&stage)?;
    stage.node().run("lvremove --yes data/cluster-refusals-shot")?;
    stage.close()
}

fn judge(stage: &Stage, refusal: &Refusal) -> Outcome {
    let Refusal { object, condition, reason, names } = refusal;
    let message = stage.until_reason(object, condition, "False", reason)?;
    if message.contains(names) {
        Ok(())
    } else {
        Err(format!("{object}: {message:?} does not name {names}").into())
    }
}

/// Devices, directories, claims, and pods that use them.
fn prepare(stage: &Stage) -> Outcome {
    stage.node().run(
        "set -e
lvcreate --yes --snapshot --name cluster-refusals-shot --size 16M data/cluster-refusals-snapshots
mkdir -p /disk/directory /disk/memory
mount -t tmpfs tmpfs /disk/memory
truncate -s 64M /disk/disk.img
losetup /dev/loop77 /disk/disk.img || { mknod /dev/loop77 b 7 77; losetup /dev/loop77 /disk/disk.img; }",
    )?;
    stage.offer_device("directory", "/disk/directory", "ReadWriteOnce")?;
    stage.offer_device("memory", "/disk/memory", "ReadWriteOnce")?;
    stage.offer_device("disk", "/dev/loop77", "ReadWriteOnce")?;
    let many = stage.plan("many", 64);
    stage.node().run(&many.create())?;
    stage.offer_device("many", &many.device(), "ReadWriteMany")?;
    stage.user.apply(UNBOUND)?;
    let used = ["directory", "memory", "disk", "many", "snapshots", "fine"];
    stage.user.apply(&used.map(|claim| Application::idle(claim, &[claim])).join("---\n"))?;
    stage.user.run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"]).map(drop)
}

const UNBOUND: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: unbound}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Mi}}}
";

fn tables(stage: &Stage, volumes: &[Volume]) -> Outcome<Vec<String>> {
    volumes.iter().map(|volume| stage.table(volume)).collect()
}

/// Each refusal is told on the object that the user wrote, and on the volume.
fn events(stage: &Stage) -> Outcome {
    for Refusal { object, reason, .. } in REFUSALS {
        let tracking = object.replace("eravolume/", "eratracking/");
        for object in [*object, &tracking] {
            let what = format!("an event of {object} that says {reason}");
            stage.user.until_any(&["events"], &what, SOON, |event| {
                let of = &event["involvedObject"];
                let kind = of["kind"].as_str().unwrap_or_default().to_lowercase();
                let of = format!("{kind}/{}", of["name"].as_str().unwrap_or_default());
                // Of a volume that its tracking names, as the reason or within the message.
                let in_message = event["message"].as_str().is_some_and(|it| it.contains(reason));
                let told = of == object && (event["reason"] == *reason || in_message);
                told.then_some(()).ok_or_else(String::new)
            })?;
        }
    }
    Ok(())
}
