//! Metadata that is read, and how far that is.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use era_metadata::{BLOCK_SIZE, Block, BlockSource, Unread};

use super::progress::Meter;

/// Nobody looks for what is there sooner.
const PATIENCE: Duration = Duration::from_secs(1);

/// A source that shows how much of it was read, once that takes a while.
pub(super) struct Watched<'a> {
    source: &'a dyn BlockSource,
    meter: RefCell<Meter>,
    began: Instant,
    read: Cell<u64>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(source: &'a dyn BlockSource, meter: Meter) -> Self {
        Self { source, meter: meter.into(), began: Instant::now(), read: Cell::new(0) }
    }

    fn count(&self, blocks: usize) {
        // Some are read for two views.
        self.read.set((self.read.get() + blocks as u64).min(self.source.blocks()));
        if self.began.elapsed() >= PATIENCE {
            let bytes = |blocks: u64| blocks * BLOCK_SIZE as u64;
            let (read, all) = (bytes(self.read.get()), bytes(self.source.blocks()));
            self.meter.borrow_mut().show("reading", read, all);
        }
    }
}

impl BlockSource for Watched<'_> {
    fn blocks(&self) -> u64 {
        self.source.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        self.count(1);
        self.source.read(number, into)
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        self.count(into.len());
        self.source.read_run(first, into)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.meter.get_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::fixture;
    use super::*;
    use era_metadata::{Era, Metadata, View};

    #[test]
    fn it_reads_as_the_source_does_and_counts_what_was_read() {
        let source = fixture("digested");
        let watched = Watched::new(&source, Meter::off());
        let list = |source: &dyn BlockSource| {
            Metadata::open(source, View::Live).unwrap().changed_since(Era(1)).unwrap()
        };
        assert!(list(&watched).runs().eq(list(&source).runs()));
        assert!((3..source.blocks()).contains(&watched.read.get()));
        for _ in 0..source.blocks() {
            watched.count(1);
        }
        assert_eq!(watched.read.get(), source.blocks());
    }
}
