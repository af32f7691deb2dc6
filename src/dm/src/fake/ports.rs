//! The ports that the fake stands behind.

use eratrack_model::lvm::{LvmName, LvmUuid, VgName};
use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{Bytes, DevNo, Sectors};

use super::{FakeDevice, FakeEra, FakeKernel, FakeSnapshot, READ_AHEAD, State};
use crate::executor::{Surroundings, Swapping};
use crate::lvm_lock::LockError;
use crate::machine::MachineError;
use crate::port::{
    Access, DeviceMapper, DmError, DmErrorKind, Info, Listed, Lookup, Slot, StatusLine,
};

impl DeviceMapper for FakeKernel {
    fn create(&self, name: &DmName, uuid: &DmUuid) -> Result<DevNo, DmError> {
        self.call("create", name, |state| {
            let taken = state
                .devices
                .values()
                .any(|there| there.name == *name || there.uuid.as_ref() == Some(uuid));
            if taken {
                return Err(DmError::new(DmErrorKind::Busy, "create", name));
            }
            let number = state.free_number();
            state.devices.insert(number, FakeDevice::new(name.clone(), Some(uuid.clone())));
            Ok(number)
        })
    }

    fn load(&self, dev: DevNo, table: &Table, access: Access) -> Result<(), DmError> {
        self.call("load", dev, |state| {
            state.device("load", dev)?;
            let fits = state.check_table(dev, table);
            fits.map_err(|kind| DmError::new(kind, "load", dev).with_context(table))?;
            state.require_own_metadata(dev, table);
            state.device("load", dev)?.inactive = Some((table.clone(), access));
            Ok(())
        })
    }

    fn swap(&self, dev: DevNo) -> Result<(), DmError> {
        self.call("swap", dev, |state| state.swap(dev))
    }

    fn clear(&self, dev: DevNo) -> Result<(), DmError> {
        self.call("clear", dev, |state| {
            state.device("clear", dev)?.inactive = None;
            Ok(())
        })
    }

    fn remove(&self, dev: DevNo) -> Result<(), DmError> {
        self.call("remove", dev, |state| {
            state.device("remove", dev)?;
            let open_count = state.open_count(dev);
            if open_count > 0 {
                return Err(DmError::new(DmErrorKind::Busy, "remove", dev)
                    .with_context(format!("open {open_count} times")));
            }
            state.devices.remove(&dev);
            state.snapshots.remove(&dev);
            Ok(())
        })
    }

    fn info(&self, of: &Lookup) -> Result<Info, DmError> {
        self.call("info", of, |state| {
            let found = state.devices.iter().find(|(number, device)| match of {
                Lookup::Number(wanted) => *number == wanted,
                Lookup::Name(wanted) => device.name == *wanted,
                Lookup::Uuid(wanted) => device.uuid.as_ref() == Some(wanted),
            });
            let (number, device) =
                found.ok_or_else(|| DmError::new(DmErrorKind::NotFound, "info", of))?;
            Ok(Info {
                number: *number,
                name: device.name.clone(),
                uuid: device.uuid.clone(),
                suspended: device.suspended,
                live: device.live.is_some(),
                inactive: device.inactive.is_some(),
                access: device.live.as_ref().map_or(Access::ReadWrite, |(_, access)| *access),
                open_count: state.open_count(*number),
            })
        })
    }

    fn table(&self, dev: DevNo, slot: Slot) -> Result<Option<Table>, DmError> {
        self.call("table", dev, |state| {
            let device = state.device("table", dev)?;
            let slot = match slot {
                Slot::Live => &device.live,
                Slot::Inactive => &device.inactive,
            };
            Ok(slot.as_ref().map(|(table, _)| table.clone()))
        })
    }

    fn status(&self, dev: DevNo) -> Result<Vec<StatusLine>, DmError> {
        self.call("status", dev, |state| {
            state.require_running("status", dev)?;
            let table = state.device("status", dev)?.live_table().cloned();
            let segments = table.iter().flat_map(Table::segments);
            let lines = segments.map(|segment| StatusLine {
                target: segment.target.kind().to_owned(),
                text: state.status_text(dev, &segment.target),
            });
            Ok(lines.collect())
        })
    }

    fn message(&self, dev: DevNo, text: &str) -> Result<(), DmError> {
        self.call("message", dev, |state| {
            state.require_running("message", dev)?;
            let invalid = || DmError::new(DmErrorKind::Invalid, "message", dev).with_context(text);
            let era = state.era_of(dev).ok_or_else(invalid)?;
            match (text, era.held) {
                _ if era.failed => return Err(invalid()),
                ("checkpoint", _) => era.roll_over(),
                ("take_metadata_snap", false) => {
                    era.roll_over();
                    era.held = true;
                }
                ("drop_metadata_snap", true) => era.held = false,
                _ => return Err(invalid()),
            }
            Ok(())
        })
    }

    fn has_target(&self, name: &str) -> Result<bool, DmError> {
        self.call("has_target", name, |state| Ok(!state.missing_targets.contains(name)))
    }

    fn list(&self) -> Result<Vec<Listed>, DmError> {
        self.call("list", "all", |state| {
            let devices = state.devices.iter();
            Ok(devices
                .map(|(number, device)| Listed { number: *number, name: device.name.clone() })
                .collect())
        })
    }
}

