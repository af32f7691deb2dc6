//! Reads blocks, each at most once, and verifies what every kind of block has.

use crate::array::Reference;
use crate::block::{BLOCK_SIZE, Block, BlockKind, MAX_BLOCKS};
use crate::error::{Error, ErrorKind, Step};
use crate::source::{BlockSource, Unread};

/// So many blocks are read together at most: 1 MiB.
const MOST_AT_ONCE: usize = 256;
/// So many are, before anything was read that they could be in proportion to.
const FIRST_AT_ONCE: usize = 8;

/// One walk over metadata. No block is read twice, so that a walk ends, in time linear in
/// the metadata's length, whatever the blocks refer to. The kernel never shares a block
/// within one view of the metadata, only between the live one and the held one.
pub(crate) struct Reader<'a, S> {
    source: &'a S,
    blocks: u64,
    visited: Vec<u64>,
    path: Vec<Step>,
    /// How many blocks were read.
    read: usize,
}

/// Some blocks of several could not be read.
pub(crate) struct Stopped {
    /// How many could.
    pub(crate) before: usize,
    /// What is wrong with the next one.
    pub(crate) error: Error,
}

impl<'a, S: BlockSource> Reader<'a, S> {
    pub(crate) fn new(source: &'a S) -> Self {
        let blocks = source.blocks().min(MAX_BLOCKS);
        Self { source, blocks, visited: Vec::new(), path: Vec::new(), read: 0 }
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

    /// The way to where the walk is.
    pub(crate) fn path(&self) -> &[Step] {
        &self.path
    }

    /// Reads a block that another refers to.
    pub(crate) fn read(&mut self, number: u64, kind: BlockKind) -> Result<Box<Block>, Error> {
        self.claim(number)?;
        let block = self.read_unverified(number)?;
        self.read += 1;
        self.verify(number, &block, kind)?;
        Ok(block)
    }

    /// Notes a reference to a block, which must be the only one to it.
    pub(crate) fn claim(&mut self, number: u64) -> Result<(), Error> {
        if number == 0 || number >= self.blocks {
            let last = self.blocks.saturating_sub(1);
            return Err(self.error(ErrorKind::OutOfBounds { block: number, last }));
        }
        if self.visit(number) {
            return Err(self.error(ErrorKind::Visited { block: number }));
        }
        Ok(())
    }

    /// How many blocks may be read together: not many more than were read before, so that
    /// little memory is taken on the word of little metadata.
    pub(crate) fn at_once(&self) -> usize {
        self.read.clamp(FIRST_AT_ONCE, MOST_AT_ONCE)
    }

    /// Reads the blocks of an array that were claimed, those that lie side by side together.
    /// They are not verified.
    pub(crate) fn read_together(
        &mut self,
        references: &[Reference],
        into: &mut [[u8; BLOCK_SIZE]],
    ) -> Result<(), Stopped> {
        self.read += references.len();
        let mut start = 0;
        for run in references.chunk_by(|one, next| one.number + 1 == next.number) {
            let end = start + run.len();
            self.source.read_run(run[0].number, &mut into[start..end]).map_err(|unread| {
                let Unread { before, source } = unread;
                let failed = run[before.min(run.len() - 1)];
                let kind = ErrorKind::Read { block: failed.number, source };
                Stopped { before: start + before, error: failed.error(&self.path, kind) }
            })?;
            start = end;
        }
        Ok(())
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
