//! What may differ since a boundary.

use std::fs::File;

use era_metadata::{BlockSet, BlockSource, FileSource, Metadata, View};
use eratrack_model::Era;
use eratrack_model::extents::ChangedBlocks;
use eratrack_model::names::Role;
use eratrack_model::record::Record;
use eratrack_model::units::DevNo;

use super::attended::Attended;
use super::{Changes, Host, HostError};
use crate::era_status::EraStatus;
use crate::port::Lookup;

/// A metadata snapshot that was taken, as the status line told of it.
struct Held {
    root: u64,
    era: Era,
    used: u64,
    total: u64,
}

impl Host {
    /// Blocks written since the boundary with this era: takes dm-era's metadata snapshot, reads
    /// it, and drops it whatever happens. X's table is proven ours before and after, and every few
    /// seconds meanwhile, when it is also asked whether era still works; the snapshot is proven the
    /// same one until it was read.
    pub fn changes(&self, record: &Record, since: Era) -> Result<Changes, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.require_intact(record)?;
        // What was written since it was taken is not in it.
        if self.held_by_hand(record)?.is_some() {
            return Err(HostError::Held { stack: record.stack.clone() });
        }
        self.take(record)?;
        let read = self.read_held(record, since);
        let dropped = self.drop_held(record);
        let read = read?;
        dropped?;
        self.dilated(record, since, read)
    }

    /// The same from the metadata snapshot that is held by hand, which knows of no later writes.
    /// None if none is held.
    pub fn changes_held(&self, record: &Record, since: Era) -> Result<Option<Changes>, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.require_intact(record)?;
        if self.held_by_hand(record)?.is_none() {
            return Ok(None);
        }
        let read = self.read_held(record, since)?;
        self.dilated(record, since, read).map(Some)
    }

    /// Reads the metadata of a stack that is in place, whatever is wanted of it: from the snapshot
    /// that is held by hand, or from one that is taken and dropped.
    pub fn read_snapshot<T>(
        &self,
        record: &Record,
        read: impl FnOnce(&dyn BlockSource, View) -> T,
    ) -> Result<T, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.require_intact(record)?;
        if self.held_by_hand(record)?.is_some() {
            return self.read_as_held(record, read);
        }
        self.take(record)?;
        let done = self.read_as_held(record, read);
        let dropped = self.drop_held(record);
        let done = done?;
        dropped.map(|()| done)
    }

    fn read_as_held<T>(
        &self,
        record: &Record,
        read: impl FnOnce(&dyn BlockSource, View) -> T,
    ) -> Result<T, HostError> {
        let held = self.held(record)?;
        let file = self.open_metadata(record)?;
        let done = read(&file, View::HeldAt(held.root));
        let now = self.held(record)?;
        if now.root == held.root { Ok(done) } else { Err(taken_again(record)) }
    }

    fn dilated(
        &self,
        record: &Record,
        since: Era,
        (held, marked): (Held, BlockSet),
    ) -> Result<Changes, HostError> {
        let dilation = self.dilation(record, since)?;
        self.require_intact(record)?;
        let blocks = record.blocks();
        Ok(Changes {
            marked: marked.count(),
            runs: ChangedBlocks::new(marked, dilation, blocks),
            blocks,
            granularity: record.granularity,
            read_at: held.era,
            dilation,
            metadata_used: held.used,
            metadata_total: held.total,
        })
    }

    pub(super) fn take(&self, record: &Record) -> Result<(), HostError> {
        if let EraStatus::Working { held: Some(block), .. } = self.working(record)? {
            // Only one can be held.
            tracing::warn!(stack = %record.stack, block, "dropping a metadata snapshot that a reader left when it was killed");
            self.drop_held(record)?;
        }
        self.about_to("take the metadata snapshot");
        self.dm
            .message(self.era_device(record)?, "take_metadata_snap")
            .map_err(|e| self.era_failed(record, HostError::NewEra(e)))
    }

    fn read_held(&self, record: &Record, since: Era) -> Result<(Held, BlockSet), HostError> {
        let held = self.held(record)?;
        self.about_to("read the metadata snapshot");
        let (marked, era) = self.read(record, held.root, since)?;
        // Its blocks are given back once it is dropped.
        let now = self.held(record)?;
        // Not the one that has begun since: a list from there on would lack what came in between.
        let held = Held { era, ..held };
        if now.root == held.root { Ok((held, marked)) } else { Err(taken_again(record)) }
    }

    fn held(&self, record: &Record) -> Result<Held, HostError> {
        match self.working(record)? {
            EraStatus::Working { era, used, total, held: Some(root) } => {
                Ok(Held { root, era, used, total })
            }
            status => Err(HostError::Unexpected {
                stack: record.stack.clone(),
                what: format!("the metadata snapshot that was taken is not held: {status:?}"),
            }),
        }
    }

    pub(super) fn working(&self, record: &Record) -> Result<EraStatus, HostError> {
        match self.status(record)? {
            EraStatus::Error => Err(HostError::EraFailed { stack: record.stack.clone() }),
            working @ EraStatus::Working { .. } => Ok(working),
        }
    }

    pub(super) fn drop_held(&self, record: &Record) -> Result<(), HostError> {
        self.about_to("drop the metadata snapshot");
        Ok(self.dm.message(self.era_device(record)?, "drop_metadata_snap")?)
    }

    pub(super) fn era_device(&self, record: &Record) -> Result<DevNo, HostError> {
        Ok(self.dm.info(&Lookup::Uuid(record.stack.uuid(Role::Era)))?.number)
    }

    fn read(&self, record: &Record, root: u64, since: Era) -> Result<(BlockSet, Era), HostError> {
        let look = || self.require_intact(record).and_then(|()| self.working(record).map(drop));
        let device = Attended::new(self.open_metadata(record)?, look);
        let read = read_held(record, &device, root, since);
        // What was found meanwhile is why nothing more was read.
        read.map_err(|error| device.found().unwrap_or(error))
    }

    pub(super) fn open_metadata(&self, record: &Record) -> Result<FileSource, HostError> {
        let device = self.metadata_device(&record.stack)?;
        let opened =
            self.nodes.open_direct(device).and_then(|file: File| FileSource::from_direct(file));
        opened.map_err(|e| HostError::Unexpected {
            stack: record.stack.clone(),
            what: format!("its metadata device {device} cannot be opened: {e}"),
        })
    }

    pub(super) fn dilation(&self, record: &Record, since: Era) -> Result<u64, HostError> {
        Ok(self.discards_since(record, since)?.dilation(record.granularity))
    }
}

