//! Reads blocks, each at most once, and verifies what every kind of block has.

use crate::block::{Block, BlockKind, MAX_BLOCKS};
use crate::error::{Error, ErrorKind, Step};
use crate::source::BlockSource;

/// One walk over metadata. No block is read twice, so that a walk ends, in time linear in
/// the metadata's length, whatever the blocks refer to. The kernel never shares a block
/// within one view of the metadata, only between the live one and the held one.
pub(crate) struct Reader<'a, S> {
    source: &'a S,
    blocks: u64,
    visited: Vec<u64>,
    path: Vec<Step>,
}

impl<'a, S: BlockSource> Reader<'a, S> {
    pub(crate) fn new(source: &'a S) -> Self {
        let blocks = source.blocks().min(MAX_BLOCKS);
        Self { source, blocks, visited: Vec::new(), path: Vec::new() }
    }

    /// A reader for the walk from a superblock that has been read already.
    pub(crate) fn below(source: &'a S, superblock: u64, path: &[Step]) -> Self {
        let mut reader = Self::new(source);
        reader.path.extend_from_slice(path);
        reader.visit(superblock);
        reader
    }

    /// Does something one step further down.
    pub(crate) fn within<T>(
        &mut self,
        step: Step,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.path.push(step);
        let done = work(self);
        self.path.pop();
        done
    }

    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error { kind, path: self.path.clone() }
    }

    /// Reads a block that another refers to.
    pub(crate) fn read(&mut self, number: u64, kind: BlockKind) -> Result<Box<Block>, Error> {
        if number == 0 || number >= self.blocks {
            let last = self.blocks.saturating_sub(1);
            return Err(self.error(ErrorKind::OutOfBounds { block: number, last }));
        }
        if self.visit(number) {
            return Err(self.error(ErrorKind::Visited { block: number }));
        }
        let block = self.read_unverified(number)?;
        self.verify(number, &block, kind)?;
        Ok(block)
    }

    /// Reads a block without any check of what is in it.
    pub(crate) fn read_unverified(&self, number: u64) -> Result<Box<Block>, Error> {
        let mut block = Block::zeroed();
        self.source
            .read(number, &mut block)
            .map_err(|source| self.error(ErrorKind::Read { block: number, source }))?;
        Ok(block)
    }

    /// Checks what every kind of block has: its checksum and its own number.
    pub(crate) fn verify(&self, number: u64, block: &Block, what: BlockKind) -> Result<(), Error> {
        block.verify(number, what).map_err(|kind| self.error(kind))
    }

    /// Notes that a block was met; says whether it had been before.
    fn visit(&mut self, number: u64) -> bool {
        // Less than MAX_BLOCKS, so that this is at most half a MiB.
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if word >= self.visited.len() {
            self.visited.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        let before = self.visited[word] & bit != 0;
        self.visited[word] |= bit;
        before
    }
}
