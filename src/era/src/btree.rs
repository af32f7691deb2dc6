//! Btrees: nodes, and the walk over all leaves.

mod node;

use crate::block::BlockKind;
use crate::error::{Error, ErrorKind, Step};
use crate::reader::Reader;
use crate::source::BlockSource;

pub(crate) use node::{Node, Range};

/// A node that is not the root is at least a third full, so that even a tree over every
/// block that metadata can have is far lower than this.
pub(crate) const MAX_DEPTH: usize = 16;

/// What is done with a leaf, in which the entries are.
pub(crate) type OnLeaf<'f, S> = dyn FnMut(&mut Reader<'_, S>, &Node<'_>) -> Result<(), Error> + 'f;

/// Visits all leaves in the order of their keys.
pub(crate) fn walk_leaves<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    value_size: usize,
    on_leaf: &mut OnLeaf<'_, S>,
) -> Result<(), Error> {
    let mut walk = Walk { value_size, on_leaf };
    walk.node(reader, root, Range::ALL, 0)
}

struct Walk<'f, 'g, S> {
    value_size: usize,
    on_leaf: &'g mut OnLeaf<'f, S>,
}

impl<S: BlockSource> Walk<'_, '_, S> {
    fn node(
        &mut self,
        reader: &mut Reader<'_, S>,
        number: u64,
        range: Range,
        depth: usize,
    ) -> Result<(), Error> {
        reader.within(Step::Node(number), |reader| {
            if depth == MAX_DEPTH {
                return Err(reader.error(ErrorKind::TooDeep { block: number, limit: MAX_DEPTH }));
            }
            let block = reader.read(number, BlockKind::Node)?;
            let node = Node::parse(number, &block, self.value_size, depth == 0)
                .map_err(|kind| reader.error(kind))?;
            node.check_keys(number, range).map_err(|kind| reader.error(kind))?;
            if node.internal {
                self.children(reader, &node, range, depth)
            } else {
                (self.on_leaf)(reader, &node)
            }
        })
    }

    fn children(
        &mut self,
        reader: &mut Reader<'_, S>,
        node: &Node<'_>,
        range: Range,
        depth: usize,
    ) -> Result<(), Error> {
        for index in 0..node.nr_entries {
            let (child, range) = node.child(index, range);
            self.node(reader, child, range, depth + 1)?;
        }
        Ok(())
    }
}
