//! A list of runs made to fit into a bounded number of bounded texts.
//!
//! Nothing is ever cut off (invariant I5). A list that is too long has its smallest gaps closed
//! until it fits: more is listed than was changed, never less.

use era_metadata::Run;
use thiserror::Error;

use crate::extents::write_run;

/// How much text there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceLimits {
    bytes_per_slice: usize,
    slices: usize,
}

/// One text and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceText {
    /// Ranges as `0,2-4,30-49`.
    pub ranges: String,
    /// How many blocks they hold.
    pub blocks: u64,
    /// The first block.
    pub first: u64,
    /// The last block.
    pub last: u64,
}

/// A list that fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FittedList {
    /// The texts, in order; none for an empty list.
    pub slices: Vec<SliceText>,
    /// How many blocks they list; at least as many as were given.
    pub listed_blocks: u64,
    /// How many gaps were closed to make it fit; 0 if the list is exact.
    pub closed_gaps: u64,
}

/// Limits into which not even one run is sure to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{slices} slices of {bytes_per_slice} bytes cannot hold every list; give at least 1 of {}",
    SliceLimits::LONGEST_RUN
)]
pub struct LimitsError {
    bytes_per_slice: usize,
    slices: usize,
}

impl SliceLimits {
    /// The API's: 96 KiB a slice, 16 slices.
    pub const DEFAULT: Self = Self { bytes_per_slice: 96 << 10, slices: 16 };

    /// Two numbers of twenty digits and a hyphen.
    const LONGEST_RUN: usize = 41;

    /// Limits that hold at least one run of any size.
    pub fn new(bytes_per_slice: usize, slices: usize) -> Result<Self, LimitsError> {
        if bytes_per_slice >= Self::LONGEST_RUN && slices > 0 {
            Ok(Self { bytes_per_slice, slices })
        } else {
            Err(LimitsError { bytes_per_slice, slices })
        }
    }
}

impl Default for SliceLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Packs the runs, in order, into as few slices as hold them, closing as many of the smallest
/// gaps as it takes (of equal ones the first). The same input always gives the same output.
///
/// `runs` ascend, and neither overlap nor touch. They are asked for again and again, and never
/// kept: beside the output this needs no memory. Which gaps to close is found by bisection, one
/// pass over the runs for each question.
pub fn fit<I: Iterator<Item = Run> + Clone>(runs: I, limits: SliceLimits) -> FittedList {
    let closing = Closing::least(&runs, limits);
    let mut packer = Packer::default();
    for run in closing.apply(runs.clone()) {
        packer.add(run, limits);
    }
    let listed_blocks = packer.slices.iter().map(|slice| slice.blocks).sum();
    FittedList { slices: packer.slices, listed_blocks, closed_gaps: closing.count(runs) }
}

/// Which gaps are closed: those below a length, and the first few of exactly that length.
#[derive(Clone, Copy)]
struct Closing {
    below: u64,
    of_that_length: u64,
}

impl Closing {
    const NONE: Self = Self { below: 0, of_that_length: 0 };

    fn least<I: Iterator<Item = Run> + Clone>(runs: &I, limits: SliceLimits) -> Self {
        let fits = |closing: &Self| fits(closing.apply(runs.clone()), limits);
        if fits(&Self::NONE) {
            return Self::NONE;
        }
        let longest = gaps(runs.clone()).max().unwrap_or(0);
        let of_all = |length| Self { below: length, of_that_length: u64::MAX };
        let length = least(0, longest, |length| fits(&of_all(length)));
        let there = gaps(runs.clone()).filter(|&gap| gap == length).count() as u64;
        let some = |count| Self { below: length, of_that_length: count };
        some(least(0, there, |count| fits(&some(count))))
    }

    fn apply(self, runs: impl Iterator<Item = Run>) -> impl Iterator<Item = Run> {
        let mut runs = runs.peekable();
        let mut left = self.of_that_length;
        std::iter::from_fn(move || {
            let mut run = runs.next()?;
            while let Some(next) = runs.next_if(|next| self.closes(gap(run, *next), &mut left)) {
                run.last = next.last;
            }
            Some(run)
        })
    }

    fn closes(self, gap: u64, left: &mut u64) -> bool {
        if gap == self.below && *left > 0 {
            *left -= 1;
            return true;
        }
        gap < self.below
    }

    fn count(self, runs: impl Iterator<Item = Run>) -> u64 {
        let mut left = self.of_that_length;
        gaps(runs).filter(|&gap| self.closes(gap, &mut left)).count() as u64
    }
}

/// How many blocks lie between two runs of a list; at least one.
fn gap(before: Run, after: Run) -> u64 {
    after.first - before.last - 1
}

