//! A pool's disk, opened for one operation of ours at a time.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use eratrack_model::names::{Mapping, Part, StackId};
use eratrack_model::pool::{self, AllocateError, Area, Copies, PoolId};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo, SECTOR_BYTES};

use crate::file_lock::FileLock;
use crate::host::{Host, HostError};
use crate::pool::{PoolDisk, PoolError};
use crate::port::Slot;
use crate::stack_lock::lock_directory;

/// A pool that no other operation of ours changes until this is dropped.
pub(super) struct OpenPool {
    pub(super) dev: DevNo,
    pub(super) disk: PoolDisk,
    pub(super) copies: Copies,
    /// What devices of ours map of it.
    pub(super) mapped: Vec<Mapped>,
    /// Keeps others from using the disk, where nothing of ours does.
    pub(super) claim: Option<File>,
    _lock: FileLock,
}

/// A part of a disk that a device of ours maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) stack: StackId,
    /// In bytes from the start of the disk.
    pub(super) range: Range<u64>,
}

impl OpenPool {
    pub(super) fn change(&mut self, next: pool::Table) -> Result<(), PoolError> {
        self.copies = self.disk.change(&self.copies, next)?;
        Ok(())
    }

    pub(super) fn taken(&self) -> Vec<Range<u64>> {
        self.mapped.iter().map(|mapped| mapped.range.clone()).collect()
    }

    /// Frees the stack's area, which nothing of ours may map.
    pub(super) fn free(&mut self, stack: &StackId) -> Result<(), PoolError> {
        let none = || PoolError::Area(AllocateError::NoArea(stack.clone()));
        let area = self.copies.table.area(stack).ok_or_else(none)?;
        let range = range_of(area);
        if let Some(by) = self.mapped.iter().find(|by| overlap(&by.range, &range)) {
            let why = format!("a device of stack {} maps it; detach that first", by.stack);
            return Err(PoolError::AreaInUse { stack: stack.clone(), why });
        }
        let next = self.copies.table.free(stack)?;
        self.change(next)
    }

    /// Uses the disk to its end.
    pub(super) fn grow(&mut self) -> Result<(), PoolError> {
        let next = self.copies.table.grow(self.disk.length())?;
        self.change(next)
    }
}

impl Host {
    /// Which pool is on a device, without locking it.
    pub(super) fn pool_on(&self, dev: DevNo) -> Result<PoolId, HostError> {
        let file = self
            .nodes
            .open_direct(dev)
            .map_err(|source| HostError::Open { device: dev, source })?;
        Ok(PoolDisk::over(file, dev, self.bytes_of(dev)?).read()?.table.pool().clone())
    }

    /// Locks the pool on a device and reads its table. Fails if somebody else uses the disk.
    pub(super) fn open_pool(&self, dev: DevNo) -> Result<OpenPool, HostError> {
        let lock = self.lock_pool(dev)?;
        let mapped = self.mapped_of(dev)?;
        let claim = if mapped.is_empty() { Some(self.claim(dev)?) } else { None };
        let disk = self.pool_disk(dev)?;
        let copies = disk.read()?;
        Ok(OpenPool { dev, disk, copies, mapped, claim, _lock: lock })
    }

    pub(super) fn pool_disk(&self, dev: DevNo) -> Result<PoolDisk, HostError> {
        let opened = self.nodes.open_direct_for_writing(dev);
        let file = opened.map_err(|source| HostError::Open { device: dev, source })?;
        Ok(PoolDisk::over(file, dev, self.bytes_of(dev)?))
    }

    pub(super) fn lock_pool(&self, dev: DevNo) -> Result<FileLock, PoolError> {
        let doing = "lock the pool on";
        let failed = |source| PoolError::Io { doing, device: dev, source };
        let waited = self.lock_deadline;
        // A stack's name has no dot: this is no stack's lock.
        let path = lock_directory(self.machine.root()).map_err(failed)?.join(format!("pool.{dev}"));
        let taken = FileLock::take(&path, waited).map_err(failed)?;
        taken.ok_or(PoolError::Locked { device: dev, waited })
    }

    /// Claims a disk for this process, as a mount would; fails if somebody has.
    pub(super) fn claim(&self, dev: DevNo) -> Result<File, HostError> {
        match self.nodes.open_alone(dev) {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                let by =
                    "it is mounted, or swap, or its partitions are, or a program has claimed it";
                Err(PoolError::Busy { device: dev, by: by.to_owned() }.into())
            }
            Err(source) => Err(HostError::Open { device: dev, source }),
        }
    }

    /// What devices of ours map of a disk; an error if any other device is over it.
    fn mapped_of(&self, dev: DevNo) -> Result<Vec<Mapped>, HostError> {
        let mut mapped = Vec::new();
        for holder in self.machine.holders(dev)? {
            let uuid = self.find(&holder.into())?.and_then(|info| info.uuid);
            let Some((stack, Part::Mapping(Mapping::Metadata))) = uuid.and_then(|it| it.owner())
            else {
                let by = format!("block device {holder} is over it");
                return Err(PoolError::Busy { device: dev, by }.into());
            };
            for slot in [Slot::Live, Slot::Inactive] {
                let table = self.dm.table(holder, slot)?;
                let ranges = table.iter().flat_map(|table| ranges_on(table, dev));
                mapped.extend(ranges.map(|range| Mapped { stack: stack.clone(), range }));
            }
        }
        Ok(mapped)
    }

    pub(super) fn pool_device(&self, path: &Path) -> Result<DevNo, PoolError> {
        let found = self.machine.device_at(path);
        found.ok_or_else(|| PoolError::NoDevice { path: path.to_owned() })
    }

    pub(super) fn bytes_of(&self, dev: DevNo) -> Result<Bytes, HostError> {
        Ok(self.machine.length(dev)?.to_bytes().unwrap_or(Bytes(u64::MAX)))
    }
}

fn ranges_on(table: &Table, dev: DevNo) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for segment in table.segments() {
        if let Target::Linear { device, offset } = segment.target
            && device == dev
        {
            let start = offset.0.saturating_mul(SECTOR_BYTES);
            ranges.push(start..start.saturating_add(segment.length.0.saturating_mul(SECTOR_BYTES)));
        }
    }
    ranges
}

pub(super) fn range_of(area: &Area) -> Range<u64> {
    area.start.0..area.start.0 + area.length.0
}

pub(super) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
