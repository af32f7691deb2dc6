//! A pool: a raw disk that many stacks keep their metadata on, each in an area of its own.
//!
//! [`Table`] says who has which area. The disk has it twice ([`Copy`]), at its start and at its
//! end, and [`Copies::read`] takes the newer one that is whole; a change overwrites the other one
//! alone ([`Copies::next`]). So whatever a write leaves, the table before it or after it is there.
//! The format, byte for byte: docs/design/0008-metadata-places.md.

mod allocate;
mod codec;
mod copies;
mod id;

use thiserror::Error;

use crate::names::StackId;
use crate::units::Bytes;

pub use allocate::AllocateError;
pub use codec::{Decoded, HEAD, TableError};
pub use copies::{Copies, Copy, ReadError, Write};
pub use id::PoolId;

/// Areas start and end at multiples of this: 1 MiB.
pub const UNIT: u64 = 1 << 20;
/// The most areas that a copy of the table has room for.
pub const MOST_AREAS: usize = 4096;
/// The smallest disk: two copies of the table, and one area.
pub const LEAST_DISK: Bytes = Bytes(3 * UNIT);

/// Who has which part of a disk. Every value of this type is sound: areas in ascending order,
/// apart from each other and from both copies, one a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pool: PoolId,
    sequence: u64,
    disk: Bytes,
    areas: Vec<Area>,
}

/// A stack's part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Whose.
    pub stack: StackId,
    /// Where it begins, from the start of the disk.
    pub start: Bytes,
    /// How long it is.
    pub length: Bytes,
}

/// Why a table would not be sound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsound {
    /// Too small for two copies and an area.
    #[error("the disk has {0}, and a pool needs 3Mi at least")]
    Disk(Bytes),
    /// More than fit.
    #[error("{0} areas are more than the {MOST_AREAS} that fit")]
    TooMany(usize),
    /// Not at multiples of [`UNIT`], or nothing.
    #[error("the area of stack {0} is not whole units of 1Mi")]
    Unaligned(StackId),
    /// Over a copy of the table, or beyond the disk.
    #[error("the area of stack {0} is beyond the room for areas")]
    Beyond(StackId),
    /// Over the area before it, or before that.
    #[error("the area of stack {0} does not follow the one before it")]
    Overlap(StackId),
    /// Two areas.
    #[error("stack {0} has two areas")]
    Twice(StackId),
}

impl Table {
    /// A pool without areas on a disk of that length.
    pub fn new(pool: PoolId, disk: Bytes) -> Result<Self, Unsound> {
        Self::checked(pool, 1, disk, Vec::new())
    }

    fn checked(
        pool: PoolId,
        sequence: u64,
        disk: Bytes,
        areas: Vec<Area>,
    ) -> Result<Self, Unsound> {
        let table = Self { pool, sequence, disk, areas };
        table.check()?;
        Ok(table)
    }

    /// Which pool.
    pub fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// How many tables the pool had, this one counted.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How long the disk is, as far as the pool uses it.
    pub fn disk(&self) -> Bytes {
        self.disk
    }

    /// All areas, in the order of the disk.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// The stack's area.
    pub fn area(&self, stack: &StackId) -> Option<&Area> {
        self.areas.iter().find(|area| area.stack == *stack)
    }

    /// What areas have.
    pub fn used(&self) -> Bytes {
        Bytes(self.areas.iter().map(|area| area.length.0).sum())
    }

    /// What areas may have together.
    pub fn room(&self) -> Bytes {
        Bytes(room_end(self.disk) - UNIT)
    }

    fn check(&self) -> Result<(), Unsound> {
        if self.disk < LEAST_DISK {
            return Err(Unsound::Disk(self.disk));
        }
        if self.areas.len() > MOST_AREAS {
            return Err(Unsound::TooMany(self.areas.len()));
        }
        let mut end = UNIT;
        for area in &self.areas {
            end = self.check_area(area, end)?;
        }
        let mut stacks: Vec<_> = self.areas.iter().map(|area| &area.stack).collect();
        stacks.sort_unstable();
        match stacks.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Unsound::Twice(pair[0].clone())),
            None => Ok(()),
        }
    }

    /// Where the area ends, which may begin no earlier than `from`.
    fn check_area(&self, area: &Area, from: u64) -> Result<u64, Unsound> {
        let Area { stack, start: Bytes(start), length: Bytes(length) } = area;
        let whole = start.is_multiple_of(UNIT) && length.is_multiple_of(UNIT) && *length > 0;
        let end = start.checked_add(*length).filter(|end| *end <= room_end(self.disk));
        match end {
            _ if !whole => Err(Unsound::Unaligned(stack.clone())),
            None => Err(Unsound::Beyond(stack.clone())),
            Some(_) if *start < UNIT => Err(Unsound::Beyond(stack.clone())),
            Some(_) if *start < from => Err(Unsound::Overlap(stack.clone())),
            Some(end) => Ok(end),
        }
    }
}

/// Where the room for areas ends, and the second copy begins, on a disk that is no smaller than
/// [`LEAST_DISK`].
fn room_end(disk: Bytes) -> u64 {
    disk.0 / UNIT * UNIT - UNIT
}
