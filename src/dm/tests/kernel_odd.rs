//! Device-mapper devices of others, of whatever kind, beside ours: none keeps a stack from
//! anything, and no key of theirs ends in a message.

mod common;

use std::fs;

use common::{assert_nothing_of_ours, request};
use eratrack_dm::linux::{Kernel, Loops, Nodes};
use eratrack_dm::{Detached, DeviceMapper, Lookup, Recovery, Slot};
use kit::{Disk, VolumeGroup, run, run_with};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A device of somebody's; gone with this value.
struct Theirs(&'static str);

impl Theirs {
    fn new(name: &'static str, table: &str) -> Self {
        let named = ["--manglename", "none", "create", name, "--table", table];
        run_with("dmsetup", named).expect("it is made");
        Self(name)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = run_with("dmsetup", ["--manglename", "none", "remove", self.0]);
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_device_whose_name_is_not_understood_is_passed_over() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let theirs = Theirs::new("odd\u{1}name", "0 8 zero");
    let record = host.attach(&request(&volume, "odd", "64Ki")).unwrap().record;
    let found = host.recover().unwrap().pop().expect("one stack").outcome;
    assert_eq!(found, Recovery::Adopted(record.clone()));
    host.boundary(&record).unwrap();
    assert_eq!(host.detach(&record.stack).unwrap(), Detached::Restored);
    assert_eq!(volume.table(), original);
    drop(theirs);
    assert_nothing_of_ours(store.path());
}

#[test]
#[ignore = "kernel tier"]
fn the_key_of_an_encrypted_device_is_not_in_its_table() {
    run("modprobe dm-crypt");
    let disk = Disk::new(16);
    let device = disk.device().display();
    let table = format!("0 8192 crypt aes-xts-plain64 {KEY} 0 {device} 0");
    let _theirs = Theirs::new("theirs-crypt", &table);
    let kernel = Kernel::open().unwrap();
    let number = kernel.info(&Lookup::Name("theirs-crypt".parse().unwrap())).unwrap().number;
    let table = kernel.table(number, Slot::Live).unwrap().expect("it is live").to_string();
    assert!(table.contains("crypt aes-xts-plain64 - 0 ") && !table.contains(KEY), "{table}");
}

/// sysfs tells of a loop device that is freed and removed before it is asked.
#[test]
#[ignore = "kernel tier"]
fn a_loop_device_that_is_removed_meanwhile_is_not_there() {
    let store = kit::metadata_dir(64);
    let file = store.path().join("era-metadata");
    fs::write(&file, [0; 4096]).unwrap();
    for number in ["7:777", "4000:1"] {
        let listed = store.path().join("sys/block/loop777");
        fs::create_dir_all(listed.join("loop")).unwrap();
        fs::write(listed.join("loop/backing_file"), "/somewhere/era-metadata\n").unwrap();
        fs::write(listed.join("dev"), number).unwrap();
        let loops = Loops::new(Nodes::new("/dev"), &store.path().join("sys"));
        assert_eq!(loops.find(&file).unwrap(), None);
        assert!(!loops.detach(&file).unwrap());
    }
}
