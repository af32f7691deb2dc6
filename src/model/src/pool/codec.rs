//! A copy of the table as bytes, and back. What is not exactly as it is written here is not
//! believed, and nothing is allocated but for areas that were counted in the bytes at hand.

use thiserror::Error;

use super::copies::Copy;
use super::{Area, MOST_AREAS, PoolId, Table, Unsound};
use crate::names::{STACK_ID_MAX, StackId};
use crate::units::Bytes;

/// The head of a copy, and the unit that copies are written in: 4 KiB.
pub const HEAD: usize = 4096;
/// An area's entry after the head.
const ENTRY: usize = 128;
const MAGIC: &[u8; 16] = b"eratrack pool \r\n";
const VERSION: u32 = 1;

// Where the fields of the head are.
const CHECKSUM: usize = 16;
const CHECKED_FROM: usize = 20;
const FIELDS_END: usize = 64;
/// Where the figures of an entry are, after the stack's name.
const START: usize = 64;
const ENTRY_END: usize = 80;

// The proof that a copy with the most areas fits into its unit of the disk.
const _: () = assert!(HEAD + MOST_AREAS * ENTRY <= 1 << 20);
const _: () = assert!(STACK_ID_MAX < START);

/// A copy that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it says.
    pub table: Table,
    /// Which copy it says it is.
    pub copy: Copy,
}

/// Why bytes are no copy of a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// There has been none here.
    #[error("this is no pool's table")]
    NoTable,
    /// Too few bytes for what they say of themselves.
    #[error("{found} bytes are less than the {needed} of this table")]
    Short {
        /// How many there must be.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// Written by another version.
    #[error("the table has version {0}, expected {VERSION}; use the version that wrote it")]
    Version(u32),
    /// Torn, or damaged.
    #[error("the table's checksum is wrong: it was written in part, or is damaged")]
    Checksum,
    /// Neither the first nor the second.
    #[error("the table is copy {0}, expected 0 or 1")]
    Copy(u32),
    /// A field that has no meaning yet has a value.
    #[error("byte {0} of the table must be zero")]
    Reserved(usize),
    /// A name that no stack has.
    #[error("area {0} of the table names no stack")]
    Stack(usize),
    /// The parts do not fit together.
    #[error("the table contradicts itself: {0}")]
    Unsound(#[from] Unsound),
}

impl Table {
    /// The copy as it is written: whole multiples of [`HEAD`], at most 1 MiB.
    pub fn encode(&self, copy: Copy) -> Vec<u8> {
        let used = HEAD + self.areas.len() * ENTRY;
        let mut bytes = vec![0; used.next_multiple_of(HEAD)];
        bytes[..CHECKSUM].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 20, VERSION);
        put_u32(&mut bytes, 24, copy.number());
        // MOST_AREAS is far less than 2^32.
        put_u32(&mut bytes, 28, u32::try_from(self.areas.len()).unwrap_or(u32::MAX));
        put_u64(&mut bytes, 32, self.sequence);
        put_u64(&mut bytes, 40, self.disk.0);
        bytes[48..FIELDS_END].copy_from_slice(&self.pool.bytes());
        for (entry, area) in bytes[HEAD..].chunks_exact_mut(ENTRY).zip(&self.areas) {
            encode_area(entry, area);
        }
        let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..used]);
        put_u32(&mut bytes, CHECKSUM, checksum);
        bytes
    }

    /// Reads a copy; bytes after it do not matter.
    pub fn decode(bytes: &[u8]) -> Result<Decoded, TableError> {
        let found = bytes.len();
        if !bytes.starts_with(MAGIC) {
            return Err(TableError::NoTable);
        }
        let head = bytes.get(..HEAD).ok_or(TableError::Short { needed: HEAD, found })?;
        // Before the checksum, which another version may have elsewhere.
        let version = get_u32(head, 20);
        if version != VERSION {
            return Err(TableError::Version(version));
        }
        let count = usize::try_from(get_u32(head, 28)).unwrap_or(usize::MAX);
        if count > MOST_AREAS {
            return Err(Unsound::TooMany(count).into());
        }
        let needed = HEAD + count * ENTRY;
        let used = bytes.get(..needed).ok_or(TableError::Short { needed, found })?;
        if crc32c::crc32c(&used[CHECKED_FROM..]) != get_u32(head, CHECKSUM) {
            return Err(TableError::Checksum);
        }
        zero(used, FIELDS_END, HEAD)?;
        let number = get_u32(head, 24);
        let copy = Copy::from_number(number).ok_or(TableError::Copy(number))?;
        let areas = (0..count).map(|index| decode_area(used, index)).collect::<Result<_, _>>()?;
        let mut pool = [0; 16];
        pool.copy_from_slice(&head[48..FIELDS_END]);
        let (pool, sequence, disk) =
            (PoolId::from_bytes(pool), get_u64(head, 32), Bytes(get_u64(head, 40)));
        Ok(Decoded { table: Self::checked(pool, sequence, disk, areas)?, copy })
    }
}

/// How many bytes the table that begins like this needs; none if it is no table of this version.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let head = head.get(..HEAD).filter(|head| head.starts_with(MAGIC))?;
    let count = usize::try_from(get_u32(head, 28)).ok()?;
    (get_u32(head, 20) == VERSION && count <= MOST_AREAS).then_some(HEAD + count * ENTRY)
}

fn encode_area(entry: &mut [u8], area: &Area) {
    let name = area.stack.as_str().as_bytes();
    // STACK_ID_MAX is less than 256.
    entry[0] = u8::try_from(name.len()).unwrap_or(u8::MAX);
    entry[1..=name.len()].copy_from_slice(name);
    put_u64(entry, START, area.start.0);
    put_u64(entry, START + 8, area.length.0);
}

fn decode_area(used: &[u8], index: usize) -> Result<Area, TableError> {
    let at = HEAD + index * ENTRY;
    let entry = &used[at..at + ENTRY];
    let length = usize::from(entry[0]);
    if length > STACK_ID_MAX {
        return Err(TableError::Stack(index));
    }
    let name = std::str::from_utf8(&entry[1..=length]).ok();
    let stack: Option<StackId> = name.and_then(|name| name.parse().ok());
    zero(used, at + 1 + length, at + START)?;
    zero(used, at + ENTRY_END, at + ENTRY)?;
    Ok(Area {
        stack: stack.ok_or(TableError::Stack(index))?,
        start: Bytes(get_u64(entry, START)),
        length: Bytes(get_u64(entry, START + 8)),
    })
}

fn zero(bytes: &[u8], from: usize, to: usize) -> Result<(), TableError> {
    let odd = bytes[from..to].iter().position(|byte| *byte != 0);
    odd.map_or(Ok(()), |odd| Err(TableError::Reserved(from + odd)))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
