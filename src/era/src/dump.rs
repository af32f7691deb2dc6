//! Everything a view of the metadata says, as text. Written while it is read: memory stays
//! the same whatever the device's size.

mod json;
mod xml;

use std::io::{self, Write};
use std::ops::ControlFlow;

use crate::{BlockSource, Error, Metadata, Part};

/// Why there is no whole dump. What was written of it is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] Error),
    /// The dump cannot be written.
    #[error("cannot write the dump")]
    Write(#[source] io::Error),
}

/// The document that `era_dump` prints, byte for byte: every bit of every writeset, then
/// the array. A current writeset, which `era_dump` leaves out, comes last of the writesets.
pub fn xml<S: BlockSource>(metadata: &Metadata<S>, out: &mut impl Write) -> Result<(), DumpError> {
    xml::begin(metadata, out).map_err(DumpError::Write)?;
    let mut document = xml::Document::default();
    pieces(metadata, |part| document.part(part, out))?;
    document.end(out).map_err(DumpError::Write)
}

/// One JSON object: sizes in bytes and blocks, writesets as ranges, the array as ranges of
/// equal eras; both ends of a range are included.
pub fn json<S: BlockSource>(metadata: &Metadata<S>, out: &mut impl Write) -> Result<(), DumpError> {
    json::begin(metadata, out).map_err(DumpError::Write)?;
    let mut document = json::Document::default();
    pieces(metadata, |part| document.part(part, out))?;
    document.end(out).map_err(DumpError::Write)
}

/// Visits all pieces until one cannot be written.
fn pieces<S: BlockSource>(
    metadata: &Metadata<S>,
    mut write: impl FnMut(Part<'_>) -> io::Result<()>,
) -> Result<(), DumpError> {
    let mut failed = None;
    let done = metadata.visit(|part| match write(part) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    });
    match failed {
        Some(error) => Err(DumpError::Write(error)),
        None => Ok(done?),
    }
}
