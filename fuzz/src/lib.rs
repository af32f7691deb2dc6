//! What the targets share: metadata that a kernel wrote, in which one block is the fuzzer's.

#[allow(dead_code)]
#[path = "../../src/era/tests/forge/mod.rs"]
pub mod forge;

use std::path::Path;
use std::sync::LazyLock;

use forge::trial::{READINGS, agree};
use forge::{BLOCK, Forge, Kind};

/// The seeds: what a kernel wrote, without the blocks that nothing refers to.
pub static SEEDS: LazyLock<Vec<Forge>> = LazyLock::new(|| {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/era/tests/fixtures");
    // The large ones are slow and have nothing that these lack, but in `image`.
    let small = ["digested", "held", "odd", "unclean", "fresh"];
    small.map(|name| Forge::load(&fixtures, name).compact()).to_vec()
});

/// Reads an image in every way; it panics where something does not hold.
pub fn read(forge: &Forge) {
    for reading in &READINGS {
        reading.run(forge);
    }
    agree(forge);
}

/// Of which structure a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    Superblock,
    Node,
    Eras,
    Bits,
    Writesets,
    SpaceMap,
}

impl Structure {
    /// The blocks of this structure in an image.
    pub fn blocks(self, forge: &Forge) -> Vec<u64> {
        let of = |number: &u64| self.is(forge, *number);
        forge.numbers().into_iter().filter(of).collect()
    }

    fn is(self, forge: &Forge, block: u64) -> bool {
        let value_size = |offset| forge.u32(block, offset);
        match (self, forge.kind(block)) {
            (Self::Superblock, Some(Kind::Superblock))
            | (Self::Node, Some(Kind::Node))
            | (Self::SpaceMap, Some(Kind::SpaceMapIndex | Kind::SpaceMapBitmap)) => true,
            (Self::Eras, Some(Kind::Array)) => value_size(12) == 4,
            (Self::Bits, Some(Kind::Array)) => value_size(12) == 8,
            (Self::Writesets, Some(Kind::Node)) => value_size(24) == 12,
            (Self::SpaceMap, Some(Kind::Node)) => value_size(24) == 4,
            _ => false,
        }
    }

    /// An input that leaves an image as it is: which image, which block of it, no repair but that of the checksum, and the
    /// block.
    pub fn seed(self, image: usize, block: usize) -> Option<Vec<u8>> {
        let forge = SEEDS.get(image)?;
        let number = *self.blocks(forge).get(block)?;
        let content = (0..BLOCK).map(|offset| forge.u8(number, offset));
        let which = [image, block].map(|index| u8::try_from(index).unwrap_or(0));
        Some(which.into_iter().chain([0]).chain(content).collect())
    }

    /// Puts the fuzzer's bytes in the place of one block, repairs what a byte of them says, and reads all.
    pub fn try_out(self, data: &[u8]) {
        let [image, block, repair, content @ ..] = data else { return };
        let mut forge = SEEDS[usize::from(*image) % SEEDS.len()].clone();
        let blocks = self.blocks(&forge);
        let Some(&number) = blocks.get(usize::from(*block) % blocks.len().max(1)) else { return };
        let Some(kind) = forge.kind(number) else { return };
        // The first bytes are kept where it is asked for, so that what is behind a header is reached.
        let header = usize::from(repair & 3) * 8;
        let content = content.get(header..).unwrap_or(&[]);
        forge.damage(number, header, content);
        if repair & 4 == 0 {
            forge.damage(number, kind.blocknr(), &number.to_le_bytes());
        }
        if repair & 8 == 0 {
            forge.seal(number, kind);
        }
        read(&forge);
    }
}
