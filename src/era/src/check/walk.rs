//! Walks that go on beside what cannot be read.

use super::finding::{Findings, Problem};
use super::references::{Marks, References};
use crate::array::leaf;
use crate::array::{POINTER, pointer};
use crate::block::{Block, BlockKind};
use crate::btree::{MAX_DEPTH, Node, Range};
use crate::error::{ErrorKind, Step};
use crate::source::BlockSource;
use crate::superblock::Superblock;

/// What is done with an entry of a tree: its key, its value, and whether what the value
/// refers to is to be counted.
pub(super) type OnEntry<'f, 'a, S> = dyn FnMut(&mut Walk<'a, S>, u64, &[u8], bool) + 'f;

/// What is known so far. Each block is read once a view, so that a walk ends, whatever the
/// blocks refer to.
pub(super) struct Walk<'a, S> {
    source: &'a S,
    blocks: u64,
    /// Met in the view that is being walked.
    met: Marks,
    /// Those whose own references are in `references`. A block that two views share refers
    /// to its children once.
    counted: Marks,
    pub(super) references: References,
    path: Vec<Step>,
    pub(super) findings: Findings,
    /// Places that could not be read: what they refer to is not known.
    pub(super) lost: u64,
    /// Those, and those that were not walked again.
    skipped: u64,
}

/// A block that was read and verified.
pub(super) struct Met {
    block: Box<Block>,
    /// Whether its references are new.
    new: bool,
}

impl<'a, S: BlockSource> Walk<'a, S> {
    pub(super) fn new(source: &'a S, findings: Findings) -> Self {
        let mut met = Marks::default();
        met.mark(0);
        Self {
            source,
            blocks: super::blocks_of(source),
            met,
            counted: Marks::default(),
            references: References::default(),
            path: Vec::new(),
            findings,
            lost: 0,
            skipped: 0,
        }
    }

    /// The next view may share blocks with the one before.
    pub(super) fn new_view(&mut self, superblock: u64) {
        self.met = Marks::default();
        self.met.mark(superblock);
    }

    pub(super) fn within<T>(&mut self, step: Step, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let done = work(self);
        self.path.pop();
        done
    }

    pub(super) fn report(&mut self, problem: Problem) {
        self.findings.add(problem, &self.path);
    }

    /// Reports what keeps from reading on.
    pub(super) fn fail<T>(&mut self, kind: ErrorKind) -> Option<T> {
        self.report(kind.into());
        None
    }

    /// Something below here is not known.
    pub(super) fn lose<T>(&mut self, kind: ErrorKind) -> Option<T> {
        self.lost += 1;
        self.skipped += 1;
        self.fail(kind)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Reads the superblock or its clone, to which one thing refers.
    pub(super) fn superblock(&mut self, number: u64, step: Step) -> Option<Superblock> {
        self.within(step, |walk| {
            if number >= walk.blocks {
                let last = walk.blocks.saturating_sub(1);
                return walk.fail(ErrorKind::OutOfBounds { block: number, last });
            }
            walk.references.add(number);
            walk.met.mark(number);
            let read = walk.read(number).and_then(|block| Superblock::verify(number, &block));
            match read {
                Ok(superblock) => Some(superblock),
                Err(kind) => walk.fail(kind),
            }
        })
    }

    fn read(&self, number: u64) -> Result<Box<Block>, ErrorKind> {
        let mut block = Block::zeroed();
        match self.source.read(number, &mut block) {
            Ok(()) => Ok(block),
            Err(source) => Err(ErrorKind::Read { block: number, source }),
        }
    }

    /// Follows a reference; `new` says whether it is to be counted.
    pub(super) fn follow(&mut self, number: u64, kind: BlockKind, new: bool) -> Option<Met> {
        if number == 0 || number >= self.blocks {
            let last = self.blocks.saturating_sub(1);
            return self.lose(ErrorKind::OutOfBounds { block: number, last });
        }
        if new {
            self.references.add(number);
        }
        if self.met.mark(number) {
            self.skipped += 1;
            return self.fail(ErrorKind::Visited { block: number });
        }
        let read = self.read(number).and_then(|block| block.verify(number, kind).map(|()| block));
        match read {
            Ok(block) => Some(Met { block, new: !self.counted.mark(number) }),
            // These refer to nothing.
            Err(error) if matches!(kind, BlockKind::Array | BlockKind::SpaceMapBitmap) => {
                self.fail(error)
            }
            Err(error) => self.lose(error),
        }
    }

    /// Visits the entries of a tree, as far as it can be read.
    pub(super) fn tree(
        &mut self,
        root: u64,
        value_size: usize,
        new: bool,
        on_entry: &mut OnEntry<'_, 'a, S>,
    ) {
        self.node(root, (value_size, new), Range::ALL, 0, on_entry);
    }

    fn node(
        &mut self,
        number: u64,
        (value_size, new): (usize, bool),
        range: Range,
        depth: usize,
        on_entry: &mut OnEntry<'_, 'a, S>,
    ) {
        self.within(Step::Node(number), |walk| {
            if depth == MAX_DEPTH {
                return walk.lose(ErrorKind::TooDeep { block: number, limit: MAX_DEPTH });
            }
            let Met { block, new } = walk.follow(number, BlockKind::Node, new)?;
            let node = match Node::parse(number, &block, value_size, depth == 0) {
                Ok(node) => node,
                Err(kind) => return walk.lose(kind),
            };
            if let Err(kind) = node.check_keys(number, range) {
                return walk.lose(kind);
            }
            for index in 0..node.nr_entries {
                if node.internal {
                    let (child, range) = node.child(index, range);
                    walk.node(child, (value_size, new), range, depth + 1, on_entry);
                } else {
                    on_entry(walk, node.key(index), node.value(index), new);
                }
            }
            Some(())
        });
    }

    /// Visits the values of a dense array's blocks, as far as it can be read: the metadata
    /// block, the index of its first value, and the values.
    pub(super) fn array<const N: usize>(
        &mut self,
        root: u64,
        length: u64,
        new: bool,
        mut on_values: impl FnMut(&mut Self, u64, u64, &[[u8; N]]),
    ) {
        let leaves = length.div_ceil(leaf::capacity::<N>());
        let (mut next, mut skipped) = (0, self.skipped);
        self.tree(root, POINTER, new, &mut |walk, key, value, new| {
            // A gap where something was skipped is no finding of its own.
            if key >= leaves || (key != next && skipped == walk.skipped) {
                let expected = if next < leaves { next.to_string() } else { "no more keys".into() };
                walk.report(ErrorKind::ArrayKey { expected, found: key }.into());
            }
            next = key.saturating_add(1);
            let number = pointer(value);
            walk.within(Step::ArrayBlock { index: key, block: number }, |walk| {
                let Met { block, new: _ } = walk.follow(number, BlockKind::Array, new)?;
                match leaf::values::<N>(number, block.bytes(), key, length) {
                    Ok(values) if key < leaves => {
                        on_values(walk, number, key * leaf::capacity::<N>(), values);
                    }
                    // Beyond the end, where a block that is right has none.
                    Ok(_) => {}
                    Err(kind) => walk.report(kind.into()),
                }
                Some(())
            });
            skipped = walk.skipped;
        });
        if next < leaves && skipped == self.skipped {
            self.report(ErrorKind::ArrayTooShort { expected: leaves, found: next }.into());
        }
    }
}

impl Met {
    pub(super) fn block(&self) -> &Block {
        &self.block
    }
}
