//! `cluster_deltas`: what a user reads between any two snapshots is what was written between them, by our own plugin and by
//! the example client; a list that was lost or changed is no list, and the next snapshot is full.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use serde_json::Value;

use super::stage::Stage;
use crate::{
    cluster::{Application, Blocks, Output, Range, static_program},
    demo::Snapshot,
    failure::Outcome,
    paths,
};

const NAMESPACE: &str = "cluster-deltas";
/// Where and how much is written before each of the snapshots, in KiB.
const WRITES: [(u64, u64); 3] = [(1024, 300), (20 * 1024 + 3, 259), (40 * 1024, 1)];

struct Reader {
    stage: Stage,
    /// Has `kubectl-era`, as a user would have it in the path.
    plugins: PathBuf,
}

pub(super) fn run() -> Outcome {
    let reader = Reader { stage: Stage::open(NAMESPACE)?, plugins: plugins()? };
    reader.prepare()?;
    let first = reader.snapshot("a", None)?;
    let second = reader.snapshot("b", Some(WRITES[0]))?;
    let third = reader.snapshot("c", Some(WRITES[1]))?;
    if first.kind != "Full" || second.since != Some(first.era) || third.since != Some(second.era) {
        return Err(format!("not a chain: {first:?} {second:?} {third:?}").into());
    }
    reader.check_union(&second, &third)?;
    reader.check_words()?;
    reader.lose_and_edit()?;
    reader.no_orphans(&["a", "b", "c", "d", "e", "f"])?;
    reader.stage.close()
}

/// A directory with the plugin, a link to the static program.
fn plugins() -> Outcome<PathBuf> {
    let directory = paths::cache().join("plugins");
    fs::create_dir_all(&directory)?;
    let link = directory.join("kubectl-era");
    let _ = fs::remove_file(&link);
    symlink(static_program()?, &link)?;
    Ok(directory)
}

impl Reader {
    fn prepare(&self) -> Outcome {
        let volume = self.stage.plan("data", 64);
        self.stage.node().run(&volume.create())?;
        let manifest = volume
            .manifest()
            .replace("  mountOptions: [noatime, noinit_itable]\n", "")
            .replace(", fsType: ext4", "")
            .replace("  accessModes:", "  volumeMode: Block\n  accessModes:");
        self.stage.offer(&volume.name, &manifest)?;
        let pod = Application::idle("data", &["data"]).replace(
            "volumeMounts: [{name: data, mountPath: /data}]",
            "volumeDevices: [{name: data, devicePath: /dev/data}]",
        );
        self.stage.user.apply(&pod)?;
        self.stage.user.run(&["wait", "--for=condition=Ready", "pod/data", "--timeout=90s"])?;
        self.stage.track("data")?;
        self.stage.until_attached("data").map(drop)
    }

    /// Writes, then makes a snapshot and reads its own list.
    fn snapshot(&self, name: &str, write: Option<(u64, u64)>) -> Outcome<Snapshot> {
        if let Some((at, count)) = write {
            let write = format!(
                "dd if=/dev/urandom of=/dev/data bs=1024 seek={at} count={count} conv=notrunc,fsync"
            );
            self.stage.user.run(&["exec", "data", "--", "sh", "-c", &write])?;
        }
        self.stage.user.apply(&Snapshot::manifest(name, "data"))?;
        Snapshot::ready(&self.stage.user, name)
    }

    /// A shell of the user's, with kubectl and its plugin in the path; its last line is the exit code.
    fn shell(&self, script: &str) -> Outcome<Output> {
        self.stage.user.shell(&self.plugins, &format!("{script}; echo \"exit $?\""))
    }

    fn changed(&self, from: &str, to: &str, output: &str) -> Outcome<String> {
        let said = self.shell(&format!(
            "kubectl era changed {NAMESPACE}/data --from {from} --to {to} --output {output}"
        ))?;
        let text = said.stdout.strip_suffix("exit 0\n").map(str::to_owned);
        text.ok_or_else(|| said.report().into())
    }

    fn example(&self, from: &str, to: &str) -> Outcome<Output> {
        self.shell(&format!("examples/changed-extents.sh {NAMESPACE} data {from} {to}"))
    }

    /// From a to c is what was written twice in between, and what b and c list, no more.
    fn check_union(&self, b: &Snapshot, c: &Snapshot) -> Outcome {
        let list = Blocks::parse(self.changed("a", "c", "list")?.trim(), b.blocks.size)?;
        for (at, count) in &WRITES[..2] {
            if !list.cover(at * 1024, count * 1024) {
                return Err(format!("{count} KiB at {at} KiB are missing in {list:?}").into());
            }
        }
        let listed = |range: &Range, of: &Snapshot| {
            of.blocks.cover(range.first * list.size, (range.last - range.first + 1) * list.size)
        };
        let strange = list.ranges.iter().find(|it| !listed(it, b) && !listed(it, c));
        let whole = b.blocks.ranges.iter().chain(&c.blocks.ranges);
        let missing = whole
            .into_iter()
            .find(|it| !list.cover(it.first * list.size, (it.last - it.first + 1) * list.size));
        if strange.is_some() || missing.is_some() {
            return Err(format!("not the union: {list:?} of {b:?} and {c:?}").into());
        }
        let csv = self.changed("a", "c", "csv")?;
        let example = self.example("a", "c")?;
        if example.stdout != format!("{csv}exit 0\n") {
            return Err(
                format!("the example says otherwise than\n{csv}{}", example.report()).into()
            );
        }
        let json: Value = serde_json::from_str(&self.changed("a", "c", "json")?)?;
        if json["listedBlocks"] != list.count() || json["era"] != c.era {
            return Err(format!("not what the list says: {json}").into());
        }
        Ok(())
    }