fn gaps(mut runs: impl Iterator<Item = Run>) -> impl Iterator<Item = u64> {
    let mut before = runs.next();
    runs.map(move |run| before.replace(run).map_or(0, |before| gap(before, run)))
}

/// The least number in between for which `holds`, given that it does for `high`. Where it does
/// not hold steadily from some number on, still one for which it holds.
fn least(mut low: u64, mut high: u64, holds: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

/// Whether the runs fit as they are; looks no further than to the first that does not.
fn fits(runs: impl Iterator<Item = Run>, limits: SliceLimits) -> bool {
    let (mut slices, mut used) = (0, limits.bytes_per_slice);
    for run in runs {
        let length = text_length(run);
        if used + 1 + length > limits.bytes_per_slice {
            slices += 1;
            used = length;
        } else {
            used += 1 + length;
        }
        if slices > limits.slices {
            return false;
        }
    }
    true
}

fn text_length(run: Run) -> usize {
    let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
    if run.first == run.last { digits(run.first) } else { digits(run.first) + 1 + digits(run.last) }
}

#[derive(Default)]
struct Packer {
    slices: Vec<SliceText>,
}

impl Packer {
    fn add(&mut self, run: Run, limits: SliceLimits) {
        let wanted = 1 + text_length(run);
        match self.slices.last_mut() {
            Some(slice) if slice.ranges.len() + wanted <= limits.bytes_per_slice => {
                slice.ranges.push(',');
                slice.add(run);
            }
            _ => {
                let (first, last) = (run.first, run.last);
                let mut slice = SliceText { ranges: String::new(), blocks: 0, first, last };
                slice.add(run);
                self.slices.push(slice);
            }
        }
    }
}

impl SliceText {
    fn add(&mut self, run: Run) {
        // Writing into a String cannot fail.
        let _ = write_run(&mut self.ranges, run);
        self.blocks += run.blocks();
        self.last = run.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::RunList;

    fn fitted(text: &str, bytes: usize, slices: usize) -> (Vec<String>, u64, u64) {
        let limits = SliceLimits { bytes_per_slice: bytes, slices };
        let FittedList { slices, listed_blocks, closed_gaps } =
            fit(text.parse::<RunList>().unwrap().iter(), limits);
        (slices.into_iter().map(|slice| slice.ranges).collect(), listed_blocks, closed_gaps)
    }

    #[test]
    fn what_fits_is_exact_and_breaks_between_runs() {
        assert_eq!(fitted("0,2-4,30-49", 41, 1), (vec!["0,2-4,30-49".into()], 24, 0));
        let two = vec!["0,2-4".to_owned(), "30-49".to_owned()];
        assert_eq!(fitted("0,2-4,30-49", 5, 2), (two, 24, 0));
        assert_eq!(fitted("", 41, 1), (vec![], 0, 0));
    }

    #[test]
    fn the_smallest_gaps_go_first_and_of_equal_ones_the_first() {
        assert_eq!(fitted("0,10,12,20", 8, 1), (vec!["0,10-20".into()], 12, 2));
        assert_eq!(fitted("1,3,5,7,19", 8, 1), (vec!["1-5,7,19".into()], 7, 2));
        assert_eq!(fitted("1,3,5,7,19", 4, 1), (vec!["1-19".into()], 19, 4));
    }

    #[test]
    fn a_slice_knows_its_ends_and_its_blocks() {
        let limits = SliceLimits { bytes_per_slice: 5, slices: 2 };
        let FittedList { slices, .. } =
            fit("0,2-4,30-49".parse::<RunList>().unwrap().iter(), limits);
        let [first, second] = &slices[..] else { panic!("two slices, found {slices:?}") };
        assert_eq!((first.first, first.last, first.blocks), (0, 4, 4));
        assert_eq!((second.first, second.last, second.blocks), (30, 49, 20));
    }

    #[test]
    fn the_longest_run_fits_in_the_least_slice() {
        let limits = SliceLimits::new(SliceLimits::LONGEST_RUN, 1).unwrap();
        let huge = u64::MAX - 1;
        let runs = [0, 7, huge].map(|block| Run { first: block, last: block });
        let FittedList { slices, listed_blocks, closed_gaps } = fit(runs.into_iter(), limits);
        assert_eq!(slices.len(), 1);
        assert_eq!((slices[0].ranges.as_str(), closed_gaps), ("0,7,18446744073709551614", 0));
        assert_eq!(listed_blocks, 3);
        assert!(SliceLimits::new(40, 16).is_err() && SliceLimits::new(41, 0).is_err());
    }
}
