//! The file store: a directory for each stack, with its metadata file and its record.
//!
//! A metadata file is fully allocated, so that dm-era never meets a full file system, and its
//! first block is zero, so that dm-era formats it.

mod copies;
mod durable;
pub(crate) mod elsewhere;
mod in_place;
mod room;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use eratrack_model::names::StackId;
use eratrack_model::record::{Keeper, Record};
use eratrack_model::units::Bytes;

use crate::machine::Machine;
pub use durable::replace_durably;
pub use room::{Room, StoreConfig};

const METADATA: &str = "era-metadata";
const RECORD: &str = "record.json";
const BOUNDARIES: &str = "boundaries.json";
const RETURNING: &str = "returning.json";
/// dm-era's superblock.
const SUPERBLOCK: usize = 4096;

/// Why the file store cannot take or give a stack's files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// One volume would need more than its limit.
    #[error(
        "the metadata would need {needed}, more than the limit of {limit} a volume; choose a coarser granularity"
    )]
    VolumeLimit {
        /// What dm-era needs at worst.
        needed: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// All volumes together would need more than the machine's limit.
    #[error(
        "the metadata would need {needed} beside {used} of other volumes, more than the limit of {limit} on this machine (in the chart the lesser of agent.metadataMaxPerNode and agent.metadataMaxPercent); choose a coarser granularity, or track fewer volumes"
    )]
    NodeLimit {
        /// What dm-era needs at worst.
        needed: Bytes,
        /// What other volumes have.
        used: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// The file system is too full.
    #[error(
        "the metadata would need {needed} in {}, of which {free} are free and {keep} must stay so; make room, or choose a coarser granularity",
        dir.display()
    )]
    NoSpace {
        /// What dm-era needs at worst.
        needed: Bytes,
        /// What is free.
        free: Bytes,
        /// What must stay free.
        keep: Bytes,
        /// The store's directory.
        dir: PathBuf,
    },
    /// The file for a point in time does not fit.
    #[error(
        "a point in time would need {needed} in {}, where {allowed} may be taken; make room, or ask for less",
        dir.display()
    )]
    CopiesRoom {
        /// What it needs.
        needed: Bytes,
        /// What it may have.
        allowed: Bytes,
        /// The stack's directory.
        dir: PathBuf,
    },
    /// What is overwritten is allocated anew, so that even a file of full length may find no room.
    #[error(
        "the file system of {} copies on write, and does not stop doing so for a file (FS_NOCOW_FL): the metadata would not be sure of its room; use a directory on ext4 or XFS",
        dir.display()
    )]
    CopyOnWrite {
        /// The stack's directory.
        dir: PathBuf,
    },
    /// Nothing is overwritten.
    #[error("{} is there already; choose another path for the metadata, or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The record beside the metadata does not read back.
    #[error("the record {} cannot be understood: {what}; detach the stack to be rid of it", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The file store of one machine.
#[derive(Clone, Debug)]
pub struct FileStore {
    config: StoreConfig,
    dir: PathBuf,
}

impl FileStore {
    /// The store in `config.dir` of this machine; the directory is made when first needed.
    pub fn new(machine: &Machine, config: StoreConfig) -> Self {
        Self { dir: machine.path(&config.dir), config }
    }

    /// The stack's metadata file, as seen from here.
    pub fn metadata(&self, stack: &StackId) -> PathBuf {
        self.stack_dir(stack).join(METADATA)
    }

    /// The stack's metadata file, as the machine sees it.
    pub fn metadata_on_machine(&self, stack: &StackId) -> PathBuf {
        self.config.dir.join(stack.as_str()).join(METADATA)
    }

    /// Makes the store's directory.
    pub fn make_dir(&self) -> Result<&Path, StoreError> {
        fs::create_dir_all(&self.dir).map_err(io_error("make", &self.dir))?;
        Ok(&self.dir)
    }

