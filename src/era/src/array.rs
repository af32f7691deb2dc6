//! Arrays: blocks of packed values under a btree keyed by the block's index, and bitsets,
//! which are arrays of 64-bit words (drivers/md/persistent-data/dm-bitset.c).

pub(crate) mod leaf;

use crate::block::BlockKind;
use crate::btree;
use crate::error::{Error, ErrorKind, Step};
use crate::reader::Reader;
use crate::source::BlockSource;
use crate::superblock::Writeset;

/// Of the btree above the array blocks: a block number.
pub(crate) const POINTER: usize = 8;
pub(crate) const ERA: usize = 4;
pub(crate) const WORD: usize = 8;

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
    mut on_words: impl FnMut(&Reader<'_, S>, u64, &[[u8; WORD]]) -> Result<(), Error>,
) -> Result<(), Error> {
    let words = u64::from(writeset.nr_bits).div_ceil(64);
    walk::<S, WORD>(reader, writeset.root, words, &mut |reader, leaf| {
        leaf::check_end(leaf.number, writeset.nr_bits, leaf.first, leaf.values)
            .map_err(|kind| reader.error(kind))?;
        on_words(reader, leaf.first, leaf.values)
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
    let leaves = length.div_ceil(leaf::capacity::<N>());
    let mut next = 0;
    btree::walk(reader, root, POINTER, &mut |reader, key, value| {
        if key != next || key >= leaves {
            let expected = if next < leaves { next.to_string() } else { "no more keys".into() };
            return Err(reader.error(ErrorKind::ArrayKey { expected, found: key }));
        }
        next += 1;
        let first = key * leaf::capacity::<N>();
        let number = pointer(value);
        reader.within(Step::ArrayBlock { index: key, block: number }, |reader| {
            let block = reader.read(number, BlockKind::Array)?;
            let values =
                leaf::values(number, &block, key, length).map_err(|kind| reader.error(kind))?;
            on_leaf(reader, &Leaf { number, first, values })
        })
    })?;
    if next == leaves {
        return Ok(());
    }
    Err(reader.error(ErrorKind::ArrayTooShort { expected: leaves, found: next }))
}

pub(crate) fn pointer(value: &[u8]) -> u64 {
    let mut bytes = [0; POINTER];
    bytes.copy_from_slice(value);
    u64::from_le_bytes(bytes)
}
