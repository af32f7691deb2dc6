//! A kernel that has no dm-era. A file of its own: the guest's kernel must never have loaded it.

mod common;

use common::Eratrack;
use kit::{Disk, run};

#[test]
#[ignore = "kernel tier"]
fn a_kernel_without_dm_era_is_named_and_nothing_is_changed() {
    let (eratrack, disk) = (Eratrack::new(), Disk::new(16));
    // The guest's files are an overlay: this changes nothing outside it.
    run("modprobe -r dm-era");
    run("find /lib/modules/ -follow -name dm-era.ko* -delete");
    let device = disk.device().display();
    for words in [format!("attach {device} --stage a"), "list".into(), "restore".into()] {
        let said = eratrack.fails(&words, 9);
        assert!(said.contains("no dm-era") && said.contains("dm-era"), "device {words}: {said}");
    }
    assert!(!eratrack.state().exists());
    assert_eq!(run("dmsetup table").trim(), "No devices found");
}
