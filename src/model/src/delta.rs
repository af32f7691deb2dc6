//! The changes between two snapshots of a chain, whether or not they are neighbours.
//!
//! A list holds what was written from the era that it refers back to, up to its own boundary. Lists that follow one
//! another without a gap, of one volume and one chain, together hold what was written in between (invariants I1, I2).
//! Where that is not proven there is no list, and the error says why.

use thiserror::Error;

use crate::extents::RunList;
use crate::units::{Bytes, Granularity};
use crate::{Era, Run};

mod path;

pub use path::path;

/// What must be the same of lists that are read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The uid of the PersistentVolume.
    pub volume: String,
    /// The chain within which the eras count.
    pub chain: String,
    /// The size of a block.
    pub block: Granularity,
    /// The size of the volume.
    pub size: Bytes,
}

/// How far back a list reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It lists everything, for this reason, and refers to nothing.
    Full(String),
    /// It lists what was written in this era or later.
    Since(Era),
}

/// What is known of a complete list without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The name of its snapshot.
    pub snapshot: String,
    /// Whose list it is.
    pub line: Line,
    /// How far back it reaches.
    pub reach: Reach,
    /// Where it ends: the first era after the boundary.
    pub era: Era,
}

/// A list, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Of which snapshot; of the latest one, where several were joined.
    pub head: Head,
    /// The blocks.
    pub runs: RunList,
}

/// Why there is no list between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeltaError {
    /// No list was given.
    #[error("no list was given, so there is nothing to join")]
    Nothing,
    /// Not of the same volume, block size or size.
    #[error(
        "{first} and {second} cannot be read together: {field} is {before} and {after}; copy in full"
    )]
    OtherLine {
        /// One snapshot.
        first: String,
        /// The other.
        second: String,
        /// What differs.
        field: &'static str,
        /// Of the one.
        before: String,
        /// Of the other.
        after: String,
    },
    /// Not of the same chain.
    #[error("the chain broke between {first} and {second}{}; copy in full from a later full snapshot on", because(.reason.as_ref()))]
    OtherChain {
        /// One snapshot.
        first: String,
        /// The other.
        second: String,
        /// Why the later chain's first snapshot is full, where that is known.
        reason: Option<String>,
    },
    /// One of them lists everything.
    #[error(
        "{snapshot} is full ({reason}): what changed up to it is not known; copy in full, once"
    )]
    Full {
        /// The snapshot.
        snapshot: String,
        /// Its `fullReason`.
        reason: String,
    },
    /// Writes in between are in none of them.
    #[error(
        "nothing lists what was written from era {from} to era {since}, to which {snapshot} refers back: a snapshot in between is gone; copy in full"
    )]
    Gap {
        /// The snapshot that reaches back not far enough.
        snapshot: String,
        /// How far it does.
        since: Era,
        /// How far it would have to.
        from: Era,
    },
    /// The one that should be earlier is not.
    #[error(
        "{from} (era {from_era}) is not before {to} (era {to_era}); exchange them, or choose others"
    )]
    NotBefore {
        /// Where to begin.
        from: String,
        /// Its era.
        from_era: Era,
        /// Where to end.
        to: String,
        /// Its era.
        to_era: Era,
    },
    /// Two different boundaries cannot have the same era: one of the statuses is not true.
    #[error("{first} and {second} both have era {era}, which cannot be; copy in full")]
    SameEra {
        /// One snapshot.
        first: String,
        /// The other.
        second: String,
        /// Their era.
        era: Era,
    },
    /// A list that ends where it begins, or before.
    #[error(
        "{snapshot} refers back to era {since}, but its own is {era}, which cannot be; copy in full"
    )]
    Backwards {
        /// The snapshot.
        snapshot: String,
        /// The era that it refers back to.
        since: Era,
        /// Its own.
        era: Era,
    },
}