    /// A slice of the last list is deleted, and one of a later list is replaced.
    fn lose_and_edit(&self) -> Outcome {
        self.stage.user.run(&["delete", "changedblockslice", "c-0"])?;
        self.expect_no_list("a", "c", "ChangedBlockSlice c-0 is gone")?;
        let full = self.snapshot("d", Some(WRITES[2]))?;
        self.expect_lost(&full, "c")?;
        let next = self.snapshot("e", Some(WRITES[0]))?;
        if next.since != Some(full.era) {
            return Err(format!("the chain must go on from the full one: {full:?} {next:?}").into());
        }
        self.edit_slice("e-0")?;
        self.expect_no_list("d", "e", "slices.sha256")?;
        let after = self.snapshot("f", None)?;
        self.expect_lost(&after, "e")
    }

    /// The other questions find their objects.
    fn check_words(&self) -> Outcome {
        let asked = [
            (format!("kubectl era why {NAMESPACE}/data"), "will be incremental: it refers to c"),
            (format!("kubectl era status -n {NAMESPACE}"), "ChainIntact"),
            (format!("kubectl era tree --namespace {NAMESPACE}"), "├─b: Incremental"),
            (format!("kubectl era changed -n {NAMESPACE} data --from c --to a"), "exit 5"),
            (format!("kubectl era changed -n {NAMESPACE} data --from x --to a"), "exit 6"),
        ];
        for (words, expected) in asked {
            let said = self.shell(&words)?;
            if !said.stdout.contains(expected) {
                return Err(format!("{expected:?} is missing:\n{}", said.report()).into());
            }
        }
        Ok(())
    }

    /// Neither the plugin nor the example gives a list.
    fn expect_no_list(&self, from: &str, to: &str, why: &str) -> Outcome {
        let ours =
            self.shell(&format!("kubectl era changed {NAMESPACE}/data --from {from} --to {to}"))?;
        if ours.stdout != "exit 8\n" || !ours.stderr.contains(why) {
            return Err(format!("must fail with {why:?}:\n{}", ours.report()).into());
        }
        let example = self.example(from, to)?;
        if example.stdout != "exit 10\n" || !example.stderr.contains("no list: ") {
            return Err(format!("must give no list:\n{}", example.report()).into());
        }
        Ok(())
    }

    /// The snapshot is full because the list of `base` was lost, and everybody is told.
    fn expect_lost(&self, snapshot: &Snapshot, base: &str) -> Outcome {
        if snapshot.kind != "Full" || snapshot.full_reason != "SlicesLost" {
            return Err(format!("must be full for SlicesLost: {snapshot:?}").into());
        }
        let soon = super::stage::SOON;
        self.stage.user.until(&format!("erasnapshot/{base}"), "Failed", soon, |value| {
            let failed = crate::cluster::condition(value, "Failed");
            let lost =
                failed.is_some_and(|it| it["status"] == "True" && it["reason"] == "SlicesLost");
            lost.then_some(()).ok_or_else(|| value["status"].to_string())
        })?;
        for kind in ["EraSnapshot", "EraVolume", "EraTracking"] {
            let field = format!("--field-selector=reason=SlicesLost,involvedObject.kind={kind}");
            crate::wait::until_ok(&format!("an event on the {kind}"), soon, || {
                let events = self.stage.user.json(&["get", "events", &field]);
                let events = events.map_err(|error| error.to_string())?;
                let any = events["items"].as_array().is_some_and(|items| !items.is_empty());
                any.then_some(()).ok_or_else(|| "none".to_owned())
            })?;
        }
        Ok(())
    }

    /// What nobody may do, and whoever rules the cluster can.
    fn edit_slice(&self, name: &str) -> Outcome {
        let mut slice = self.stage.user.json(&["get", "changedblockslice", name])?;
        self.stage.user.run(&["delete", "changedblockslice", name])?;
        for field in ["creationTimestamp", "resourceVersion", "uid", "generation", "managedFields"]
        {
            if let Some(metadata) = slice["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
        let blocks = slice["blocks"].as_u64().ok_or("a slice without blocks")?;
        // As long a list, so that its digest alone tells.
        let end = 6 + blocks - 1;
        slice["ranges"] =
            Value::from(if blocks == 1 { "6".to_owned() } else { format!("6-{end}") });
        (slice["first"], slice["last"]) = (Value::from(6), Value::from(end));
        self.stage.user.apply(&slice.to_string()).map(drop)
    }

    /// Deleted snapshots take their slices with them.
    fn no_orphans(&self, names: &[&str]) -> Outcome {
        self.stage.user.run(&[&["delete", "erasnapshot"], names].concat())?;
        crate::wait::until_ok("the slices to go", super::stage::SOON, || {
            let left = self.stage.user.run(&["get", "changedblockslices", "-o", "name"]);
            let left = left.map_err(|error| error.to_string())?;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })?;
        Ok(())
    }
}
