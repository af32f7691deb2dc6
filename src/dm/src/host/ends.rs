//! A device's first and last MiB.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use era_metadata::{BLOCK_SIZE, Block};
use eratrack_model::continuity::{self, Contents, Digest};
use eratrack_model::units::{SECTOR_BYTES, Sectors};
use sha2::{Digest as _, Sha256};

/// Metadata blocks of 4 KiB in a MiB.
const BLOCKS: u64 = 256;

/// What is in them.
pub(super) struct Ends {
    pub(super) digest: Digest,
    pub(super) contents: Contents,
}

impl Ends {
    /// Reads a device that was opened around the page cache. What does not fill a block at its end
    /// is left out.
    pub(super) fn read(device: &File, length: Sectors) -> io::Result<Self> {
        let blocks = length.0 / (BLOCK_SIZE as u64 / SECTOR_BYTES);
        let (mut hash, mut start) = (Sha256::new(), Vec::new());
        let mut block = Block::zeroed();
        let ends = (0..BLOCKS.min(blocks)).chain(blocks.saturating_sub(BLOCKS)..blocks);
        for (count, number) in ends.enumerate() {
            device.read_exact_at(block.bytes_mut(), number * BLOCK_SIZE as u64)?;
            hash.update(block.bytes());
            if count < 32 {
                start.extend_from_slice(block.bytes());
            }
        }
        let mut text = String::new();
        for byte in hash.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        let digest = text.parse().map_err(io::Error::other)?;
        Ok(Self { digest, contents: continuity::contents(&start) })
    }
}
