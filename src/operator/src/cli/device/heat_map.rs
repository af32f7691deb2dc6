//! A device as a picture: when was each part of it last written.
//!
//! metadata -> a [`Picture`]: the newest era in each of so many cells -> text for a terminal, or SVG. Memory is that of
//! the picture, whatever the device's size.

mod svg;
mod text;

use std::ops::ControlFlow;

use era_metadata::{BlockSource, Era, Error, Metadata, Part};

pub(super) use svg::svg;
pub(super) use text::{Ink, MARGIN, text};

/// How large a picture may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) columns: u32,
    pub(super) rows: u32,
}

/// The newest era in each cell of consecutive blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    columns: usize,
    cells: Vec<Era>,
    nr_blocks: u64,
    /// The last cell may have less.
    blocks_per_cell: u64,
    block_bytes: u64,
    since: Era,
    current: Era,
}

/// How old a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Never,
    /// Last written before the era asked for.
    Before,
    /// Last written in the era asked for or later: from 0 for that era to `STEPS - 1` for the current one.
    Since(u8),
}

/// Ages that are told apart.
const STEPS: u8 = 8;

impl Picture {
    /// Looks at all of a view of the metadata.
    pub(super) fn gather<S: BlockSource>(
        metadata: &Metadata<S>,
        since: Era,
        shape: Shape,
    ) -> Result<Self, Error> {
        let since = metadata.check_since(since)?;
        let mut picture = Self::blank(metadata, since, shape);
        let mut writeset = Era(0);
        metadata.visit(|part| {
            match part {
                Part::Writeset { era, .. } => writeset = era,
                Part::Bits { first, words } => picture.add_bits(writeset, first, words),
                Part::WritesetEnd => {}
                Part::Eras { first, eras } => {
                    for (block, era) in (first..).zip(eras) {
                        picture.add(block, Era(u32::from_le_bytes(*era)));
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(picture)
    }

    fn blank<S: BlockSource>(metadata: &Metadata<S>, since: Era, shape: Shape) -> Self {
        let columns = u64::from(shape.columns.max(1));
        let blocks = u64::from(metadata.nr_blocks());
        let blocks_per_cell = blocks.div_ceil(columns * u64::from(shape.rows.max(1))).max(1);
        let cells = usize::try_from(blocks.div_ceil(blocks_per_cell)).unwrap_or(usize::MAX);
        Self {
            columns: usize::try_from(columns).unwrap_or(usize::MAX),
            cells: vec![Era(0); cells],
            nr_blocks: blocks,
            blocks_per_cell,
            block_bytes: u64::from(metadata.granularity_sectors()) * 512,
            since,
            current: metadata.current_era(),
        }
    }

    fn add_bits(&mut self, era: Era, first: u64, words: &[[u8; 8]]) {
        for (first, word) in (first..).step_by(64).zip(words) {
            let mut word = u64::from_le_bytes(*word);
            while word != 0 {
                self.add(first + u64::from(word.trailing_zeros()), era);
                word &= word - 1;
            }
        }
    }

    fn add(&mut self, block: u64, era: Era) {
        let cell = usize::try_from(block / self.blocks_per_cell).unwrap_or(usize::MAX);
        if let Some(newest) = self.cells.get_mut(cell) {
            *newest = era.max(*newest);
        }
    }

    fn age(&self, era: Era) -> Age {
        let (since, current) = (self.since.0, self.current.0);
        match era.0 {
            0 => Age::Never,
            era if era < since => Age::Before,
            era => {
                let (age, span) = (u64::from(era - since), u64::from(current - since));
                let last = u64::from(STEPS - 1);
                let step = (age * last).checked_div(span).unwrap_or(last);
                Age::Since(u8::try_from(step.min(last)).unwrap_or(STEPS - 1))
            }
        }
    }

    /// The first and the last era that [`Self::age`] gives this step.
    fn eras(&self, step: u8) -> (u64, u64) {
        let (since, current) = (u64::from(self.since.0), u64::from(self.current.0));
        let (span, last) = (current.saturating_sub(since), u64::from(STEPS - 1));
        let begin = |step: u8| since + (u64::from(step) * span).div_ceil(last);
        let end = if step + 1 < STEPS { begin(step + 1).saturating_sub(1) } else { current };
        (begin(step), end.max(begin(step)))
    }

    /// The rows from the device's beginning to its end, each with the offset in bytes of its first cell.
    fn rows(&self) -> impl Iterator<Item = (u64, Vec<Age>)> {
        let row_bytes = self.cell_bytes().saturating_mul(self.columns as u64);
        let offsets = (0_u64..).map(move |row| row.saturating_mul(row_bytes));
        let rows = self.cells.chunks(self.columns);
        offsets.zip(rows.map(|row| row.iter().map(|era| self.age(*era)).collect()))
    }

    fn cell_bytes(&self) -> u64 {
        self.blocks_per_cell.saturating_mul(self.block_bytes)
    }

    /// The same in neighbouring cells as one: where it begins, how many, and what.
    fn runs(row: &[Age]) -> impl Iterator<Item = (usize, usize, Age)> {
        let mut at = 0;
        row.chunk_by(|a, b| a == b).map(move |run| {
            let begin = at;
            at += run.len();
            (begin, run.len(), run[0])
        })
    }

    /// The eras of the legend, oldest first.
    fn span(&self) -> String {
        let Self { since, current, .. } = self;
        if since >= current {
            format!("era {current}")
        } else {
            format!("era {since} to {current}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::fixture;
    use super::*;
    use era_metadata::{ErrorKind, View};

    /// A picture that needs no metadata.
    pub(super) fn drawn(columns: usize, cells: &[u32], since: u32, current: u32) -> Picture {
        Picture {
            columns,
            cells: cells.iter().map(|era| Era(*era)).collect(),
            nr_blocks: (cells.len() as u64 * 4).saturating_sub(1),
            blocks_per_cell: 4,
            block_bytes: 256 << 10,
            since: Era(since),
            current: Era(current),
        }
    }

    fn gathered(name: &str, since: u32, shape: Shape) -> Picture {
        let image = fixture(name);
        let metadata = Metadata::open(&image, View::Live).unwrap();
        Picture::gather(&metadata, Era(since), shape).unwrap()
    }

    #[test]
    fn a_cell_has_the_newest_era_of_its_blocks() {
        // 998 and 999 in era 2; 1000 in era 1 and again, as 512, in era 3.
        let picture = gathered("odd", 2, Shape { columns: 10, rows: 2 });
        assert_eq!((picture.blocks_per_cell, picture.cells.len()), (51, 20));
        let written: Vec<_> =
            picture.cells.iter().enumerate().filter(|(_, era)| era.0 > 0).collect();
        assert_eq!(written, [(10, &Era(3)), (19, &Era(3))]);

        let fine = gathered("odd", 2, Shape { columns: 1001, rows: 1 });
        let eras: Vec<_> = fine.cells[997..].iter().map(|era| era.0).collect();
        assert_eq!(eras, [0, 2, 2, 3]);
    }

    #[test]
    fn it_is_never_larger_than_asked_for() {
        for (columns, rows) in [(1, 1), (7, 3), (80, 24), (5000, 1), (0, 0)] {
            let picture = gathered("odd", 1, Shape { columns, rows });
            assert!(picture.cells.len() <= (columns.max(1) * rows.max(1)) as usize);
            let blocks = picture.cells.len() as u64 * picture.blocks_per_cell;
            assert!((1001..1001 + picture.blocks_per_cell).contains(&blocks), "{columns}x{rows}");
        }
        assert!(gathered("loaded", 0, Shape { columns: 80, rows: 24 }).cells.is_empty());
    }

    #[test]
    fn ages_go_from_the_era_asked_for_to_the_current_one() {
        let picture = drawn(1, &[], 10, 17);
        let ages: Vec<_> = [0, 9, 10, 11, 16, 17].map(|era| picture.age(Era(era))).to_vec();
        let since = Age::Since;
        assert_eq!(ages, [Age::Never, Age::Before, since(0), since(1), since(6), since(7)]);
        assert_eq!((picture.eras(0), picture.eras(7)), ((10, 10), (17, 17)));
        let long = drawn(1, &[], 10, 80);
        assert_eq!((long.eras(0), long.eras(6), long.eras(7)), ((10, 19), (70, 79), (80, 80)));
        for era in 10..=80 {
            let Age::Since(step) = long.age(Era(era)) else { panic!("{era}") };
            let (first, last) = long.eras(step);
            assert!((first..=last).contains(&u64::from(era)), "{era} in {first} to {last}");
        }
        let one = drawn(1, &[], 17, 17);
        assert_eq!(one.age(Era(17)), Age::Since(7));
        let most = drawn(1, &[], 1, u32::MAX);
        assert_eq!(most.age(Era(u32::MAX)), Age::Since(7));
    }

    #[test]
    fn an_era_that_has_not_begun_is_refused() {
        let image = fixture("odd");
        let metadata = Metadata::open(&image, View::Live).unwrap();
        let shape = Shape { columns: 8, rows: 1 };
        let error = Picture::gather(&metadata, Era(4), shape).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Future { .. }), "{error}");
    }
}
