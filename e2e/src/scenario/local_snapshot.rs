//! `cluster_local_snapshot`: a reader copies a point in time while the application writes.

use serde_json::Value;

use super::stage::Stage;
use crate::{
    cluster::{Application, Replica, Volume},
    demo::Snapshot,
    failure::Outcome,
};

/// The copy is a whole filesystem with everything that was acknowledged before the boundary; the reader is told that it
/// counts; the next list goes on from there.
pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-local-snapshot")?;
    let (volume, application) = stage.tracked("data", 128)?;
    let replica = Replica::of(&volume);
    stage.node().run(&replica.create())?;
    application.until_more(20)?;
    let acknowledged = application.lap()?.acknowledged;
    let (local, device) = held(&stage, "local")?;
    application.until_more(20)?;
    read(&stage, &device, &replica, &application)?;
    // One that is a list alone need not wait, another one must.
    stage.user.apply(&Snapshot::manifest("list", "data"))?;
    let list = Snapshot::ready(&stage.user, "list")?;
    if list.since != Some(local.era) || list.chain != local.chain {
        return Err(format!("not the list since {}: {list:?}", local.era).into());
    }
    stage.user.apply(&manifest("waiting", 600))?;
    stage.until_reason("erasnapshot/waiting", "Ready", "False", "PointInTimeHeld")?;
    stage.user.run(&["annotate", "erasnapshot/local", "eratrack.dev/release=true"])?;
    stage.until_reason("erasnapshot/local", "Readable", "False", "Released")?;
    judge(&stage, &volume, &replica, acknowledged)?;
    // It is that one's turn now, until it is deleted.
    let (_, next) = held(&stage, "waiting")?;
    stage.node().run(&format!("test ! -e {device} && test -b {next}"))?;
    stage.user.run(&["delete", "erasnapshot", "waiting"])?;
    let gone = format!(
        "for try in $(seq 60); do test -e {next} || dmsetup ls | grep -q '^eratrack-.*-snapshot[[:space:]]' || exit 0; sleep 1; done; exit 1"
    );
    stage.node().run(&gone)?;
    application.until_more(20)?;
    application.verify()?;
    stage.close()
}

fn manifest(name: &str, seconds: u32) -> String {
    Snapshot::manifest(name, "data").replace(
        "claimName: data",
        &format!("claimName: data, mode: Local, holdSeconds: {seconds}"),
    )
}

/// Asks for a point in time, unless it was asked for; waits until it can be read, and where.
fn held(stage: &Stage, name: &str) -> Outcome<(Snapshot, String)> {
    stage.user.apply(&manifest(name, 600))?;
    let snapshot = Snapshot::ready(&stage.user, name)?;
    stage.until_reason(&format!("erasnapshot/{name}"), "Readable", "True", "PointInTime")?;
    let status: Value = stage.user.json(&["get", "erasnapshot", name])?["status"].take();
    let device = status["device"].as_str().unwrap_or_default().to_owned();
    if device.is_empty() || status["consistency"] != "CrashConsistent" {
        return Err(format!("not the status of a point in time: {status}").into());
    }
    Ok((snapshot, device))
}

/// Copies it, and reads it once more while the application goes on: it does not change, and takes no writes.
fn read(stage: &Stage, device: &str, replica: &Replica, application: &Application) -> Outcome {
    let copy = replica.device();
    stage
        .node()
        .run(&format!("dd if={device} of={copy} bs=1M iflag=direct oflag=direct status=none"))?;
    application.until_more(20)?;
    stage.node().run(&format!(
        "set -e
blockdev --flushbufs {copy}
dd if={device} bs=1M iflag=direct status=none | cmp - {copy}
! dd if=/dev/zero of={device} bs=4096 count=1 conv=notrunc,fsync 2>/dev/null
test \"$(blockdev --getro {device})\" = 1"
    ))?;
    Ok(())
}

/// Replays the copy's journal, checks it, and compares the records that were acknowledged with those of the volume: of
/// four files in turn, each 4 KiB long.
fn judge(stage: &Stage, volume: &Volume, replica: &Replica, acknowledged: u64) -> Outcome {
    let (live, copy) = (volume.device(), replica.device());
    stage.node().run(&format!(
        "set -e
e2fsck -fy {copy} >/dev/null || test $? = 1
e2fsck -fn {copy}
mkdir -p /run/copy
mount -o ro {copy} /run/copy
at=$(awk -v device={live} '$1 == device {{ print $2; exit }}' /proc/mounts)
test -n \"$at\"
for index in 0 1 2 3; do
    rows=$(( {acknowledged} / 4 + (index <= {acknowledged} % 4) ))
    cmp -n $(( rows * 4096 )) /run/copy/records-$index $at/records-$index
done
umount /run/copy"
    ))?;
    Ok(())
}
