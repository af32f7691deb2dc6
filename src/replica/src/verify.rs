//! The source and the target, compared byte by byte.

use std::fs::File;

use crate::buffer::Buffer;
use crate::copy::{Control, read_ahead};
use crate::error::ReplicaError;
use crate::pieces::{self, MOST};
use crate::target::Target;

/// What is told apart.
const UNIT: usize = 4096;
/// More places than this are not told apart.
const MOST_RANGES: usize = 1000;

/// Where the first `size` bytes differ, as first byte and length; joined where they touch.
pub(crate) fn compare(
    source: &File,
    target: &Target,
    size: u64,
    mut control: Control<'_>,
) -> Result<Vec<(u64, u64)>, ReplicaError> {
    let mut found = Ranges::default();
    let mut other = Buffer::zeroed(usize::try_from(MOST).unwrap_or(1 << 20));
    read_ahead(source, pieces::of_range(0, size), |piece, buffer| {
        let theirs = other.first_mut(piece.length);
        target.read(theirs, piece.offset).map_err(|source| ReplicaError::Write {
            doing: "read",
            path: target.path().to_owned(),
            offset: piece.offset,
            length: piece.length,
            source,
        })?;
        found.compare(buffer.first(piece.length), theirs, piece.offset);
        control.done(piece)
    })?;
    Ok(found.0)
}

#[derive(Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn compare(&mut self, one: &[u8], other: &[u8], offset: u64) {
        if one == other {
            return;
        }
        for (index, (one, other)) in one.chunks(UNIT).zip(other.chunks(UNIT)).enumerate() {
            if one != other {
                self.add(offset + (index * UNIT) as u64, one.len() as u64);
            }
        }
    }

    fn add(&mut self, start: u64, length: u64) {
        let full = self.0.len() >= MOST_RANGES;
        match self.0.last_mut() {
            Some((first, long)) if *first + *long == start || full => {
                *long = start + length - *first;
            }
            _ => self.0.push((start, length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::State;
    use crate::pace::Pace;
    use crate::target::tests::{machine, open};
    use std::fs;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_differs_is_found_wherever_it_is() {
        let (_root, machine) = machine();
        let dir = tempfile::tempdir().unwrap();
        let size = 9 << 20;
        let mut bytes = vec![3; size];
        fs::write(dir.path().join("source"), &bytes).unwrap();
        for at in [0, 4095, 5000, (4 << 20) - 1, 4 << 20, size - 1] {
            bytes[at] = 4;
        }
        fs::write(dir.path().join("target"), &bytes).unwrap();
        let source = File::open(dir.path().join("source")).unwrap();
        let size = size as u64;
        let target = open(&machine, &dir.path().join("target"), size).unwrap();
        let (stop, mut attend) = (AtomicBool::new(false), |_| Ok(()));
        let pace = Pace::new(None);
        let control = Control { stop: &stop, stands: State::Copying, pace, attend: &mut attend };
        let found = compare(&source, &target, size, control).unwrap();
        let middle = (4 << 20) - 4096;
        assert_eq!(found, [(0, 8192), (middle, 8192), (size - 4096, 4096)]);
    }

    #[test]
    fn of_very_many_places_the_last_is_made_larger() {
        let mut ranges = Ranges::default();
        for place in 0..2000 {
            ranges.add(place * 8192, 4096);
        }
        assert_eq!(ranges.0.len(), MOST_RANGES);
        let last = ranges.0.last().unwrap();
        assert_eq!(last.0 + last.1, 1999 * 8192 + 4096);
    }
}
