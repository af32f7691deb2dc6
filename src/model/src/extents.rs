//! Lists of changed blocks: kept in order, made larger where less would be wrong, written as
//! text and read back.

use std::fmt;
use std::iter::Peekable;
use std::str::FromStr;

use era_metadata::{BlockSet, Run, Runs};
use thiserror::Error;

use crate::units::plain;

/// Runs in ascending order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunList(Vec<Run>);

/// Why a text is no list of ranges.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangesError {
    /// Not `7` nor `3-9`.
    #[error("range {found:?} (number {index}) is neither a block nor first-last")]
    Unreadable {
        /// Which range, from 0.
        index: usize,
        /// What stands there.
        found: String,
    },
    /// Backwards, or not after the one before it.
    #[error("range {found:?} (number {index}) does not follow the one before it")]
    Disorder {
        /// Which range, from 0.
        index: usize,
        /// What stands there.
        found: String,
    },
}

impl RunList {
    /// Every run given, in whatever order, joined where they overlap or touch. A run that ends
    /// before it starts is taken as the block it starts with.
    pub fn new(runs: impl IntoIterator<Item = Run>) -> Self {
        let mut runs: Vec<Run> = runs
            .into_iter()
            .map(|Run { first, last }| Run { first, last: last.max(first) })
            .collect();
        if !runs.is_sorted() {
            runs.sort_unstable();
        }
        runs.dedup_by(|next, kept| {
            let joins = next.first <= kept.last.saturating_add(1);
            if joins {
                kept.last = kept.last.max(next.last);
            }
            joins
        });
        Self(runs)
    }

    /// The runs.
    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }

    /// Whether there is no run.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many blocks the runs hold.
    pub fn blocks(&self) -> u64 {
        self.0.iter().map(|run| run.blocks()).sum()
    }

    /// Whether a block is in the list.
    pub fn contains(&self, block: u64) -> bool {
        let after = self.0.partition_point(|run| run.last < block);
        self.0.get(after).is_some_and(|run| run.first <= block)
    }

    /// The runs, in order.
    pub fn iter(&self) -> std::iter::Copied<std::slice::Iter<'_, Run>> {
        self.0.iter().copied()
    }

    /// Every block that is in one of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ours = self.iter().peekable();
        let mut theirs = other.iter().peekable();
        // Already in order, so that putting them in order is one pass.
        Self::new(std::iter::from_fn(move || match (ours.peek(), theirs.peek()) {
            (Some(one), Some(two)) if two < one => theirs.next(),
            (Some(_), _) => ours.next(),
            (None, _) => theirs.next(),
        }))
    }
}

impl<'a> IntoIterator for &'a RunList {
    type Item = Run;
    type IntoIter = std::iter::Copied<std::slice::Iter<'a, Run>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The blocks of a device that may differ. Kept as one bit a block: on a large device written all
/// over, a list of runs would take more memory than there is (invariant I7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedBlocks {
    marked: BlockSet,
    dilation: u64,
    nr_blocks: u64,
}

impl ChangedBlocks {
    /// What the kernel marked, each run of it extended by `dilation` blocks, up to the last of the
    /// device's `nr_blocks`.
    pub fn new(marked: BlockSet, dilation: u64, nr_blocks: u64) -> Self {
        Self { marked, dilation, nr_blocks }
    }

    /// Runs in ascending order that neither overlap nor touch; made while they are asked for.
    pub fn iter(&self) -> Dilated<Runs<'_>> {
        Dilated::new(self.marked.runs(), self.dilation, self.nr_blocks)
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.marked.is_empty()
    }

    /// How many blocks the runs hold.
    pub fn blocks(&self) -> u64 {
        self.iter().map(Run::blocks).sum()
    }
}

impl<'a> IntoIterator for &'a ChangedBlocks {
    type Item = Run;
    type IntoIter = Dilated<Runs<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Ascending runs, each extended at its end and joined with what it then touches.
#[derive(Clone, Debug)]
pub struct Dilated<I: Iterator<Item = Run>> {
    runs: Peekable<I>,
    by: u64,
    end: u64,
}

impl<I: Iterator<Item = Run>> Dilated<I> {
    fn new(runs: I, by: u64, nr_blocks: u64) -> Self {
        Self { runs: runs.peekable(), by, end: nr_blocks.saturating_sub(1) }
    }

