//! A backup in its simplest form: another logical volume that is kept equal by copying only listed blocks.

use super::{Node, storage::Volume};
use crate::failure::Outcome;

/// A range of blocks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first block.
    pub(crate) first: u64,
    /// The last block.
    pub(crate) last: u64,
}

/// A list of changed blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The size of a block in bytes.
    pub(crate) size: u64,
    /// In the order of the list.
    pub(crate) ranges: Vec<Range>,
}

impl Blocks {
    /// Reads the kernel's list format: `0,2-4,30-49`, ascending and without overlap.
    pub(crate) fn parse(text: &str, size: u64) -> Outcome<Self> {
        let bad = |part: &str| format!("{part:?} is no range of a list of blocks");
        let mut ranges: Vec<Range> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let first = low.parse().map_err(|_| bad(part))?;
            let last = high.parse().map_err(|_| bad(part))?;
            if last < first || ranges.last().is_some_and(|before| first <= before.last) {
                return Err(bad(part).into());
            }
            ranges.push(Range { first, last });
        }
        Ok(Self { size, ranges })
    }

    /// How many blocks are listed.
    pub(crate) fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.last - range.first + 1).sum()
    }

    /// How many bytes they hold.
    pub(crate) fn bytes(&self) -> u64 {
        self.count() * self.size
    }

    /// Whether every byte of `offset..offset + length` lies in a listed block.
    pub(crate) fn cover(&self, offset: u64, length: u64) -> bool {
        let listed = |block| self.ranges.iter().any(|it| it.first <= block && block <= it.last);
        length == 0 || (offset / self.size..=(offset + length - 1) / self.size).all(listed)
    }
}

/// The replica of a volume.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    original: Volume,
    copy: Volume,
}

impl Replica {
    /// The replica that belongs to a volume; it is not there until [`Replica::create`] was run.
    pub(crate) fn of(original: &Volume) -> Self {
        let copy = Volume { name: format!("{}_replica", original.name), ..original.clone() };
        Self { original: original.clone(), copy }
    }

    /// Its device.
    pub(crate) fn device(&self) -> String {
        self.copy.device()
    }

    /// The command that makes the logical volume.
    pub(crate) fn create(&self) -> String {
        self.copy.create()
    }

    /// The command that copies everything, around every cache.
    pub(crate) fn copy_all(&self) -> String {
        let (from, to) = (self.original.device(), self.copy.device());
        format!("dd if={from} of={to} bs=4M iflag=direct oflag=direct")
    }

    /// Copies the listed blocks only; how many bytes that were.
    pub(crate) fn copy_listed(&self, node: &Node, blocks: &Blocks) -> Outcome<u64> {
        let (from, to, size) = (self.original.device(), self.copy.device(), blocks.size);
        let line = |range: &Range| format!("{} {}\n", range.first, range.last - range.first + 1);
        let list: String = blocks.ranges.iter().map(line).collect();
        node.run(&format!(
            "set -e
while read -r first count; do
    dd if={from} of={to} bs={size} skip=$first seek=$first count=$count \
        conv=notrunc iflag=direct oflag=direct status=none
done <<END
{list}END"
        ))?;
        Ok(blocks.bytes())
    }

    /// The command that compares both byte for byte, as the disks have them.
    pub(crate) fn compare(&self) -> String {
        let (from, to) = (self.original.device(), self.copy.device());
        // cmp reads little at a time: read-ahead spares it a wait for each.
        format!(
            "blockdev --setra 16384 --flushbufs {to} && \
             dd if={from} bs=4M iflag=direct status=none | cmp - {to}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_counted() {
        let blocks = Blocks::parse("0,2-4,30-49", 4096).unwrap();
        assert_eq!((blocks.count(), blocks.bytes()), (24, 24 * 4096));
        assert!(blocks.cover(2 * 4096, 3 * 4096));
        assert!(!blocks.cover(4096, 1));
        assert!(!blocks.cover(4 * 4096 + 4095, 2));
        assert_eq!(Blocks::parse("", 4096).unwrap().count(), 0);
    }

    #[test]
    fn a_list_that_is_not_one_is_refused() {
        for bad in ["a", "3-1", "5,4", "1-3,3", "1,,x"] {
            assert!(Blocks::parse(bad, 4096).is_err(), "{bad}");
        }
    }
}
