//! Blocks of an array that were read together, and their way to whoever wants their values.

use super::leaf::{self, ERA, WORD};
use crate::block::{self, BLOCK_SIZE, BlockKind};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Step};

/// Which array it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Array {
    /// The last digested era of each block of the device.
    Eras {
        /// How many blocks the device has.
        nr_blocks: u32,
    },
    /// The bitset of a writeset.
    Bits {
        /// How many blocks the device had.
        nr_bits: u32,
    },
}

impl Array {
    /// How many values there are.
    pub(super) fn length(self) -> u64 {
        match self {
            Self::Eras { nr_blocks } => nr_blocks.into(),
            Self::Bits { nr_bits } => u64::from(nr_bits).div_ceil(64),
        }
    }

    /// How many blocks of values there are.
    pub(super) fn leaves(self) -> u64 {
        let capacity = match self {
            Self::Eras { .. } => leaf::capacity::<ERA>(),
            Self::Bits { .. } => leaf::capacity::<WORD>(),
        };
        self.length().div_ceil(capacity)
    }
}

/// A block of an array, as the tree above it refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Which of the array's blocks.
    pub(crate) index: u64,
    /// The metadata block.
    pub(crate) number: u64,
}

impl Reference {
    /// What is wrong with the block, which a node on this path refers to.
    pub(crate) fn error(self, path: &[Step], kind: ErrorKind) -> Error {
        let mut path = path.to_vec();
        path.push(self.into());
        Error { kind, path }
    }
}

impl From<Reference> for Step {
    fn from(Reference { index, number }: Reference) -> Self {
        Self::ArrayBlock { index, block: number }
    }
}

/// Blocks that follow each other in an array, read but not verified.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) array: Array,
    /// The way to the node that refers to them.
    pub(super) path: Vec<Step>,
    pub(super) references: Vec<Reference>,
    pub(super) buffer: Buffer,
}

impl Batch {
    pub(crate) fn array(&self) -> Array {
        self.array
    }

    /// The room it took, for another one.
    pub(crate) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// Verifies eras and visits them: the first block's number, then the eras of it and of
    /// those that follow.
    pub(crate) fn each_eras(
        &self,
        mut visit: impl FnMut(u64, &[[u8; ERA]]) -> Result<(), ErrorKind>,
    ) -> Result<(), Error> {
        self.each(|reference, block| {
            let values =
                leaf::values(reference.number, block, reference.index, self.array.length())?;
            visit(reference.index * leaf::capacity::<ERA>(), values)
        })
    }

    /// Verifies words of a bitset and visits them: the first word's index, then the words.
    pub(crate) fn each_words(
        &self,
        nr_bits: u32,
        mut visit: impl FnMut(u64, &[[u8; WORD]]) -> Result<(), ErrorKind>,
    ) -> Result<(), Error> {
        self.each(|reference, block| {
            let Reference { index, number } = reference;
            let values = leaf::values(number, block, index, self.array.length())?;
            let first = index * leaf::capacity::<WORD>();
            leaf::check_end(number, nr_bits, first, values)?;
            visit(first, values)
        })
    }

    fn each(
        &self,
        mut visit: impl FnMut(Reference, &[u8; BLOCK_SIZE]) -> Result<(), ErrorKind>,
    ) -> Result<(), Error> {
        for (&reference, bytes) in self.references.iter().zip(self.buffer.blocks()) {
            block::verify(bytes, reference.number, BlockKind::Array)
                .and_then(|()| visit(reference, bytes))
                .map_err(|kind| reference.error(&self.path, kind))?;
        }
        Ok(())
    }
}

/// Takes batches in the order of the array.
pub(crate) trait Take {
    /// Room for the next batch.
    fn room(&mut self, blocks: usize) -> Result<Buffer, Error>;

    /// Takes a batch. What is wrong with it may be told by a later call.
    fn take(&mut self, batch: Batch) -> Result<(), Error>;
}

/// Takes each batch at once.
pub(crate) struct Here<F> {
    visit: F,
    spare: Option<Buffer>,
}

impl<F: FnMut(&Batch) -> Result<(), Error>> Here<F> {
    pub(crate) fn new(visit: F) -> Self {
        Self { visit, spare: None }
    }
}

impl<F: FnMut(&Batch) -> Result<(), Error>> Take for Here<F> {
    fn room(&mut self, blocks: usize) -> Result<Buffer, Error> {
        Ok(fitting(self.spare.take(), blocks))
    }

    fn take(&mut self, batch: Batch) -> Result<(), Error> {
        (self.visit)(&batch)?;
        self.spare = Some(batch.into_buffer());
        Ok(())
    }
}

/// The buffer, or a new one if it is too small; the old one is gone before that is made.
pub(super) fn fitting(buffer: Option<Buffer>, blocks: usize) -> Buffer {
    buffer.filter(|it| it.room() >= blocks).unwrap_or_else(|| Buffer::new(blocks))
}
