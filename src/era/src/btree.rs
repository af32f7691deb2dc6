//! Btrees: nodes, and the walk over all entries.

mod node;

use crate::block::BlockKind;
use crate::error::{Error, ErrorKind, Step};
use crate::reader::Reader;
use crate::source::BlockSource;

pub(crate) use node::{Node, Range};

/// A node that is not the root is at least a third full, so that even a tree over every
/// block that metadata can have is far lower than this.
pub(crate) const MAX_DEPTH: usize = 16;

/// What is done with an entry: its key and its value.
pub(crate) type OnEntry<'f, S> =
    dyn FnMut(&mut Reader<'_, S>, u64, &[u8]) -> Result<(), Error> + 'f;

/// Visits all entries in the order of their keys.
pub(crate) fn walk<S: BlockSource>(
    reader: &mut Reader<'_, S>,
    root: u64,
    value_size: usize,
    on_entry: &mut OnEntry<'_, S>,
) -> Result<(), Error> {
    let mut walk = Walk { value_size, on_entry };
    walk.node(reader, root, Range::ALL, 0)
}

struct Walk<'f, 'g, S> {
    value_size: usize,
    on_entry: &'g mut OnEntry<'f, S>,
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
                self.entries(reader, &node)
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

    fn entries(&mut self, reader: &mut Reader<'_, S>, node: &Node<'_>) -> Result<(), Error> {
        for index in 0..node.nr_entries {
            (self.on_entry)(reader, node.key(index), node.value(index))?;
        }
        Ok(())
    }
}
