//! What can be wrong with metadata, and where.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::Era;
use crate::block::BlockKind;

/// Metadata could not be read or is not what it must be. Nothing may be concluded about
/// which blocks changed: the next copy has to be a full one.
#[derive(Debug)]
pub struct Error {
    /// What was expected and what was found.
    pub kind: ErrorKind,
    /// The way from the superblock to the place.
    pub path: Vec<Step>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_path(f, &self.path)?;
        write!(f, ": {}", self.kind)
    }
}

pub(crate) fn write_path(f: &mut fmt::Formatter<'_>, path: &[Step]) -> fmt::Result {
    for (i, step) in path.iter().enumerate() {
        let arrow = if i == 0 { "" } else { " -> " };
        write!(f, "{arrow}{step}")?;
    }
    Ok(())
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.kind.source()
    }
}

/// What was expected and what was found. Block numbers are metadata blocks of 4 KiB.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The source failed.
    #[error("block {block} cannot be read")]
    Read {
        /// The block.
        block: u64,
        /// Why.
        source: io::Error,
    },
    /// The superblock is all zeroes.
    #[error("block {block} is all zeroes: no era device was ever made with this metadata")]
    Unformatted {
        /// The block.
        block: u64,
    },
    /// The superblock is something else's.
    #[error("block {block} is not dm-era's: magic {found}, expected {expected}")]
    Magic {
        /// The block.
        block: u64,
        /// dm-era's magic.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The block's content does not match its checksum.
    #[error("block {block}: checksum of {what} is {expected:#010x}, found {found:#010x}")]
    Checksum {
        /// The block.
        block: u64,
        /// What it was read as.
        what: BlockKind,
        /// The checksum of its content.
        expected: u32,
        /// The checksum it carries.
        found: u32,
    },
    /// The block was written for another place.
    #[error("block {block}: the {what} there says that it is block {found}")]
    Misplaced {
        /// The block.
        block: u64,
        /// What it was read as.
        what: BlockKind,
        /// Where it says it belongs.
        found: u64,
    },
    /// A field has a value that it cannot have.
    #[error("block {block}: {field} is {found}, expected {expected}")]
    Field {
        /// The block.
        block: u64,
        /// The kernel's name of the field.
        field: &'static str,
        /// What it can be.
        expected: String,
        /// What it is.
        found: u64,
    },
    /// A key of a btree node is out of order or out of what its parent allows.
    #[error("block {block}: key {index} is {found}, expected {expected}")]
    Key {
        /// The node.
        block: u64,
        /// Which of its keys, from zero.
        index: usize,
        /// What it can be.
        expected: String,
        /// What it is.
        found: u64,
    },
    /// A reference to a block that does not exist.
    #[error("refers to block {block}, but the metadata has blocks 1 to {last} to refer to")]
    OutOfBounds {
        /// The block referred to.
        block: u64,
        /// The last block there is.
        last: u64,
    },
    /// Two references to one block, which includes every cycle.
    #[error("refers to block {block}, which is in use elsewhere")]
    Visited {
        /// The block referred to.
        block: u64,
    },
    /// More levels of btree nodes than any tree of this size has.
    #[error("block {block}: more than {limit} levels of btree nodes")]
    TooDeep {
        /// The node.
        block: u64,
        /// The limit.
        limit: usize,
    },
    /// The array lacks a block, or has one too many.
    #[error("the array's next block has index {found}, expected {expected}")]
    ArrayKey {
        /// What follows the blocks before it.
        expected: String,
        /// The key in the tree.
        found: u64,
    },
    /// The array lacks blocks at its end.
    #[error("the array has {found} blocks of values, expected {expected}")]
    ArrayTooShort {
        /// What its length demands.
        expected: u64,
        /// What the tree has.
        found: u64,
    },
    /// An era that has not begun.
    #[error("a write in era {found} is recorded, but the current era is {current}")]
    EraBeyond {
        /// The era of the write.
        found: u64,
        /// The metadata's current era.
        current: Era,
    },
    /// A writeset is longer than the device.
    #[error("the writeset is of {found} blocks, but the device has only {nr_blocks}")]
    WritesetTooLong {
        /// The writeset's `nr_bits`.
        found: u32,
        /// The superblock's `nr_blocks`.
        nr_blocks: u32,
    },
    /// Whoever looks at the metadata has seen enough.
    #[error("the walk was stopped")]
    Stopped,
    /// The metadata holds no metadata snapshot.
    #[error(
        "no metadata snapshot is held: send the era device the message take_metadata_snap, \
         or read the live metadata if the device is not active"
    )]
    NoSnapshot,
    /// The era asked for has not begun, so it is of some other metadata.
    #[error(
        "era {since} has not begun, the current era is {current}: \
         the era is of other metadata, or this metadata was made anew"
    )]
    Future {
        /// The era asked for.
        since: Era,
        /// The metadata's current era.
        current: Era,
    },
}

