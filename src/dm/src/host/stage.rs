//! An X of our own over a device that device mapper does not run, or that nobody uses yet: a
//! linear mapping of all of it, under a name that a person chose. Era then goes under that X as
//! under any other, also while it is in use.

use eratrack_model::names::{DmName, Mapping, StackId};
use eratrack_model::record::Stage;
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{DevNo, Sectors};

use super::mapping::Unmapped;
use super::{Host, HostError};
use crate::port::Lookup;

/// What X is put over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRequest {
    /// How X is to be called: `/dev/mapper/NAME`.
    pub name: DmName,
    /// The device beneath, as a person named it; after a reboot it is looked for there.
    pub device: Stage,
}

/// Why nothing can be put over a device. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// There is none.
    #[error("there is no block device {0}; attach the disk, or name another")]
    NoDevice(DevNo),
    /// It is used without us, and what is written that way would be missed.
    #[error(
        "device {device} is in use ({by}); stop what uses it, or track it where it is with `device attach` without --stage"
    )]
    InUse {
        /// The device.
        device: DevNo,
        /// Who, as far as it can be told.
        by: String,
    },
    /// Nothing can be written.
    #[error("device {0} is read-only; there is nothing to track until it is writable")]
    ReadOnly(DevNo),
    /// Another device has that name.
    #[error("there is a device-mapper device called {0} already; choose another name for --stage")]
    NameTaken(DmName),
    /// There is nothing in it.
    #[error("device {0} has no sectors; insert a medium, or name another device")]
    Empty(DevNo),
    /// It is part of a stack.
    #[error("device {0} is part of a tracking stack itself; name the device beneath the stack")]
    OwnDevice(DevNo),
}

impl StageError {
    /// The reason for a condition, from the documented list of the API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoDevice(_) => "DeviceNotFound",
            Self::InUse { .. } => "DeviceBusy",
            Self::Empty(_) => "DeviceTooSmall",
            Self::ReadOnly(_) => "DeviceReadOnly",
            Self::NameTaken(_) | Self::OwnDevice(_) => "DeviceClaimed",
        }
    }
}

impl Host {
    /// Makes the X of a stage, or finds it there.
    pub(super) fn put_top(
        &self,
        stack: &StackId,
        stage: &StageRequest,
        beneath: DevNo,
    ) -> Result<DevNo, HostError> {
        let there = self.find(&Lookup::Uuid(stack.uuid(Mapping::Top)))?;
        if there.is_none() {
            self.can_be_staged(&stage.name, beneath)?;
        }
        let length = self.machine.length(beneath)?;
        self.map(stack, Mapping::Top, &stage.name, &over(beneath, length)?)
    }

    /// Fails unless nobody uses the device.
    pub(super) fn can_be_staged(&self, name: &DmName, device: DevNo) -> Result<(), HostError> {
        if !self.machine.exists(device) {
            return Err(StageError::NoDevice(device).into());
        }
        let itself = self.find(&device.into())?.and_then(|info| info.uuid);
        if itself.is_some_and(|uuid| uuid.is_ours()) {
            return Err(StageError::OwnDevice(device).into());
        }
        if self.machine.read_only(device)? {
            return Err(StageError::ReadOnly(device).into());
        }
        if let Some(by) = self.user_of_device(device)? {
            return Err(StageError::InUse { device, by }.into());
        }
        match self.find(&Lookup::Name(name.clone()))? {
            Some(_) => Err(StageError::NameTaken(name.clone()).into()),
            None => Ok(()),
        }
    }

    fn user_of_device(&self, device: DevNo) -> Result<Option<String>, HostError> {
        let holders = self.machine.holders(device)?;
        if let Some(holder) = holders.first() {
            return Ok(Some(format!("by block device {holder}")));
        }
        // Mounts, swap, md and the like claim what they use; so do partitions of a disk.
        match self.nodes.open_alone(device) {
            Ok(_) => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => Ok(Some(
                "it cannot be opened alone: mounted, or swap, or its partitions are".into(),
            )),
            Err(e) => Err(HostError::Open { device, source: e }),
        }
    }

    /// Removes the X of a stage. False while somebody uses it: then it stays, with the table that
    /// it would have had without us.
    pub(super) fn take_top(&self, stack: &StackId) -> Result<bool, HostError> {
        Ok(self.unmap(stack, Mapping::Top)? == Unmapped::Gone)
    }
}

/// All of a device, one to one.
pub(super) fn over(device: DevNo, length: Sectors) -> Result<Table, StageError> {
    let target = Target::Linear { device, offset: Sectors(0) };
    Table::single(length, target).map_err(|_| StageError::Empty(device))
}
