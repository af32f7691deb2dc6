//! Btrees (`struct btree_node`, drivers/md/persistent-data/dm-btree-internal.h).

use crate::block::{BLOCK_SIZE, Block, BlockKind};
use crate::error::{Error, ErrorKind, Step};
use crate::reader::Reader;
use crate::source::BlockSource;

const HEADER: usize = 32;
const KEY: usize = 8;
/// Of an internal node: the child's block number.
const CHILD: usize = 8;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;
/// A node that is not the root is at least a third full, so that even a tree over every
/// block that metadata can have is far lower than this.
const MAX_DEPTH: usize = 16;

/// Offsets of the header's fields in bytes.
mod at {
    pub(super) const FLAGS: usize = 4;
    pub(super) const NR_ENTRIES: usize = 16;
    pub(super) const MAX_ENTRIES: usize = 20;
    pub(super) const VALUE_SIZE: usize = 24;
}

/// How many entries a node has room for: always a multiple of three
/// (`calc_max_entries`, dm-btree.c).
const fn max_entries(value_size: usize) -> usize {
    let fit = (BLOCK_SIZE - HEADER) / (KEY + value_size);
    fit - fit % 3
}

/// Which keys a node may hold.
#[derive(Clone, Copy)]
struct Range {
    first: u64,
    /// Not included; none is "no limit".
    end: Option<u64>,
}

/// What is done with an entry: its key and its value.
pub(crate) type OnEntry<'f, S> =
    dyn FnMut(&mut Reader<'_, S>, u64, &[u8]) -> Result<(), Error> + 'f;

/// Visits all entries in the order of their keys.
pub(crate) fn walk<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    value_size: usize,
    on_entry: &mut OnEntry<'_, S>,
) -> Result<(), Error> {
    let mut walk = Walk { value_size, on_entry };
    walk.node(reader, root, Range { first: 0, end: None }, 0)
}

struct Walk<'f, 'g, S> {
    value_size: usize,
    on_entry: &'g mut OnEntry<'f, S>,
}

impl<S: BlockSource> Walk<'_, '_, S> {
    fn node(
        &mut self,
        reader: &mut Reader<'_, S>,
        number: u64,
        range: Range,
        depth: usize,
    ) -> Result<(), Error> {
        reader.within(Step::Node(number), |reader| {
            if depth == MAX_DEPTH {
                return Err(reader.error(ErrorKind::TooDeep { block: number, limit: MAX_DEPTH }));
            }
            let block = reader.read(number, BlockKind::Node)?;
            let node = Node::parse(reader, number, &block, self.value_size, depth == 0)?;
            node.check_keys(reader, number, range)?;
            if node.internal {
                self.children(reader, &node, range, depth)
            } else {
                self.entries(reader, &node)
            }
        })
    }

    fn children(
        &mut self,
        reader: &mut Reader<'_, S>,
        node: &Node<'_>,
        range: Range,
        depth: usize,
    ) -> Result<(), Error> {
        for index in 0..node.nr_entries {
            let next = index + 1;
            let end = if next < node.nr_entries { Some(node.key(next)) } else { range.end };
            let child = node.block.u64_at(node.value_offset(index));
            self.node(reader, child, Range { first: node.key(index), end }, depth + 1)?;
        }
        Ok(())
    }

    fn entries(&mut self, reader: &mut Reader<'_, S>, node: &Node<'_>) -> Result<(), Error> {
        for index in 0..node.nr_entries {
            let offset = node.value_offset(index);
            let value = &node.block.bytes()[offset..offset + node.value_size];
            (self.on_entry)(reader, node.key(index), value)?;
        }
        Ok(())
    }
}

/// A node whose header has been checked.
struct Node<'b> {
    block: &'b Block,
    internal: bool,
    nr_entries: usize,
    value_size: usize,
}

impl<'b> Node<'b> {
    fn parse<S: BlockSource>(
        reader: &Reader<'_, S>,
        number: u64,
        block: &'b Block,
        leaf_value_size: usize,
        root: bool,
    ) -> Result<Self, Error> {
        let internal = match block.u32_at(at::FLAGS) {
            INTERNAL => true,
            LEAF => false,
            found => return Err(reader.field(number, "flags", "1 or 2", found)),
        };
        let value_size = if internal { CHILD } else { leaf_value_size };
        let capacity = max_entries(value_size);
        let exact = |field, at, expected: usize| match block.u32_at(at) {
            found if found as usize == expected => Ok(()),
            found => Err(reader.field(number, field, expected.to_string(), found)),
        };
        exact("value_size", at::VALUE_SIZE, value_size)?;
        exact("max_entries", at::MAX_ENTRIES, capacity)?;

        // Only the root of an empty tree has no entries, and it is a leaf.
        let least = usize::from(internal || !root);
        let found = block.u32_at(at::NR_ENTRIES);
        let nr_entries = found as usize;
        if nr_entries < least || nr_entries > capacity {
            let expected = format!("{least} to {capacity}");
            return Err(reader.field(number, "nr_entries", expected, found));
        }
        Ok(Self { block, internal, nr_entries, value_size })
    }

    /// Keys ascend and stay within what the parent says, so that no key is met twice.
    fn check_keys<S: BlockSource>(
        &self,
        reader: &Reader<'_, S>,
        number: u64,
        range: Range,
    ) -> Result<(), Error> {
        let mut previous = None;
        for index in 0..self.nr_entries {
            let found = self.key(index);
            let ascends = previous.is_none_or(|previous| found > previous);
            let within = found >= range.first && range.end.is_none_or(|end| found < end);
            if !(ascends && within) {
                let least = previous.map_or(range.first, |previous| previous.saturating_add(1));
                let end = range.end.map_or(String::new(), |end| format!(" and less than {end}"));
                let expected = format!("at least {least}{end}");
                let kind = ErrorKind::Key { block: number, index, expected, found };
                return Err(reader.error(kind));
            }
            previous = Some(found);
        }
        Ok(())
    }

    fn key(&self, index: usize) -> u64 {
        self.block.u64_at(HEADER + index * KEY)
    }

    /// Values follow the room for all keys, used or not.
    fn value_offset(&self, index: usize) -> usize {
        HEADER + max_entries(self.value_size) * KEY + index * self.value_size
    }
}

#[cfg(test)]
mod tests {
    use super::max_entries;

    #[test]
    fn capacities_are_the_kernels() {
        assert_eq!(max_entries(8), 252);
        assert_eq!(max_entries(12), 201);
    }
}
