//! Arrays: blocks of packed values under a btree keyed by the block's index
//! (`struct array_block`, drivers/md/persistent-data/dm-array.c), and bitsets, which are
//! arrays of 64-bit words (dm-bitset.c).

use crate::block::{BLOCK_SIZE, Block, BlockKind};
use crate::btree;
use crate::error::{Error, ErrorKind, Step};
use crate::reader::Reader;
use crate::source::BlockSource;
use crate::superblock::Writeset;

const HEADER: usize = 24;
/// Of the btree above the array blocks: a block number.
const POINTER: usize = 8;
const ERA: usize = 4;
const WORD: usize = 8;

/// Offsets of the header's fields in bytes.
mod at {
    pub(super) const MAX_ENTRIES: usize = 4;
    pub(super) const NR_ENTRIES: usize = 8;
    pub(super) const VALUE_SIZE: usize = 12;
}

/// Visits the last era of each of the device's blocks: the first block's number, then the
/// eras of it and those that follow.
pub(crate) fn walk_eras<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    nr_blocks: u32,
    mut on_eras: impl FnMut(&Reader<'_, S>, u64, &[[u8; ERA]]) -> Result<(), Error>,
) -> Result<(), Error> {
    walk::<S, ERA>(reader, root, nr_blocks.into(), &mut |reader, leaf| {
        on_eras(reader, leaf.first, leaf.values)
    })
}

/// Visits the words of a writeset's bitset: the first word's index, then the words.
pub(crate) fn walk_bits<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    writeset: Writeset,
    mut on_words: impl FnMut(u64, &[[u8; WORD]]),
) -> Result<(), Error> {
    let bits = u64::from(writeset.nr_bits);
    let words = bits.div_ceil(64);
    walk::<S, WORD>(reader, writeset.root, words, &mut |reader, leaf| {
        let ends_here = leaf.first + leaf.values.len() as u64 == words;
        if let (true, Some(last), rest @ 1..) = (ends_here, leaf.values.last(), bits % 64) {
            let beyond = u64::from_le_bytes(*last) >> rest;
            if beyond != 0 {
                let expected = format!("0 beyond bit {}", bits - 1);
                return Err(reader.field(leaf.number, "last word", expected, beyond));
            }
        }
        on_words(leaf.first, leaf.values);
        Ok(())
    })
}

/// A verified array block.
struct Leaf<'b, const N: usize> {
    /// The metadata block it is in.
    number: u64,
    /// The index of its first value in the array.
    first: u64,
    values: &'b [[u8; N]],
}

type OnLeaf<'f, S, const N: usize> =
    dyn FnMut(&Reader<'_, S>, &Leaf<'_, N>) -> Result<(), Error> + 'f;

/// Visits the array's blocks in order. An array is dense, so the blocks come one after
/// the other from zero: what a visitor gathers never outgrows what was read.
fn walk<S: BlockSource, const N: usize>(
    reader: &mut Reader<'_, S>,
    root: u64,
    length: u64,
    on_leaf: &mut OnLeaf<'_, S, N>,
) -> Result<(), Error> {
    let capacity = ((BLOCK_SIZE - HEADER) / N) as u64;
    let leaves = length.div_ceil(capacity);
    let mut next = 0;
    btree::walk(reader, root, POINTER, &mut |reader, key, value| {
        if key != next || key >= leaves {
            let expected = if next < leaves { next.to_string() } else { "no more keys".into() };
            return Err(reader.error(ErrorKind::ArrayKey { expected, found: key }));
        }
        next += 1;
        let first = key * capacity;
        let expected = capacity.min(length - first);
        let number = pointer(value);
        reader.within(Step::ArrayBlock { index: key, block: number }, |reader| {
            let block = reader.read(number, BlockKind::Array)?;
            let values = check_leaf(reader, number, &block, capacity, expected)?;
            on_leaf(reader, &Leaf { number, first, values })
        })
    })?;
    if next == leaves {
        return Ok(());
    }
    Err(reader.error(ErrorKind::ArrayTooShort { expected: leaves, found: next }))
}

fn pointer(value: &[u8]) -> u64 {
    let mut bytes = [0; POINTER];
    bytes.copy_from_slice(value);
    u64::from_le_bytes(bytes)
}

/// Checks the header; returns the values.
fn check_leaf<'b, S: BlockSource, const N: usize>(
    reader: &Reader<'_, S>,
    number: u64,
    block: &'b Block,
    capacity: u64,
    nr_entries: u64,
) -> Result<&'b [[u8; N]], Error> {
    let exact = |field, at, expected: u64| match block.u32_at(at) {
        found if u64::from(found) == expected => Ok(()),
        found => Err(reader.field(number, field, expected.to_string(), found)),
    };
    exact("value_size", at::VALUE_SIZE, N as u64)?;
    exact("max_entries", at::MAX_ENTRIES, capacity)?;
    exact("nr_entries", at::NR_ENTRIES, nr_entries)?;
    let values = block.bytes()[HEADER..].as_chunks::<N>().0;
    // At most the block's capacity, which is what the slice has.
    Ok(values.get(..usize::try_from(nr_entries).unwrap_or(usize::MAX)).unwrap_or(values))
}
