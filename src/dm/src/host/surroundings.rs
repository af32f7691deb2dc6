use std::io;
use std::os::unix::fs::FileExt;

use eratrack_model::lvm::VgName;
use eratrack_model::units::{Bytes, DevNo, SECTOR_BYTES, Sectors};

use super::Host;
use crate::executor::Surroundings;
use crate::lvm_lock::{LockError, VolumeGroupLock};
use crate::machine::MachineError;

impl Surroundings for Host {
    type Lock = VolumeGroupLock;

    fn lock(&self, vg: &VgName) -> Result<VolumeGroupLock, LockError> {
        VolumeGroupLock::take(&self.machine, vg, self.lock_deadline)
    }

    fn zero(&self, dev: DevNo, length: Sectors) -> Result<(), MachineError> {
        let write = || {
            let bytes = length.0.checked_mul(SECTOR_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
            let zeroes = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            let file = self.nodes.open_for_writing(dev)?;
            file.write_all_at(&zeroes, 0)?;
            // dm-era reads around the page cache: this must be on the device before.
            file.sync_all()
        };
        let path = self.machine.sys().join("dev/block").join(dev.to_string());
        write().map_err(|source| MachineError {
            doing: "write zeroes to the device of",
            path,
            source,
        })
    }

    fn limit_discards(&self, dev: DevNo, bytes: Bytes) -> Result<Bytes, MachineError> {
        // Counted from the first one on: lists without discards need no dilation.
        self.machine.count_requests(dev)?;
        self.machine.limit_discards(dev, bytes)
    }

    fn read_ahead(&self, dev: DevNo) -> Result<u64, MachineError> {
        self.machine.read_ahead(dev)
    }

    fn set_read_ahead(&self, dev: DevNo, kib: u64) -> Result<(), MachineError> {
        self.machine.set_read_ahead(dev, kib)
    }
}