    /// Fails if a new metadata file of that size has no room.
    pub fn check_room(&self, needed: Bytes) -> Result<(), StoreError> {
        let dir = self.make_dir()?;
        Room::look(dir, self.used()?)?.check(&self.config, needed)
    }

    /// The same without making the store's directory: the nearest one above it tells.
    pub(crate) fn look_for_room(&self, needed: Bytes) -> Result<(), StoreError> {
        let there = self.dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(&self.dir);
        Room::look(there, self.used()?)?.check(&self.config, needed)
    }

    /// The same for one that takes the place of a file of that size.
    pub(crate) fn check_room_instead(&self, of: Bytes, needed: Bytes) -> Result<(), StoreError> {
        let Room { dir, total, free, used } = Room::look(self.make_dir()?, self.used()?)?;
        let (free, used) = (Bytes(free.0 + of.0), Bytes(used.0.saturating_sub(of.0)));
        Room { dir, total, free, used }.check(&self.config, needed)
    }

    /// Makes a new metadata file of that size, allocated to its last byte, its superblock zero.
    /// One that is there is made anew: nobody may be using it.
    pub fn create_metadata(&self, stack: &StackId, size: Bytes) -> Result<PathBuf, StoreError> {
        let dir = self.stack_dir(stack);
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        let path = self.metadata(stack);
        remove_file(&path)?;
        self.allocated(&path, size)?;
        durable::sync_dir(&dir)?;
        Ok(path)
    }

