//! What one superblock refers to: the writesets and the array.

use super::finding::Problem;
use super::walk::Walk;
use crate::Era;
use crate::array::leaf;
use crate::array::{ERA, WORD};
use crate::block_set::BlockSet;
use crate::error::{ErrorKind, Step};
use crate::source::BlockSource;
use crate::superblock::{Superblock, Writeset};

/// Checks all that the superblock refers to but the space map; returns how many archived
/// writesets there are.
pub(super) fn check<S: BlockSource>(walk: &mut Walk<'_, S>, superblock: &Superblock) -> u64 {
    let archived = check_archived(walk, superblock);
    check_current(walk, superblock, &archived);
    check_array(walk, superblock, &archived);
    archived.count
}

/// As [`check`]; the clone's current writeset is not held, so that it is not looked at.
pub(super) fn check_held<S: BlockSource>(walk: &mut Walk<'_, S>, superblock: &Superblock) -> u64 {
    let archived = check_archived(walk, superblock);
    check_array(walk, superblock, &archived);
    archived.count
}

/// What the tree of writesets has.
#[derive(Default)]
struct Archived {
    count: u64,
    oldest: Option<Oldest>,
    newest: Option<u64>,
    /// Something of the tree could not be read: there may be older ones.
    incomplete: bool,
}

/// The writeset that is being digested.
struct Oldest {
    era: Era,
    /// None if it could not be read in full.
    blocks: Option<BlockSet>,
}

fn check_archived<S: BlockSource>(walk: &mut Walk<'_, S>, superblock: &Superblock) -> Archived {
    let mut archived = Archived::default();
    let lost = walk.lost;
    walk.within(Step::WritesetTree, |walk| {
        walk.tree(
            superblock.writeset_tree_root,
            Writeset::SIZE,
            true,
            &mut |walk, era, value, new| {
                walk.within(Step::Writeset(era), |walk| {
                    archived.count += 1;
                    archived.newest = Some(era);
                    check_era(walk, superblock, era);
                    let first = archived.oldest.is_none();
                    let blocks =
                        check_writeset(walk, superblock, Writeset::parse(value), new, first);
                    if first {
                        let era = Era(u32::try_from(era).unwrap_or(u32::MAX));
                        archived.oldest = Some(Oldest { era, blocks });
                    }
                });
            },
        );
    });
    archived.incomplete = walk.lost != lost;
    archived
}

fn check_current<S: BlockSource>(
    walk: &mut Walk<'_, S>,
    superblock: &Superblock,
    archived: &Archived,
) {
    let Some(writeset) = superblock.current_writeset else { return };
    walk.within(Step::CurrentWriteset, |walk| {
        let era = superblock.current_era;
        if archived.newest == Some(era.0.into()) {
            walk.report(Problem::ArchivedAndCurrent { era });
        }
        check_writeset(walk, superblock, writeset, true, false);
    });
}

/// No block can have been written in an era that has not begun.
fn check_era<S: BlockSource>(walk: &mut Walk<'_, S>, superblock: &Superblock, found: u64) {
    let current = superblock.current_era;
    if found > current.0.into() {
        walk.report(ErrorKind::EraBeyond { found, current }.into());
    }
}

/// Checks a bitset; returns what is in it, if asked for and known in full.
fn check_writeset<S: BlockSource>(
    walk: &mut Walk<'_, S>,
    superblock: &Superblock,
    writeset: Writeset,
    new: bool,
    gather: bool,
) -> Option<BlockSet> {
    let Writeset { nr_bits, root } = writeset;
    let nr_blocks = superblock.nr_blocks;
    if nr_bits > nr_blocks {
        walk.report(ErrorKind::WritesetTooLong { found: nr_bits, nr_blocks }.into());
    }
    let mut blocks = BlockSet::default();
    let before = walk.findings.errors;
    let words = u64::from(nr_bits).div_ceil(64);
    // A block at its place, whatever is missing before it: memory follows what is read.
    let mut next = 0;
    walk.array::<WORD>(root, words, new, |walk, number, first, words| {
        if let Err(kind) = leaf::check_end(number, nr_bits, first, words) {
            walk.report(kind.into());
        }
        if gather && first == next {
            blocks.add_words(first, words);
            next += words.len() as u64;
        }
    });
    (gather && walk.findings.errors == before).then_some(blocks)
}

fn check_array<S: BlockSource>(
    walk: &mut Walk<'_, S>,
    superblock: &Superblock,
    archived: &Archived,
) {
    let Superblock { era_array_root, nr_blocks, current_era: current, .. } = *superblock;
    walk.within(Step::EraArray, |walk| {
        walk.array::<ERA>(era_array_root, nr_blocks.into(), true, |walk, _, first, eras| {
            let eras = (first..).zip(eras.iter().map(|era| Era(u32::from_le_bytes(*era))));
            // One of a kind in a block of the array tells enough.
            if let Some((_, found)) = eras.clone().find(|(_, era)| *era > current) {
                walk.report(ErrorKind::EraBeyond { found: found.0.into(), current }.into());
            }
            let oldest = archived.oldest.as_ref().filter(|_| !archived.incomplete);
            let problem = oldest.and_then(|oldest| oldest.disagreement(eras, current));
            if let Some(problem) = problem {
                walk.report(problem);
            }
        });
    });
}

impl Oldest {
    /// What the array says that this writeset rules out. A reader that finds a writeset as
    /// old as the era it is asked for does not look at the array.
    fn disagreement(
        &self,
        mut eras: impl Iterator<Item = (u64, Era)>,
        current: Era,
    ) -> Option<Problem> {
        let oldest = self.era;
        eras.find_map(|(block, era)| {
            let unknown = || self.blocks.as_ref().is_some_and(|blocks| !blocks.contains(block));
            if era > oldest && era <= current {
                Some(Problem::DigestedTooEarly { block, found: era, oldest })
            } else if era == oldest && unknown() {
                Some(Problem::DigestedFromNothing { block, era })
            } else {
                None
            }
        })
    }
}
