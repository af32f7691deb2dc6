//! dm-era's on-disk metadata, read only.

mod era;
mod run;

pub use era::Era;
pub use run::Run;