    /// A new file of that size that will not meet a full file system.
    fn allocated(&self, path: &Path, size: Bytes) -> Result<(), StoreError> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io_error("make", path))?;
        if !in_place::ensure(&file).map_err(io_error("look at the file system of", path))? {
            return Err(StoreError::CopyOnWrite { dir: self.dir.clone() });
        }
        allocate(&file, size).map_err(io_error("allocate", path))
    }

    /// Writes the record so that it survives a power cut from here on.
    pub fn write_record(&self, record: &Record) -> Result<(), StoreError> {
        let dir = self.stack_dir(&record.stack);
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        durable::sync_dir(&self.dir)?;
        self.write_json(&record.stack, RECORD, record)
    }

    /// The stack's record; none if there is none.
    pub fn read_record(&self, stack: &StackId) -> Result<Option<Record>, StoreError> {
        self.read_record_from(stack, RECORD)
    }

    fn read_record_from(&self, stack: &StackId, name: &str) -> Result<Option<Record>, StoreError> {
        let path = self.stack_dir(stack).join(name);
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        let wrong = |what: String| StoreError::Record { path: path.clone(), what };
        let record: Record = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if record.stack != *stack {
            return Err(wrong(format!("it is of the stack {}", record.stack)));
        }
        Ok(Some(record))
    }

    /// The record of a stack that is on its way back after a reboot: it outlives all of the
    /// stack's other files until it is back, or taken out.
    pub(crate) fn read_returning(&self, stack: &StackId) -> Result<Option<Record>, StoreError> {
        self.read_record_from(stack, RETURNING)
    }

    pub(crate) fn write_returning(&self, record: &Record) -> Result<(), StoreError> {
        self.write_json(&record.stack, RETURNING, record)
    }

    /// Who keeps a stack, as far as its records tell, also one that is not understood otherwise.
    pub(crate) fn keeper(&self, stack: &StackId) -> Option<Keeper> {
        let dir = self.stack_dir(stack);
        [RECORD, RETURNING].into_iter().find_map(|name| keeper_in(&dir.join(name), stack))
    }

    /// Removes it, and the stack's directory if nothing else is in it.
    pub(crate) fn remove_returning(&self, stack: &StackId) -> Result<(), StoreError> {
        let dir = self.stack_dir(stack);
        let file = dir.join(RETURNING);
        remove_file(&durable::temporary(&file))?;
        remove_file(&file)?;
        // It stays while the stack has files.
        let _ = fs::remove_dir(&dir);
        Ok(())
    }

    /// The marks of the stack's boundaries, which [`crate::host`] keeps.
    pub(crate) fn read_boundaries(&self, stack: &StackId) -> Result<Option<String>, StoreError> {
        read_if_there(&self.stack_dir(stack).join(BOUNDARIES))
    }

    pub(crate) fn write_boundaries<T: serde::Serialize>(
        &self,
        stack: &StackId,
        boundaries: &T,
    ) -> Result<(), StoreError> {
        self.write_json(stack, BOUNDARIES, boundaries)
    }

    /// Every stack that has files here. A directory with neither metadata nor a record of ours is
    /// somebody else's, whatever it is called.
    pub fn stacks(&self) -> Result<Vec<StackId>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error("list", &self.dir)(e)),
        };
        let mut stacks = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("list", &self.dir))?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let (true, Some(Ok(stack))) =
                (is_dir, entry.file_name().to_str().map(str::parse::<StackId>))
                && self.has_files(&stack)
            {
                stacks.push(stack);
            }
        }
        stacks.sort();
        Ok(stacks)
    }

    fn has_files(&self, stack: &StackId) -> bool {
        let dir = self.stack_dir(stack);
        let records = [RECORD, RETURNING];
        dir.join(METADATA).is_file()
            || records.iter().any(|record| names_stack(&dir.join(record), stack))
    }

    /// Removes all of a stack's files, the record last: while anything is left, so is the
    /// record that tells of it. What is not ours stays, and then the directory does too.
    pub fn remove(&self, stack: &StackId) -> Result<(), StoreError> {
        let dir = self.stack_dir(stack);
        for name in [METADATA, copies::COPIES, BOUNDARIES, RECORD] {
            let file = dir.join(name);
            remove_file(&durable::temporary(&file))?;
            remove_file(&file)?;
        }
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                if dir.join(RETURNING).is_file() {
                    return Ok(());
                }
                tracing::warn!(dir = %dir.display(), "left: files in it are not eratrack's");
                Ok(())
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &dir)(e)),
            _ => Ok(()),
        }
    }

    fn used(&self) -> Result<Bytes, StoreError> {
        let mut used = 0;
        for stack in self.stacks()? {
            for file in [self.metadata(&stack), self.copies(&stack)] {
                used += fs::metadata(file).map_or(0, |found| found.len());
            }
        }
        Ok(Bytes(used))
    }

    fn stack_dir(&self, stack: &StackId) -> PathBuf {
        self.dir.join(stack.as_str())
    }

    fn write_json<T: serde::Serialize>(
        &self,
        stack: &StackId,
        name: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        let path = self.stack_dir(stack).join(name);
        let text = serde_json::to_vec_pretty(value)
            .map_err(|e| io_error("write", &path)(io::Error::other(e)))?;
        durable::replace_durably(&path, &text)
    }
}

fn allocate(file: &File, size: Bytes) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size.0)?;
    // Allocated extents read as zero; the superblock is written all the same, so that it does
    // not depend on how a file system keeps that promise.
    let mut writer = file;
    writer.write_all(&[0; SUPERBLOCK])?;
    file.sync_all()
}

/// Whether a record, of whatever version, says that it is this stack's.
fn names_stack(record: &Path, stack: &StackId) -> bool {
    let found = loosely(record);
    found.get("stack").and_then(serde_json::Value::as_str) == Some(stack.as_str())
}

fn keeper_in(record: &Path, stack: &StackId) -> Option<Keeper> {
    if !names_stack(record, stack) {
        return None;
    }
    // The first records did not say: there were no others' then.
    let said = loosely(record).get("keeper").cloned();
    said.map_or(Some(Keeper::default()), |said| serde_json::from_value(said).ok())
}

/// A record of whatever version.
fn loosely(record: &Path) -> serde_json::Value {
    let text = fs::read_to_string(record).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("read", path)(e)),
    }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
