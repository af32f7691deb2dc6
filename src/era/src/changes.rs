//! Which blocks were written since an era, gathered from what is read.

use crate::Era;
use crate::array::{Array, Batch, ERA};
use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind};

/// Blocks whose eras are looked at together: those of a word of the set.
const TOGETHER: usize = 64;

/// Gathers blocks that were written in an era or later.
#[derive(Debug)]
pub(crate) struct Changes {
    /// At least one: an era of zero is no write.
    since: Era,
    /// No era can be above this one.
    current: Era,
    blocks: BlockSet,
}

impl Changes {
    pub(crate) fn new(since: Era, current: Era) -> Self {
        Self { since, current, blocks: BlockSet::default() }
    }

    pub(crate) fn into_blocks(self) -> BlockSet {
        self.blocks
    }

    /// Verifies what was read of the array, or of a writeset whose era counts, and adds it.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        match batch.array() {
            Array::Eras { .. } => batch.each_eras(|first, eras| self.add_eras(first, eras)),
            Array::Bits { nr_bits } => batch.each_words(nr_bits, |first, words| {
                self.blocks.add_words(first, words);
                Ok(())
            }),
        }
    }

    fn add_eras(&mut self, first: u64, eras: &[[u8; ERA]]) -> Result<(), ErrorKind> {
        let (whole, rest) = eras.as_chunks::<TOGETHER>();
        let mut last = [[0; ERA]; TOGETHER];
        last[..rest.len()].copy_from_slice(rest);
        for (first, eras) in (first..).step_by(TOGETHER).zip(whole.iter().chain([&last])) {
            // Nearly always none was, and then none of their eras is too high either.
            if any_since(self.since, eras) {
                eras.iter()
                    .try_for_each(|era| check_era(u32::from_le_bytes(*era).into(), self.current))?;
                self.blocks.add(first, written_since(self.since, eras));
            }
        }
        Ok(())
    }
}

/// No block can have been written in an era that has not begun.
pub(crate) fn check_era(found: u64, current: Era) -> Result<(), ErrorKind> {
    if found <= current.0.into() { Ok(()) } else { Err(ErrorKind::EraBeyond { found, current }) }
}

/// Whether an era is `since` or later. Written, like [`written_since`], so that the compiler
/// makes vectors of it.
fn any_since(since: Era, eras: &[[u8; ERA]; TOGETHER]) -> bool {
    let is_since = |era: &[u8; ERA]| u32::from(u32::from_le_bytes(*era) >= since.0);
    eras.iter().fold(0, |any, era| any | is_since(era)) != 0
}

/// A bit for each era: whether it is `since` or later.
fn written_since(since: Era, eras: &[[u8; ERA]; TOGETHER]) -> u64 {
    let mut flags = [0_u8; TOGETHER];
    for (flag, era) in flags.iter_mut().zip(eras) {
        *flag = u8::from(u32::from_le_bytes(*era) >= since.0);
    }
    // The lowest bits of eight bytes become one byte: each is multiplied to its place in the
    // highest byte, and no two products meet.
    let bytes = flags
        .as_chunks::<8>()
        .0
        .iter()
        .map(|eight| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56);
    bytes.rev().fold(0, |bits, byte| bits << 8 | byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_era_has_its_bit() {
        for position in 0..TOGETHER {
            let mut eras = [[9, 0, 0, 0]; TOGETHER];
            eras[position] = 10_u32.to_le_bytes();
            assert_eq!(written_since(Era(10), &eras), 1 << position);
            eras[position] = u32::MAX.to_le_bytes();
            assert_eq!(written_since(Era(10), &eras), 1 << position);
            assert_eq!(written_since(Era(9), &eras), u64::MAX);
        }
    }

    #[test]
    fn eras_are_added_wherever_they_begin_and_end() {
        for (first, count) in [(0, 1018), (1018, 1018), (1018, 1), (2036, 64), (2036, 63)] {
            let eras: Vec<[u8; 4]> = (0..count).map(|i: u32| (i % 3).to_le_bytes()).collect();
            let mut changes = Changes::new(Era(2), Era(2));
            changes.add_eras(first, &eras).unwrap();
            let expected = (0..u64::from(count)).filter(|i| i % 3 == 2).map(|i| first + i);
            assert_eq!(changes.into_blocks(), expected.collect(), "{first} {count}");
        }
    }

    #[test]
    fn the_first_era_that_has_not_begun_is_told() {
        let mut changes = Changes::new(Era(2), Era(5));
        let mut eras = vec![[0; 4]; 1018];
        eras[1000] = 7_u32.to_le_bytes();
        eras[1010] = 6_u32.to_le_bytes();
        let kind = changes.add_eras(0, &eras).unwrap_err();
        assert!(matches!(kind, ErrorKind::EraBeyond { found: 7, current: Era(5) }), "{kind}");
    }
}
