//! Metadata of the kernel's with fields changed and the checksums right again, so that what is behind a checksum is
//! reached. Plain code: the tests and the fuzz targets share it.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

pub(crate) const BLOCK: usize = 4096;

/// What a block is; decides the salt of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Superblock,
    Node,
    Array,
    SpaceMapIndex,
    SpaceMapBitmap,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Superblock, Self::Node, Self::Array, Self::SpaceMapIndex, Self::SpaceMapBitmap];

    fn salt(self) -> u32 {
        match self {
            Self::Superblock => 146_538_381,
            Self::Node => 121_107,
            Self::Array => 595_846_735,
            Self::SpaceMapIndex => 160_478,
            Self::SpaceMapBitmap => 240_779,
        }
    }
}

/// An image whose blocks can be told apart by their checksums.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    pub(crate) bytes: Vec<u8>,
}

impl Forge {
    /// One of the fixtures that a kernel wrote.
    pub(crate) fn fixture(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let file = std::fs::File::open(directory.join(format!("{name}.img.gz"))).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        Self { bytes }
    }

    pub(crate) fn u32(&self, block: u64, offset: usize) -> u32 {
        let at = at(block, offset);
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, block: u64, offset: usize) -> u64 {
        let at = at(block, offset);
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// Writes into a block; if it had a right checksum it has one again.
    pub(crate) fn put(&mut self, block: u64, offset: usize, bytes: &[u8]) {
        let kind = self.kind(block);
        self.damage(block, offset, bytes);
        if let Some(kind) = kind {
            self.seal(block, kind);
        }
    }

    /// Writes into a block and leaves its checksum as it is.
    pub(crate) fn damage(&mut self, block: u64, offset: usize, bytes: &[u8]) {
        let at = at(block, offset);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What a block is, by its checksum.
    pub(crate) fn kind(&self, block: u64) -> Option<Kind> {
        let found = self.u32(block, 0);
        Kind::ALL.into_iter().find(|kind| self.checksum(block, *kind) == found)
    }

    pub(crate) fn seal(&mut self, block: u64, kind: Kind) {
        let checksum = self.checksum(block, kind);
        self.damage(block, 0, &checksum.to_le_bytes());
    }

    fn checksum(&self, block: u64, kind: Kind) -> u32 {
        let at = at(block, 0);
        !crc32c::crc32c(&self.bytes[at + 4..at + BLOCK]) ^ kind.salt()
    }
}

fn at(block: u64, offset: usize) -> usize {
    usize::try_from(block).unwrap() * BLOCK + offset
}
