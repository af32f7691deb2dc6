//! A kernel in memory, stricter than the real one.
//!
//! What the real one would let hang, corrupt or leave behind ends the test here, with a panic
//! that names the rule: I/O or a status through a suspended device, an era device reloaded while
//! it is in use, metadata that two era devices share or that is zeroed in use, an LVM volume
//! changed without LVM's lock.

mod era;
mod fault;
mod ports;
mod snapshots;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use eratrack_model::Era;
use eratrack_model::lvm::VgName;
use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo, Sectors};

use crate::port::Access;
pub use era::FakeEra;
use fault::Faults;
pub use fault::{Killed, When};
pub use snapshots::FakeSnapshot;

/// The number that the kernel gives device mapper varies; this is the fake's.
const MAJOR: u32 = 253;
/// What a swap sets `read_ahead_kb` to.
const READ_AHEAD: u64 = 128;

/// The kernel. Shared by reference, as the real one is.
#[derive(Debug, Default)]
pub struct FakeKernel {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    disks: BTreeMap<DevNo, Sectors>,
    devices: BTreeMap<DevNo, FakeDevice>,
    eras: BTreeMap<DevNo, FakeEra>,
    snapshots: BTreeMap<DevNo, FakeSnapshot>,
    locked: BTreeSet<VgName>,
    missing_targets: BTreeSet<String>,
    faults: Faults,
}

#[derive(Debug)]
struct FakeDevice {
    name: DmName,
    uuid: Option<DmUuid>,
    live: Option<(Table, Access)>,
    inactive: Option<(Table, Access)>,
    suspended: bool,
    openers: u32,
    read_ahead: u64,
    discard_max: Bytes,
}

impl FakeKernel {
    /// A kernel with no devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plugs in a disk, or a loop device.
    pub fn add_disk(&self, dev: DevNo, length: Sectors) {
        self.state().disks.insert(dev, length);
    }

    /// Makes a device that is in use: its table live, opened once. As LVM or a person would,
    /// without faults and locks.
    ///
    /// # Panics
    /// If the table does not fit.
    pub fn add_volume(&self, name: &str, uuid: Option<&str>, table: &Table) -> DevNo {
        let mut state = self.state();
        let number = state.free_number();
        state.check_table(number, table).expect("the volume's table fits");
        let device = FakeDevice {
            live: Some((table.clone(), Access::ReadWrite)),
            openers: 1,
            ..FakeDevice::new(
                name.parse().expect("a valid name"),
                uuid.map(|uuid| uuid.parse().expect("a valid uuid")),
            )
        };
        state.devices.insert(number, device);
        number
    }