impl ErrorKind {
    /// A word for scripts; never changes its meaning.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Unformatted { .. } => "unformatted",
            Self::Magic { .. } => "magic",
            Self::Checksum { .. } => "checksum",
            Self::Misplaced { .. } => "misplaced",
            Self::Field { .. } => "field",
            Self::Key { .. } => "key",
            Self::OutOfBounds { .. } => "outOfBounds",
            Self::Visited { .. } => "visited",
            Self::TooDeep { .. } => "tooDeep",
            Self::ArrayKey { .. } => "arrayKey",
            Self::ArrayTooShort { .. } => "arrayTooShort",
            Self::EraBeyond { .. } => "eraBeyond",
            Self::WritesetTooLong { .. } => "writesetTooLong",
            Self::Stopped => "stopped",
            Self::NoSnapshot => "noSnapshot",
            Self::Future { .. } => "future",
        }
    }

    /// About a field's value.
    pub(crate) fn field(
        block: u64,
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<u64>,
    ) -> Self {
        Self::Field { block, field, expected: expected.into(), found: found.into() }
    }
}

/// A step on the way from the superblock to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Block 0.
    Superblock,
    /// The clone of the superblock, at this block.
    Snapshot(u64),
    /// The tree of archived writesets.
    WritesetTree,
    /// The array of the last era of each block.
    EraArray,
    /// The writeset of the current era.
    CurrentWriteset,
    /// The archived writeset of an era.
    Writeset(u64),
    /// The btree node at this block.
    Node(u64),
    /// A block of an array.
    ArrayBlock {
        /// Which of the array's blocks, from zero.
        index: u64,
        /// The metadata block it is in.
        block: u64,
    },
    /// The map of which metadata blocks are in use.
    SpaceMap,
    /// The space map's index, at this block.
    SpaceMapIndex(u64),
    /// A bitmap of the space map.
    SpaceMapBitmap {
        /// Which of the bitmaps, from zero.
        index: u64,
        /// The metadata block it is in.
        block: u64,
    },
    /// The space map's tree of counts above two.
    ReferenceCounts,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("superblock"),
            Self::Snapshot(block) => write!(f, "metadata snapshot (block {block})"),
            Self::WritesetTree => f.write_str("writeset tree"),
            Self::EraArray => f.write_str("era array"),
            Self::CurrentWriteset => f.write_str("current writeset"),
            Self::Writeset(era) => write!(f, "key {era}"),
            Self::Node(block) => write!(f, "node (block {block})"),
            Self::ArrayBlock { index, block } => write!(f, "array block {index} (block {block})"),
            Self::SpaceMap => f.write_str("space map"),
            Self::SpaceMapIndex(block) => write!(f, "index (block {block})"),
            Self::SpaceMapBitmap { index, block } => write!(f, "bitmap {index} (block {block})"),
            Self::ReferenceCounts => f.write_str("reference counts"),
        }
    }
}
