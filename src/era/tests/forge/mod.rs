//! Metadata of the kernel's with fields changed and the checksums right again, so that what is behind a checksum is
//! reached. Plain code: the tests and the fuzz targets share it.

pub mod mutate;
pub mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;

use era_metadata::check::check;
use era_metadata::{Block, BlockSource, View};
use flate2::read::GzDecoder;

pub const BLOCK: usize = 4096;
/// Of a block in [`Forge::encode`]: its number.
const NUMBER: usize = 4;

/// The fixtures that are whole and sound.
pub const SOUND: [&str; 9] =
    ["loaded", "fresh", "digested", "odd", "unclean", "unclean_twice", "held", "grown", "deep"];

/// What a block is; decides the salt of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Superblock,
    Node,
    Array,
    SpaceMapIndex,
    SpaceMapBitmap,
}

impl Kind {
    pub const ALL: [Self; 5] =
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

    /// Where a block has its own number.
    pub fn blocknr(self) -> usize {
        if self == Self::Array { 16 } else { 8 }
    }
}

/// An image whose blocks can be told apart by their checksums. What is not stored is zeroes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forge {
    /// How many blocks the image has.
    pub total: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Forge {
    /// One of the fixtures that a kernel wrote.
    pub fn fixture(name: &str) -> Self {
        Self::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), name)
    }

    pub fn load(directory: &Path, name: &str) -> Self {
        let file = std::fs::File::open(directory.join(format!("{name}.img.gz"))).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        let blocks =
            (0..).zip(bytes.chunks(BLOCK)).filter(|(_, block)| block.iter().any(|b| *b != 0));
        Self {
            total: (bytes.len() / BLOCK) as u64,
            blocks: blocks.map(|(number, block)| (number, block.to_vec())).collect(),
        }
    }

    /// The same without the blocks that nothing refers to.
    pub fn compact(mut self) -> Self {
        let reading = Reading { forge: &self, read: Mutex::default() };
        check(&reading, View::Live, 0).unwrap();
        let read = reading.read.into_inner().unwrap();
        self.blocks.retain(|number, _| read.contains(number));
        self
    }

    /// The image itself.
    pub fn image(&self) -> Vec<u8> {
        let length = usize::try_from(self.total).unwrap() * BLOCK;
        let mut bytes = vec![0; length];
        for (number, block) in self.blocks.range(..self.total) {
            let at = usize::try_from(*number).unwrap() * BLOCK;
            bytes[at..at + BLOCK].copy_from_slice(block);
        }
        bytes
    }

    /// As bytes, for a fuzzer's corpus.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = u32::try_from(self.total).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        for (number, block) in &self.blocks {
            bytes.extend(u32::try_from(*number).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(block);
        }
        bytes
    }

    /// From any bytes whatever.
    pub fn decode(bytes: &[u8]) -> Self {
        let (total, rest) = bytes.split_first_chunk::<NUMBER>().unwrap_or((&[0; NUMBER], &[]));
        let blocks = rest.chunks_exact(NUMBER + BLOCK).map(|chunk| {
            let (number, block) = chunk.split_at(NUMBER);
            (u32::from_le_bytes(number.try_into().unwrap()).into(), block.to_vec())
        });
        Self { total: u32::from_le_bytes(*total).into(), blocks: blocks.collect() }
    }

    /// The blocks that are stored.
    pub fn numbers(&self) -> Vec<u64> {
        self.blocks.keys().copied().collect()
    }

    pub fn u8(&self, block: u64, offset: usize) -> u8 {
        self.blocks.get(&block).map_or(0, |bytes| bytes[offset])
    }

    pub fn u32(&self, block: u64, offset: usize) -> u32 {
        let bytes = self.blocks.get(&block).map(|bytes| &bytes[offset..offset + 4]);
        bytes.map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
    }

    pub fn u64(&self, block: u64, offset: usize) -> u64 {
        let bytes = self.blocks.get(&block).map(|bytes| &bytes[offset..offset + 8]);
        bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    /// Writes into a block; if it had a right checksum it has one again.
    pub fn put(&mut self, block: u64, offset: usize, bytes: &[u8]) {
        let kind = self.kind(block);
        self.damage(block, offset, bytes);
        if let Some(kind) = kind {
            self.seal(block, kind);
        }
    }

    /// Writes into a block and leaves its checksum as it is; what does not fit is left out.
    pub fn damage(&mut self, block: u64, offset: usize, bytes: &[u8]) {
        let stored = self.blocks.entry(block).or_insert_with(|| vec![0; BLOCK]);
        for (into, byte) in stored.iter_mut().skip(offset).zip(bytes) {
            *into = *byte;
        }
    }

    /// Puts a copy of a block in another's place, with the right number in it.
    pub fn copy(&mut self, from: u64, to: u64) {
        let Some(block) = self.blocks.get(&from).cloned() else { return };
        let kind = self.kind(from);
        self.blocks.insert(to, block);
        if let Some(kind) = kind {
            self.damage(to, kind.blocknr(), &to.to_le_bytes());
            self.seal(to, kind);
        }
    }

    pub fn forget(&mut self, block: u64) {
        self.blocks.remove(&block);
    }

    /// What a block is, by its checksum.
    pub fn kind(&self, block: u64) -> Option<Kind> {
        let bytes = self.blocks.get(&block)?;
        let content = !crc32c::crc32c(&bytes[4..]);
        let salt = content ^ self.u32(block, 0);
        Kind::ALL.into_iter().find(|kind| kind.salt() == salt)
    }

    /// Gives a block the checksum of its content.
    pub fn seal(&mut self, block: u64, kind: Kind) {
        let Some(bytes) = self.blocks.get(&block) else { return };
        let checksum = !crc32c::crc32c(&bytes[4..]) ^ kind.salt();
        self.damage(block, 0, &checksum.to_le_bytes());
    }
}

impl BlockSource for Forge {
    fn blocks(&self) -> u64 {
        self.total
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        match self.blocks.get(&number) {
            Some(block) => into.bytes_mut().copy_from_slice(block),
            None => into.bytes_mut().fill(0),
        }
        Ok(())
    }
}

/// Notes which blocks are read.
struct Reading<'a> {
    forge: &'a Forge,
    read: Mutex<BTreeSet<u64>>,
}

impl BlockSource for Reading<'_> {
    fn blocks(&self) -> u64 {
        self.forge.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        self.read.lock().unwrap().insert(number);
        self.forge.read(number, into)
    }
}
