//! A stack's area of a pool, and the mapping of ours over it that era uses.
//!
//! Made in this order, undone in the other: the record that names the pool, the area in the
//! pool's table, the mapping. The pool is locked from before its table is read until the mapping
//! is there, or gone.

use std::path::{Path, PathBuf};

use eratrack_model::names::{Mapping, StackId};
use eratrack_model::place::PoolPlace;
use eratrack_model::pool::{AllocateError, Area};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo, SECTOR_BYTES, Sectors};

use super::open::{OpenPool, overlap, range_of};
use crate::host::mapping::Unmapped;
use crate::host::{Host, HostError};
use crate::pool::PoolError;

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
        self.unmap_area(stack)?;
        let mut pool = match self.open_pool_of(place) {
            Err(HostError::Pool(error)) if error.is_lost() => {
                tracing::warn!(%stack, %error, "its area is left there: free it with `eratrack device pool free`");
                return Ok(());
            }
            opened => opened?,
        };
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
