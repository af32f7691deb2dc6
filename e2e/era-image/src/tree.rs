//! A btree written from the bottom up while its entries come.

use std::io;

use crate::block::{self, Bytes, Entry};

/// What writes a node: it is given where the node lies.
pub(crate) trait Allocate {
    /// Writes the block that `make` makes for the place it gets; that place.
    fn allocate(&mut self, make: impl FnOnce(u64) -> Bytes) -> io::Result<u64>;
}

/// Entries that are not yet in a node, by level. As when the kernel appends to a tree, a node
/// that is full is split, and only the last one of a level has more than half.
pub(crate) struct Tree {
    fan_out: usize,
    value_size: usize,
    levels: Vec<Vec<Entry>>,
}

impl Tree {
    /// A tree whose nodes get `fan_out` entries, the last ones up to twice as many; in bytes
    /// the size of its values.
    pub(crate) fn new(fan_out: usize, value_size: usize) -> Self {
        Self { fan_out, value_size, levels: vec![Vec::new()] }
    }

    /// Adds an entry whose key is above all before.
    pub(crate) fn push(&mut self, out: &mut impl Allocate, entry: Entry) -> io::Result<()> {
        self.add(out, 0, entry)
    }

    fn add(&mut self, out: &mut impl Allocate, level: usize, entry: Entry) -> io::Result<()> {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(entry);
        if self.levels[level].len() == 2 * self.fan_out {
            self.close(out, level, self.fan_out)
        } else {
            Ok(())
        }
    }

    /// Makes a node of a level's first entries; the level above gets the node.
    fn close(&mut self, out: &mut impl Allocate, level: usize, count: usize) -> io::Result<()> {
        let entries: Vec<Entry> = self.levels[level].drain(..count).collect();
        let (internal, first) = (level > 0, entries.first().map_or(0, |entry| entry.key));
        let size = if internal { 8 } else { self.value_size };
        let number = out.allocate(|number| block::node(number, internal, &entries, size))?;
        self.add(out, level + 1, Entry::block(first, number))
    }

    /// Writes what is left; the root's place.
    pub(crate) fn finish(mut self, out: &mut impl Allocate) -> io::Result<u64> {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            if let (true, true, [root]) = (top, level > 0, &self.levels[level][..]) {
                let mut number = [0; 8];
                number.copy_from_slice(&root.value[..8]);
                return Ok(u64::from_le_bytes(number));
            }
            self.close(out, level, self.levels[level].len())?;
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Blocks(Vec<Bytes>);

    impl Allocate for Blocks {
        fn allocate(&mut self, make: impl FnOnce(u64) -> Bytes) -> io::Result<u64> {
            let number = self.0.len() as u64;
            self.0.push(make(number));
            Ok(number)
        }
    }

    /// Entries of each node in the order of writing, and the root.
    fn shape(entries: u64) -> (Vec<u8>, u64) {
        let (mut out, mut tree) = (Blocks::default(), Tree::new(3, 8));
        for key in 0..entries {
            tree.push(&mut out, Entry::block(key, key)).unwrap();
        }
        let root = tree.finish(&mut out).unwrap();
        (out.0.iter().map(|block| block[16]).collect(), root)
    }

    #[test]
    fn nodes_are_filled_one_after_the_other() {
        assert_eq!(shape(0), (vec![0], 0));
        assert_eq!(shape(5), (vec![5], 0));
        assert_eq!(shape(6), (vec![3, 3, 2], 2));
        assert_eq!(shape(17), (vec![3, 3, 3, 3, 5, 5], 5));
        assert_eq!(shape(18), (vec![3, 3, 3, 3, 3, 3, 3, 3, 2], 8));
    }
}
