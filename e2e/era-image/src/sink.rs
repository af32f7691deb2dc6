//! Where blocks are written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::block::{BLOCK_SIZE, Bytes};

/// Takes each block once, in any order.
pub(crate) trait Sink {
    fn put(&mut self, number: u64, block: &Bytes) -> io::Result<()>;
}

/// A file; consecutive blocks are written together.
pub(crate) struct FileSink<'f> {
    file: &'f File,
    first: u64,
    gathered: Vec<u8>,
}

const TOGETHER: usize = 256 * BLOCK_SIZE;

impl<'f> FileSink<'f> {
    pub(crate) fn new(file: &'f File) -> Self {
        Self { file, first: 0, gathered: Vec::with_capacity(TOGETHER) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.gathered, self.first * BLOCK_SIZE as u64)?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes what is gathered, and makes the file as long as the metadata.
    pub(crate) fn finish(mut self, blocks: u64) -> io::Result<()> {
        self.flush()?;
        self.file.set_len(blocks * BLOCK_SIZE as u64)
    }
}

impl Sink for FileSink<'_> {
    fn put(&mut self, number: u64, block: &Bytes) -> io::Result<()> {
        let next = self.first + (self.gathered.len() / BLOCK_SIZE) as u64;
        if number != next || self.gathered.len() == TOGETHER {
            self.flush()?;
            self.first = number;
        }
        self.gathered.extend_from_slice(block);
        Ok(())
    }
}

/// Memory that grows as needed.
#[derive(Default)]
pub(crate) struct MemorySink {
    bytes: Vec<u8>,
}

impl MemorySink {
    pub(crate) fn finish(mut self, blocks: u64) -> Vec<u8> {
        self.bytes.resize(offset(blocks), 0);
        self.bytes
    }
}

impl Sink for MemorySink {
    fn put(&mut self, number: u64, block: &Bytes) -> io::Result<()> {
        let (start, end) = (offset(number), offset(number + 1));
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[start..end].copy_from_slice(block);
        Ok(())
    }
}

fn offset(number: u64) -> usize {
    usize::try_from(number).expect("metadata in memory fits there") * BLOCK_SIZE
}
