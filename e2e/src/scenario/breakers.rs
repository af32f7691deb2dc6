//! `cluster_breakers`: what breaks a chain, each on a volume of its own and all at the same time: the next snapshot is full
//! and says why, and the one after that goes on from it (docs/chain.md). One of them breaks none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    block_mode::as_block,
    stage::{SOON, Stage, tracking},
};
use crate::{
    cluster::{Application, Volume},
    demo::Snapshot,
    failure::Outcome,
};

/// mkfs.xfs refuses less than 300.
const XFS_MEBIBYTES: u64 = 320;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Ext4,
    Xfs,
    Raw,
}

/// One volume and what is done to it.
struct Breaker {
    claim: &'static str,
    thin: bool,
    content: Content,
    /// On the node, with `$lv` and `$uid` of the volume, and `$state`, its stack's directory. The pod runs.
    script: &'static str,
    /// The same while no pod uses it.
    unused: &'static str,
    reasons: &'static [&'static str],
}

const fn on(claim: &'static str, thin: bool, content: Content) -> Breaker {
    Breaker { claim, thin, content, script: "", unused: "", reasons: &[] }
}

const BREAKERS: [Breaker; 9] = [
    Breaker {
        script: "lvextend --size +16M $lv",
        reasons: &["Resized"],
        ..on("grown", false, Content::Ext4)
    },
    Breaker {
        script: "lvcreate --yes --snapshot --name ${lv#data/}-shot $lv",
        reasons: &["TableReloaded"],
        ..on("shot", true, Content::Xfs)
    },
    Breaker {
        script: "lvchange --refresh $lv",
        reasons: &["TableReloaded"],
        ..on("refreshed", false, Content::Raw)
    },
    // A merge that is over before the agent looks is called by the snapshot that began it.
    Breaker {
        script: "lvcreate --yes --snapshot --size 32M --name ${lv#data/}-before $lv",
        unused: "lvconvert --merge $lv-before",
        reasons: &["RolledBack", "TableReloaded"],
        ..on("merged", false, Content::Xfs)
    },
    // The pool does not delete what our device beneath has open, until the agent has removed that: then LVM goes on.
    Breaker {
        unused: "lvconvert --merge $lv-before || until lvchange --activate y $lv; do sleep 1; done",
        reasons: &["RolledBack"],
        ..on("mergedthin", true, Content::Ext4)
    },
    Breaker {
        unused: "lvchange --activate n $lv && until ! dmsetup ls | grep -q $uid; do sleep 0.2; done && lvchange --activate y $lv",
        reasons: &["Reattached"],
        ..on("away", true, Content::Raw)
    },
    // The kernel has it open: this keeps the chain.
    Breaker { script: "rm $state/era-metadata", ..on("deleted", false, Content::Ext4) },
    // The next boundary finds that its disk has become too small to write to.
    Breaker {
        script: "truncate --size 4K $state/era-metadata && losetup --set-capacity $(losetup -n -O NAME -j $state/era-metadata)",
        reasons: &["MetadataError"],
        ..on("failing", false, Content::Ext4)
    },
    Breaker {
        script: "rm -r $state",
        reasons: &["RecordMismatch"],
        ..on("forgotten", false, Content::Ext4)
    },
];
/// The granularity of this one is changed.
const COARSER: &str = "coarser";

pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-breakers")?;
    stage.node().run("lvcreate --yes --type thin-pool --size 768M --name breakers data")?;
    let mut volumes = BTreeMap::new();
    for breaker in &BREAKERS {
        volumes.insert(breaker.claim, offer(&stage, breaker)?);
    }
    volumes.insert(COARSER, offer(&stage, &on(COARSER, false, Content::Ext4))?);
    let claims: Vec<&str> = volumes.keys().copied().collect();
    begin(&stage, &claims)?;
    let first = snapshots(&stage, &claims, "first")?;
    let granularity = "granularity: 1Mi";
    stage
        .user
        .apply(&tracking(COARSER, &format!("claims: {{names: [{COARSER}]}}, {granularity}")))?;
    for breaker in &BREAKERS {
        act(&stage, &volumes[breaker.claim], breaker.script)?;
    }
    without_pods(&stage, &volumes)?;
    // An insertion is a minute old before another one follows it.
    stage.user.until(
        &format!("eravolume/{COARSER}"),
        "granularity 1Mi",
        SOON,
        |value| match &value["status"]["granularity"] {
            Value::String(granularity) if granularity == "1Mi" => Ok(()),
            other => Err(other.to_string()),
        },
    )?;
    let second = snapshots(&stage, &claims, "second")?;
    write(&stage, &claims)?;
    let third = snapshots(&stage, &claims, "third")?;
    let wrong: Vec<String> = claims
        .iter()
        .filter_map(|&claim| {
            let breaker = BREAKERS.iter().find(|breaker| breaker.claim == claim);
            let reasons = breaker.map_or(&["GranularityChanged"][..], |breaker| breaker.reasons);
            let judged = judge(&first[claim], &second[claim], &third[claim], reasons);
            judged.err().map(|error| format!("{claim}: {error}"))
        })
        .collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n").into());
    }
    stage.close()
}

/// Makes the volume and its claim.
fn offer(stage: &Stage, breaker: &Breaker) -> Outcome<Volume> {
    let mebibytes = if breaker.content == Content::Xfs { XFS_MEBIBYTES } else { 64 };
    let volume = stage.plan(breaker.claim, mebibytes);
    let name = &volume.name;
    let (size, pool) = ("--virtualsize", "--thinpool breakers");
    let create = if breaker.thin {
        format!("lvcreate --yes {size} {mebibytes}M {pool} --name {name} data")
    } else {
        volume.create()
    };
    stage.node().run(&create)?;
    let manifest = match breaker.content {
        Content::Ext4 => volume.manifest(),
        Content::Xfs => {
            volume.manifest().replace("fsType: ext4", "fsType: xfs").replace(", noinit_itable", "")
        }
        Content::Raw => as_block(&volume.manifest()),
    };
    stage.offer(name, &manifest)?;
    Ok(volume)
}

/// One pod that uses all of them, so that they are tracked.
fn begin(stage: &Stage, claims: &[&str]) -> Outcome {
    start(stage, claims)?;
    // Of a time before tracking, as a snapshot that somebody rolls back to is.
    let name = stage.plan("mergedthin", 0).name;
    stage.node().run(&format!("lvcreate --yes --snapshot --name {name}-before data/{name}"))?;
    for claim in claims {
        stage.track(claim)?;
    }
    claims.iter().try_for_each(|claim| stage.until_attached(claim).map(drop))
}

fn start(stage: &Stage, claims: &[&str]) -> Outcome {
    stage.user.apply(&pod(claims))?;
    let ready = ["wait", "--for=condition=Ready", "pod/user", "--timeout=110s"];
    stage.user.run(&ready).map(drop)
}

fn is_raw(claim: &str) -> bool {
    BREAKERS.iter().any(|breaker| breaker.claim == claim && breaker.content == Content::Raw)
}

/// Filesystems are at `/data`, `/data1` and so on, devices at `/dev/` and the claim.
fn pod(claims: &[&str]) -> String {
    let (raw, mounted): (Vec<&str>, Vec<&str>) = claims.iter().partition(|claim| is_raw(claim));
    let manifest = Application::idle("user", &mounted);
    let devices: Vec<String> =
        raw.iter().map(|claim| format!("{{name: {claim}, devicePath: /dev/{claim}}}")).collect();
    let volumes: Vec<String> = raw
        .iter()
        .map(|claim| format!("{{name: {claim}, persistentVolumeClaim: {{claimName: {claim}}}}}, "))
        .collect();
    manifest
        .replace(
            "    volumeMounts:",
            &format!("    volumeDevices: [{}]\n    volumeMounts:", devices.join(", ")),
        )
        .replace("  volumes: [", &format!("  volumes: [{}", volumes.concat()))
}

/// Runs a script on the node for a volume.
fn act(stage: &Stage, volume: &Volume, script: &str) -> Outcome {
    if script.is_empty() {
        return Ok(());
    }
    let of = ["get", "pv", &volume.name, "-o", "jsonpath={.metadata.uid}"];
    let uid = stage.cluster().kubectl().run(&of)?;
    let lv = format!("data/{}", volume.name);
    let preamble = format!("lv={lv}; uid={uid}; state=/var/lib/eratrack/{uid}");
    stage.node().run(&format!("{preamble}\n{script}")).map(drop)
}

