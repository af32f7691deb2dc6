//! What a guest promises to the kernel tests that run in it.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    process::Command,
};

use rustix::fs::{Mode, OFlags};

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "kernel tier"]
fn the_targets_are_there() {
    let targets = printed("dmsetup", &["targets"]);
    for target in [
        "era",
        "linear",
        "striped",
        "snapshot",
        "snapshot-origin",
        "thin",
        "thin-pool",
        "flakey",
        "delay",
    ] {
        assert!(
            targets.lines().any(|line| line.split_whitespace().next() == Some(target)),
            "{target}: {targets}"
        );
    }
}

#[test]
#[ignore = "kernel tier"]
fn no_device_is_there_before_a_test_makes_it() {
    assert_eq!(printed("dmsetup", &["ls"]).trim(), "No devices found");
    assert_eq!(printed("losetup", &["--list", "--noheadings"]), "");
}

#[test]
#[ignore = "kernel tier"]
fn temporary_files_know_direct_io() {
    let path = std::env::temp_dir().join("direct");
    fs::write(&path, [7; 4096]).unwrap();
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).unwrap();
}

#[test]
#[ignore = "kernel tier"]
fn the_second_disk_is_empty_and_lvm_can_use_it() {
    let mut start = [0xff; 4096];
    std::io::Read::read_exact(&mut fs::File::open("/dev/ubdb").unwrap(), &mut start).unwrap();
    assert!(start.iter().all(|&byte| byte == 0));
    printed("pvcreate", &["/dev/ubdb"]);
    printed("vgcreate", &["vg", "/dev/ubdb"]);
    printed("lvcreate", &["-n", "a", "-L", "16M", "vg"]);
    assert!(Path::new("/dev/vg/a").exists());
    printed("vgremove", &["--force", "--yes", "vg"]);
    printed("pvremove", &["/dev/ubdb"]);
}

#[test]
#[ignore = "kernel tier"]
fn what_a_test_writes_to_its_root_stays_in_the_guest() {
    let marker = Path::new(env!("CARGO_MANIFEST_DIR")).join("written-by-a-guest");
    // Were it the host's, the file of an earlier run would be here.
    assert!(!marker.exists());
    OpenOptions::new().write(true).create_new(true).open(&marker).unwrap();
    assert!(marker.exists());
}
