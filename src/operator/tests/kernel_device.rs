//! `eratrack device changed` on metadata that a kernel is using.

use std::process::{Command, Output};

use kit::{Disk, run, run_with};

const ERA: &str = "in-use-era";

/// An era device over a disk, its metadata in a file behind a loop device.
struct Tracked {
    file: String,
    metadata: String,
    _disk: Disk,
}

impl Tracked {
    fn new(dir: &std::path::Path) -> Self {
        let disk = Disk::new(16);
        let file = dir.join("era-metadata").display().to_string();
        run(&format!("truncate -s 1M {file}"));
        let metadata = run(&format!("losetup --find --show {file}")).trim().to_owned();
        let table = format!("0 32768 era {metadata} {} 128", disk.device().display());
        run_with("dmsetup", ["create", ERA, "--table", &table]).expect("it is made");
        Self { file, metadata, _disk: disk }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let _ = run_with("dmsetup", ["remove", "--retry", ERA]);
        let _ = run_with("losetup", ["-d", &self.metadata]);
    }
}

fn changed(image: &str, more: &[&str]) -> Output {
    let args = ["device", "changed", "--image", image, "--since", "1"];
    Command::new(env!("CARGO_BIN_EXE_eratrack")).args(args).args(more).output().expect("it runs")
}

#[track_caller]
fn assert_in_use(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it was read");
    assert!(said.contains("is in use") && said.contains("--metadata-snapshot=BLOCK"), "{said}");
}

#[test]
#[ignore = "kernel tier"]
fn metadata_in_use_is_read_from_its_snapshot_alone() {
    run("modprobe dm-era");
    let dir = kit::metadata_dir(64);
    let tracked = Tracked::new(dir.path());
    run(&format!("dd if=/dev/zero of=/dev/mapper/{ERA} bs=64k count=1 seek=7 oflag=direct"));
    let link = dir.path().join("link").display().to_string();
    run(&format!("ln -s {} {link}", tracked.file));
    for image in [&tracked.file, &tracked.metadata, &link] {
        assert_in_use(&changed(image, &[]));
    }
    run(&format!("dmsetup message {ERA} 0 take_metadata_snap"));
    let status = run(&format!("dmsetup status {ERA}"));
    let block = status.split_whitespace().last().expect("the root of the snapshot");
    let listed = changed(&tracked.file, &[&format!("--metadata-snapshot={block}")]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "7\n", "{listed:?}");
    run(&format!("dmsetup message {ERA} 0 drop_metadata_snap"));
    let file = tracked.file.clone();
    drop(tracked);
    assert_eq!(String::from_utf8_lossy(&changed(&file, &[]).stdout), "7\n");
}