/// Ends the pod, does what nobody may have a volume open for, and starts it again.
fn without_pods(stage: &Stage, volumes: &BTreeMap<&str, Volume>) -> Outcome {
    stage.user.run(&["delete", "pod", "user", "--grace-period=1"])?;
    // The kubelet unmounts after the pod's containers have ended, and before the pod is gone.
    for breaker in &BREAKERS {
        act(stage, &volumes[breaker.claim], breaker.unused)?;
    }
    start(stage, &volumes.keys().copied().collect::<Vec<_>>())
}

/// A few blocks into each.
fn write(stage: &Stage, claims: &[&str]) -> Outcome {
    let mut mounts = 0;
    let commands: Vec<String> = claims
        .iter()
        .map(|claim| {
            if is_raw(claim) {
                return format!(
                    "dd if=/dev/urandom of=/dev/{claim} bs=64k count=4 seek=100 conv=notrunc,fsync"
                );
            }
            let at = if mounts == 0 { String::new() } else { mounts.to_string() };
            mounts += 1;
            format!("dd if=/dev/urandom of=/data{at}/file bs=64k count=4 conv=fsync")
        })
        .collect();
    stage.user.run(&["exec", "user", "--", "sh", "-ec", &commands.join("\n")]).map(drop)
}

/// Asks for a snapshot of each, all at once, and waits for them.
fn snapshots<'a>(
    stage: &Stage,
    claims: &[&'a str],
    round: &str,
) -> Outcome<BTreeMap<&'a str, Snapshot>> {
    let manifests: Vec<String> =
        claims.iter().map(|claim| Snapshot::manifest(&format!("{claim}-{round}"), claim)).collect();
    stage.user.apply(&manifests.join("---\n"))?;
    let ready = |claim: &&'a str| {
        let snapshot = Snapshot::ready(&stage.user, &format!("{claim}-{round}"))?;
        Ok((*claim, snapshot))
    };
    claims.iter().map(ready).collect()
}

/// Without reasons the second snapshot goes on from the first.
fn judge(first: &Snapshot, second: &Snapshot, third: &Snapshot, reasons: &[&str]) -> Outcome {
    let told = second.kind == "Full"
        && reasons.contains(&second.full_reason.as_str())
        && second.chain != first.chain;
    if first.kind != "Full" || !(told || reasons.is_empty() && goes_on(first, second)) {
        return Err(format!("not full for one of {reasons:?}: {second:?}, after {first:?}").into());
    }
    if goes_on(second, third) && third.blocks.count() > 0 {
        return Ok(());
    }
    Err(format!("does not go on from {second:?}: {third:?}").into())
}

fn goes_on(before: &Snapshot, after: &Snapshot) -> bool {
    after.kind == "Incremental" && after.since == Some(before.era) && after.chain == before.chain
}

/// `cluster_tracking_again`: tracking that is ended and begun again is a new chain.
pub(super) fn tracking_again() -> Outcome {
    let stage = Stage::open("cluster-tracking-again")?;
    let (_, application) = stage.tracked("data", 64)?;
    stage.user.apply(&Snapshot::manifest("before", "data"))?;
    let before = Snapshot::ready(&stage.user, "before")?;
    stage.user.run(&["delete", "eratracking", "data"])?;
    stage.user.run(&["wait", "--for=delete", "eravolume/data", "--timeout=100s"])?;
    stage.track("data")?;
    stage.user.until("eravolume/data", "to exist", SOON, |_| Ok(()))?;
    stage.until_attached("data")?;
    application.until_more(5)?;
    stage.user.apply(&Snapshot::manifest("after", "data"))?;
    let after = Snapshot::ready(&stage.user, "after")?;
    if after.kind != "Full" || after.full_reason != "Reattached" || after.chain == before.chain {
        return Err(format!("not full because it was attached again: {after:?}").into());
    }
    stage.close()
}
