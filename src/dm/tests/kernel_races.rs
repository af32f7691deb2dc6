//! Somebody acts on X between two of our calls to the kernel.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{assert_none_suspended, assert_nothing_of_ours, number, request};
use eratrack_dm::linux::Kernel;
use eratrack_dm::{
    Access, DeviceMapper, DmError, Host, Info, Listed, Liveness, Lookup, Recovery, Slot, StatusLine,
};
use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;
use kit::{Disk, Mount, VolumeGroup, Writer, run};

/// The kernel's device mapper; right after its next status somebody acts, once.
struct AfterStatus<F> {
    kernel: Kernel,
    armed: AtomicBool,
    act: F,
}

impl<F: Fn() + Send + Sync> DeviceMapper for AfterStatus<F> {
    fn create(&self, name: &DmName, uuid: &DmUuid) -> Result<DevNo, DmError> {
        self.kernel.create(name, uuid)
    }

    fn load(&self, dev: DevNo, table: &Table, access: Access) -> Result<(), DmError> {
        self.kernel.load(dev, table, access)
    }

    fn swap(&self, dev: DevNo) -> Result<(), DmError> {
        self.kernel.swap(dev)
    }

    fn clear(&self, dev: DevNo) -> Result<(), DmError> {
        self.kernel.clear(dev)
    }

    fn remove(&self, dev: DevNo) -> Result<(), DmError> {
        self.kernel.remove(dev)
    }

    fn message(&self, dev: DevNo, text: &str) -> Result<(), DmError> {
        self.kernel.message(dev, text)
    }

    fn info(&self, of: &Lookup) -> Result<Info, DmError> {
        self.kernel.info(of)
    }

    fn table(&self, dev: DevNo, slot: Slot) -> Result<Option<Table>, DmError> {
        self.kernel.table(dev, slot)
    }

    fn status(&self, dev: DevNo) -> Result<Vec<StatusLine>, DmError> {
        let lines = self.kernel.status(dev);
        if self.armed.swap(false, Ordering::Relaxed) {
            (self.act)();
        }
        lines
    }

    fn has_target(&self, name: &str) -> Result<bool, DmError> {
        self.kernel.has_target(name)
    }

    fn list(&self) -> Result<Vec<Listed>, DmError> {
        self.kernel.list()
    }
}

fn host_with(store: &Mount, act: impl Fn() + Send + Sync + 'static) -> Host {
    let kernel = Kernel::open().expect("device mapper is there");
    let dm = Arc::new(AfterStatus { kernel, armed: AtomicBool::new(true), act });
    common::host_over(store.path(), dm, Duration::from_secs(10))
}

/// LVM reloads X after era was found under it and asked, before it is tidied up. What is written
/// meanwhile nobody records, so the old chain must not go on.
#[test]
#[ignore = "kernel tier"]
fn a_refresh_while_a_stack_is_adopted_begins_a_new_chain() {
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 64);
    let (store, original) = (kit::metadata_dir(64), volume.table());
    let host = common::host(store.path());
    let mount = Mount::over("ext4", &volume.path, "");
    let writer = Writer::start(mount.path(), 4);
    writer.advance(10);
    let refresh = |lv: &str| {
        let lv = lv.to_owned();
        move || drop(run(&format!("lvchange -qq --refresh {lv}")))
    };

    let first = host.attach(&request(&volume, "races", "64Ki")).unwrap().record;
    let racing = host_with(&store, refresh(&volume.lv));
    let again = racing.attach(&request(&volume, "races", "64Ki")).unwrap();
    assert!(again.created && again.record.chain != first.chain, "the old chain goes on");
    assert_eq!(host.liveness(&again.record).unwrap(), Liveness::Intact);

    let racing = host_with(&store, refresh(&volume.lv));
    let found = racing.recover().unwrap().pop().expect("one stack").outcome;
    match found {
        Recovery::Broken { record, found: Liveness::Reloaded { .. }, era_failed: false } => {
            assert_eq!(record, again.record);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((volume.table(), number(&volume)), (original, first.x));
    writer.advance(10);
    assert_none_suspended();
    assert_nothing_of_ours(store.path());
    writer.stop_and_verify();
    mount.unmount_and_check("ext4");
}
