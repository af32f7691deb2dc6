//! Pools as a person handles them: made, looked at, mended, freed of what nobody needs, grown.

use std::path::{Path, PathBuf};

use eratrack_model::names::{Part, StackId};
use eratrack_model::pool::{Area, Copy, LEAST_DISK, PoolId, Table, TableError};
use eratrack_model::units::{Bytes, DevNo};

use super::open::{Mapped, OpenPool, overlap, range_of};
use crate::host::{Host, HostError};
use crate::pool::{PoolDisk, PoolError, contents};
use crate::port::Lookup;

/// Drivers whose devices are not asked whether they hold a pool: floppies and CD drives, which
/// may take a minute to say that they are empty (Documentation/admin-guide/devices.txt).
const NOT_ASKED: [u32; 2] = [2, 11];

/// A pool as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Its disk.
    pub device: DevNo,
    /// The kernel's own name for the disk.
    pub path: PathBuf,
    /// What the disk says of itself.
    pub identity: Option<String>,
    /// How long the disk is.
    pub disk: Bytes,
    /// The table that counts.
    pub table: Table,
    /// The areas, in the order of the disk.
    pub areas: Vec<PoolArea>,
    /// What is not as it should be, worst first.
    pub findings: Vec<Finding>,
}

/// A disk with a pool.
#[derive(Debug)]
pub struct FoundPool {
    /// The disk.
    pub device: DevNo,
    /// The kernel's own name for it.
    pub path: PathBuf,
    /// The pool, or why it cannot be used.
    pub state: Result<PoolState, HostError>,
}

/// An area and who needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolArea {
    /// The area.
    pub area: Area,
    /// Who needs it.
    pub state: AreaState,
}

/// Who needs an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaState {
    /// A device of ours maps it.
    InUse,
    /// The stack has a record, but no device maps the area.
    Recorded,
    /// Nobody on this machine.
    Unused,
}

/// Something in a pool that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A device maps what is not, or not wholly, its stack's area.
    Stray {
        /// The device's stack.
        stack: StackId,
    },
    /// One copy of the table cannot be used; the next change mends it.
    Copy {
        /// Which.
        copy: Copy,
        /// What is wrong with it.
        why: TableError,
    },
    /// An area that nobody on this machine needs.
    Unused {
        /// Whose it was.
        stack: StackId,
    },
    /// The disk is longer than the pool uses.
    Grown {
        /// How much.
        more: Bytes,
    },
}

impl Finding {
    /// Whether metadata may be, or become, wrong because of it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Stray { .. } | Self::Copy { .. } => true,
            Self::Unused { .. } | Self::Grown { .. } => false,
        }
    }
}

impl Host {
    /// Makes a pool of a disk. One that is not blank must be named by what it says of itself.
    pub fn init_pool(&self, path: &Path, serial: Option<&str>) -> Result<PoolState, HostError> {
        let dev = self.pool_device(path)?;
        let lock = self.lock_pool(dev)?;
        self.is_fit(dev)?;
        let claim = self.claim(dev)?;
        let disk = self.pool_disk(dev)?;
        if disk.length() < LEAST_DISK {
            return Err(PoolError::TooSmall { device: dev, length: disk.length() }.into());
        }
        self.may_be_lost(dev, &disk, serial)?;
        let unsound = |error: &dyn std::fmt::Display| unfit(dev, error.to_string());
        let id: PoolId = self.machine.new_chain()?.as_str().parse().map_err(|e| unsound(&e))?;
        let table = Table::new(id, disk.length()).map_err(|e| unsound(&e))?;
        self.about_to("make the pool");
        disk.create(&table)?;
        drop((claim, lock));
        self.pool(path)
    }

    /// Whether a disk could be a pool, whatever is in it.
    fn is_fit(&self, dev: DevNo) -> Result<(), HostError> {
        let ours =
            self.find(&dev.into())?.and_then(|info| info.uuid).is_some_and(|it| it.is_ours());
        if ours {
            return Err(unfit(dev, "it is part of a tracking stack".to_owned()).into());
        }
        if self.machine.read_only(dev)? {
            return Err(unfit(dev, "it is read-only".to_owned()).into());
        }
        if let Some(holder) = self.machine.holders(dev)?.first() {
            let by = format!("block device {holder} is over it");
            return Err(PoolError::Busy { device: dev, by }.into());
        }
        match self.machine.partitions(dev)? {
            0 => Ok(()),
            count => {
                let why = format!("it has {count} partitions; name one of them, or remove them");
                Err(unfit(dev, why).into())
            }
        }
    }

    fn may_be_lost(
        &self,
        dev: DevNo,
        disk: &PoolDisk,
        serial: Option<&str>,
    ) -> Result<(), HostError> {
        let identity = self.machine.identity(dev)?;
        if let Some(given) = serial {
            return match identity {
                Some(identity) if identity == given => Ok(()),
                identity => {
                    let given = given.to_owned();
                    Err(PoolError::OtherSerial { device: dev, given, identity }.into())
                }
            };
        }
        let [first, last] = disk.ends()?;
        match contents(&first, &last) {
            None => Ok(()),
            Some(holds) => Err(PoolError::NotBlank { device: dev, holds, identity }.into()),
        }
    }

    /// The pool on a disk, and what is not as it should be.
    pub fn pool(&self, path: &Path) -> Result<PoolState, HostError> {
        let dev = self.pool_device(path)?;
        self.state_of(self.open_pool(dev)?)
    }

