//! A host that ends its own process with SIGKILL just before its n-th change to the machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eratrack_dm::linux::Kernel;
use eratrack_dm::{Access, DeviceMapper, DmError, Host, Info, Listed, Lookup, Slot, StatusLine};
use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;
use rustix::process::{Signal, getpid, kill_process};

const LOCK: Duration = Duration::from_secs(10);

/// One that lives for `at` changes.
pub(crate) fn mortal_host(dir: &Path, at: usize) -> Host {
    mortal(at, |dm| super::host_over(dir, dm, LOCK))
}

/// The same for the machine's administrator.
pub(crate) fn mortal_administrators_host(dir: &Path, at: usize) -> Host {
    mortal(at, |dm| super::administrators_host_over(dir, dm, LOCK))
}

fn mortal(at: usize, host: impl FnOnce(Arc<Mortal>) -> Host) -> Host {
    let fuse = Arc::new(Fuse { at, count: AtomicUsize::new(0) });
    let kernel = Kernel::open().expect("device mapper is there");
    let dm = Arc::new(Mortal { kernel, fuse: Arc::clone(&fuse) });
    host(dm).observed_by(Arc::new(move |_| fuse.burn()))
}

/// Ends the process at one of its changes.
struct Fuse {
    at: usize,
    count: AtomicUsize,
}

impl Fuse {
    fn burn(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) == self.at {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    }
}

/// The kernel's device mapper, where every verb that changes something burns the fuse. A step of
/// a plan may have several: the load and the swap of X above all.
struct Mortal {
    kernel: Kernel,
    fuse: Arc<Fuse>,
}

impl Mortal {
    fn change(&self) -> &Kernel {
        self.fuse.burn();
        &self.kernel
    }
}

impl DeviceMapper for Mortal {
    fn create(&self, name: &DmName, uuid: &DmUuid) -> Result<DevNo, DmError> {
        self.change().create(name, uuid)
    }

    fn load(&self, dev: DevNo, table: &Table, access: Access) -> Result<(), DmError> {
        self.change().load(dev, table, access)
    }

    fn swap(&self, dev: DevNo) -> Result<(), DmError> {
        self.change().swap(dev)
    }

    fn clear(&self, dev: DevNo) -> Result<(), DmError> {
        self.change().clear(dev)
    }

    fn remove(&self, dev: DevNo) -> Result<(), DmError> {
        self.change().remove(dev)
    }

    fn message(&self, dev: DevNo, text: &str) -> Result<(), DmError> {
        self.change().message(dev, text)
    }

    fn info(&self, of: &Lookup) -> Result<Info, DmError> {
        self.kernel.info(of)
    }

    fn table(&self, dev: DevNo, slot: Slot) -> Result<Option<Table>, DmError> {
        self.kernel.table(dev, slot)
    }

    fn status(&self, dev: DevNo) -> Result<Vec<StatusLine>, DmError> {
        self.kernel.status(dev)
    }

    fn has_target(&self, name: &str) -> Result<bool, DmError> {
        self.kernel.has_target(name)
    }

    fn list(&self) -> Result<Vec<Listed>, DmError> {
        self.kernel.list()
    }
}
