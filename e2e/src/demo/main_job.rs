//! The main job in seven steps. Each step is a check that fails when the step fails.

use std::time::Duration;

use serde_json::Value;

use super::{Snapshot, Story};
use crate::{
    cluster::{
        Application, Blocks, Cluster, Incarnation, Kubectl, NAMESPACE, Node, Product, Replica,
        Volume, condition, create_group, device_places, ensure_group, left_on_node,
    },
    failure::Outcome,
};

/// The claim, as the samples name it; the EraVolume is named like it.
const CLAIM: &str = "data";
/// The EraTracking of the sample.
const TRACKING: &str = "eratracking/data";
const VOLUME: &str = "eravolume/data";
const MEBIBYTES: u64 = 192;
const SAMPLE: &str = "manifests/samples/one-claim.yaml";

/// What takes a machine a second, and a busy one a minute.
const SOON: Duration = Duration::from_secs(150);

/// The job, and what its steps know of each other.
#[derive(Debug)]
pub(crate) struct MainJob<'a> {
    cluster: &'a Cluster,
    product: &'a Product,
    user: Kubectl,
    application: Application,
    volume: Volume,
    replica: Replica,
    /// Bytes copied to the replica by lists.
    copied: u64,
}

impl<'a> MainJob<'a> {
    /// The namespace of the demo's user.
    pub(crate) const NAMESPACE: &'static str = "demo";

    /// The job on this cluster.
    pub(crate) fn new(cluster: &'a Cluster, product: &'a Product) -> Self {
        let user = cluster.kubectl().in_namespace(Self::NAMESPACE);
        let volume = Volume {
            name: "app".to_owned(),
            namespace: Self::NAMESPACE.to_owned(),
            claim: CLAIM.to_owned(),
            mebibytes: MEBIBYTES,
        };
        let application = Application::new(&user, "app");
        let replica = Replica::of(&volume);
        Self { cluster, product, user, application, volume, replica, copied: 0 }
    }

    /// Does it all.
    pub(crate) fn run(mut self, story: &mut Story) -> Outcome {
        self.an_application_writes(story)?;
        let (incarnation, table) = (self.application.incarnation()?, self.table()?);
        self.install(story)?;
        self.track(story, &incarnation, &table)?;
        let first = self.full_snapshot(story)?;
        let second = self.incremental_snapshot(story, &first)?;
        let third = self.replicate_quiesced(story, &second)?;
        let scheduled = self.schedule(story, &third)?;
        self.restart_the_agent(story)?;
        self.schedule_keeps(story, &scheduled)?;
        self.stop_tracking(story, &table)?;
        self.nothing_was_lost(story, &incarnation)
    }

    fn node(&self) -> &Node {
        self.cluster.node()
    }

    /// The live table of the user's device.
    fn table(&self) -> Outcome<String> {
        self.node().run(&format!("dmsetup table {}", self.volume.dm_name()))
    }

    /// The number of the volume's era device, `major:minor`.
    fn era_device(&self) -> Outcome<String> {
        let uid = ["get", "pv", &self.volume.name, "-o", "jsonpath={.metadata.uid}"];
        let name = format!("eratrack-{}-era", self.cluster.kubectl().run(&uid)?);
        let number = "dmsetup info -c --noheadings --separator : -o major,minor";
        Ok(self.node().run(&format!("{number} {name}"))?.trim().to_owned())
    }

    fn an_application_writes(&self, story: &mut Story) -> Outcome {
        story.step("1. A volume on LVM, and an application that writes to it")?;
        let group = create_group();
        if self.node().script("vgs data")?.success {
            ensure_group(self.node())?;
        } else {
            story.on_node(self.node(), &group)?;
        }
        story.on_node(self.node(), &self.volume.create())?;
        story.kubectl(self.cluster.kubectl(), &["create", "namespace", Self::NAMESPACE])?;
        story.apply(&self.user, &self.volume.manifest())?;
        story.apply(&self.user, &Application::manifest(&self.application.name, CLAIM))?;
        story.wait("waiting for the application's first records", || {
            self.application.until_writing()
        })?;
        story.kubectl(&self.user, &["get", "pvc,pod"])?;
        story.kubectl(&self.user, &["logs", &self.application.name, "--tail=3"])?;
        Ok(())
    }

