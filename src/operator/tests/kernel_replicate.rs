//! `eratrack device replicate`: a target that follows a device under load, whatever becomes of the
//! process that makes it.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use common::Eratrack;
use kit::{Content, Disk, Mount, VolumeGroup, run, wait_for};
use rustix::process::{Pid, Signal, kill_process};

const MIB: u64 = 64;

/// A tracked volume, and where targets may be.
struct Scene {
    eratrack: Eratrack,
    group: VolumeGroup,
    targets: tempfile::TempDir,
}

impl Scene {
    fn new(thin: bool) -> Self {
        let eratrack = Eratrack::new();
        let group = VolumeGroup::new([Disk::new(256).into_backing()]);
        if thin {
            group.thin_pool("pool", 128, 64);
            group.thin("pool", "data", MIB);
        } else {
            group.thick("data", MIB);
        }
        // /scratch, an ext4 that knows direct I/O and holes.
        let targets = tempfile::tempdir().expect("a directory");
        let scene = Self { eratrack, group, targets };
        scene.attach();
        scene
    }

    fn attach(&self) {
        self.eratrack.ok(&format!("attach {} --granularity 64Ki --name data", self.device()));
    }

    fn device(&self) -> String {
        format!("/dev/{}/data", self.group.name())
    }

    fn target(&self) -> PathBuf {
        self.targets.path().join("replica")
    }

    fn words(&self, more: &str) -> String {
        format!("replicate data {} {more}", self.target().display())
    }

    fn round(&self, more: &str) -> serde_json::Value {
        self.eratrack.json(&self.words(more))
    }

    fn put(&self, byte: u8, at: u64, kib: u64) {
        let pattern = self.targets.path().join("pattern");
        fs::write(&pattern, vec![byte; usize::try_from(kib << 10).unwrap()]).unwrap();
        let (from, to, seek) = (pattern.display(), self.device(), at);
        run(&format!("dd if={from} of={to} bs=4k seek={seek} oflag=direct conv=notrunc"));
    }

    fn start(&self, more: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_eratrack"))
            .arg("device")
            .args(self.words(more).split_whitespace())
            .env("ERATRACK_METADATA_DIR", self.eratrack.state())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    fn state(&self) -> Option<String> {
        let dir = self.eratrack.state().join(".replicas");
        let file = fs::read_dir(dir)
            .ok()?
            .flatten()
            .find(|f| f.path().extension().is_some_and(|e| e == "json"))?;
        let text = fs::read_to_string(file.path()).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).expect("a whole checkpoint");
        Some(value["state"].as_str()?.to_owned())
    }

    #[track_caller]
    fn is_equal(&self) {
        let (device, target) = (self.device(), self.target());
        assert!(Content::of(device.as_ref()) == Content::of(&target), "the replica differs");
    }
}

fn assert_no_point_in_time() {
    let names = run("dmsetup info -c --noheadings -o name");
    let left = |name: &&str| name.ends_with("-origin") || name.ends_with("-snapshot");
    assert_eq!(names.lines().find(left), None, "a point in time is left");
    assert!(!run("losetup").contains("point-in-time"));
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.eratrack.run("detach data");
    }
}

fn end(child: Child, signal: Signal) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process")).expect("a process");
    kill_process(pid, signal).expect("it is there");
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// fio on the device itself, until it is dropped.
struct Load(Child);

