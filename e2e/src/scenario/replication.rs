//! `cluster_replication`: claims that follow others through random writes, discards and what LVM does, compared byte for byte
//! after each round; and claims that may not be replicas.

use std::time::Duration;

use serde_json::Value;

use super::{
    block_mode::as_block,
    stage::{SOON, Stage, tracking},
};
use crate::{
    cluster::{Application, NAMESPACE, Volume},
    failure::Outcome,
};

/// How often all three are written, copied and compared: sixty comparisons.
const ROUNDS: u64 = 20;
/// After a chain broke, everything is copied again; an insertion is a minute old before another follows it.
const AGAIN: Duration = Duration::from_secs(180);

/// A claim, what is in it, and what is done to its volume in which round: on the node, with `$lv`.
struct Source {
    claim: &'static str,
    content: &'static str,
    mebibytes: u64,
    spec: &'static str,
    lvm: (u64, &'static str),
}

const SOURCES: [Source; 3] = [
    Source {
        claim: "ext4",
        content: "ext4",
        mebibytes: 64,
        spec: "verify: true",
        lvm: (3, "lvextend --size +16M $lv"),
    },
    // mkfs.xfs refuses less than 300.
    Source {
        claim: "xfs",
        content: "xfs",
        mebibytes: 320,
        spec: "verify: false",
        lvm: (6, "lvchange --refresh $lv"),
    },
    Source {
        claim: "raw",
        content: "raw",
        mebibytes: 64,
        spec: "maxBytesPerSecond: 16777216",
        lvm: (
            9,
            "lvcreate --yes --snapshot --size 8M --name ${lv#data/}-shot $lv && lvremove --yes $lv-shot",
        ),
    },
];

struct Pair {
    source: &'static Source,
    volume: Volume,
    copy: Volume,
}

pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-replication")?;
    let pairs: Vec<Pair> =
        SOURCES.iter().map(|source| offer(&stage, source)).collect::<Outcome<_>>()?;
    stage.user.apply(&pod())?;
    stage.user.run(&["wait", "--for=condition=Ready", "pod/user", "--timeout=110s"])?;
    for pair in &pairs {
        stage.user.apply(&following(pair))?;
    }
    kill_the_copier(&stage)?;
    for pair in &pairs {
        until_equal(&stage, pair, "no copy yet", |name, _| name.contains("-rep-"))?;
    }
    for round in 1..=ROUNDS {
        one_round(&stage, &pairs, round).map_err(|error| format!("round {round}: {error}"))?;
    }
    judge(&stage, &pairs)?;
    strange_writes(&stage, &pairs)?;
    refusals(&stage)?;
    stage.close()
}

fn offer(stage: &Stage, source: &'static Source) -> Outcome<Pair> {
    let volume = stage.plan(source.claim, source.mebibytes);
    stage.node().run(&volume.create())?;
    let manifest = match source.content {
        "ext4" => volume.manifest(),
        "xfs" => {
            volume.manifest().replace("fsType: ext4", "fsType: xfs").replace(", noinit_itable", "")
        }
        _ => as_block(&volume.manifest()),
    };
    stage.offer(&volume.name, &manifest)?;
    // There is room for what the source will be extended by.
    let copy = target(
        stage,
        &format!("{}-copy", source.claim),
        source.mebibytes + 16,
        Some(source.claim),
    )?;
    Ok(Pair { source, volume, copy })
}

/// A claim of a blank logical volume; it asks to be a replica, if a source is given.
fn target(stage: &Stage, claim: &str, mebibytes: u64, of: Option<&str>) -> Outcome<Volume> {
    let copy = stage.plan(claim, mebibytes);
    stage.node().run(&format!("{} && blkdiscard --zeroout {}", copy.create(), copy.device()))?;
    stage.offer(&copy.name, &as_block(&copy.manifest()))?;
    if let Some(source) = of {
        stage.user.run(&[
            "annotate",
            "pvc",
            claim,
            &format!("eratrack.dev/replica-of={source}"),
        ])?;
    }
    Ok(copy)
}

fn following(pair: &Pair) -> String {
    let (claim, spec) = (pair.source.claim, pair.source.spec);
    let replica = format!("replica: {{claimName: {claim}-copy, {spec}}}");
    tracking(claim, &format!("claims: {{names: [{claim}]}}, granularity: 64Ki, {replica}"))
}