impl State {
    fn device(&mut self, verb: &'static str, dev: DevNo) -> Result<&mut FakeDevice, DmError> {
        let found = self.devices.get_mut(&dev);
        found.ok_or_else(|| DmError::new(DmErrorKind::NotFound, verb, dev))
    }

    /// The real kernel blocks in a status of a suspended era device until somebody resumes it;
    /// whoever asks has forgotten to look.
    fn require_running(&mut self, verb: &'static str, dev: DevNo) -> Result<(), DmError> {
        let suspended = self.device(verb, dev)?.suspended;
        assert!(!suspended, "rule broken: {verb} of {dev}, which is suspended");
        Ok(())
    }

    fn require_own_metadata(&self, dev: DevNo, table: &Table) {
        for metadata in era_metadata(table) {
            let shared = self.devices.iter().any(|(number, device)| {
                *number != dev && device.tables().any(|t| era_metadata(t).any(|m| m == metadata))
            });
            assert!(!shared, "rule broken: {metadata} would be the metadata of two era devices");
        }
    }

    fn swap(&mut self, dev: DevNo) -> Result<(), DmError> {
        let open_count = self.open_count(dev);
        let device = self.device("swap", dev)?;
        let Some((table, access)) = device.inactive.take() else {
            device.suspended = false;
            return if device.live.is_some() {
                Ok(())
            } else {
                Err(DmError::new(DmErrorKind::Invalid, "swap", dev).with_context("no table"))
            };
        };
        let was_era = device.live_table().is_some_and(|live| era_metadata(live).next().is_some());
        assert!(
            !(was_era && open_count > 0),
            "rule broken: the era device {dev} is in use and would be suspended on its own"
        );
        device.live = Some((table.clone(), access));
        device.suspended = false;
        device.read_ahead = READ_AHEAD;
        let (name, uuid) = (device.name.clone(), device.uuid.clone());
        self.require_lock(&name, uuid.as_ref());
        self.resume_eras(&table);
        self.snapshot_goes_live(dev, &table);
        Ok(())
    }

    fn require_lock(&self, name: &DmName, uuid: Option<&DmUuid>) {
        let lvm = uuid.and_then(LvmUuid::parse).and_then(|_| LvmName::parse(name));
        if let Some(LvmName { vg, .. }) = lvm {
            let held = self.locked.contains(&vg);
            assert!(held, "rule broken: {name} is changed without LVM's lock on {vg}");
        }
    }

    fn resume_eras(&mut self, table: &Table) {
        for segment in table.segments() {
            if let Target::Era { metadata, granularity, .. } = segment.target {
                let era = self.eras.entry(metadata).or_insert_with(|| FakeEra::fresh(granularity));
                era.roll_over();
            }
        }
    }

    fn era_of(&mut self, dev: DevNo) -> Option<&mut FakeEra> {
        let metadata = era_metadata(self.devices.get(&dev)?.live_table()?).next()?;
        self.eras.get_mut(&metadata)
    }

    fn status_text(&self, dev: DevNo, target: &Target) -> String {
        match target {
            Target::Era { metadata, .. } => {
                self.eras.get(metadata).map_or_else(String::new, FakeEra::status)
            }
            Target::Snapshot { .. } => {
                self.snapshots.get(&dev).map_or_else(String::new, FakeSnapshot::status)
            }
            _ => String::new(),
        }
    }
}

fn era_metadata(table: &Table) -> impl Iterator<Item = DevNo> {
    table.segments().iter().filter_map(|segment| match segment.target {
        Target::Era { metadata, .. } => Some(metadata),
        _ => None,
    })
}

/// LVM's lock on the fake machine.
#[derive(Debug)]
pub struct FakeLock<'a> {
    kernel: &'a FakeKernel,
    vg: VgName,
}

impl Drop for FakeLock<'_> {
    fn drop(&mut self) {
        self.kernel.state().locked.remove(&self.vg);
    }
}

impl<'a> Surroundings for &'a FakeKernel {
    type Lock = FakeLock<'a>;

    fn swapping(&self, _swap: Option<Swapping>) {}

    fn lock(&self, vg: &VgName) -> Result<FakeLock<'a>, LockError> {
        let added = self.state().locked.insert(vg.clone());
        assert!(added, "rule broken: LVM's lock on {vg} is taken twice");
        Ok(FakeLock { kernel: self, vg: vg.clone() })
    }

    fn zero(&self, dev: DevNo, _length: Sectors) -> Result<(), MachineError> {
        let mut state = self.state();
        let used = state.devices.iter().find(|(_, device)| {
            device.tables().any(|table| era_metadata(table).any(|metadata| metadata == dev))
        });
        assert!(used.is_none(), "rule broken: metadata {dev} is zeroed while it is in use");
        state.eras.remove(&dev);
        Ok(())
    }

    fn limit_discards(&self, dev: DevNo, bytes: Bytes) -> Result<Bytes, MachineError> {
        let mut state = self.state();
        let device = state.devices.get_mut(&dev).expect("the device is there");
        device.discard_max = device.discard_max.min(bytes);
        Ok(device.discard_max)
    }

    fn read_ahead(&self, dev: DevNo) -> Result<u64, MachineError> {
        Ok(self.state().devices.get(&dev).expect("the device is there").read_ahead)
    }

    fn set_read_ahead(&self, dev: DevNo, kib: u64) -> Result<(), MachineError> {
        self.state().devices.get_mut(&dev).expect("the device is there").read_ahead = kib;
        Ok(())
    }
}
