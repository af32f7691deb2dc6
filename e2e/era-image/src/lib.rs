//! Writes dm-era metadata of any size as the kernel would: for tests and benchmarks of what
//! reads it. [`Spec`] (what happened) -> layout (which block is where) -> blocks, one after
//! the other, into a file or into memory.
//!
//! The same [`Spec`] gives the same bytes on every machine, and [`Spec::changed_since`] says
//! without reading them what a reader must find. Memory does not grow with the image, except
//! by some bytes for every ten thousand blocks of it.

mod block;
mod history;
mod layout;
mod sink;
mod spec;
mod tree;
mod write;

pub use block::{BLOCK_SIZE, Kind, seal};
pub use spec::{Placement, Spec};
pub use write::Written;