/// Filesystems are at `/data` and `/data1`, the device at `/dev/raw`.
fn pod() -> String {
    Application::idle("user", &["ext4", "xfs"])
        .replace(
            "    volumeMounts:",
            "    volumeDevices: [{name: raw, devicePath: /dev/raw}]\n    volumeMounts:",
        )
        .replace(
            "  volumes: [",
            "  volumes: [{name: raw, persistentVolumeClaim: {claimName: raw}}, ",
        )
}

/// In the middle of a full copy that the rate limit makes long.
fn kill_the_copier(stage: &Stage) -> Outcome {
    stage.user.until("eravolume/raw", "a copy under way", SOON, |volume| {
        let copied = volume["status"]["replica"]["copiedBytes"].as_u64().unwrap_or_default();
        if copied > 0 { Ok(()) } else { Err(volume["status"]["replica"].to_string()) }
    })?;
    stage.node().run("pkill -KILL -x -f '/eratrack agent.*'")?;
    let agents = "app.kubernetes.io/component=agent";
    let cluster = stage.cluster().kubectl();
    let delete = ["delete", "pod", "-n", NAMESPACE, "-l", agents, "--force", "--wait=false"];
    cluster.run(&delete).map(drop)
}

/// Waits until the replica equals a snapshot of that kind, by name and status of the replica.
fn until_equal(
    stage: &Stage,
    pair: &Pair,
    full_reason: &str,
    is_it: impl Fn(&str, &Value) -> bool,
) -> Outcome<String> {
    let object = format!("eravolume/{}", pair.source.claim);
    stage.user.until(&object, "a replica that equals a snapshot", AGAIN, |volume| {
        let replica = &volume["status"]["replica"];
        let equals = replica["equals"]["name"].as_str().unwrap_or_default();
        let why = replica["fullReason"].as_str().unwrap_or_default();
        if !equals.is_empty() && is_it(equals, replica) && why.contains(full_reason) {
            Ok(equals.to_owned())
        } else {
            Err(replica.to_string())
        }
    })
}

/// Writes, discards and, in its round, what LVM does; then everything stands still for a snapshot and the comparison.
fn one_round(stage: &Stage, pairs: &[Pair], round: u64) -> Outcome {
    let mut noise = Noise(round);
    let writes: Vec<String> = vec![
        files("/data", &mut noise),
        files("/data1", &mut noise),
        pages("/dev/raw", 64, &mut noise),
    ];
    stage.user.run(&["exec", "user", "--", "sh", "-ec", &writes.join("\n")])?;
    stage.node().run(&discards(pairs, &mut noise))?;
    let reloaded = pairs.iter().find(|pair| pair.source.lvm.0 == round);
    if let Some(pair) = reloaded {
        break_chain(stage, pair)?;
    }
    stage.node().run(&frozen(pairs, "-f"))?;
    let copied = copy(stage, pairs, round, reloaded);
    let compared = copied.and_then(|()| compare(stage, pairs));
    stage.node().run(&frozen(pairs, "-u"))?;
    compared
}

