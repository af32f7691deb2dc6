use std::io;
use std::os::unix::fs::FileExt;

use eratrack_model::lvm::VgName;
use eratrack_model::units::{Bytes, DevNo, SECTOR_BYTES, Sectors};

use super::Host;
use crate::executor::{Surroundings, Swapping};
use crate::lvm_lock::{LockError, VolumeGroupLock};
use crate::machine::MachineError;
use crate::stack_lock::StackLock;

/// A host at work on one stack, whose lock it has.
pub(super) struct At<'a> {
    pub(super) host: &'a Host,
    pub(super) lock: &'a StackLock,
}

impl Host {
    pub(super) fn lock_group(&self, vg: &VgName) -> Result<VolumeGroupLock, LockError> {
        VolumeGroupLock::take(&self.machine, vg, self.lock_deadline)
    }
}

impl Surroundings for At<'_> {
    type Lock = VolumeGroupLock;

    fn swapping(&self, swap: Option<Swapping>) {
        self.lock.note_swapping(swap);
        if swap.is_some() {
            self.host.about_to("swap the table");
        }
    }

    fn lock(&self, vg: &VgName) -> Result<VolumeGroupLock, LockError> {
        self.host.lock_group(vg)
    }

    fn zero(&self, dev: DevNo, length: Sectors) -> Result<(), MachineError> {
        let write = || {
            let bytes = length.0.checked_mul(SECTOR_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
            let zeroes = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            let file = self.host.nodes.open_for_writing(dev)?;
            file.write_all_at(&zeroes, 0)?;
            // dm-era reads around the page cache: this must be on the device before.
            file.sync_all()
        };
        let path = self.host.machine.sys().join("dev/block").join(dev.to_string());
        write().map_err(|source| MachineError {
            doing: "write zeroes to the device of",
            path,
            source,
        })
    }

    fn limit_discards(&self, dev: DevNo, bytes: Bytes) -> Result<Bytes, MachineError> {
        // Counted from the first one on: lists without discards need no dilation.
        self.host.machine.count_requests(dev)?;
        self.host.machine.limit_discards(dev, bytes)
    }

    fn read_ahead(&self, dev: DevNo) -> Result<u64, MachineError> {
        self.host.machine.read_ahead(dev)
    }

    fn set_read_ahead(&self, dev: DevNo, kib: u64) -> Result<(), MachineError> {
        self.host.about_to("set the read-ahead");
        self.host.machine.set_read_ahead(dev, kib)
    }
}