    /// A block beyond the device's end would be a fault elsewhere; it is not hidden here.
    fn last_of(&self, run: Run) -> u64 {
        run.last.saturating_add(self.by).min(self.end).max(run.last)
    }
}

impl<I: Iterator<Item = Run>> Iterator for Dilated<I> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let run = self.runs.next()?;
        let mut last = self.last_of(run);
        while let Some(next) = self.runs.next_if(|next| next.first <= last.saturating_add(1)) {
            last = last.max(self.last_of(next));
        }
        Some(Run { first: run.first, last })
    }
}

/// The kernel's list format (lib/bitmap.c): `0,2-4,30-49`; ends included.
impl fmt::Display for RunList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            f.write_str(separator)?;
            write_run(f, *run)?;
        }
        Ok(())
    }
}

pub(crate) fn write_run(out: &mut impl fmt::Write, run: Run) -> fmt::Result {
    if run.first == run.last {
        write!(out, "{}", run.first)
    } else {
        write!(out, "{}-{}", run.first, run.last)
    }
}

/// Strict: ascending, without overlap. Neighbours that touch are joined. An empty text is an
/// empty list.
impl FromStr for RunList {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, RangesError> {
        let mut runs: Vec<Run> = Vec::new();
        let ranges = text.split(',').enumerate().filter(|_| !text.is_empty());
        for (index, found) in ranges {
            let found_text = || found.to_owned();
            let run = parse_run(found)
                .ok_or_else(|| RangesError::Unreadable { index, found: found_text() })?;
            let follows = runs.last().is_none_or(|before| before.last < run.first);
            if run.last < run.first || !follows {
                return Err(RangesError::Disorder { index, found: found_text() });
            }
            runs.push(run);
        }
        Ok(Self::new(runs))
    }
}

fn parse_run(text: &str) -> Option<Run> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(Run { first: plain(first)?, last: plain(last)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> RunList {
        text.parse().unwrap()
    }

    #[test]
    fn runs_are_joined_and_put_in_order() {
        let run = |first, last| Run { first, last };
        let made = RunList::new([run(9, 9), run(0, 3), run(2, 5), run(6, 7), run(9, 12)]);
        assert_eq!(made, list("0-7,9-12"));
        assert_eq!(made.blocks(), 12);
        assert_eq!(RunList::new([run(5, u64::MAX), run(7, 8)]).as_slice(), [run(5, u64::MAX)]);
    }

    #[test]
    fn dilation_stops_at_the_end_of_the_device() {
        let dilated = |text: &str, by| RunList::new(Dilated::new(list(text).iter(), by, 10));
        assert_eq!(dilated("0,2-3,9", 1), list("0-4,9"));
        assert_eq!(dilated("0,5", u64::MAX), list("0-9"));
        assert_eq!(dilated("", 3), list(""));
        assert_eq!(dilated("12", 1), list("12"));
    }

    #[test]
    fn membership() {
        let runs = list("0,2-4,30-49");
        let found: Vec<_> = (0..60).filter(|&block| runs.contains(block)).collect();
        assert_eq!(found.len() as u64, runs.blocks());
        assert!(found.iter().all(|block| matches!(block, 0 | 2..=4 | 30..=49)));
    }

    #[test]
    fn texts_that_are_no_list_name_the_range() {
        let error = |text: &str| text.parse::<RunList>().unwrap_err().to_string();
        assert_eq!(error("0,x"), "range \"x\" (number 1) is neither a block nor first-last");
        assert_eq!(error("0,,2"), "range \"\" (number 1) is neither a block nor first-last");
        assert_eq!(error("00"), "range \"00\" (number 0) is neither a block nor first-last");
        assert_eq!(error("5-3"), "range \"5-3\" (number 0) does not follow the one before it");
        assert_eq!(error("3-5,5"), "range \"5\" (number 1) does not follow the one before it");
        assert_eq!(error("3,1"), "range \"1\" (number 1) does not follow the one before it");
    }
}
