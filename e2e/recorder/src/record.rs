//! A record: 4 KiB of which every byte follows from its number.

/// The size of a record in bytes.
pub(crate) const SIZE: usize = 4096;

const MAGIC: &[u8; 8] = b"RECORDER";

/// The record with this number.
pub(crate) fn record(number: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    fill(&mut bytes[16..SIZE - 8], number);
    let checksum = checksum(&bytes[..SIZE - 8]);
    bytes[SIZE - 8..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The checksum that a record carries in its last eight bytes.
pub(crate) fn carried(record: &[u8; SIZE]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&record[SIZE - 8..]);
    u64::from_le_bytes(bytes)
}

/// Fills `bytes` with noise that follows from `seed` (xorshift, Marsaglia 2003).
pub(crate) fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_differ_and_carry_their_checksum() {
        let (one, two) = (record(1), record(2));
        assert_ne!(one, two);
        assert_eq!(carried(&one), checksum(&one[..SIZE - 8]));
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn noise_follows_from_the_seed_alone() {
        let (mut one, mut two) = ([0; 20], [0; 20]);
        fill(&mut one, 7);
        fill(&mut two, 7);
        assert_eq!(one, two);
        assert!(one.iter().any(|byte| *byte != 0));
    }
}