    /// Somebody opens a device once more.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn open(&self, dev: DevNo) {
        self.state().devices.get_mut(&dev).expect("the device is there").openers += 1;
    }

    /// Somebody closes a device.
    ///
    /// # Panics
    /// If there is no such device, or nobody has it open.
    pub fn close(&self, dev: DevNo) {
        self.state().devices.get_mut(&dev).expect("the device is there").openers -= 1;
    }

    /// Somebody else, such as LVM, loads a table; makes it live too if `swap` says so.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn somebody_loads(&self, dev: DevNo, table: &Table, swap: bool) {
        let mut state = self.state();
        let device = state.devices.get_mut(&dev).expect("the device is there");
        let loaded = Some((table.clone(), Access::ReadWrite));
        if swap {
            device.live = loaded;
        } else {
            device.inactive = loaded;
        }
    }

    /// Somebody else suspends a device.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn somebody_suspends(&self, dev: DevNo) {
        self.state().devices.get_mut(&dev).expect("the device is there").suspended = true;
    }

    /// A kernel without this target.
    pub fn lacks_target(&self, name: &str) {
        self.state().missing_targets.insert(name.to_owned());
    }

    /// Writes to a device, and so marks blocks in whatever era devices it goes through.
    ///
    /// # Panics
    /// If the write would hang or lie beyond the device's end.
    pub fn write(&self, dev: DevNo, first: Sectors, length: Sectors) {
        self.state().write(dev, first, length);
    }

    /// What dm-era has recorded on a metadata device.
    ///
    /// # Panics
    /// If no era device ever used it.
    pub fn era_on(&self, metadata: DevNo) -> FakeEra {
        self.state().eras.get(&metadata).expect("an era device used it").clone()
    }

    /// The metadata on this device can no longer be written.
    ///
    /// # Panics
    /// If no era device ever used it.
    pub fn fail_metadata(&self, metadata: DevNo) {
        self.state().eras.get_mut(&metadata).expect("an era device used it").failed = true;
    }

    /// Devices that are suspended although they have a table: must be none, always.
    pub fn suspended(&self) -> Vec<DevNo> {
        let state = self.state();
        let suspended = state.devices.iter().filter(|(_, device)| device.suspended);
        suspended.map(|(number, _)| *number).collect()
    }

    /// Blocks changed on a metadata device since an era, as a reader of the metadata would list
    /// them.
    pub fn changed_since(&self, metadata: DevNo, since: Era) -> BTreeSet<u64> {
        self.era_on(metadata).changed_since(since)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that ends a process by a panic goes on with the kernel as it is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeDevice {
    fn new(name: DmName, uuid: Option<DmUuid>) -> Self {
        Self {
            name,
            uuid,
            live: None,
            inactive: None,
            suspended: false,
            openers: 0,
            read_ahead: READ_AHEAD,
            discard_max: Bytes(1 << 31),
        }
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.live.iter().chain(&self.inactive).map(|(table, _)| table)
    }

    fn live_table(&self) -> Option<&Table> {
        self.live.as_ref().map(|(table, _)| table)
    }
}

impl State {
    fn free_number(&self) -> DevNo {
        let free = (0..=u32::MAX).find(|minor| !self.devices.contains_key(&number(*minor)));
        number(free.expect("fewer devices than numbers"))
    }

    fn length(&self, dev: DevNo) -> Option<Sectors> {
        let mapped = self.devices.get(&dev).map(|device| device.live_table().map(Table::length));
        mapped.unwrap_or_else(|| self.disks.get(&dev).copied())
    }

    /// Openers, and every device with a table that names it.
    fn open_count(&self, dev: DevNo) -> u32 {
        let openers = self.devices.get(&dev).map_or(0, |device| device.openers);
        let above = self.devices.values().filter(|device| {
            device.tables().any(|table| table.devices().any(|named| *named == dev))
        });
        openers + u32::try_from(above.count()).unwrap_or(u32::MAX)
    }

    fn write(&mut self, dev: DevNo, first: Sectors, length: Sectors) {
        if self.disks.contains_key(&dev) {
            return;
        }
        let device = self.devices.get(&dev).expect("the device is there");
        assert!(!device.suspended, "rule broken: a write to {dev} hangs, it is suspended");
        let table = device.live_table().expect("the device has a table").clone();
        assert!(first.0 + length.0 <= table.length().0, "a write beyond the end of {dev}");
        self.note_missed(dev, first, length);
        for segment in table.segments() {
            let start = first.0.max(segment.start.0);
            let end = (first.0 + length.0).min(segment.start.0 + segment.length.0);
            if start < end {
                let inside = Sectors(start - segment.start.0);
                self.write_through(&segment.target, inside, Sectors(end - start));
            }
        }
    }

    fn write_through(&mut self, target: &Target, at: Sectors, length: Sectors) {
        match target {
            Target::Linear { device, offset } => {
                self.write(*device, Sectors(at.0 + offset.0), length);
            }
            Target::Era { metadata, origin, granularity } => {
                let era = self.eras.get_mut(metadata).expect("a live era has metadata");
                assert!(!era.failed, "a write to an unmarked block failed: the metadata is bad");
                era.mark(at.0 / granularity.0, (at.0 + length.0 - 1) / granularity.0);
                self.write(*origin, at, length);
            }
            Target::Switch { region: _, paths } => {
                let first = paths.first().expect("a switch has paths");
                self.write(first.device, Sectors(at.0 + first.offset.0), length);
            }
            Target::SnapshotOrigin { origin } => {
                self.copy_away(*origin, at, length);
                self.write(*origin, at, length);
            }
            Target::Snapshot { .. } => panic!("rule broken: a point in time is written to"),
            Target::Striped { .. } | Target::Thin { .. } | Target::Other { .. } => {}
        }
    }
}

fn number(minor: u32) -> DevNo {
    DevNo { major: MAJOR, minor }
}

#[cfg(test)]
mod stack_tests;
#[cfg(test)]
mod tests;