    /// Every pool of this machine. One whose table cannot be used is there with the reason.
    pub fn pools(&self) -> Result<Vec<FoundPool>, HostError> {
        let mut pools = Vec::new();
        for dev in self.machine.block_devices()? {
            if !self.may_be_asked(dev)? {
                continue;
            }
            match self.pool_on(dev) {
                Ok(_) => {
                    let state = self.open_pool(dev).and_then(|pool| self.state_of(pool));
                    pools.push(FoundPool { device: dev, path: self.machine.node(dev), state });
                }
                Err(HostError::Pool(error)) if error.is_damage() => {
                    let (path, state) = (self.machine.node(dev), Err(error.into()));
                    pools.push(FoundPool { device: dev, path, state });
                }
                // Nothing of ours, or nothing that can be read.
                Err(error) => tracing::debug!(%dev, %error, "no pool"),
            }
        }
        Ok(pools)
    }

    /// Whether a device can be read without waiting for somebody: not one that is suspended.
    fn may_be_asked(&self, dev: DevNo) -> Result<bool, HostError> {
        if NOT_ASKED.contains(&dev.major) || self.bytes_of(dev)?.0 == 0 {
            return Ok(false);
        }
        let info = self.find(&dev.into())?;
        Ok(info.is_none_or(|info| {
            !info.suspended && info.live && !info.uuid.is_some_and(|uuid| uuid.is_ours())
        }))
    }

    /// Frees an area whose stack has neither a record nor a device on this machine.
    pub fn free_area(&self, path: &Path, stack: &StackId) -> Result<PoolState, HostError> {
        let dev = self.pool_device(path)?;
        let _lock = self.lock_stack(stack)?;
        let mut pool = self.open_pool(dev)?;
        let used = |why: &str| PoolError::AreaInUse { stack: stack.clone(), why: why.to_owned() };
        if self.has_devices(stack)? {
            return Err(used("the stack has devices; detach it").into());
        }
        // What cannot be read may be a record that needs the area.
        if self.store.stacks()?.contains(stack) {
            return Err(used("the stack has a record; detach it, or attach it anew").into());
        }
        self.about_to("free the area of the pool");
        pool.free(stack)?;
        self.state_of(pool)
    }

    fn has_devices(&self, stack: &StackId) -> Result<bool, HostError> {
        for part in Part::all() {
            if self.find(&Lookup::Uuid(stack.uuid(part)))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has the pool use its disk to the end, which has become longer.
    pub fn grow_pool(&self, path: &Path) -> Result<PoolState, HostError> {
        let mut pool = self.open_pool(self.pool_device(path)?)?;
        self.about_to("grow the pool");
        pool.grow()?;
        self.state_of(pool)
    }

    fn state_of(&self, pool: OpenPool) -> Result<PoolState, HostError> {
        let OpenPool { dev, disk, copies, mapped, .. } = pool;
        let recorded = self.store.stacks()?;
        let areas = copies.table.areas().iter().map(|area| {
            let in_use = mapped.iter().any(|mapped| overlap(&mapped.range, &range_of(area)));
            let state = match (in_use, recorded.contains(&area.stack)) {
                (true, _) => AreaState::InUse,
                (false, true) => AreaState::Recorded,
                (false, false) => AreaState::Unused,
            };
            PoolArea { area: area.clone(), state }
        });
        let areas: Vec<_> = areas.collect();
        let mut findings = strays(&copies.table, &mapped);
        if let Some(why) = copies.other {
            let copy = match copies.newest {
                Copy::First => Copy::Second,
                Copy::Second => Copy::First,
            };
            findings.push(Finding::Copy { copy, why });
        }
        let unused = areas.iter().filter(|area| area.state == AreaState::Unused);
        findings.extend(unused.map(|area| Finding::Unused { stack: area.area.stack.clone() }));
        let length = disk.length();
        if copies.table.grow(length).is_ok() {
            findings.push(Finding::Grown { more: Bytes(length.0 - copies.table.disk().0) });
        }
        let identity = self.machine.identity(dev)?;
        Ok(PoolState {
            device: dev,
            path: self.machine.node(dev),
            identity,
            disk: length,
            table: copies.table,
            areas,
            findings,
        })
    }
}

/// Devices that map what is not theirs.
fn strays(table: &Table, mapped: &[Mapped]) -> Vec<Finding> {
    let own = |mapped: &Mapped| {
        let area = table.area(&mapped.stack).map(range_of);
        area.is_some_and(|area| area.start <= mapped.range.start && mapped.range.end <= area.end)
    };
    let strays = mapped.iter().filter(|mapped| !own(mapped));
    strays.map(|mapped| Finding::Stray { stack: mapped.stack.clone() }).collect()
}

fn unfit(device: DevNo, why: String) -> PoolError {
    PoolError::Unfit { device, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_maps_what_is_not_its_area_is_a_stray() {
        let id = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap();
        let (a, b): (StackId, StackId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let table = Table::new(id, Bytes(16 << 20)).unwrap();
        let (table, area) = table.allocate(&a, Bytes(2 << 20), &[]).unwrap();
        let range = range_of(&area);
        let of = |stack: &StackId, from: u64, to: u64| {
            strays(&table, &[Mapped { stack: stack.clone(), range: from..to }]).len()
        };
        assert_eq!(of(&a, range.start, range.end), 0);
        assert_eq!(of(&a, range.start, range.end + 512), 1);
        assert_eq!(of(&b, range.start, range.end), 1);
    }
}
