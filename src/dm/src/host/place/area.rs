//! A stack's area of a pool, and the mapping of ours over it that era uses.
//!
//! Made in this order, undone in the other: the record that names the pool, the area in the
//! pool's table, the mapping. The pool is locked from before its table is read until the mapping
//! is there, or gone.

use std::ops::Range;
use std::path::{Path, PathBuf};

use eratrack_model::names::{Mapping, Part, StackId};
use eratrack_model::place::PoolPlace;
use eratrack_model::pool::{AllocateError, Area, Copies, PoolId};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo, SECTOR_BYTES, Sectors};

use crate::file_lock::FileLock;
use crate::host::mapping::Unmapped;
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
    claim: Option<std::fs::File>,
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
    fn change(&mut self, next: eratrack_model::pool::Table) -> Result<(), PoolError> {
        self.copies = self.disk.change(&self.copies, next)?;
        Ok(())
    }

    fn taken(&self) -> Vec<Range<u64>> {
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
    /// How a record names the pool that is on that device.
    pub(super) fn pool_place(&self, device: &Path) -> Result<PoolPlace, HostError> {
        let dev = self.pool_device(device)?;
        let pool = self.open_pool(dev)?.copies.table.pool().clone();
        Ok(PoolPlace { pool, device: device.to_owned(), identity: self.machine.identity(dev)? })
    }

    /// Fails if the pool has no room for an area of that size, or the stack has one already.
    pub(super) fn check_area(
        &self,
        stack: &StackId,
        place: &PoolPlace,
        size: Bytes,
    ) -> Result<(), HostError> {
        let pool = self.open_pool_of(place)?;
        let fits = pool.copies.table.allocate(stack, size, &pool.taken());
        fits.map(|_| ()).map_err(|error| explain(stack, place, error))
    }

    pub(super) fn make_area(
        &self,
        stack: &StackId,
        place: &PoolPlace,
        size: Bytes,
    ) -> Result<DevNo, HostError> {
        let mut pool = self.open_pool_of(place)?;
        let allocated = pool.copies.table.allocate(stack, size, &pool.taken());
        let (next, area) = allocated.map_err(|error| explain(stack, place, error))?;
        self.about_to("give the stack an area of the pool");
        pool.change(next)?;
        self.map_area(pool, &area)
    }

    /// Maps the area that the stack has already.
    pub(super) fn open_area(&self, stack: &StackId, place: &PoolPlace) -> Result<DevNo, HostError> {
        let pool = self.open_pool_of(place)?;
        let none = || PoolError::Area(AllocateError::NoArea(stack.clone()));
        let area = pool.copies.table.area(stack).ok_or_else(none)?.clone();
        self.map_area(pool, &area)
    }

    fn map_area(&self, mut pool: OpenPool, area: &Area) -> Result<DevNo, HostError> {
        let (stack, mapping) = (&area.stack, Mapping::Metadata);
        let foreign = pool
            .mapped
            .iter()
            .find(|mapped| mapped.stack != *stack && overlap(&mapped.range, &range_of(area)));
        if let Some(by) = foreign {
            let why = format!("a device of stack {} maps it", by.stack);
            return Err(PoolError::AreaInUse { stack: stack.clone(), why }.into());
        }
        let table = linear(pool.dev, area)?;
        // The claim would keep device mapper out as well.
        pool.claim = None;
        self.map(stack, mapping, &stack.name(mapping), &table)
    }

    /// Removes the mapping, and then the area. A pool that is lost takes the area with it.
    pub(super) fn remove_area(&self, stack: &StackId, place: &PoolPlace) -> Result<(), HostError> {
        let opened = self.open_pool_of(place);
        let mut pool = match opened {
            Err(HostError::Pool(error)) if error.is_lost() => {
                tracing::warn!(%stack, %error, "its area is left there: free it with `eratrack device pool free`");
                return self.unmap_area(stack);
            }
            opened => opened?,
        };
        self.unmap_area(stack)?;
        pool.mapped.retain(|mapped| mapped.stack != *stack);
        if pool.mapped.is_empty() && pool.claim.is_none() {
            pool.claim = Some(self.claim(pool.dev)?);
        }
        if pool.copies.table.area(stack).is_some() {
            self.about_to("free the area of the pool");
            pool.free(stack)?;
        }
        Ok(())
    }

    pub(super) fn unmap_area(&self, stack: &StackId) -> Result<(), HostError> {
        match self.unmap(stack, Mapping::Metadata)? {
            Unmapped::Gone => Ok(()),
            Unmapped::InUse { open_count } => {
                Err(HostError::InUse { name: stack.name(Mapping::Metadata), open_count })
            }
        }
    }

    /// The pool that a record names: at its path, or on a disk that says the same of itself.
    fn open_pool_of(&self, place: &PoolPlace) -> Result<OpenPool, HostError> {
        let dev = self.find_pool(place)?;
        let pool = self.open_pool(dev)?;
        if *pool.copies.table.pool() == place.pool { Ok(pool) } else { Err(missing(place).into()) }
    }

    /// Where the pool is now; where it was, if it is nowhere.
    pub(super) fn pool_path(&self, place: &PoolPlace) -> PathBuf {
        match self.find_pool(place) {
            Ok(dev) if self.machine.device_at(&place.device) != Some(dev) => self.machine.node(dev),
            _ => place.device.clone(),
        }
    }

    pub(super) fn find_pool(&self, place: &PoolPlace) -> Result<DevNo, HostError> {
        let is_it = |dev: &DevNo| self.pool_on(*dev).is_ok_and(|pool| pool == place.pool);
        if let Some(dev) = self.machine.device_at(&place.device).filter(is_it) {
            return Ok(dev);
        }
        let says = |dev: &DevNo| {
            let identity = self.machine.identity(*dev).ok().flatten();
            identity.is_some() && identity == place.identity
        };
        let found = self.machine.block_devices()?.into_iter().filter(says).find(is_it);
        Ok(found.ok_or_else(|| missing(place))?)
    }

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
    pub(super) fn claim(&self, dev: DevNo) -> Result<std::fs::File, HostError> {
        match self.nodes.open_alone(dev) {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
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

fn explain(stack: &StackId, place: &PoolPlace, error: AllocateError) -> HostError {
    match error {
        AllocateError::HasArea(_) => {
            let device = place.device.display();
            let why = format!(
                "it may be of an earlier attempt, or of another machine: if nobody needs it, free it with `eratrack device pool free {device} {stack}`"
            );
            PoolError::AreaInUse { stack: stack.clone(), why }.into()
        }
        error => PoolError::Area(error).into(),
    }
}

fn missing(place: &PoolPlace) -> PoolError {
    let PoolPlace { pool, device, identity } = place.clone();
    PoolError::Missing { pool, path: device, identity }
}

/// The area as device mapper maps it. Areas are whole MiB, and no longer than a disk.
fn linear(dev: DevNo, area: &Area) -> Result<Table, HostError> {
    let offset = Sectors(area.start.0 / SECTOR_BYTES);
    let length = Sectors(area.length.0 / SECTOR_BYTES);
    Table::single(length, Target::Linear { device: dev, offset }).map_err(|error| {
        HostError::Unexpected { stack: area.stack.clone(), what: error.to_string() }
    })
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
