//! Devices of ours beside the way of X's I/O: each shows another device under a name of its own.

use std::io;
use std::path::{Path, PathBuf};

use eratrack_model::names::{DmName, Mapping, StackId};
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;

use super::{Host, HostError};
use crate::machine::MachineError;
use crate::port::{Access, DmErrorKind, Info, Lookup, Slot};

/// What became of a mapping that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmapped {
    /// It is gone, or was not there.
    Gone,
    /// Somebody has it open.
    InUse {
        /// How often.
        open_count: u32,
    },
}

impl Host {
    /// Makes the mapping, or finds it there with that table. One that a kill left half made is
    /// made anew.
    pub(super) fn map(
        &self,
        stack: &StackId,
        mapping: Mapping,
        name: &DmName,
        table: &Table,
    ) -> Result<DevNo, HostError> {
        let uuid = stack.uuid(mapping);
        if let Some(info) = self.find(&Lookup::Uuid(uuid.clone()))? {
            if info.live && self.dm.table(info.number, Slot::Live)?.as_ref() == Some(table) {
                self.name_node(&info.name, info.number)?;
                return Ok(info.number);
            }
            self.remove_mapping(&info)?;
        }
        self.about_to("make a mapping");
        let number = self.dm.create(name, &uuid)?;
        let made = self.dm.load(number, table, Access::ReadWrite);
        let made = made.and_then(|()| self.dm.swap(number)).map_err(HostError::from);
        match made.and_then(|()| self.name_node(name, number)) {
            Ok(()) => Ok(number),
            Err(error) => {
                if let Err(undo) = self.dm.remove(number) {
                    tracing::warn!(%name, %undo, "a mapping without a table is left");
                }
                Err(error)
            }
        }
    }

    /// Removes the mapping if nobody has it open.
    pub(super) fn unmap(&self, stack: &StackId, mapping: Mapping) -> Result<Unmapped, HostError> {
        let Some(info) = self.find(&Lookup::Uuid(stack.uuid(mapping)))? else {
            return Ok(Unmapped::Gone);
        };
        let open_count = info.open_count;
        if open_count > 0 {
            return Ok(Unmapped::InUse { open_count });
        }
        match self.remove_mapping(&info) {
            // Somebody opened it in between.
            Err(HostError::DeviceMapper(e)) if e.kind == DmErrorKind::Busy => {
                Ok(Unmapped::InUse { open_count: 1 })
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Unmapped::Gone),
        }
    }

    fn remove_mapping(&self, info: &Info) -> Result<(), HostError> {
        self.about_to("remove a mapping");
        self.dm.remove(info.number)?;
        let link = self.link(&info.name);
        let ours = std::fs::read_link(&link).is_ok_and(|to| to == node_of(info.number));
        if ours {
            std::fs::remove_file(&link).map_err(|e| failed("remove", link, e))?;
        }
        Ok(())
    }

    /// udev names the nodes of most devices; where there is none, or it was told to leave ours
    /// alone, people still look below `/dev/mapper`.
    fn name_node(&self, name: &DmName, number: DevNo) -> Result<(), HostError> {
        let link = self.link(name);
        if !link.parent().is_some_and(Path::is_dir) {
            return Ok(());
        }
        // One that a kill left leads to whatever has that number now.
        let stale = std::fs::read_link(&link).is_ok_and(|to| to != node_of(number));
        if stale {
            std::fs::remove_file(&link).map_err(|e| failed("remove", link.clone(), e))?;
        }
        match std::os::unix::fs::symlink(node_of(number), &link) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(failed("make", link, e)),
            Ok(()) => Ok(()),
        }
    }

    fn link(&self, name: &DmName) -> PathBuf {
        self.machine.root().join("dev/mapper").join(name.as_str())
    }
}

/// Relative to `/dev/mapper`, as udev has it.
fn node_of(number: DevNo) -> PathBuf {
    PathBuf::from(format!("../dm-{}", number.minor))
}

fn failed(doing: &'static str, path: PathBuf, source: io::Error) -> HostError {
    MachineError { doing, path, source }.into()
}