    fn install(&self, story: &mut Story) -> Outcome {
        story.step("2. Install eratrack and track the claim, under the running application")?;
        let size = self.product.image_bytes;
        story.say(&format!("  The image: one static binary, {}.", mebibytes(size)))?;
        let cluster = self.cluster;
        cluster.ensure_installed(|arguments| story.helm(cluster.helm(), arguments))?;
        story.kubectl(self.cluster.kubectl(), &["get", "pods", "-n", NAMESPACE])?;
        Ok(())
    }

    fn track(&self, story: &mut Story, incarnation: &Incarnation, table: &str) -> Outcome {
        story.on_node(self.node(), "dmsetup ls --tree")?;
        self.application.lap()?;
        let manifest = std::fs::read_to_string(crate::paths::workspace().join(SAMPLE))?;
        story.show(SAMPLE, &manifest)?;
        story.kubectl(&self.user, &["apply", "-f", SAMPLE])?;
        story.wait("waiting until every write is recorded", || {
            self.user.until_condition(VOLUME, "Attached", "True", SOON).map(drop)
        })?;
        story.kubectl(&self.user, &["get", "evol"])?;
        let tree = story.on_node(self.node(), "dmsetup ls --tree")?;
        let inserted = tree.contains("eratrack-") && tree.contains("-era ");
        story.check(inserted, "era lies beneath the volume", &tree)?;
        let (now, era) = (self.table()?, self.era_device()?);
        let leads = now != table && now.lines().all(|line| line.contains(&format!(" {era} ")));
        story.check(leads, "the volume's table leads to era", &format!("{now}, era is {era}"))?;
        self.application.until_more(20)?;
        self.unnoticed(story, incarnation, "while era was put in")
    }

    /// The application runs as it did. How long it waited for a record is told and not judged:
    /// it depends on what else the machine does, and `cargo e2e bench stall` measures it.
    fn unnoticed(&self, story: &mut Story, before: &Incarnation, when: &str) -> Outcome {
        let now = self.application.incarnation()?;
        story.check(now == *before, "the application was not restarted", &format!("{now:?}"))?;
        let status = self.application.lap()?;
        let gap = status.longest_gap_ms;
        story.say(&format!("  the longest time between two of its records {when}: {gap} ms"))
    }

    fn full_snapshot(&self, story: &mut Story) -> Outcome<Snapshot> {
        story.step("3. A first snapshot, a replica, a second snapshot")?;
        self.application.pattern(0, KNOWN_BYTES, 1)?;
        let first = self.snapshot(story, "first")?;
        story.kubectl(&self.user, &["get", "esnap"])?;
        let full = first.kind == "Full" && !first.full_reason.is_empty() && first.since.is_none();
        story.check(full, "the first snapshot is full, and says why", &format!("{first:?}"))?;
        let all = first.blocks.bytes() >= self.volume.bytes();
        story.check(all, "it lists the whole volume", &first.blocks.bytes().to_string())?;
        story.wait("waiting until the chain is intact", || {
            self.user.until_condition(VOLUME, "TrackingIntact", "True", SOON).map(drop)
        })?;
        story.say(
            "\n  The replica: another volume, a copy of all, made while the application writes.",
        )?;
        story.on_node(self.node(), &self.replica.create())?;
        story.on_node(self.node(), &self.replica.copy_all())?;
        Ok(first)
    }

