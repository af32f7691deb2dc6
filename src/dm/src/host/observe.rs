//! What is there.

use eratrack_model::discards::DiscardLimits;
use eratrack_model::names::{Role, StackId};
use eratrack_model::record::Record;
use eratrack_model::stack::{Beneath, Device, Kernel, Observed, Subject, Volume};
use eratrack_model::table::Table;
use eratrack_model::units::{DevNo, Sectors};

use super::{Host, HostError};
use crate::port::{Access, DmError, Info, Lookup, Slot};

impl Host {
    pub(super) fn observe(&self, stack: &StackId, x: Option<DevNo>) -> Result<Observed, HostError> {
        let subject = match x {
            Some(x) => self.subject(x)?,
            None => Subject::Gone,
        };
        let thin = match &subject {
            Subject::Mapped(volume) => {
                volume.device.live.as_ref().is_some_and(|live| live.thin_pool().is_some())
            }
            Subject::Gone | Subject::NotDeviceMapper(_) => false,
        };
        Ok(Observed {
            stack: stack.clone(),
            kernel: self.kernel(stack, thin)?,
            x: subject,
            era: self.own(stack, Role::Era)?,
            base: self.own(stack, Role::Base)?,
            origin: self.own(stack, Role::Origin)?,
            snapshot: self.own(stack, Role::Snapshot)?,
        })
    }

    /// `switch` is asked for, and so loaded, only where it is needed.
    fn kernel(&self, stack: &StackId, thin: bool) -> Result<Kernel, HostError> {
        let release = self.machine.kernel_release()?;
        Ok(Kernel {
            release: release.parse().map_err(|e: eratrack_model::kernel::ReleaseError| {
                HostError::Unexpected { stack: stack.clone(), what: e.to_string() }
            })?,
            has_era: self.dm.has_target("era")?,
            has_switch: thin && self.dm.has_target("switch")?,
        })
    }

    fn subject(&self, x: DevNo) -> Result<Subject, HostError> {
        let Some(info) = self.find(&x.into())? else {
            let there = self.machine.exists(x);
            return Ok(if there { Subject::NotDeviceMapper(x) } else { Subject::Gone });
        };
        let device = self.device(info)?;
        let mut beneath = Vec::new();
        for number in device.live.iter().flat_map(Table::devices) {
            let uuid = self.find(&(*number).into())?.and_then(|info| info.uuid);
            beneath.push(Beneath { number: *number, uuid });
        }
        let pool_chunk = self.pool_chunk(&device)?;
        Ok(Subject::Mapped(Volume {
            device,
            pool_chunk,
            beneath,
            logical_block: self.machine.logical_block(x)?,
            dax: self.machine.dax(x)?,
            zoned: self.machine.zoned(x)?,
        }))
    }

    /// The chunk of the pool that a thin volume is of.
    fn pool_chunk(&self, device: &Device) -> Result<Option<Sectors>, HostError> {
        let pool = device.live.as_ref().and_then(Table::thin_pool);
        let pool = pool.map(|pool| self.dm.table(pool, Slot::Live)).transpose()?.flatten();
        Ok(pool.and_then(|pool| pool.thin_chunk()))
    }

    pub(super) fn own(&self, stack: &StackId, role: Role) -> Result<Option<Device>, HostError> {
        let info = self.find(&Lookup::Uuid(stack.uuid(role)))?;
        info.map(|info| self.device(info)).transpose()
    }

    fn device(&self, info: Info) -> Result<Device, HostError> {
        let Info { number, name, uuid, suspended, live, inactive, access, open_count } = info;
        // Before its first table a device has no queue to speak of.
        let discards = if live { self.machine.discards(number)? } else { DiscardLimits::default() };
        Ok(Device {
            number,
            name,
            uuid,
            live: self.dm.table(number, Slot::Live)?,
            inactive: if inactive { self.dm.table(number, Slot::Inactive)? } else { None },
            suspended: suspended && live,
            read_only: access == Access::ReadOnly,
            open_count,
            discards,
        })
    }

    /// A device, or none where there is none.
    pub(super) fn find(&self, of: &Lookup) -> Result<Option<Info>, DmError> {
        match self.dm.info(of) {
            Ok(info) => Ok(Some(info)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The device that a record is about: by uuid, which outlives a new name and number; a
    /// device without one must still have both.
    pub(super) fn locate(&self, record: &Record) -> Result<Option<DevNo>, HostError> {
        let found = match &record.uuid {
            Some(uuid) => self.find(&Lookup::Uuid(uuid.clone()))?,
            None => self
                .find(&record.x.into())?
                .filter(|info| info.uuid.is_none() && info.name == record.name),
        };
        Ok(found.map(|info| info.number))
    }

    /// Whoever has this stack's X-era, or X-origin, in one of its tables, wherever it is and
    /// whatever its record says. Nobody else's table is looked at.
    pub(super) fn user_of(&self, stack: &StackId) -> Result<Option<DevNo>, HostError> {
        for role in [Role::Era, Role::Origin] {
            let Some(top) = self.find(&Lookup::Uuid(stack.uuid(role)))? else { continue };
            for holder in self.machine.holders(top.number)? {
                if !self.is_above_era(stack, holder)? && self.names(holder, top.number) {
                    return Ok(Some(holder));
                }
            }
        }
        Ok(None)
    }

    /// A device of the stack's own that stands on X-era.
    fn is_above_era(&self, stack: &StackId, holder: DevNo) -> Result<bool, DmError> {
        let uuid = self.find(&holder.into())?.and_then(|info| info.uuid);
        let above = [Role::Origin, Role::Snapshot].map(|role| stack.uuid(role));
        Ok(uuid.is_some_and(|uuid| above.contains(&uuid)))
    }

    fn names(&self, holder: DevNo, era: DevNo) -> bool {
        [Slot::Live, Slot::Inactive].into_iter().any(|slot| match self.dm.table(holder, slot) {
            Ok(table) => table.is_some_and(|table| table.devices().any(|found| *found == era)),
            Err(error) => {
                tracing::warn!(%holder, %error, "passing over a device above an era device");
                false
            }
        })
    }
}
