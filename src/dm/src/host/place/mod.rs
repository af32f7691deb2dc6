//! A stack's metadata, wherever it is: made, found again after a reboot, removed.
//!
//! The record says where it is before anything is made there, and goes after all of it has. So
//! whatever a kill leaves, the record leads to it.

mod area;
mod open;
mod pools;

use std::path::Path;

use eratrack_model::lvm::{LvmName, LvmUuid};
use eratrack_model::names::{Mapping, Role, StackId};
use eratrack_model::place::{MetadataPlace, MetadataRequest, lv_name};
use eratrack_model::record::{Keeper, Record};
use eratrack_model::stack::Observed;
use eratrack_model::table::Target;
use eratrack_model::units::{Bytes, DevNo};

use super::{Host, HostError};
use crate::lvm_tool::{Lvm, LvmError};
use crate::port::Lookup;
use crate::stack_lock::StackLock;
use crate::store::elsewhere;

pub use pools::{AreaState, Finding, FoundPool, PoolArea, PoolState};

/// The loop driver's number (`LOOP_MAJOR`).
const LOOP_MAJOR: u32 = 7;

impl Host {
    /// Where metadata that is asked for would be. Changes nothing.
    pub(super) fn place(
        &self,
        stack: &StackId,
        request: &MetadataRequest,
    ) -> Result<MetadataPlace, HostError> {
        Ok(match request {
            MetadataRequest::Store => MetadataPlace::File(self.store.metadata_on_machine(stack)),
            MetadataRequest::File(path) => MetadataPlace::File(path.clone()),
            MetadataRequest::LogicalVolume(vg) => {
                // The commands of a container are not the machine's.
                if self.keeper == Keeper::Agent || self.machine.root() != Path::new("/") {
                    return Err(LvmError::NotHere.into());
                }
                MetadataPlace::LogicalVolume(vg.clone())
            }
            MetadataRequest::Pool(device) => MetadataPlace::Pool(self.pool_place(device)?),
        })
    }

    /// Whether a record's metadata is where it is asked for. Who asks for nothing takes it as it is.
    pub(super) fn is_at(
        &self,
        record: &Record,
        request: &MetadataRequest,
    ) -> Result<bool, HostError> {
        Ok(match (&record.metadata, request) {
            (_, MetadataRequest::Store) => true,
            (MetadataPlace::File(path), MetadataRequest::File(asked)) => path == asked,
            (MetadataPlace::LogicalVolume(vg), MetadataRequest::LogicalVolume(asked)) => {
                vg == asked
            }
            // A disk has many names.
            (MetadataPlace::Pool(place), MetadataRequest::Pool(asked)) => {
                self.pool_place(asked)?.pool == place.pool
            }
            _ => false,
        })
    }

    /// How to ask for the place that a record has.
    pub(super) fn request_of(&self, record: &Record) -> MetadataRequest {
        match &record.metadata {
            MetadataPlace::File(_) if self.is_in_store(record) => MetadataRequest::Store,
            MetadataPlace::File(path) => MetadataRequest::File(path.clone()),
            MetadataPlace::LogicalVolume(vg) => MetadataRequest::LogicalVolume(vg.clone()),
            MetadataPlace::Pool(place) => MetadataRequest::Pool(self.pool_path(place)),
        }
    }