    fn incremental_snapshot(&mut self, story: &mut Story, first: &Snapshot) -> Outcome<Snapshot> {
        story.say("\n  Known patterns at known offsets of a file, through the filesystem:")?;
        for (seed, (offset, length)) in (2..).zip(PATTERNS) {
            let (offset, length, seed) =
                (offset.to_string(), length.to_string(), format!("{seed}"));
            let words = ["pattern", "known", &offset, &length, &seed];
            story.kubectl(&self.user, &self.application.asking(&words))?;
        }
        self.application.until_more(50)?;
        let second = self.snapshot(story, "second")?;
        story.kubectl(&self.user, &["get", "esnap"])?;
        Self::follows(story, &second, first)?;
        story.kubectl(&self.user, &["get", "cbs"])?;
        story.kubectl(&self.user, &["get", "cbs", "second-0", "-o", "jsonpath={.ranges}"])?;
        self.lists_the_patterns(story, &second.blocks)?;
        let (listed, all) = (second.blocks.bytes(), self.volume.bytes());
        let what = format!("{} of {} are listed", mebibytes(listed), mebibytes(all));
        story.check(listed < all / 2, &what, "")?;
        self.copy_listed(story, &second)?;
        Ok(second)
    }

    /// `next` is the next link of the chain after `base`.
    fn follows(story: &mut Story, next: &Snapshot, base: &Snapshot) -> Outcome {
        let linked = next.kind == "Incremental"
            && next.chain == base.chain
            && next.base == base.name
            && next.since == Some(base.era)
            && next.era > base.era;
        let what = format!("{} is incremental, since the era of {}", next.name, base.name);
        story.check(linked, &what, &format!("{next:?}\nafter {base:?}"))
    }

    /// Where the patterns lie on the device is what the filesystem says; those blocks must be listed.
    fn lists_the_patterns(&self, story: &mut Story, blocks: &Blocks) -> Outcome {
        let mount = self.mount()?;
        let map = story.on_node(self.node(), &format!("filefrag -v -b4096 {mount}/known"))?;
        for (offset, length) in PATTERNS {
            let places = device_places(&map, offset, length)?;
            let missing: Vec<_> =
                places.iter().filter(|(at, length)| !blocks.cover(*at, *length)).collect();
            let what =
                format!("the blocks of the pattern at {offset} of {length} bytes are listed");
            story.check(missing.is_empty(), &what, &format!("not listed: {missing:?}"))?;
        }
        Ok(())
    }

    /// Where the volume is mounted on the node.
    fn mount(&self) -> Outcome<String> {
        let find =
            format!("findmnt --noheadings --output TARGET --source {}", self.volume.device());
        let mounts = self.node().run(&find)?;
        Ok(mounts.lines().next().ok_or("the volume is not mounted")?.trim().to_owned())
    }

    fn snapshot(&self, story: &mut Story, name: &str) -> Outcome<Snapshot> {
        story.apply(&self.user, &Snapshot::manifest(name, CLAIM))?;
        let user = &self.user;
        story.wait(&format!("waiting for the snapshot {name}"), || Snapshot::ready(user, name))
    }

    fn copy_listed(&mut self, story: &mut Story, snapshot: &Snapshot) -> Outcome {
        let (replica, node) = (&self.replica, self.cluster.node());
        let what =
            format!("copying the {} blocks that {} lists", snapshot.blocks.count(), snapshot.name);
        self.copied += story.wait(&what, || replica.copy_listed(node, &snapshot.blocks))?;
        Ok(())
    }

    fn replicate_quiesced(&mut self, story: &mut Story, second: &Snapshot) -> Outcome<Snapshot> {
        story.step("4. Quiesce, a third snapshot, and only its blocks make the replica equal")?;
        story.kubectl(&self.user, &self.application.asking(&["quiesce"]))?;
        story.on_node(self.node(), &format!("sync -f {}", self.mount()?))?;
        let mut last = second.clone();
        // The filesystem may have a word of its own to write afterwards, such as its superblock: once more, then.
        for name in ["third", "third-again", "third-at-last"] {
            let written = self.writes()?;
            let third = self.snapshot(story, name)?;
            Self::follows(story, &third, &last)?;
            self.copy_listed(story, &third)?;
            last = third;
            if self.writes()? == written {
                break;
            }
        }
        story.on_node(self.node(), &self.replica.compare())?;
        let (copied, all) = (mebibytes(self.copied), mebibytes(self.volume.bytes()));
        let what = format!(
            "volume and replica are equal, byte for byte; copied by the lists: {copied} of {all}"
        );
        story.say(&format!("  ok: {what}"))?;
        story.kubectl(&self.user, &self.application.asking(&["continue"]))?;
        self.application.until_more(5)?;
        Ok(last)
    }

