//! One block of an array (`struct array_block`, drivers/md/persistent-data/dm-array.c).

use crate::block::{BLOCK_SIZE, u32_at};
use crate::error::ErrorKind;

const HEADER: usize = 24;
/// Bytes of an era, and of a word of a bitset.
pub(crate) const ERA: usize = 4;
pub(crate) const WORD: usize = 8;

/// Offsets of the header's fields in bytes.
mod at {
    pub(super) const MAX_ENTRIES: usize = 4;
    pub(super) const NR_ENTRIES: usize = 8;
    pub(super) const VALUE_SIZE: usize = 12;
}

/// How many values of `N` bytes an array block has room for.
pub(crate) const fn capacity<const N: usize>() -> u64 {
    ((BLOCK_SIZE - HEADER) / N) as u64
}

/// Checks the header of an array's block with this index; returns the values.
pub(crate) fn values<const N: usize>(
    number: u64,
    block: &[u8; BLOCK_SIZE],
    index: u64,
    length: u64,
) -> Result<&[[u8; N]], ErrorKind> {
    let capacity = capacity::<N>();
    let nr_entries = capacity.min(length.saturating_sub(index.saturating_mul(capacity)));
    let exact = |field, at, expected: u64| match u32_at(block, at) {
        found if u64::from(found) == expected => Ok(()),
        found => Err(ErrorKind::field(number, field, expected.to_string(), found)),
    };
    exact("value_size", at::VALUE_SIZE, N as u64)?;
    exact("max_entries", at::MAX_ENTRIES, capacity)?;
    exact("nr_entries", at::NR_ENTRIES, nr_entries)?;
    let values = block[HEADER..].as_chunks::<N>().0;
    // At most the block's capacity, which is what the slice has.
    Ok(values.get(..usize::try_from(nr_entries).unwrap_or(usize::MAX)).unwrap_or(values))
}

/// A bitset of `bits` has nothing after its last bit: `first` is the index of the first of
/// these words.
pub(crate) fn check_end(
    number: u64,
    bits: u32,
    first: u64,
    words: &[[u8; 8]],
) -> Result<(), ErrorKind> {
    let bits = u64::from(bits);
    let ends_here = first + words.len() as u64 == bits.div_ceil(64);
    if let (true, Some(last), rest @ 1..) = (ends_here, words.last(), bits % 64) {
        let beyond = u64::from_le_bytes(*last) >> rest;
        if beyond != 0 {
            let expected = format!("0 beyond bit {}", bits - 1);
            return Err(ErrorKind::field(number, "last word", expected, beyond));
        }
    }
    Ok(())
}
