use std::cell::Cell;

use eratrack_model::units::{DevNo, Sectors};

use super::*;
use crate::conformance::{self, Disks, Suite};

struct Loops<'a>(&'a FakeKernel, Cell<u32>);

impl Disks for Loops<'_> {
    fn disk(&self, length: Sectors) -> DevNo {
        let dev = DevNo { major: 7, minor: self.1.get() };
        self.1.set(dev.minor + 1);
        self.0.add_disk(dev, length);
        dev
    }
}

#[test]
fn the_fake_conforms() {
    let kernel = FakeKernel::new();
    kernel.lacks_target("nonesuch");
    conformance::run(&Suite { dm: &kernel, disks: &Loops(&kernel, Cell::new(0)) });
    assert_eq!(kernel.state().devices.len(), 0);
}
