//! `eratrack device attach` and what undoes it: over a disk, under a volume, and against every mistake that was thought of.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{Eratrack, blocks};
use kit::{Disk, VolumeGroup, run, run_with};

/// Every device-mapper device with its table, every loop device, and what is in the state directory.
fn machine(eratrack: &Eratrack) -> BTreeSet<String> {
    let tables = run("dmsetup table");
    let loops = run("losetup --list --noheadings -O NAME,BACK-FILE");
    let state = eratrack.state().display().to_string();
    let files = run_with("find", [state.as_str(), "-mindepth", "1"]).unwrap_or_default();
    [tables, loops, files].iter().flat_map(|text| text.lines().map(str::to_owned)).collect()
}

#[test]
#[ignore = "kernel tier"]
fn a_disk_is_tracked_under_a_name_and_given_back_while_it_is_mounted() {
    let (eratrack, disk) = (Eratrack::new(), Disk::new(64));
    let before = machine(&eratrack);
    let device = disk.device().display();
    let words =
        format!("attach {device} --stage pg --granularity 64Ki --discards off --era-access");
    let attached = eratrack.json(&words);
    assert_eq!((&attached["state"], &attached["blocks"]), (&"Intact".into(), &1024.into()));
    assert_eq!(eratrack.json(&words)["chain"], attached["chain"], "it was begun anew");

    let era = eratrack.ok("boundary pg --output name");
    run("dd if=/dev/urandom of=/dev/mapper/pg bs=64k seek=100 count=3 oflag=direct status=none");
    let since = era.trim();
    assert_eq!(eratrack.ok(&format!("changed pg --since {since}")), "100-102\n");
    assert_eq!(eratrack.ok(&format!("changed {device} --since {since}")), "100-102\n");
    run(&format!("cmp -n {} {device} /dev/mapper/pg", 64 << 20));
    eratrack.ok("check pg");
    let tree = eratrack.ok("tree pg");
    assert!(tree.contains("└─eratrack-pg-era") && tree.contains("era access"), "{tree}");

    let mount = kit::Dir::new("mount");
    run("mkfs.ext4 -q -E nodiscard /dev/mapper/pg");
    run(&format!("mount /dev/mapper/pg {}", mount.path().display()));
    let said = eratrack.fails("detach pg", 4);
    assert!(said.contains("era is out") && said.contains("detach again"), "{said}");
    run(&format!(
        "dd if=/dev/zero of={}/f bs=1M count=1 conv=fsync status=none",
        mount.path().display()
    ));
    assert!(!run("dmsetup table").contains(" era "));
    run(&format!("umount {}", mount.path().display()));
    eratrack.ok("detach pg");
    assert_eq!(machine(&eratrack), before);
    run(&format!("fsck.ext4 -fn {device}"));
    assert!(!Path::new("/dev/mapper/pg").exists());
}

/// A reader that is killed leaves its snapshot; the next one says so and drops it. One that a
/// person holds is left alone.
#[test]
#[ignore = "kernel tier"]
fn a_snapshot_held_by_hand_is_read_and_a_stale_one_is_dropped() {
    let (eratrack, disk) = (Eratrack::new(), Disk::new(64));
    let device = disk.device().display();
    eratrack.ok(&format!("attach {device} --stage a --granularity 64Ki --discards off"));
    let write = |block: u32| {
        run(&format!(
            "dd if=/dev/urandom of=/dev/mapper/a bs=64k seek={block} count=1 oflag=direct status=none"
        ));
    };
    write(5);
    let held = eratrack.json("hold a");
    write(9);
    let output = eratrack.run("changed a --since 1");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("held since era"), "{said}");
    let status = eratrack.json("status a");
    assert_eq!(
        (&status["era"]["held"], &status["era"]["heldByHand"]),
        (&held["block"], &true.into())
    );
    assert!(eratrack.fails("hold a", 7).contains("release a"));
    assert!(eratrack.ok("release a").contains("held by hand"));
    assert_eq!(blocks(&eratrack.ok("changed a --since 1")), [5, 9]);

    run("dmsetup message eratrack-a-era 0 take_metadata_snap");
    let output = eratrack.run("changed a --since 1");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("dropping a metadata snapshot"), "{said}");
    assert!(eratrack.ok("release a").contains("nothing"));
    eratrack.ok("detach a");
}

