//! Arrays: blocks of packed values under a btree keyed by the block's index, and bitsets,
//! which are arrays of 64-bit words (drivers/md/persistent-data/dm-bitset.c).

mod batch;
mod beside;
pub(crate) mod leaf;

use crate::btree::{self, Node};
use crate::error::{Error, ErrorKind};
use crate::reader::Reader;
use crate::source::BlockSource;
use crate::superblock::Writeset;

pub(crate) use batch::{Array, Batch, Here, Reference, Take};
pub(crate) use beside::beside;
pub(crate) use leaf::{ERA, WORD};

/// Of the btree above the array blocks: a block number.
pub(crate) const POINTER: usize = 8;

/// Visits the last era of each of the device's blocks: the first block's number, then the
/// eras of it and those that follow.
pub(crate) fn walk_eras<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    nr_blocks: u32,
    mut on_eras: impl FnMut(u64, &[[u8; ERA]]) -> Result<(), ErrorKind>,
) -> Result<(), Error> {
    let mut take = Here::new(|batch: &Batch| batch.each_eras(&mut on_eras));
    read_eras(reader, root, nr_blocks, &mut take)
}

/// Visits the words of a writeset's bitset: the first word's index, then the words.
pub(crate) fn walk_bits<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    writeset: Writeset,
    mut on_words: impl FnMut(u64, &[[u8; WORD]]) -> Result<(), ErrorKind>,
) -> Result<(), Error> {
    let mut take = Here::new(|batch: &Batch| batch.each_words(writeset.nr_bits, &mut on_words));
    read_bits(reader, writeset, &mut take)
}

/// Reads the last era of each of the device's blocks.
pub(crate) fn read_eras<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    nr_blocks: u32,
    take: &mut dyn Take,
) -> Result<(), Error> {
    read(reader, root, Array::Eras { nr_blocks }, take)
}

/// Reads a writeset's bitset.
pub(crate) fn read_bits<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    Writeset { nr_bits, root }: Writeset,
    take: &mut dyn Take,
) -> Result<(), Error> {
    read(reader, root, Array::Bits { nr_bits }, take)
}

/// Reads an array's blocks in order. An array is dense, so the blocks come one after the
/// other from zero: what is gathered of them never outgrows what was read.
fn read<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    array: Array,
    take: &mut dyn Take,
) -> Result<(), Error> {
    let mut gathering = Gathering { array, next: 0, waiting: Vec::new(), take };
    btree::walk_leaves(reader, root, POINTER, &mut |reader, node| gathering.node(reader, node))?;
    let (expected, found) = (array.leaves(), gathering.next);
    if found == expected {
        return Ok(());
    }
    Err(reader.error(ErrorKind::ArrayTooShort { expected, found }))
}

/// References that were met, to be read together.
struct Gathering<'t> {
    array: Array,
    /// The index that the array's next block must have.
    next: u64,
    waiting: Vec<Reference>,
    take: &'t mut dyn Take,
}

impl Gathering<'_> {
    /// No batch reaches beyond a node, so that errors come in the order of the metadata.
    fn node<S: BlockSource>(
        &mut self,
        reader: &mut Reader<'_, S>,
        node: &Node<'_>,
    ) -> Result<(), Error> {
        for index in 0..node.nr_entries {
            if let Err(error) = self.add(reader, node.key(index), pointer(node.value(index))) {
                self.read(reader)?;
                return Err(error);
            }
            if self.waiting.len() >= reader.at_once() {
                self.read(reader)?;
            }
        }
        self.read(reader)
    }

    fn add<S: BlockSource>(
        &mut self,
        reader: &mut Reader<'_, S>,
        index: u64,
        number: u64,
    ) -> Result<(), Error> {
        let (next, leaves) = (self.next, self.array.leaves());
        if index != next || index >= leaves {
            let expected = if next < leaves { next.to_string() } else { "no more keys".into() };
            return Err(reader.error(ErrorKind::ArrayKey { expected, found: index }));
        }
        self.next += 1;
        let reference = Reference { index, number };
        reader.within(reference.into(), |reader| reader.claim(number))?;
        self.waiting.push(reference);
        Ok(())
    }

    /// Reads what waits. What comes before a block that cannot be read is told first.
    fn read<S: BlockSource>(&mut self, reader: &mut Reader<'_, S>) -> Result<(), Error> {
        let mut references = std::mem::take(&mut self.waiting);
        if references.is_empty() {
            return Ok(());
        }
        let mut buffer = self.take.room(references.len())?;
        let read = reader.read_together(&references, buffer.blocks_mut());
        let count = read.as_ref().err().map(|unread| unread.before);
        references.truncate(count.unwrap_or(references.len()));
        let path = reader.path().to_vec();
        self.take.take(Batch { array: self.array, path, references, buffer })?;
        read.map_err(|unread| unread.error)
    }
}

pub(crate) fn pointer(value: &[u8]) -> u64 {
    let mut bytes = [0; POINTER];
    bytes.copy_from_slice(value);
    u64::from_le_bytes(bytes)
}