fn taken_again(record: &Record) -> HostError {
    HostError::Unexpected {
        stack: record.stack.clone(),
        what: "somebody else took another metadata snapshot while it was read".to_owned(),
    }
}

fn read_held(
    record: &Record,
    device: impl BlockSource + Copy,
    root: u64,
    since: Era,
) -> Result<(BlockSet, Era), HostError> {
    let unreadable = |source| HostError::Metadata { stack: record.stack.clone(), source };
    let metadata = Metadata::open(device, View::HeldAt(root)).map_err(unreadable)?;
    verify_geometry(record, metadata.granularity_sectors(), metadata.nr_blocks())?;
    let changed = metadata.changed_since(since).map_err(unreadable)?;
    // Another one may lie at the same block; whoever takes it begins an era.
    let now = Metadata::open(device, View::HeldAt(root)).map_err(unreadable)?;
    let era = metadata.current_era();
    if now.current_era() == era { Ok((changed, era)) } else { Err(taken_again(record)) }
}

pub(super) fn verify_geometry(
    record: &Record,
    granularity: u32,
    blocks: u32,
) -> Result<(), HostError> {
    let expected = (record.granularity.sectors().0, record.blocks());
    let found = (u64::from(granularity), u64::from(blocks));
    if found == expected {
        return Ok(());
    }
    Err(HostError::Unexpected {
        stack: record.stack.clone(),
        what: format!("its metadata has (sectors a block, blocks) {found:?}, not {expected:?}"),
    })
}
