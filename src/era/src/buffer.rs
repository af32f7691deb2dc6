//! Room for blocks that are read together.

use crate::block::BLOCK_SIZE;

/// Bytes of consecutive blocks in memory, aligned so that `O_DIRECT` can read into them on
/// every device whose logical block is at most 4 KiB.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Where the aligned part begins. The vector is never given more room: it does not move.
    start: usize,
    blocks: usize,
}

impl Buffer {
    /// Room for so many blocks, of zeroes.
    pub(crate) fn new(blocks: usize) -> Self {
        let bytes = vec![0; (blocks + 1) * BLOCK_SIZE];
        // As far as this can be told at all, there is an aligned place within a block's length.
        let start = bytes.as_ptr().align_offset(BLOCK_SIZE).min(BLOCK_SIZE);
        Self { bytes, start, blocks }
    }

    /// For how many blocks there is room.
    pub(crate) fn room(&self) -> usize {
        self.blocks
    }

    pub(crate) fn blocks(&self) -> &[[u8; BLOCK_SIZE]] {
        self.bytes[self.start..self.start + self.blocks * BLOCK_SIZE].as_chunks().0
    }

    pub(crate) fn blocks_mut(&mut self) -> &mut [[u8; BLOCK_SIZE]] {
        self.bytes[self.start..self.start + self.blocks * BLOCK_SIZE].as_chunks_mut().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_as_many_as_asked_for() {
        for blocks in [1, 2, 255] {
            let mut buffer = Buffer::new(blocks);
            assert_eq!(buffer.blocks_mut().len(), blocks);
            assert_eq!(buffer.blocks().as_ptr().align_offset(BLOCK_SIZE), 0);
        }
    }
}
