//! Memory that direct I/O takes.

/// What every file system and disk of today is content with.
pub(crate) const ALIGNMENT: usize = 4096;

/// Bytes that begin at a multiple of 4 KiB in memory.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// So many zeroes.
    pub(crate) fn zeroed(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, length }
    }

    pub(crate) fn first(&self, length: usize) -> &[u8] {
        &self.bytes[self.start..self.start + length.min(self.length)]
    }

    pub(crate) fn first_mut(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length.min(self.length)]
    }
}

/// Whether all bytes are zero: the first few, and then each is what the one before it is.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const HEAD: usize = 16;
    let (head, _) = bytes.split_at(bytes.len().min(HEAD));
    head.iter().all(|byte| *byte == 0)
        && (bytes.len() <= HEAD || bytes[..bytes.len() - HEAD] == bytes[HEAD..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        for length in [4096, 8192, 1 << 20] {
            let mut buffer = Buffer::zeroed(length);
            assert_eq!(buffer.first(4096).as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(buffer.first_mut(length).len(), length);
        }
    }

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        for length in [1, 15, 16, 17, 4096] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