impl Load {
    fn on(device: &str) -> Self {
        let args = [
            "--name=load",
            "--thread",
            "--ioengine=psync",
            "--direct=1",
            "--rw=randwrite",
            "--bsrange=4k-64k",
            "--bs_unaligned=0",
            "--blockalign=4k",
            "--time_based",
            "--runtime=1000",
            "--rate_iops=150",
            "--randrepeat=0",
            "--refill_buffers",
        ];
        let child = Command::new("fio")
            .args(args)
            .arg(format!("--filename={device}"))
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("fio starts"))
    }

    fn goes_on(&mut self) {
        assert_eq!(self.0.try_wait().expect("its state"), None, "fio has failed");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn assert_none_suspended() {
    let states = run("dmsetup info -c --noheadings -o name,suspended");
    let suspended: Vec<_> = states.lines().filter(|line| line.ends_with(":Suspended")).collect();
    assert!(suspended.is_empty(), "{suspended:?}");
}

fn killed_over_and_over(thin: bool, kills: u32) {
    let scene = Scene::new(thin);
    let mut load = Load::on(&scene.device());
    let (mut random, mut states) = (0x9e37_79b9_7f4a_7c15_u64, std::collections::BTreeMap::new());
    for _ in 0..kills {
        let child = scene.start("--every 0s");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The moment is what matters; there is nothing to wait for.
        thread::sleep(Duration::from_millis(random % 700));
        end(child, Signal::KILL);
        assert_none_suspended();
        load.goes_on();
        *states.entry(scene.state().unwrap_or_default()).or_insert(0) += 1;
    }
    drop(load);
    println!("thin: {thin}, killed when the target was {states:?}");
    assert!(states.len() > 1, "always killed at the same");
    let last = scene.round("--verify");
    assert_eq!((&last["state"], &last["verified"]), (&"Consistent".into(), &true.into()));
    scene.is_equal();
    assert_no_point_in_time();
}

#[test]
#[ignore = "kernel tier"]
fn killed_fifty_times_under_load_it_ends_equal() {
    killed_over_and_over(false, 50);
}

#[test]
#[ignore = "kernel tier"]
fn killed_under_load_on_a_thin_volume_it_ends_equal() {
    killed_over_and_over(true, 15);
}

#[test]
#[ignore = "kernel tier"]
fn a_target_stays_as_sparse_as_the_device_and_only_what_changed_is_copied() {
    let scene = Scene::new(false);
    let allocated = || fs::metadata(scene.target()).unwrap().blocks() * 512;
    scene.put(0x11, 0, 1024);
    let first = scene.round("");
    assert_eq!((&first["kind"], &first["round"]), (&"Full".into(), &1.into()));
    assert_eq!((&first["bytes"], &first["writtenBytes"]), (&(MIB << 20).into(), &(1 << 20).into()));
    assert!(allocated() <= 2 << 20, "{}", allocated());
    scene.put(0x22, 4096, 128);
    scene.put(0, 0, 512);
    let second = scene.round("--verify");
    assert_eq!((&second["kind"], &second["bytes"]), (&"Changed".into(), &(640 << 10).into()));
    assert!(allocated() <= 1 << 20, "{}", allocated());
    let third = scene.round("");
    assert_eq!((&third["bytes"], &third["round"]), (&0.into(), &3.into()));
    scene.is_equal();
}

#[test]
#[ignore = "kernel tier"]
fn a_block_device_is_a_target_too_and_what_was_in_it_is_overwritten() {
    let scene = Scene::new(false);
    let disk = Disk::new(MIB + 1);
    let to = disk.device().display().to_string();
    run(&format!("dd if=/dev/urandom of={to} bs=1M count={} oflag=direct", MIB + 1));
    scene.put(0x11, 0, 1024);
    let refused = scene.eratrack.fails(&format!("replicate data {to}"), 5);
    assert!(refused.contains("is not empty") && refused.contains("--overwrite"), "{refused}");
    let words = format!("replicate data {to} --overwrite --verify");
    assert_eq!(scene.eratrack.json(&words)["kind"], "Full");
    scene.put(0x33, 100, 64);
    let again = scene.eratrack.json(&format!("replicate data {to} --verify"));
    assert_eq!((&again["kind"], &again["bytes"]), (&"Changed".into(), &(128 << 10).into()));
    let mount = Mount::over("ext4", disk.device(), "");
    let busy = scene.eratrack.fails(&format!("replicate data {to}"), 7);
    assert!(busy.contains("is in use"), "{busy}");
    drop(mount);
}

#[test]
#[ignore = "kernel tier"]
fn what_cannot_be_a_target_is_refused_and_nothing_is_written() {
    let scene = Scene::new(false);
    let refused = |target: &str, code, says: &str| {
        let said = scene.eratrack.fails(&format!("replicate data {target}"), code);
        assert!(said.contains(says), "{target}: {said}");
    };
    let dir = scene.targets.path();
    refused(&dir.display().to_string(), 5, "neither a regular file");
    let file = |name: &str, content: &[u8], size: u64| {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        path.display().to_string()
    };
    refused(&file("small", b"", 1 << 20), 5, "less than the 64Mi of the source");
    refused(&file("full", b"diary", MIB << 20), 5, "is not empty");
    assert_eq!(&fs::read(dir.join("full")).unwrap()[..5], b"diary");
    refused(&scene.device(), 5, "is the source itself");
    let disk = scene.group.disks().next().unwrap().display().to_string();
    refused(&disk, 5, "is the source itself, or what it lies on");
    let greedy = format!("{} --copies 60Mi", dir.join("new").display());
    refused(&greedy, 5, "a point in time would need 60Mi");
    assert!(!dir.join("new").exists(), "it was made");
    let behind = run(&format!("losetup --noheadings -O BACK-FILE {disk}"));
    refused(behind.trim(), 5, "is the source itself, or what it lies on");
    let minor = run("dmsetup info -c --noheadings -o minor eratrack-data-era");
    refused(&format!("/dev/dm-{}", minor.trim()), 5, "is the source itself");
    refused("/dev/no-such-disk", 6, "there is no device");
    let mount = Mount::over("ext4", scene.device().as_ref(), "");
    let inside = mount.path().join("replica");
    refused(&inside.display().to_string(), 5, "lies on the source itself");
    assert!(!inside.exists(), "it was made");
    drop(mount);
    scene.eratrack.fails(&format!("replicate nobody {}", scene.target().display()), 6);
    scene.group.thick("other", 16);
    let other = format!("/dev/{}/other", scene.group.name());
    let untracked = scene.eratrack.fails(&format!("replicate {other} {other}"), 6);
    assert!(untracked.contains("is not tracked"), "{untracked}");
    assert_no_point_in_time();
}

#[test]
#[ignore = "kernel tier"]
fn a_target_that_somebody_changed_is_found_and_made_anew() {
    let scene = Scene::new(false);
    scene.put(0x11, 0, 2048);
    scene.round("--verify");
    let target = scene.target().display().to_string();
    run(&format!("dd if=/dev/urandom of={target} bs=4k seek=7 count=2 conv=notrunc,fsync"));
    let output = scene.eratrack.run(&scene.words("--verify"));
    assert_eq!(output.status.code(), Some(8), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "offset,length\n28672,8192\n");
    assert_eq!(scene.state().as_deref(), Some("Differs"));
    let again = scene.round("--verify");
    assert_eq!(
        (&again["kind"], &again["why"]),
        (&"Full".into(), &"the copy was found to differ".into())
    );
    scene.is_equal();
}

#[test]
#[ignore = "kernel tier"]
fn a_chain_that_ended_has_all_copied_again_once_there_is_a_new_one() {
    let scene = Scene::new(false);
    scene.put(0x11, 0, 2048);
    scene.round("");
    run(&format!("lvchange --refresh {}/data", scene.group.name()));
    let ended = scene.eratrack.fails(&scene.words(""), 10);
    assert!(ended.contains("no longer goes through its era device"), "{ended}");
    scene.eratrack.ok("detach data");
    scene.attach();
    let again = scene.round("");
    let why = "the chain that the copy is of has ended";
    assert_eq!((&again["kind"], &again["why"]), (&"Full".into(), &why.into()));
    scene.is_equal();
}

/// LVM lets writes past the point in time: what was read counts for nothing.
#[test]
#[ignore = "kernel tier"]
fn a_table_reloaded_while_a_round_reads_fails_the_round() {
    let scene = Scene::new(false);
    scene.round("");
    scene.put(0x11, 0, 8192);
    let child = scene.start("--max-rate 2Mi");
    wait_for("a round that copies", || (scene.state().as_deref() == Some("Copying")).then_some(()));
    run(&format!("lvchange --refresh {}/data", scene.group.name()));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    assert_eq!(scene.state().as_deref(), Some("Copying"));
    assert_no_point_in_time();
}

#[test]
#[ignore = "kernel tier"]
fn it_ends_in_order_when_asked_to() {
    let scene = Scene::new(false);
    let child = scene.start("--max-rate 4Mi");
    wait_for("a first copy", || (scene.state().as_deref() == Some("Seeding")).then_some(()));
    let output = end(child, Signal::INT);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("goes on where it was"), "{}", said(&output));
    let child = scene.start("--every 600s");
    wait_for("a round", || (scene.state().as_deref() == Some("Consistent")).then_some(()));
    wait_for("its end", || {
        let names = run("dmsetup info -c --noheadings -o name");
        (!names.contains("-snapshot")).then_some(())
    });
    let output = end(child, Signal::TERM);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    scene.put(0x11, 0, 8192);
    let child = scene.start("--max-rate 2Mi");
    wait_for("a round that copies", || (scene.state().as_deref() == Some("Copying")).then_some(()));
    let output = end(child, Signal::INT);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("a mix of two points in time"), "{}", said(&output));
    assert_no_point_in_time();
    scene.round("--verify");
    scene.is_equal();
}

#[test]
#[ignore = "kernel tier"]
fn copies_that_do_not_suffice_fail_the_round_alone() {
    let scene = Scene::new(false);
    scene.round("");
    scene.put(0x11, 0, 8192);
    let child = scene.start("--max-rate 2Mi --copies 1Mi");
    wait_for("a round that copies", || (scene.state().as_deref() == Some("Copying")).then_some(()));
    scene.put(0x22, 8192, 4096);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is lost"), "{}", said(&output));
    assert_no_point_in_time();
    scene.round("--verify");
    scene.is_equal();
}

#[test]
#[ignore = "kernel tier"]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let scene = Scene::new(false);
    let told = scene.eratrack.ok(&scene.words("--dry-run"));
    assert!(told.contains("there is no copy yet") && told.contains("snapshot-origin"), "{told}");
    assert!(!scene.target().exists());
    scene.round("");
    let told = scene.eratrack.ok(&scene.words("--dry-run"));
    assert!(told.contains("or later would be copied"), "{told}");
}