    /// How many writes the device has completed (Documentation/block/stat.rst, fifth field).
    fn writes(&self) -> Outcome<String> {
        let minor = format!("dmsetup info -c --noheadings -o minor {}", self.volume.dm_name());
        let script = format!("cat /sys/block/dm-$({minor})/stat");
        let stat = self.node().run(&script)?;
        Ok(stat.split_whitespace().nth(4).ok_or("a block device without statistics")?.to_owned())
    }

    fn schedule(&self, story: &mut Story, third: &Snapshot) -> Outcome<Snapshot> {
        story.step("5. A snapshot every minute, of which the last one is kept")?;
        let patch = r#"{"spec":{"snapshots":{"schedule":"* * * * *","keep":{"last":1}}}}"#;
        story.kubectl(&self.user, &["patch", TRACKING, "--type=merge", "-p", patch])?;
        let name = story.wait("waiting for the minute", || self.until_scheduled(None))?;
        let scheduled =
            story.wait("and for its snapshot", || Snapshot::ready(&self.user, &name))?;
        story.kubectl(&self.user, &["get", "et,esnap"])?;
        Self::follows(story, &scheduled, third)?;
        Ok(scheduled)
    }

    /// Waits for a snapshot that the schedule made, other than `known`; its name.
    fn until_scheduled(&self, known: Option<&str>) -> Outcome<String> {
        let deadline = Duration::from_secs(100);
        self.user.until_any(&["erasnapshots"], "the schedule's snapshot", deadline, |snapshot| {
            let name = snapshot["metadata"]["name"].as_str().unwrap_or_default();
            let fresh = Snapshot::is_scheduled(snapshot) && Some(name) != known;
            fresh.then(|| name.to_owned()).ok_or_else(|| format!("{name} is another one"))
        })
    }

    fn restart_the_agent(&self, story: &mut Story) -> Outcome {
        story.step("6. Restart the agent while the application writes")?;
        let (incarnation, table) = (self.application.incarnation()?, self.table()?);
        let chain = self.chain()?;
        self.application.lap()?;
        let selector = "app.kubernetes.io/component=agent";
        let (admin, of) = (self.cluster.kubectl(), ["-n", NAMESPACE]);
        let old = admin.run(&[&["get", "pods", "-l", selector, "-o", "name"][..], &of].concat())?;
        story.kubectl(admin, &[&["delete", "pod", "-l", selector][..], &of].concat())?;
        story.wait("waiting for the new agent", || {
            let rollout = ["rollout", "status", "daemonset", "-l", selector, "--timeout=90s"];
            admin.run(&[&rollout[..], &of].concat())?;
            self.user.until_condition(VOLUME, "Ready", "True", SOON).map(drop)
        })?;
        let new = admin.run(&[&["get", "pods", "-l", selector, "-o", "name"][..], &of].concat())?;
        story.kubectl(&self.user, &["get", "evol"])?;
        story.check(old != new, "it is another pod", &new)?;
        let (table_now, chain_now) = (self.table()?, self.chain()?);
        story.check(table_now == table, "the device's table is untouched", &table_now)?;
        let intact = chain_now == chain && chain_now.1 == "True";
        story.check(intact, "the chain is the same, and intact", &format!("{chain_now:?}"))?;
        self.application.until_more(5)?;
        self.unnoticed(story, &incarnation, "meanwhile")
    }

