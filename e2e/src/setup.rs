//! Installs and builds what the other commands need.

use crate::failure::Outcome;

/// Everything.
pub(crate) fn run() -> Outcome {
    Ok(())
}
