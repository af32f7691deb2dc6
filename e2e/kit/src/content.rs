//! What a device holds, read around the page cache.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// All that a device held at a moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

const CHUNK: usize = 1 << 20;
const ALIGNMENT: usize = 4096;

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
        let mut buffer = vec![0; CHUNK + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        let aligned = &mut buffer[start..start + CHUNK];
        let mut content = Vec::new();
        loop {
            match file.read(aligned).expect("the device reads") {
                0 => return Self(content),
                read => content.extend_from_slice(&aligned[..read]),
            }
        }
    }

    /// How many bytes it is.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The blocks of so many bytes that differ; a block that only one side has differs.
pub fn differing_blocks(a: &Content, b: &Content, block: usize) -> BTreeSet<u64> {
    let mut differing = BTreeSet::new();
    let (mut left, mut right) = (a.0.chunks(block), b.0.chunks(block));
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