    /// The chain's identity, and whether it is intact.
    fn chain(&self) -> Outcome<(Value, Value)> {
        let volume = self.user.json(&["get", VOLUME])?;
        let intact = condition(&volume, "TrackingIntact").map(|it| it["status"].clone());
        Ok((volume["status"]["chain"]["id"].clone(), intact.unwrap_or_default()))
    }

    fn schedule_keeps(&self, story: &mut Story, before: &Snapshot) -> Outcome {
        story.say("\n  The schedule goes on:")?;
        let name =
            story.wait("waiting for the minute", || self.until_scheduled(Some(&before.name)))?;
        let next = story.wait("and for its snapshot", || Snapshot::ready(&self.user, &name))?;
        // On a busy machine the schedule may have made another one in between. The one before goes, and is merged into this
        // one, which then refers to what that one referred to.
        let linked = next.kind == "Incremental"
            && next.chain == before.chain
            && (next.since.is_some_and(|since| since >= before.era) || next.since == before.since);
        let what = format!("{} continues the chain of {}", next.name, before.name);
        story.check(linked, &what, &format!("{next:?}\nafter {before:?}"))?;
        self.user.until_gone(&format!("erasnapshot/{}", before.name), SOON)?;
        self.user.until_gone(&format!("changedblockslice/{}-0", before.name), SOON)?;
        let kept = Snapshot::scheduled(&self.user)?;
        story.kubectl(&self.user, &["get", "et,esnap"])?;
        let last = kept.len() == 1 && !kept.contains(&before.name);
        story.check(last, "one is kept, the older one went with its list", &format!("{kept:?}"))
    }

    fn stop_tracking(&self, story: &mut Story, table: &str) -> Outcome {
        story.step("7. Delete the EraTracking")?;
        self.application.lap()?;
        story.kubectl(&self.user, &["delete", TRACKING])?;
        story.wait("waiting until the volume is let go", || self.user.until_gone(VOLUME, SOON))?;
        let tree = story.on_node(self.node(), "dmsetup ls --tree")?;
        let left = left_on_node(self.cluster.kubectl(), self.node(), &self.volume.name)?;
        story.check(left.is_empty(), "nothing of ours is left on the node", &left)?;
        story.check(tree.contains(&self.volume.dm_name()), "the volume is there", &tree)?;
        let now = self.table()?;
        story.check(
            now == table,
            "the volume has its original table",
            &format!("{now}not {table}"),
        )?;
        let active = self.node().run(&format!(
            "dmsetup info -c --noheadings -o suspended,tables_loaded {}",
            self.volume.dm_name()
        ))?;
        story.check(active.contains("Active"), "the volume is active", &active)
    }

    fn nothing_was_lost(&self, story: &mut Story, incarnation: &Incarnation) -> Outcome {
        self.application.until_more(20)?;
        self.unnoticed(story, incarnation, "while era was taken out")?;
        let promised = self.application.acknowledged_in_log()?;
        story.say("\n  Every record that was ever acknowledged, read from the disk:")?;
        story.on_node(self.node(), "sync && echo 3 > /proc/sys/vm/drop_caches")?;
        let verified = story.wait("verifying", || self.application.verify())?;
        let what =
            format!("{verified} records are there, byte for byte, {promised} had been promised");
        story.check(verified >= promised, &what, "")?;
        let elapsed = story.elapsed();
        story.say(&format!("\nDone in {}.", crate::progress::seconds(elapsed)))
    }
}

/// The file `known`, before the first snapshot.
const KNOWN_BYTES: u64 = 16 << 20;
/// What is written over it afterwards: offset and length in bytes; aligned, unaligned, longer than a block.
const PATTERNS: [(u64, u64); 3] = [(0, 4096), (5_000_001, 300_000), (11 << 20, 1 << 20)];

/// A size as a reader wants it.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(mebibytes(512 << 20), "512.0 MiB");
        assert_eq!(mebibytes(1), "0.1 MiB");
    }
}
