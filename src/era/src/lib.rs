//! dm-era's on-disk metadata, read only: which blocks of a device were written since an
//! era, and how much room the metadata needs.
//!
//! [`BlockSource`] -> superblock -> writeset tree and era array -> [`BlockSet`] -> runs.
//!
//! Metadata is input that nobody vouches for. Every block is verified when it is read
//! (checksum, own number, header, bounds), none is read twice in a walk, and nothing is
//! allocated but in proportion to what was read and verified. What is not as the kernel
//! writes it is an [`Error`], never a shorter list.

mod array;
mod block;
mod block_set;
mod btree;
mod buffer;
mod changes;
pub mod check;
pub mod dump;
mod era;
mod error;
mod metadata;
mod reader;
pub mod render;
mod run;
pub mod sizing;
mod source;
mod superblock;

pub use block::{BLOCK_SIZE, Block, BlockKind, MAX_BLOCKS};
pub use block_set::{BlockSet, Runs};
pub use era::Era;
pub use error::{Error, ErrorKind, Step};
pub use metadata::{Metadata, Part, View, WritesetState};
pub use run::Run;
pub use source::{BlockSource, FileSource, MemorySource, Unread};