/// Does what LVM does, and waits until the chain is another.
fn break_chain(stage: &Stage, pair: &Pair) -> Outcome {
    let object = format!("eravolume/{}", pair.source.claim);
    let chain = |volume: &Value| volume["status"]["chain"]["id"].as_str().map(String::from);
    let before = chain(&stage.user.json(&["get", "eravolume", pair.source.claim])?);
    let script = pair.source.lvm.1;
    stage.node().run(&format!("lv=data/{}; {script}", pair.volume.name))?;
    stage.user.until(&object, "another chain", AGAIN, |volume| match chain(volume) {
        Some(now) if Some(&now) != before.as_ref() => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// Has all three made equal to what the volumes are now.
fn copy(stage: &Stage, pairs: &[Pair], round: u64, broken: Option<&Pair>) -> Outcome {
    let now = format!("eratrack.dev/snapshot-now=round-{round}");
    if let Some(pair) = broken {
        // Everything is copied, and brought to a point in time without a schedule.
        until_equal(stage, pair, "the chain", |name, _| name.contains("-rep-"))?;
    }
    let claims: Vec<&str> = pairs.iter().map(|pair| pair.source.claim).collect();
    let annotate = [&["annotate", "--overwrite", "eratracking"], &claims[..], &[&now]].concat();
    stage.user.run(&annotate)?;
    for claim in claims {
        let name = stage.user.until_any(
            &["erasnapshots"],
            &format!("a snapshot of {claim} in round {round}"),
            SOON,
            |snapshot| {
                let asked = &snapshot["metadata"]["annotations"]["eratrack.dev/snapshot-now"];
                let it =
                    *asked == format!("round-{round}") && snapshot["spec"]["claimName"] == claim;
                let name = snapshot["metadata"]["name"].as_str().unwrap_or_default();
                if it { Ok(name.to_owned()) } else { Err(String::new()) }
            },
        )?;
        let pair = pairs.iter().find(|pair| pair.source.claim == claim).ok_or("a claim")?;
        until_equal(stage, pair, "", |equals, _| equals == name)?;
    }
    Ok(())
}

/// Both devices around every cache, over the whole of the source.
fn compare(stage: &Stage, pairs: &[Pair]) -> Outcome {
    let compared: Vec<String> = pairs
        .iter()
        .map(|pair| {
            let (from, to) = (pair.volume.device(), pair.copy.device());
            format!(
                "size=$(blockdev --getsize64 {from})
blockdev --setra 16384 --flushbufs {to}
dd if={from} bs=4M iflag=direct status=none | cmp -n $size - {to} || {{ echo {from} differs; exit 1; }}"
            )
        })
        .collect();
    stage.node().run(&format!("set -e\n{}", compared.join("\n"))).map(drop)
}

/// Freezes or thaws what is mounted, and writes back what is not.
fn frozen(pairs: &[Pair], how: &str) -> String {
    let mounted = pairs.iter().filter(|pair| pair.source.content != "raw");
    let each: Vec<String> = mounted
        .map(|pair| {
            format!(
                "at=$(awk -v device={} '$1 == device {{ print $2; exit }}' /proc/mounts)\nfsfreeze {how} $at",
                pair.volume.device()
            )
        })
        .collect();
    format!("set -e\nsync\n{}", each.join("\n"))
}

/// Trims what the filesystems have free, and discards a part of the device; while nothing holds a point in time.
fn discards(pairs: &[Pair], noise: &mut Noise) -> String {
    let each: Vec<String> = pairs
        .iter()
        .map(|pair| {
            let device = pair.volume.device();
            if pair.source.content == "raw" {
                let (offset, length) = (noise.below(48) << 20, (noise.below(8) + 1) << 20);
                return format!("blkdiscard --force --offset {offset} --length {length} {device} || true");
            }
            format!(
                "at=$(awk -v device={device} '$1 == device {{ print $2; exit }}' /proc/mounts)\nfstrim $at || true"
            )
        })
        .collect();
    each.join("\n")
}

/// Some of eight files are written here and there, and one goes.
fn files(at: &str, noise: &mut Noise) -> String {
    let mut commands = vec![format!("rm -f {at}/file{}", noise.below(8))];
    for _ in 0..4 {
        let (file, seek, count) = (noise.below(8), noise.below(64), noise.below(16) + 1);
        commands.push(format!(
            "dd if=/dev/urandom of={at}/file{file} bs=16k seek={seek} count={count} conv=notrunc,fsync"
        ));
    }
    commands.join("\n")
}

/// A few runs of pages of a device of so many MiB.
fn pages(device: &str, mebibytes: u64, noise: &mut Noise) -> String {
    let write = |noise: &mut Noise| {
        let (seek, count) = (noise.below((mebibytes << 8) - 64), noise.below(64) + 1);
        format!("dd if=/dev/urandom of={device} bs=4k seek={seek} count={count} conv=notrunc,fsync")
    };
    (0..8).map(|_| write(noise)).collect::<Vec<_>>().join("\n")
}

/// The same numbers in each run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What is said of them, and whether a filesystem is on each.
fn judge(stage: &Stage, pairs: &[Pair]) -> Outcome {
    for pair in pairs {
        let claim = pair.source.claim;
        stage.until_reason(
            &format!("eratracking/{claim}"),
            "ReplicaCurrent",
            "True",
            "ReplicaFollowing",
        )?;
        let replica: Value =
            stage.user.json(&["get", "eravolume", claim])?["status"]["replica"].take();
        let figure = |field: &str| replica[field].as_u64();
        let whole = figure("copiedBytes") == figure("totalBytes")
            && figure("durationMilliseconds").is_some();
        let verified = replica["verifiedTime"].is_string() == (claim == "ext4");
        if !whole || !verified || replica["claimName"] != format!("{claim}-copy") {
            return Err(format!("not the status of {claim}: {replica}").into());
        }
    }
    let ext4 = pairs[0].copy.device();
    // The log of a frozen XFS is to be replayed; a snapshot of the replica takes the writes of that.
    let xfs_lv = format!("data/{}", pairs[1].copy.name);
    stage.node().run(&format!(
        "set -e
e2fsck -fn {ext4}
lvcreate --yes --snapshot --size 32M --name replica-look {xfs_lv}
mkdir -p /run/look
mount -o nouuid {look} /run/look
umount /run/look
xfs_repair -n {look}
lvremove --yes data/replica-look",
        look = "/dev/mapper/data-replica--look"
    ))?;
    Ok(())
}

/// While somebody mounts a replica nothing is copied into it, and what was written to it meanwhile has everything copied
/// again.
fn strange_writes(stage: &Stage, pairs: &[Pair]) -> Outcome {
    let pair = &pairs[0];
    let copy = pair.copy.device();
    stage.node().run(&format!(
        "mkdir -p /run/strange && mount {copy} /run/strange && date >/run/strange/note"
    ))?;
    stage.user.run(&[
        "annotate",
        "--overwrite",
        "eratracking",
        "ext4",
        "eratrack.dev/snapshot-now=strange",
    ])?;
    let told = stage.until_reason("eratracking/ext4", "ReplicaCurrent", "False", "ReplicaInUse")?;
    if !told.contains("ext4-copy") {
        return Err(format!("the message does not name the claim: {told}").into());
    }
    stage.until_reason("eratracking/ext4", "Ready", "False", "ReplicaInUse")?;
    stage.node().run("umount /run/strange")?;
    until_equal(stage, pair, "somebody else", |name, _| name.contains("-rep-"))?;
    stage.node().run(&frozen(&pairs[..1], "-f"))?;
    let copied = copy_again(stage, pair);
    let compared = copied.and_then(|()| compare(stage, &pairs[..1]));
    stage.node().run(&frozen(&pairs[..1], "-u"))?;
    compared
}

fn copy_again(stage: &Stage, pair: &Pair) -> Outcome {
    copy(stage, std::slice::from_ref(pair), ROUNDS + 1, None)
}

/// A claim that may not be a replica of `other`, why, and what the message names.
const REFUSED: [(&str, &str, &str); 8] = [
    ("other", "ReplicaIsSource", "other"),
    ("nowhere", "ReplicaClaimNotFound", "nowhere"),
    ("unasked", "ReplicaNotAskedFor", "eratrack.dev/replica-of"),
    ("mounted", "ReplicaNotBlock", "Filesystem"),
    ("away", "ReplicaElsewhere", "away"),
    ("small", "ReplicaTooSmall", "48Mi"),
    ("dirty", "ReplicaNotBlank", "dirty"),
    ("directory", "ReplicaDeviceNotFound", "/srv"),
];

fn refusals(stage: &Stage) -> Outcome {
    stage.volume("other", 64)?;
    stage.user.apply(&Application::idle("other", &["other"]))?;
    target(stage, "unasked", 64, None)?;
    target(stage, "small", 48, Some("other"))?;
    let dirty = target(stage, "dirty", 64, Some("other"))?;
    stage.node().run(&format!("mkfs.xfs -q -f {0} || mkfs.ext4 -q -F {0}", dirty.device()))?;
    let before = stage.node().run(&format!("cksum {}", dirty.device()))?;
    stage.volume("mounted", 64)?;
    for (claim, from, to) in
        [("away", "values: [", "values: [not-"), ("directory", "/dev/mapper/", "/srv/")]
    {
        let volume = stage.plan(claim, 64);
        stage.offer(&volume.name, &as_block(&volume.manifest()).replace(from, to))?;
    }
    for claim in ["mounted", "away", "directory", "other"] {
        stage.user.run(&["annotate", "pvc", claim, "eratrack.dev/replica-of=other"])?;
    }
    let mut wrong = Vec::new();
    for (claim, reason, names) in REFUSED {
        let replica = format!("replica: {{claimName: {claim}}}");
        stage.user.apply(&tracking("other", &format!("claims: {{names: [other]}}, {replica}")))?;
        match stage.until_reason("eratracking/other", "ReplicaCurrent", "False", reason) {
            Ok(message) if message.contains(names) => {}
            Ok(message) => {
                wrong.push(format!("{claim}: the message does not name {names}: {message}"));
            }
            Err(error) => wrong.push(format!("{claim}: {error}")),
        }
    }
    stage.user.apply(&tracking(
        "other",
        "claims: {names: [other, unasked]}, replica: {claimName: small}",
    ))?;
    stage.until_reason("eratracking/other", "ReplicaCurrent", "False", "ReplicaNeedsOneClaim")?;
    // The claim is tracked all the same, and what was not blank is as it was.
    stage.until_attached("other")?;
    if stage.node().run(&format!("cksum {}", dirty.device()))? != before {
        wrong.push("what was in the dirty claim was changed".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
