//! What can be wrong, and how bad it is.

use std::fmt;

use crate::Era;
use crate::error::{ErrorKind, Step, write_path};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing may be concluded from the metadata.
    Error,
    /// Lists are right; room is lost.
    Warning,
}

/// Something that is wrong, and where.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// The way from the superblock to the place.
    pub path: Vec<Step>,
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.problem.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_path(f, &self.path)?;
        write!(f, ": {}", self.problem)
    }
}

/// What is wrong. Blocks are metadata blocks of 4 KiB, if not said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// What keeps a reader from reading.
    #[error(transparent)]
    Metadata(#[from] ErrorKind),
    /// The kernel digests the oldest writeset first.
    #[error(
        "block {block} of the device has era {found}, although era {oldest} is not digested yet"
    )]
    DigestedTooEarly {
        /// The device's block.
        block: u64,
        /// Its era in the array.
        found: Era,
        /// The oldest archived era.
        oldest: Era,
    },
    /// The array has a write that the writeset, still there, does not have.
    #[error("block {block} of the device has era {era}, but it is not in the writeset of that era")]
    DigestedFromNothing {
        /// The device's block.
        block: u64,
        /// Its era in the array.
        era: Era,
    },
    /// The kernel would overwrite the archived writeset with the current one.
    #[error("the writeset of era {era} is archived, and current too")]
    ArchivedAndCurrent {
        /// The era.
        era: Era,
    },
    /// The metadata snapshot is of some other metadata.
    #[error("the metadata snapshot is of era {found}, but the current era is {current}")]
    SnapshotAhead {
        /// The clone's current era.
        found: Era,
        /// The superblock's.
        current: Era,
    },
    /// The kernel would allocate blocks that do not exist.
    #[error("the space map manages {found} blocks, but there are only {blocks}: was it cut off?")]
    MoreManagedThanThere {
        /// What the space map's root says.
        found: u64,
        /// Blocks of the image or device, as far as the kernel uses them.
        blocks: u64,
    },
    /// A block that something refers to is unknown to the space map.
    #[error("block {block} is referred to, but the space map manages only {managed} blocks")]
    NotManaged {
        /// The block.
        block: u64,
        /// How many blocks the space map manages.
        managed: u64,
    },
    /// The kernel would give these blocks to something else.
    #[error("{} counted as {stored}, but referred to {references} times", each(*first, *last))]
    CountTooLow {
        /// The first of these blocks.
        first: u64,
        /// The last of these blocks.
        last: u64,
        /// What the space map says.
        stored: u32,
        /// How often each is referred to.
        references: u32,
    },
    /// The kernel will never use these blocks again.
    #[error(
        "{blocks} blocks are counted more often than they are referred to, the first of them \
         is block {first}: their room is lost, lists are right"
    )]
    CountTooHigh {
        /// How many.
        blocks: u64,
        /// The first of them.
        first: u64,
    },
    /// A sum does not agree with what it sums up. The kernel itself leaves `nr_free` too
    /// high when it has made metadata and the device is never resumed.
    #[error("{field} is {found}, counted are {counted}: lists are right")]
    Sum {
        /// The kernel's name of the field.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it should be.
        counted: u64,
    },
    /// A block below the one from which the kernel looks for free ones is free.
    #[error(
        "none_free_before is {found}, but entry {free} is free: its room is lost, lists are right"
    )]
    FreeBefore {
        /// What the index says.
        found: u32,
        /// The first free entry.
        free: u64,
    },
    /// A count above two has no entry in the tree of them.
    #[error("block {block} is counted above two, but the tree of reference counts lacks it")]
    CountMissing {
        /// The block.
        block: u64,
    },
    /// An entry of the tree of reference counts that the bitmap does not refer to, or for a
    /// count that the bitmap holds by itself.
    #[error("the tree of reference counts has {count} for block {block}, its bitmap has {bits}")]
    CountUnused {
        /// The block.
        block: u64,
        /// The count in the tree.
        count: u32,
        /// The bitmap's two bits; none where the space map does not reach.
        bits: u8,
    },
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::CountTooHigh { .. } | Self::FreeBefore { .. } | Self::Sum { .. } => {
                Severity::Warning
            }
            Self::Metadata(_)
            | Self::DigestedTooEarly { .. }
            | Self::DigestedFromNothing { .. }
            | Self::ArchivedAndCurrent { .. }
            | Self::SnapshotAhead { .. }
            | Self::MoreManagedThanThere { .. }
            | Self::NotManaged { .. }
            | Self::CountTooLow { .. }
            | Self::CountMissing { .. }
            | Self::CountUnused { .. } => Severity::Error,
        }
    }

    /// A word for scripts; never changes its meaning.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Metadata(kind) => kind.name(),
            Self::DigestedTooEarly { .. } => "digestedTooEarly",
            Self::DigestedFromNothing { .. } => "digestedFromNothing",
            Self::ArchivedAndCurrent { .. } => "archivedAndCurrent",
            Self::SnapshotAhead { .. } => "snapshotAhead",
            Self::MoreManagedThanThere { .. } => "moreManagedThanThere",
            Self::NotManaged { .. } => "notManaged",
            Self::CountTooLow { .. } => "countTooLow",
            Self::CountTooHigh { .. } => "countTooHigh",
            Self::Sum { .. } => "sum",
            Self::FreeBefore { .. } => "freeBefore",
            Self::CountMissing { .. } => "countMissing",
            Self::CountUnused { .. } => "countUnused",
        }
    }
}

fn each(first: u64, last: u64) -> String {
    if first == last {
        format!("block {first} is")
    } else {
        format!("blocks {first} to {last} are each")
    }
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    pub(super) errors: u64,
    pub(super) warnings: u64,
    pub(super) limit: usize,
}

impl Findings {
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), errors: 0, warnings: 0, limit }
    }

    /// An error is kept rather than a warning.
    pub(super) fn add(&mut self, problem: Problem, path: &[Step]) {
        match problem.severity() {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if self.kept.len() < self.limit {
            self.kept.push(Finding { problem, path: path.to_vec() });
        }
    }
}
