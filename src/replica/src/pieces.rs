//! What is copied at once.

use era_metadata::Run;
use eratrack_model::units::Granularity;

/// The most that is read and written in one go.
pub(crate) const MOST: u64 = 4 << 20;

/// Bytes of the device, in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where.
    pub(crate) offset: u64,
    /// How many; at most [`MOST`].
    pub(crate) length: usize,
}

/// Runs of blocks, in pieces that end where the device does.
pub(crate) fn of_runs(
    runs: impl Iterator<Item = Run>,
    granularity: Granularity,
    device: u64,
) -> impl Iterator<Item = Piece> {
    let block = granularity.bytes().0;
    runs.flat_map(move |run| {
        let end = run.last.saturating_add(1).saturating_mul(block).min(device);
        of_range(run.first.saturating_mul(block), end)
    })
}

/// From one byte up to another, in pieces.
pub(crate) fn of_range(start: u64, end: u64) -> impl Iterator<Item = Piece> {
    let mut next = start;
    std::iter::from_fn(move || {
        let length = end.checked_sub(next).filter(|left| *left > 0)?.min(MOST);
        let piece = Piece { offset: next, length: usize::try_from(length).ok()? };
        next += length;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_runs_are_cut_and_the_last_block_ends_with_the_device() {
        let runs = [Run { first: 1, last: 1 }, Run { first: 4, last: 23 }];
        let granularity = "1Mi".parse().unwrap();
        let device = (23 << 20) + 8192;
        let found: Vec<_> = of_runs(runs.into_iter(), granularity, device)
            .map(|piece| (piece.offset >> 20, piece.length))
            .collect();
        let mi = 1 << 20;
        let expected = [(1, mi), (4, 4 * mi), (8, 4 * mi), (12, 4 * mi), (16, 4 * mi)];
        assert_eq!(found, [&expected[..], &[(20, 3 * mi + 8192)]].concat());
    }

    proptest! {
        /// Each byte of each run once, and no other.
        #[test]
        fn pieces_are_the_runs(
            gaps in prop::collection::vec((1..2000_u64, 0..300_u64), 0..20),
            short in 0..65536_u64,
        ) {
            let (mut runs, mut next) = (Vec::new(), 0);
            for (gap, more) in gaps {
                runs.push(Run { first: next + gap, last: next + gap + more });
                next += gap + more + 1;
            }
            let granularity: Granularity = "64Ki".parse().unwrap();
            let device = (next * 65536).saturating_sub(short);
            let mut expected: Vec<(u64, u64)> = runs
                .iter()
                .map(|run| (run.first * 65536, ((run.last + 1) * 65536).min(device)))
                .collect();
            expected.reverse();
            let mut open: Option<(u64, u64)> = None;
            for piece in of_runs(runs.iter().copied(), granularity, device) {
                prop_assert!(piece.length > 0 && piece.length as u64 <= MOST);
                let (start, end) = open.take().or_else(|| expected.pop()).unwrap();
                prop_assert_eq!(piece.offset, start);
                let after = start + piece.length as u64;
                prop_assert!(after <= end);
                open = (after < end).then_some((after, end));
            }
            prop_assert!(open.is_none() && expected.is_empty());
        }
    }
}