    /// Fails if what the record says has no room there. Changes nothing.
    pub(super) fn check_metadata_room(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<(), HostError> {
        let size = record.metadata_size;
        match &record.metadata {
            MetadataPlace::File(_) if self.is_in_store(record) => {
                self.store.look_for_room(size)?;
            }
            MetadataPlace::File(path) => elsewhere::check(&self.machine.path(path), size)?,
            MetadataPlace::LogicalVolume(_) => {
                self.lvm(lock, record)?.check_room(size)?;
            }
            MetadataPlace::Pool(place) => self.check_area(&record.stack, place, size)?,
        }
        Ok(())
    }

    /// Makes room for the metadata as the record says; the device for era. Nothing is there
    /// before.
    pub(super) fn make_metadata(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<DevNo, HostError> {
        let (stack, size) = (&record.stack, record.metadata_size);
        match &record.metadata {
            MetadataPlace::File(path) => {
                self.about_to("make the metadata file");
                let file = self.machine.path(path);
                if self.is_in_store(record) {
                    self.store.create_metadata(stack, size)?;
                } else {
                    elsewhere::create(stack, &file, size)?;
                }
                self.about_to("put a loop device over it");
                Ok(self.loops.attach(&file)?)
            }
            MetadataPlace::LogicalVolume(_) => {
                let lvm = self.lvm(lock, record)?;
                self.about_to("make the metadata volume");
                Ok(lvm.create(size)?)
            }
            MetadataPlace::Pool(place) => self.make_area(stack, place, size),
        }
    }

    /// Fails if the disk, group or directory that the metadata is on is not there (yet): the record
    /// then stays for another attempt.
    pub(super) fn metadata_is_reachable(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<(), HostError> {
        match &record.metadata {
            MetadataPlace::File(path) => elsewhere::look_for_dir(&self.machine.path(path))?,
            MetadataPlace::LogicalVolume(_) => self.lvm(lock, record)?.look_for_group()?,
            MetadataPlace::Pool(place) => {
                self.find_pool(place)?;
            }
        }
        Ok(())
    }

    /// Finds the metadata that the record says again, after a reboot, say; the device for era.
    /// Fails if there is less of it than the record says.
    pub(super) fn open_metadata_place(
        &self,
        lock: &StackLock,
        record: &Record,
    ) -> Result<DevNo, HostError> {
        let device = match &record.metadata {
            MetadataPlace::File(path) => {
                self.about_to("put a loop device over it");
                self.loops.attach(&self.machine.path(path))?
            }
            MetadataPlace::LogicalVolume(_) => self.lvm(lock, record)?.activate()?,
            MetadataPlace::Pool(place) => self.open_area(&record.stack, place)?,
        };
        let length = self.machine.length(device)?.to_bytes().unwrap_or(Bytes(u64::MAX));
        if length >= record.metadata_size {
            return Ok(device);
        }
        let needed = record.metadata_size;
        let what = format!(
            "its metadata ({}) has {length}, and {needed} were made for it; detach it, and attach it anew",
            record.metadata
        );
        Err(HostError::Unexpected { stack: record.stack.clone(), what })
    }

    /// Removes whatever a stack has of metadata, once era does not use it any more.
    pub(super) fn remove_metadata(
        &self,
        lock: &StackLock,
        record: Option<&Record>,
        observed: &Observed,
    ) -> Result<(), HostError> {
        let stack = &observed.stack;
        let Some(record) = record else { return self.remove_unrecorded(observed) };
        match &record.metadata {
            MetadataPlace::File(path) => {
                let file = self.machine.path(path);
                self.free_loop(observed, &file)?;
                if !self.is_in_store(record) {
                    self.about_to("remove the metadata file");
                    elsewhere::remove(stack, &file, record.metadata_size)?;
                }
            }
            MetadataPlace::LogicalVolume(_) => {
                let lvm = self.lvm(lock, record)?;
                self.about_to("remove the metadata volume");
                lvm.remove()?;
            }
            MetadataPlace::Pool(place) => self.remove_area(stack, place)?,
        }
        Ok(())
    }

    /// The record is not there, or not understood: the devices tell where the metadata was, as far
    /// as that goes.
    fn remove_unrecorded(&self, observed: &Observed) -> Result<(), HostError> {
        let stack = &observed.stack;
        self.free_loop(observed, &self.store.metadata(stack))?;
        if let Some(volume) = self.volume_of(observed)? {
            tracing::warn!(%stack, volume, "left, for want of a record: remove it with lvremove");
        }
        if self.find(&Lookup::Uuid(stack.uuid(Mapping::Metadata)))?.is_some() {
            tracing::warn!(%stack, "its area is left, for want of a record: free it with `eratrack device pool free`");
            self.unmap_area(stack)?;
        }
        Ok(())
    }

    fn free_loop(&self, observed: &Observed, file: &Path) -> Result<(), HostError> {
        self.about_to("free the loop device");
        let freed = self.loops.detach(file)?;
        // Its file may have been deleted, or replaced, beneath it.
        if let (false, Some(device)) = (freed, metadata_of(observed))
            && device.major == LOOP_MAJOR
        {
            self.loops.free_if_bound(device, file)?;
        }
        Ok(())
    }

    /// The metadata volume of ours that X-era was over.
    fn volume_of(&self, observed: &Observed) -> Result<Option<String>, HostError> {
        let Some(device) = metadata_of(observed) else { return Ok(None) };
        let Some(info) = self.find(&device.into())? else { return Ok(None) };
        let is_lvm = info.uuid.as_ref().is_some_and(|uuid| LvmUuid::parse(uuid).is_some());
        let name = LvmName::parse(&info.name).filter(|_| is_lvm);
        let ours = name.filter(|name| name.lv == lv_name(&observed.stack));
        Ok(ours.map(|name| format!("{}/{}", name.vg, name.lv)))
    }

    fn is_in_store(&self, record: &Record) -> bool {
        record.metadata.file() == Some(&*self.store.metadata_on_machine(&record.stack))
    }

    fn lvm<'a>(&self, lock: &'a StackLock, record: &'a Record) -> Result<Lvm<'a>, HostError> {
        let MetadataPlace::LogicalVolume(vg) = &record.metadata else {
            let what = format!("its metadata is no volume, but {}", record.metadata);
            return Err(HostError::Unexpected { stack: record.stack.clone(), what });
        };
        let Record { stack, chain, .. } = record;
        Ok(Lvm { vg, stack, chain, lock, deadline: self.lock_deadline })
    }
}

/// The device that X-era kept its metadata on when it was observed.
fn metadata_of(observed: &Observed) -> Option<DevNo> {
    let table = observed.own(Role::Era)?.live.as_ref()?;
    table.segments().iter().find_map(|segment| match segment.target {
        Target::Era { metadata, .. } => Some(metadata),
        _ => None,
    })
}
