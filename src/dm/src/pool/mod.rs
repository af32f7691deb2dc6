//! The disk of a pool: its table read, changed and read back, around the page cache.
//!
//! What the table means and how it survives a torn write is [`eratrack_model::pool`]'s; who may
//! change it when is [`crate::host`]'s.

mod contents;
mod disk;
mod error;

pub(crate) use contents::contents;
pub(crate) use disk::PoolDisk;
pub use error::PoolError;