/// Each mistake: its exit code, what it names, and nothing changed.
#[test]
#[ignore = "kernel tier"]
fn mistakes_are_said_and_change_nothing() {
    let (eratrack, disk) = (Eratrack::new(), Disk::new(64));
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let volume = volume.path.display().to_string();
    let other = Disk::new(16);
    let blank = other.device().display().to_string();
    let (disk, file) = (disk.device().display().to_string(), kit::Dir::new("file"));
    let plain = file.path().join("plain").display().to_string();
    run(&format!("truncate -s 64M {plain}"));
    eratrack.ok(&format!("attach {volume} --granularity 64Ki --name tracked"));
    let before = machine(&eratrack);
    let in_use = group.disks().next().expect("a disk").display().to_string();
    let cases: &[(String, i32, &str)] = &[
        (format!("attach {disk}"), 5, "--stage NAME"),
        ("attach /dev/nowhere".into(), 6, "/dev/nowhere"),
        ("attach nowhere".into(), 6, "nowhere"),
        (format!("attach {plain}"), 5, "is no block device"),
        (format!("attach {in_use} --stage x"), 7, "is in use"),
        (format!("attach {volume} --name tracked"), 5, "tracked already"),
        (format!("attach {volume} --name other"), 5, "is tracked by another stack"),
        (format!("attach {disk} --stage x --granularity 128Mi"), 5, "sectors"),
        (format!("attach {disk} --stage x --granularity 3Ki"), 2, "3Ki"),
        (format!("attach {disk} --stage x --granularity 100s"), 2, "100s"),
        (format!("attach {disk} --stage {}-data", group.name()), 5, "called"),
        (format!("attach {disk} --stage x --metadata disk:/dev/sda"), 2, "pool:DEVICE"),
        (format!("attach {disk} --stage x --metadata file:/nowhere/file"), 6, "/nowhere"),
        (format!("attach {disk} --stage x --metadata lv:nowhere"), 6, "nowhere"),
        (format!("attach {disk} --stage x --metadata pool:{in_use}"), 7, "is in use"),
        (format!("attach {disk} --stage x --metadata pool:{disk}"), 7, "is in use"),
        (format!("attach {disk} --stage x --metadata pool:{blank}"), 6, "no pool"),
        ("detach nowhere".into(), 6, "nowhere"),
        ("status nowhere".into(), 6, "nowhere"),
        ("changed nowhere --since 1".into(), 6, "nowhere"),
        ("changed tracked --since 4000".into(), 5, "4000"),
        ("changed --since 1".into(), 2, "<DEVICE>"),
        (format!("changed --image {plain} --since 1"), 8, "all zeroes"),
        (format!("check --image {plain}"), 8, "is damaged"),
        (format!("size {disk} --granularity 12345"), 2, "12345"),
    ];
    for (words, code, part) in cases {
        let said = eratrack.fails(words, *code);
        assert!(said.contains(part), "device {words}: {said}");
        assert_eq!(machine(&eratrack), before, "device {words}");
    }
    eratrack.ok("detach tracked");
}

/// A user who is not root learns that, before anything else.
#[test]
#[ignore = "kernel tier"]
fn without_root_nothing_is_tried() {
    run("modprobe dm-era");
    let program = env!("CARGO_BIN_EXE_eratrack");
    let refused = run_with(
        "setpriv",
        ["--reuid=65534", "--regid=65534", "--clear-groups", program, "device", "list"],
    );
    let said = refused.expect_err("nobody may").to_string();
    assert!(said.contains("only root") && said.contains("exit status: 9"), "{said}");
}
