//! The two copies on the disk: which one counts, and which one is written next.

use thiserror::Error;

use super::codec::{self, Decoded, HEAD, TableError};
use super::{AllocateError, LEAST_DISK, Table, room_end};
use crate::units::Bytes;

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// In the first unit of the disk.
    First,
    /// In the last whole unit of the disk, as long as the table says it is.
    Second,
}

/// What was found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// The table that counts.
    pub table: Table,
    /// Which copy has it.
    pub newest: Copy,
    /// What is wrong with the other copy; nothing if it has the table before this one, or an
    /// older one.
    pub other: Option<TableError>,
}

/// What is written to the disk in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where, in bytes from the start.
    pub offset: u64,
    /// What: whole multiples of 4 KiB.
    pub bytes: Vec<u8>,
}

/// Why there is no table to go by.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// None of the two places has ever had one.
    #[error("there is no pool on it")]
    NoPool,
    /// There is one, but neither copy is whole.
    #[error("both copies of its table are unusable: the first: {first}; the second: {second}")]
    Damaged {
        /// What is wrong with the first.
        first: TableError,
        /// What is wrong with the second.
        second: TableError,
    },
    /// The copies are of different pools, or say different things with the same number.
    #[error("its two copies contradict each other: {0}")]
    Contradiction(String),
    /// The disk has become shorter than its areas need.
    #[error("its table was made for a disk of {table}, and the disk has {disk}")]
    Shrunk {
        /// What the table says.
        table: Bytes,
        /// How long the disk is.
        disk: Bytes,
    },
}

impl Copy {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Self::First, Self::Second].into_iter().find(|copy| copy.number() == number)
    }

    /// Where it is on a disk of that length, no shorter than [`LEAST_DISK`].
    pub fn offset(self, disk: Bytes) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => room_end(disk),
        }
    }
}

impl Copies {
    /// Looks for the table on a disk of that length. `read` fills the buffer from that offset on.
    pub fn read<E: From<ReadError>>(
        disk: Bytes,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        if disk < LEAST_DISK {
            return Err(ReadError::NoPool.into());
        }
        let first = read_at(0, Copy::First, &mut read)?;
        let mut second = read_at(room_end(disk), Copy::Second, &mut read)?;
        // A disk that has grown has its second copy where its end was.
        if let Ok(Decoded { table, .. }) = &first
            && room_end(table.disk) < room_end(disk)
        {
            let former = read_at(room_end(table.disk), Copy::Second, &mut read)?;
            let same = second.as_ref().is_ok_and(|second| second.table.pool == table.pool);
            second = if same { newer(second, former) } else { former };
        }
        Ok(Self::choose(disk, first, second)?)
    }

    fn choose(disk: Bytes, first: Found, second: Found) -> Result<Self, ReadError> {
        let copies = match (first, second) {
            (Err(TableError::NoTable), Err(TableError::NoTable)) => Err(ReadError::NoPool),
            (Err(first), Err(second)) => Err(ReadError::Damaged { first, second }),
            (Ok(one), Err(other)) | (Err(other), Ok(one)) => {
                Ok(Self { table: one.table, newest: one.copy, other: Some(other) })
            }
            (Ok(first), Ok(second)) => Self::of_both(first, second),
        }?;
        if room_end(copies.table.disk) > room_end(disk) {
            return Err(ReadError::Shrunk { table: copies.table.disk, disk });
        }
        Ok(copies)
    }

    fn of_both(first: Decoded, second: Decoded) -> Result<Self, ReadError> {
        if first.table.pool != second.table.pool {
            let what = format!("pool {} and pool {}", first.table.pool, second.table.pool);
            return Err(ReadError::Contradiction(what));
        }
        if first.table.sequence == second.table.sequence && first.table != second.table {
            let what = format!("two tables have number {}", first.table.sequence);
            return Err(ReadError::Contradiction(what));
        }
        let newest = if first.table.sequence >= second.table.sequence { first } else { second };
        Ok(Self { table: newest.table, newest: newest.copy, other: None })
    }

    /// What to write, in this order and each durably, so that the disk has `next`; and the state
    /// after it. The copy that counts is not touched before the other one is whole.
    pub fn next(&self, next: Table) -> Result<(Vec<Write>, Self), AllocateError> {
        let write = |copy: Copy, table: &Table| Write {
            offset: copy.offset(table.disk),
            bytes: table.encode(copy),
        };
        if room_end(next.disk) == room_end(self.table.disk) {
            let copy = match self.newest {
                Copy::First => Copy::Second,
                Copy::Second => Copy::First,
            };
            let writes = vec![write(copy, &next)];
            return Ok((writes, Self { table: next, newest: copy, other: None }));
        }
        // The second copy of a disk that has grown goes to another place. Its old place, which may
        // have the table that counts, is only found through the first copy, which therefore
        // follows.
        let last = next.again()?;
        let writes = vec![write(Copy::Second, &next), write(Copy::First, &last)];
        Ok((writes, Self { table: last, newest: Copy::First, other: None }))
    }

    /// What to write, in this order and each durably, to make a pool of a disk: first whatever was
    /// there is made void, so that no older table is ever taken for a newer one.
    pub fn create(table: &Table) -> Result<Vec<Write>, AllocateError> {
        let blank = |copy: Copy| Write { offset: copy.offset(table.disk), bytes: vec![0; HEAD] };
        let write = |copy: Copy, table: &Table| Write {
            offset: copy.offset(table.disk),
            bytes: table.encode(copy),
        };
        Ok(vec![
            blank(Copy::First),
            blank(Copy::Second),
            write(Copy::Second, table),
            write(Copy::First, &table.again()?),
        ])
    }
}

type Found = Result<Decoded, TableError>;

/// The copy at that place, if it is the one that belongs there.
fn read_at<E>(
    offset: u64,
    expected: Copy,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Found, E> {
    let mut bytes = vec![0; HEAD];
    read(offset, &mut bytes)?;
    if let Some(length) = codec::length(&bytes) {
        bytes.resize(length.next_multiple_of(HEAD), 0);
        read(offset, &mut bytes)?;
    }
    let found = Table::decode(&bytes);
    Ok(match found {
        Ok(found) if found.copy != expected => Err(TableError::Copy(found.copy.number())),
        // What a longer or shorter disk left here.
        Ok(found) if found.copy.offset(found.table.disk) != offset => Err(TableError::NoTable),
        found => found,
    })
}

fn newer(one: Found, other: Found) -> Found {
    match (one, other) {
        (Ok(one), Ok(other)) if one.table.sequence >= other.table.sequence => Ok(one),
        (_, Ok(other)) => Ok(other),
        (one, Err(_)) => one,
    }
}
