//! The kernel keeps every promise that the fake keeps.

use std::cell::RefCell;

use eratrack_dm::conformance::{self, Disks, Suite};
use eratrack_dm::linux::Kernel;
use eratrack_model::units::{DevNo, Sectors};
use kit::Disk;

#[derive(Default)]
struct Scratch(RefCell<Vec<Disk>>);

impl Disks for Scratch {
    fn disk(&self, length: Sectors) -> DevNo {
        let disk = Disk::new(length.0.div_ceil(2048));
        let found = rustix::fs::stat(disk.device()).expect("the disk is there");
        self.0.borrow_mut().push(disk);
        let number = found.st_rdev;
        DevNo { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
    }
}

#[test]
#[ignore = "kernel tier"]
fn the_kernel_conforms() {
    kit::setup();
    let (dm, disks) = (Kernel::open().unwrap(), Scratch::default());
    conformance::run(&Suite { dm: &dm, disks: &disks });
    let left = kit::run("dmsetup ls");
    assert!(!left.contains("conformance"), "{left}");
}