fn because(reason: Option<&String>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

impl Line {
    /// How many blocks the volume has; the last may be a part of one.
    pub fn blocks(&self) -> u64 {
        self.size.0.div_ceil(self.block.bytes().0)
    }
}

impl Head {
    /// The era that it refers back to.
    pub fn since(&self) -> Result<Era, DeltaError> {
        match &self.reach {
            Reach::Since(since) if *since < self.era => Ok(*since),
            Reach::Since(since) => Err(DeltaError::Backwards {
                snapshot: self.snapshot.clone(),
                since: *since,
                era: self.era,
            }),
            Reach::Full(reason) => {
                Err(DeltaError::Full { snapshot: self.snapshot.clone(), reason: reason.clone() })
            }
        }
    }

    /// Whether the eras and blocks of both mean the same.
    fn same_line(&self, other: &Self) -> Result<(), DeltaError> {
        let (one, two) = (&self.line, &other.line);
        let differs = |field, before: &dyn ToString, after: &dyn ToString| DeltaError::OtherLine {
            first: self.snapshot.clone(),
            second: other.snapshot.clone(),
            field,
            before: before.to_string(),
            after: after.to_string(),
        };
        if one.volume != two.volume {
            return Err(differs("volumeUID", &one.volume, &two.volume));
        }
        if one.chain != two.chain {
            return Err(DeltaError::OtherChain {
                first: self.snapshot.clone(),
                second: other.snapshot.clone(),
                reason: None,
            });
        }
        if one.block != two.block {
            return Err(differs("blockSizeBytes", &one.block.bytes().0, &two.block.bytes().0));
        }
        if one.size != two.size {
            return Err(differs("sizeBytes", &one.size.0, &two.size.0));
        }
        Ok(())
    }
}

impl Delta {
    /// What two lists say together that follow one another without a gap, in whichever order they are given. It takes
    /// the memory of both and of what comes out.
    pub fn and(self, other: Self) -> Result<Self, DeltaError> {
        let (before, after) =
            if self.head.era <= other.head.era { (self, other) } else { (other, self) };
        before.head.same_line(&after.head)?;
        let (earliest, since) = (before.head.since()?, after.head.since()?);
        if before.head.era == after.head.era {
            return Err(DeltaError::SameEra {
                first: before.head.snapshot,
                second: after.head.snapshot,
                era: after.head.era,
            });
        }
        if since > before.head.era {
            return Err(DeltaError::Gap {
                snapshot: after.head.snapshot,
                since,
                from: before.head.era,
            });
        }
        let reach = Reach::Since(since.min(earliest));
        Ok(Self { head: Head { reach, ..after.head }, runs: before.runs.union(&after.runs) })
    }

    /// What all of them say together, in whichever order they are given.
    pub fn union(deltas: impl IntoIterator<Item = Self>) -> Result<Self, DeltaError> {
        let mut deltas: Vec<_> = deltas.into_iter().collect();
        deltas.sort_by_key(|delta| delta.head.era);
        let mut deltas = deltas.into_iter();
        let first = deltas.next().ok_or(DeltaError::Nothing)?;
        first.head.since()?;
        deltas.try_fold(first, Self::and)
    }

    /// The list in bytes, as offset and length; the last one ends where the volume does.
    pub fn extents(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let Line { block, size, .. } = self.head.line;
        self.runs.iter().map(move |Run { first, last }| {
            let block = block.bytes().0;
            let start = first.saturating_mul(block).min(size.0);
            let end = last.saturating_add(1).saturating_mul(block).min(size.0);
            (Bytes(start), Bytes(end - start))
        })
    }

    /// How many bytes it lists; as a snapshot's `listedBytes`, the last block counts as a whole one unless everything is
    /// listed.
    pub fn listed(&self) -> Bytes {
        let Line { block, size, .. } = &self.head.line;
        Bytes(self.runs.blocks().saturating_mul(block.bytes().0).min(size.0))
    }
}
