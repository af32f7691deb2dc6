//! What is known of a target, written down after what it speaks of was flushed.
//!
//! `<state directory>/.replicas/<digest of the target's path>.json`: it outlives the stack, so that a
//! target is known to be ours also after the chain has ended.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eratrack_dm::store::{self, StoreError};
use eratrack_model::Era;
use eratrack_model::names::StackId;
use eratrack_model::record::ChainId;
use eratrack_model::units::{Bytes, Granularity, Sectors};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::proof::Proof;

/// The version that is written and read.
const VERSION: u32 = 1;
/// No stack can be called so.
const DIRECTORY: &str = ".replicas";

/// A target and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub(crate) version: u32,
    /// Whose replica.
    pub stack: StackId,
    /// The chain that the era is of.
    pub chain: ChainId,
    /// Whatever was written in this era or later may be missing.
    pub era: u32,
    /// The source's length.
    pub sectors: Sectors,
    /// Its blocks.
    pub granularity: Granularity,
    /// The target.
    pub target: TargetId,
    /// How far it is.
    pub state: State,
    /// Up to here the first copy has come.
    pub cursor: Bytes,
    /// How many points in time it has equalled.
    pub rounds: u64,
    /// When the last one was, in milliseconds since 1970; 0 before the first.
    pub time: u64,
    /// By what it is seen that nobody else has written since; none where that is not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What the last point in time is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
}

/// What the maker of a point in time calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// For people.
    pub name: String,
    /// No other has it.
    pub uid: String,
}

/// How a target is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetId {
    /// Without links.
    pub path: PathBuf,
    /// A file's inode; none of a device.
    pub inode: Option<u64>,
    /// When the file was made, in nanoseconds since 1970, where its file system knows.
    pub born: Option<u64>,
    /// What a device says of itself; of one that says nothing, which it is in this boot.
    pub identity: Option<String>,
    /// How large it is.
    pub size: Bytes,
}

impl TargetId {
    /// Whether it is the same one. A device that says which it is may have another size than before.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let Self { path, inode, born, identity, size } = self;
        (path, inode, born, identity) == (&other.path, &other.inode, &other.born, &other.identity)
            && (identity.is_some() || *size == other.size)
    }
}

/// What a target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The first copy is under way.
    Seeding,
    /// A mix of two points in time.
    Copying,
    /// A point in time of the source.
    Consistent,
    /// Something else than was copied: a comparison has found so.
    Differs,
}

impl Checkpoint {
    /// Of a target that a full copy begins in.
    pub(crate) fn new(
        stack: StackId,
        chain: ChainId,
        era: Era,
        (sectors, granularity): (Sectors, Granularity),
        target: TargetId,
    ) -> Self {
        let (state, cursor) = (State::Seeding, Bytes(0));
        let (version, era) = (VERSION, era.0);
        let (rounds, time) = (0, 0);
        Self {
            version,
            stack,
            chain,
            era,
            sectors,
            granularity,
            target,
            state,
            cursor,
            rounds,
            time,
            proof: None,
            label: None,
        }
    }
}

/// Where a target's checkpoint is.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointFile(PathBuf);

impl CheckpointFile {
    pub(crate) fn of(state_dir: &Path, target: &Path) -> Self {
        let mut name = String::new();
        for byte in &Sha256::digest(target.as_os_str().as_encoded_bytes())[..16] {
            let _ = write!(name, "{byte:02x}");
        }
        Self(state_dir.join(DIRECTORY).join(format!("{name}.json")))
    }

    /// None if there is none; and why, if it is not understood.
    pub(crate) fn read(&self) -> Result<Option<Checkpoint>, String> {
        let said = |what: String| format!("its checkpoint {} {what}", self.0.display());
        let text = match fs::read_to_string(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| said(format!("cannot be read ({e})")))?,
        };
        let read: Checkpoint =
            serde_json::from_str(&text).map_err(|e| said(format!("cannot be understood ({e})")))?;
        let version = read.version;
        if version == VERSION {
            Ok(Some(read))
        } else {
            Err(said(format!("has version {version}")))
        }
    }

    /// Durable once this has returned.
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let dir = self.0.parent().unwrap_or(&self.0);
        let failed = |source| StoreError::Io { doing: "write", path: self.0.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let text =
            serde_json::to_vec_pretty(checkpoint).map_err(|e| failed(io::Error::other(e)))?;
        store::replace_durably(&self.0, &text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn checkpoint() -> Checkpoint {
        Checkpoint::new(
            "data".parse().unwrap(),
            "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap(),
            Era(7),
            (Sectors(65536), "64Ki".parse().unwrap()),
            TargetId {
                path: "/backup/data".into(),
                inode: Some(12),
                born: None,
                identity: None,
                size: Bytes(32 << 20),
            },
        )
    }

    #[test]
    fn what_was_written_reads_back_and_nothing_else_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let file = CheckpointFile::of(dir.path(), Path::new("/backup/data"));
        assert_eq!(file.read(), Ok(None));
        let written = Checkpoint { cursor: Bytes(4096), rounds: 3, ..checkpoint() };
        file.write(&written).unwrap();
        assert_eq!(file.read(), Ok(Some(written)));
        let text = fs::read_to_string(&file.0).unwrap();
        for (from, to) in [("\"version\": 1", "\"version\": 2"), ("Seeding", "Perhaps"), ("}", "")]
        {
            fs::write(&file.0, text.replace(from, to)).unwrap();
            let why = file.read().unwrap_err();
            assert!(why.starts_with("its checkpoint ") && why.contains(".json"), "{why}");
        }
        let other = CheckpointFile::of(dir.path(), Path::new("/backup/data2"));
        assert_eq!(other.read(), Ok(None));
    }
}
