//! One node (`struct btree_node`, drivers/md/persistent-data/dm-btree-internal.h).

use crate::block::{BLOCK_SIZE, Block};
use crate::error::ErrorKind;

const HEADER: usize = 32;
const KEY: usize = 8;
/// Of an internal node: the child's block number.
const CHILD: usize = 8;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    /// Not included; none is "no limit".
    pub(crate) end: Option<u64>,
}

impl Range {
    /// Of a root.
    pub(crate) const ALL: Self = Self { first: 0, end: None };
}

/// A node whose header has been checked.
pub(crate) struct Node<'b> {
    block: &'b Block,
    pub(crate) internal: bool,
    pub(crate) nr_entries: usize,
    value_size: usize,
}

impl<'b> Node<'b> {
    pub(crate) fn parse(
        number: u64,
        block: &'b Block,
        leaf_value_size: usize,
        root: bool,
    ) -> Result<Self, ErrorKind> {
        let internal = match block.u32_at(at::FLAGS) {
            INTERNAL => true,
            LEAF => false,
            found => return Err(ErrorKind::field(number, "flags", "1 or 2", found)),
        };
        let value_size = if internal { CHILD } else { leaf_value_size };
        let capacity = max_entries(value_size);
        let exact = |field, at, expected: usize| match block.u32_at(at) {
            found if found as usize == expected => Ok(()),
            found => Err(ErrorKind::field(number, field, expected.to_string(), found)),
        };
        exact("value_size", at::VALUE_SIZE, value_size)?;
        exact("max_entries", at::MAX_ENTRIES, capacity)?;

        // Only the root of an empty tree has no entries, and it is a leaf.
        let least = usize::from(internal || !root);
        let found = block.u32_at(at::NR_ENTRIES);
        let nr_entries = found as usize;
        if nr_entries < least || nr_entries > capacity {
            let expected = format!("{least} to {capacity}");
            return Err(ErrorKind::field(number, "nr_entries", expected, found));
        }
        Ok(Self { block, internal, nr_entries, value_size })
    }

    /// Keys ascend and stay within what the parent says, so that no key is met twice.
    pub(crate) fn check_keys(&self, number: u64, range: Range) -> Result<(), ErrorKind> {
        let mut previous = None;
        for index in 0..self.nr_entries {
            let found = self.key(index);
            let ascends = previous.is_none_or(|previous| found > previous);
            let within = found >= range.first && range.end.is_none_or(|end| found < end);
            if !(ascends && within) {
                let least = previous.map_or(range.first, |previous| previous.saturating_add(1));
                let end = range.end.map_or(String::new(), |end| format!(" and less than {end}"));
                let expected = format!("at least {least}{end}");
                return Err(ErrorKind::Key { block: number, index, expected, found });
            }
            previous = Some(found);
        }
        Ok(())
    }

    pub(crate) fn key(&self, index: usize) -> u64 {
        self.block.u64_at(HEADER + index * KEY)
    }

    /// An entry's value; of an internal node, the child's block number.
    pub(crate) fn value(&self, index: usize) -> &'b [u8] {
        let offset = self.value_offset(index);
        &self.block.bytes()[offset..offset + self.value_size]
    }

    /// The child of an internal node, and the keys that it may hold.
    pub(crate) fn child(&self, index: usize, range: Range) -> (u64, Range) {
        let next = index + 1;
        let end = if next < self.nr_entries { Some(self.key(next)) } else { range.end };
        let child = self.block.u64_at(self.value_offset(index));
        (child, Range { first: self.key(index), end })
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
        assert_eq!(max_entries(4), 336);
        assert_eq!(max_entries(8), 252);
        assert_eq!(max_entries(12), 201);
    }
}
