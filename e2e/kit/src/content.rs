//! What a device holds, read around the page cache.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// What a device held at a moment: a digest of each 4 KiB. Not the bytes themselves: a process
/// in User-Mode Linux cannot hold more than some 250 MiB (each page is a mapping of the host's).
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Vec<u64>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} x 4 KiB)", self.0.len())
    }
}

const CHUNK: usize = 1 << 20;
/// What a digest is of, and what `O_DIRECT` wants.
const PAGE: usize = 4096;

impl Content {
    /// Reads a whole device with `O_DIRECT`.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn of(device: &Path) -> Self {
        let direct = i32::try_from(OFlags::DIRECT.bits()).expect("O_DIRECT fits");
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(direct)
            .open(device)
            .expect("the device opens");
        let mut buffer = vec![0; CHUNK + PAGE];
        let start = buffer.as_ptr().align_offset(PAGE);
        let aligned = &mut buffer[start..start + CHUNK];
        let mut digests = Vec::new();
        loop {
            match file.read(aligned).expect("the device reads") {
                0 => return Self(digests),
                read => digests.extend(aligned[..read].chunks(PAGE).map(digest)),
            }
        }
    }
}

impl Content {
    /// The blocks of so many bytes, a multiple of 4 KiB, that hold zeroes alone.
    ///
    /// # Panics
    /// If it is no multiple.
    pub fn zero_blocks(&self, block: usize) -> BTreeSet<u64> {
        let zero = digest(&[0; PAGE]);
        let blocks = (0..).zip(self.0.chunks(pages(block)));
        blocks.filter(|(_, pages)| pages.iter().all(|page| *page == zero)).map(|(n, _)| n).collect()
    }
}

fn pages(block: usize) -> usize {
    assert!(block > 0 && block.is_multiple_of(PAGE), "{block} is no multiple of {PAGE}");
    block / PAGE
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The blocks of so many bytes, a multiple of 4 KiB, that differ; a block that only one side
/// has differs.
///
/// # Panics
/// If it is no multiple.
pub fn differing_blocks(a: &Content, b: &Content, block: usize) -> BTreeSet<u64> {
    let pages = pages(block);
    let mut differing = BTreeSet::new();
    let (mut left, mut right) = (a.0.chunks(pages), b.0.chunks(pages));
    for number in 0.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (one, other) if one != other => {
                differing.insert(number);
            }
            _ => {}
        }
    }
    differing
}
