//! With udevd at work, as on any real machine: what is inside a tracked volume stays there.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{number, request};
use eratrack_model::units::DevNo;
use kit::{Disk, VolumeGroup, run, wait_for};

/// systemd's udevd, for as long as this lives.
struct Udevd(Child);

impl Udevd {
    fn start() -> Self {
        kit::setup();
        let mut command = Command::new("/lib/systemd/systemd-udevd");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let udevd = Self(child.expect("udevd is installed"));
        wait_for("udevd", || Path::new("/run/udev/control").exists().then_some(()));
        run("udevadm trigger --type=all --action=add");
        settle();
        udevd
    }
}

impl Drop for Udevd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file("/run/udev/control");
    }
}

fn settle() {
    run("udevadm settle --timeout=60");
}

/// What LVM sees when it also looks inside logical volumes, as some machines are set up to.
fn groups() -> String {
    run("vgs --noheadings -o name --config devices/scan_lvs=1")
}

/// The number of the device that `/dev/disk/by-uuid` names.
fn by_uuid(uuid: &str) -> Option<DevNo> {
    let found = rustix::fs::stat(Path::new("/dev/disk/by-uuid").join(uuid)).ok()?;
    let (major, minor) = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
    Some(DevNo { major, minor })
}

/// A volume group inside a tracked volume, a virtual machine's disk say, must not become one of
/// the node's: LVM could activate and change it.
#[test]
#[ignore = "kernel tier"]
fn a_volume_group_inside_a_tracked_volume_stays_hidden() {
    let _udevd = Udevd::start();
    let group = VolumeGroup::new([Disk::new(128).into_backing()]);
    let volume = group.thick("vmdisk", 64);
    let path = volume.path.display();
    run(&format!("vgcreate -qq --config devices/scan_lvs=1 inner {path}"));
    assert!(groups().contains("inner"), "LVM looks inside volumes here");
    assert!(!run("vgs --noheadings -o name").contains("inner"), "not so by default");

    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "vm", "64Ki")).unwrap().record;
    settle();
    assert!(!run("vgs --noheadings -o name").contains("inner"), "the nested group shows");
    assert!(!run("pvs --noheadings -o name").contains("eratrack"), "X-base shows as a disk");

    // The same device under a uuid that LVM does not skip is seen: the test can fail.
    let table = run("dmsetup table eratrack-vm-base");
    kit::run_with("dmsetup", ["create", "plain", "-u", "ERATRACK-plain", "--table", table.trim()])
        .unwrap();
    settle();
    assert!(run("vgs --noheadings -o name").contains("inner"), "an ordinary device is scanned");
    run("dmsetup remove plain");
    settle();

    host.detach(&record.stack).unwrap();
    run("vgremove -qq -ff -y --config devices/scan_lvs=1 inner");
}

/// X-base holds the same filesystem as X: `/dev/disk/by-uuid` must go on naming X.
#[test]
#[ignore = "kernel tier"]
fn links_by_uuid_go_on_naming_the_users_device() {
    let _udevd = Udevd::start();
    let group = VolumeGroup::new([Disk::new(128).into_backing()]);
    let volume = group.thick("data", 64);
    let uuid = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    run(&format!("mkfs.ext4 -q -F -U {uuid} {}", volume.path.display()));
    run("udevadm trigger --type=devices --subsystem-match=block --action=change");
    settle();
    assert_eq!(by_uuid(uuid), Some(number(&volume)), "udev links the filesystem");

    let store = kit::metadata_dir(64);
    let host = common::host(store.path());
    let record = host.attach(&request(&volume, "links", "64Ki")).unwrap().record;
    settle();
    assert_eq!(by_uuid(uuid), Some(number(&volume)), "while it is tracked");
    host.boundary(&record).unwrap();
    run("udevadm trigger --type=devices --subsystem-match=block --action=change");
    settle();
    assert_eq!(by_uuid(uuid), Some(number(&volume)), "after everything was probed again");
    host.detach(&record.stack).unwrap();
    settle();
    assert_eq!(by_uuid(uuid), Some(number(&volume)), "when tracking ended");
}
