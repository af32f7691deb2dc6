//! The structure of the metadata in full.
//!
//! superblock -> what it and the metadata snapshot refer to, each tree walked to its end ->
//! the space map's counts, against the references that were met -> a [`Report`] of all that
//! is wrong, not only of the first thing. Unlike [`crate::Metadata`] it goes on after an
//! error, beside the place that cannot be read.

mod finding;
mod references;
mod space_map;
mod view;
mod walk;

use crate::Era;
use crate::block::MAX_BLOCKS;
use crate::error::{Error, ErrorKind, Step};
use crate::metadata::View;
use crate::source::BlockSource;
use crate::superblock::Superblock;

use finding::Findings;
pub use finding::{Finding, Problem, Severity};
use walk::Walk;

/// What was found. Sizes are of the view that was checked.
#[derive(Debug, Default)]
pub struct Report {
    /// What the superblock says; none if it cannot be read.
    pub summary: Option<Summary>,
    /// How many findings are errors: nothing may be concluded from such metadata.
    pub errors: u64,
    /// How many findings are warnings: lists are right, room is lost.
    pub warnings: u64,
    /// The findings, as many as were asked for at most.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether lists may be read from this metadata, and the kernel may go on with it.
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }
}

/// What healthy metadata says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The granularity in sectors.
    pub granularity_sectors: u32,
    /// Blocks of the device.
    pub nr_blocks: u32,
    /// The era that was current.
    pub current_era: Era,
    /// Archived writesets that could be read, the metadata snapshot's not counted.
    pub archived: u64,
    /// Whether the current era's writeset is in the superblock.
    pub current_writeset: bool,
    /// Where the metadata snapshot is, if one is held.
    pub metadata_snapshot: Option<u64>,
    /// Metadata blocks that something refers to, the superblock counted.
    pub used_blocks: u64,
    /// Metadata blocks that the space map manages; none if a metadata snapshot was checked
    /// on its own, or the space map cannot be read.
    pub managed_blocks: Option<u64>,
}

/// Checks a view; the live one with all that belongs to it: the metadata snapshot and the
/// space map too. A metadata snapshot on its own may be checked while the device is active.
/// At most `limit` findings are kept; all are counted. The only error is
/// [`ErrorKind::NoSnapshot`].
pub fn check<S: BlockSource>(source: &S, view: View, limit: usize) -> Result<Report, Error> {
    let mut walk = Walk::new(source, Findings::new(limit));
    let summary = match view {
        View::Live => live(&mut walk),
        View::Held => match walk.superblock(0, Step::Superblock) {
            Some(superblock) => held_of(&mut walk, &superblock)?,
            None => None,
        },
        View::HeldAt(0) => return Err(no_snapshot(Step::Snapshot(0))),
        View::HeldAt(block) => held(&mut walk, block),
    };
    let Findings { kept, errors, warnings, limit: _ } = walk.findings;
    Ok(Report { summary, errors, warnings, findings: kept })
}

fn no_snapshot(step: Step) -> Error {
    Error { kind: ErrorKind::NoSnapshot, path: vec![step] }
}

fn held_of<S: BlockSource>(
    walk: &mut Walk<'_, S>,
    superblock: &Superblock,
) -> Result<Option<Summary>, Error> {
    let block = superblock.metadata_snap.ok_or_else(|| no_snapshot(Step::Superblock))?;
    Ok(walk.within(Step::Superblock, |walk| held(walk, block)))
}

fn live<S: BlockSource>(walk: &mut Walk<'_, S>) -> Option<Summary> {
    let superblock = walk.superblock(0, Step::Superblock)?;
    walk.within(Step::Superblock, |walk| {
        let archived = view::check(walk, &superblock);
        let map = walk.within(Step::SpaceMap, |walk| space_map::read(walk, superblock.space_map));
        if let Some(block) = superblock.metadata_snap {
            walk.new_view(0);
            held_beside(walk, block, &superblock);
        }
        let managed_blocks = map.as_ref().map(|map| map.root.nr_blocks);
        if let Some(map) = map {
            walk.within(Step::SpaceMap, |walk| map.compare(walk));
        }
        Some(summary(walk, &superblock, archived, managed_blocks))
    })
}

/// The metadata snapshot on its own.
fn held<S: BlockSource>(walk: &mut Walk<'_, S>, block: u64) -> Option<Summary> {
    let superblock = walk.superblock(block, Step::Snapshot(block))?;
    let archived = walk.within(Step::Snapshot(block), |walk| view::check_held(walk, &superblock));
    Some(summary(walk, &superblock, archived, None))
}

/// The metadata snapshot, and that it is one of this metadata.
fn held_beside<S: BlockSource>(walk: &mut Walk<'_, S>, block: u64, live: &Superblock) {
    let Some(held) = walk.superblock(block, Step::Snapshot(block)) else {
        walk.lost += 1;
        return;
    };
    walk.within(Step::Snapshot(block), |walk| {
        if held.current_era > live.current_era {
            let (found, current) = (held.current_era, live.current_era);
            walk.report(Problem::SnapshotAhead { found, current });
        }
        if held.data_block_size != live.data_block_size {
            let (expected, found) = (live.data_block_size.to_string(), held.data_block_size);
            walk.report(ErrorKind::field(block, "data_block_size", expected, found).into());
        }
        view::check_held(walk, &held);
    });
}

fn summary<S: BlockSource>(
    walk: &Walk<'_, S>,
    superblock: &Superblock,
    archived: u64,
    managed_blocks: Option<u64>,
) -> Summary {
    Summary {
        granularity_sectors: superblock.data_block_size,
        nr_blocks: superblock.nr_blocks,
        current_era: superblock.current_era,
        archived,
        current_writeset: superblock.current_writeset.is_some(),
        metadata_snapshot: superblock.metadata_snap,
        used_blocks: walk.references.blocks(),
        managed_blocks,
    }
}

/// How many metadata blocks a source has, as far as the kernel can manage them.
fn blocks_of(source: &impl BlockSource) -> u64 {
    source.blocks().min(MAX_BLOCKS)
}
