//! Changes that leave metadata nearly right: a field, a reference, a block in another's place; the checksum and the
//! block's own number repaired afterwards.

use super::{BLOCK, Forge, Kind};

/// Numbers that follow from a seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Seeds that differ by one shall not begin alike; zero would stay zero.
        Self((seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Less than `limit`; zero if that is.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.next() % limit).unwrap()
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }
}

/// Changes one thing.
pub fn mutate(forge: &mut Forge, random: &mut Random) {
    let Some(block) = random.pick(&forge.numbers()) else { return };
    match random.below(20) {
        0..=12 => field(forge, block, random),
        13..=14 => exchange(forge, block, random),
        15 => {
            if let Some(to) = random.pick(&forge.numbers()) {
                forge.copy(block, to);
            }
        }
        16 => {
            let to = number(forge, block, 0, random);
            forge.copy(block, to % (1 << 22));
        }
        17 => {
            let bit = random.below(BLOCK * 8);
            let byte = forge.u8(block, bit / 8) ^ 1 << (bit % 8);
            forge.damage(block, bit / 8, &[byte]);
        }
        18 => {
            if let Some(kind) = random.pick(&Kind::ALL) {
                forge.seal(block, kind);
            }
        }
        _ => forge.total = number(forge, block, 0, random) % (1 << 23),
    }
}

/// Gives a field another value.
fn field(forge: &mut Forge, block: u64, random: &mut Random) {
    let Some(kind) = forge.kind(block) else { return };
    let (offset, width) = place(forge, block, kind, random);
    let value = number(forge, block, offset, random).to_le_bytes();
    forge.put(block, offset, &value[..width]);
}

/// Gives two fields of a block, of the same kind, each other's value.
fn exchange(forge: &mut Forge, block: u64, random: &mut Random) {
    let Some(kind) = forge.kind(block) else { return };
    let (one, width) = place(forge, block, kind, random);
    let (other, _) = place(forge, block, kind, random);
    let values = [one, other].map(|at| forge.u64(block, at.min(BLOCK - 8)).to_le_bytes());
    forge.put(block, one, &values[1][..width]);
    forge.put(block, other, &values[0][..width]);
}

/// Offset and width of a field.
fn place(forge: &Forge, block: u64, kind: Kind, random: &mut Random) -> (usize, usize) {
    match kind {
        Kind::Superblock => random.pick(&SUPERBLOCK).unwrap_or((0, 4)),
        Kind::Node => in_node(forge, block, random),
        Kind::Array => {
            let width = size(forge, block, 12, 8);
            let value = 24 + entry(forge.u32(block, 8), (BLOCK - 24) / width, random) * width;
            random
                .pick(&[
                    (4, 4),
                    (8, 4),
                    (12, 4),
                    (16, 8),
                    (value, width),
                    (value, width),
                    (value, 1),
                ])
                .unwrap()
        }
        Kind::SpaceMapIndex => {
            let entry = 16 + random.below(3) * 16;
            random.pick(&[(8, 8), (entry, 8), (entry, 8), (entry + 8, 4), (entry + 12, 4)]).unwrap()
        }
        Kind::SpaceMapBitmap => {
            let (near, far) = (16 + random.below(64), 16 + random.below(BLOCK - 16));
            random.pick(&[(8, 8), (near, 1), (near, 1), (far, 1)]).unwrap()
        }
    }
}

const SUPERBLOCK: [(usize, usize); 18] = [
    (4, 4),
    (8, 8),
    (40, 4),
    (44, 8),
    (52, 8),
    (60, 8),
    (68, 8),
    (172, 4),
    (176, 4),
    (180, 4),
    (184, 4),
    (188, 4),
    (192, 8),
    (192, 8),
    (200, 8),
    (208, 8),
    (216, 8),
    (216, 8),
];

fn in_node(forge: &Forge, block: u64, random: &mut Random) -> (usize, usize) {
    let width = size(forge, block, 24, 12);
    let room = (BLOCK - 32) / (8 + width) / 3 * 3;
    let entry = entry(forge.u32(block, 16), room, random);
    let (key, value) = (32 + entry * 8, 32 + room * 8 + entry * width);
    let places = [
        (4, 4),
        (8, 8),
        (16, 4),
        (20, 4),
        (24, 4),
        (key, 8),
        (key, 8),
        (value, width.min(8)),
        (value, width.min(8)),
        // Of a writeset, its root.
        (value + width.saturating_sub(8), width.min(8)),
    ];
    random.pick(&places).unwrap()
}

/// One of the entries in use, or the one after the last.
fn entry(in_use: u32, room: usize, random: &mut Random) -> usize {
    random.below((in_use as usize).min(room) + 1).min(room.saturating_sub(1))
}

/// The size of a value that a header tells, within reason.
fn size(forge: &Forge, block: u64, offset: usize, most: usize) -> usize {
    (forge.u32(block, offset) as usize).clamp(1, most)
}

/// A number that may mean something where it is put.
fn number(forge: &Forge, block: u64, offset: usize, random: &mut Random) -> u64 {
    let own = forge.u64(block, offset.min(BLOCK - 8));
    let own_narrow = u64::from(forge.u32(block, offset.min(BLOCK - 4)));
    let (nr_blocks, era) = (u64::from(forge.u32(0, 180)), u64::from(forge.u32(0, 184)));
    let of = match random.below(10) {
        0..=2 => return random.pick(&forge.numbers()).unwrap_or(0),
        3 => own,
        4 => own_narrow,
        5 => nr_blocks,
        6 => era,
        7 => random.pick(&[forge.total, 1 << 31, 1 << 32, 255 * 16_320, 16_320, 0]).unwrap_or(0),
        8 => random.pick(&[126, 201, 252, 336, 509, 1018, 32_576, 64, 12, 8, 4]).unwrap_or(0),
        _ => return random.next(),
    };
    match random.below(4) {
        0 => of,
        1 => of.wrapping_add(1),
        2 => of.wrapping_sub(1),
        _ => of ^ 1 << random.below(32),
    }
}
