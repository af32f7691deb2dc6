//! Installs and builds what the other commands need.

use crate::failure::Outcome;

/// Installs the Debian packages that are missing.
pub(crate) fn packages() -> Outcome {
    Ok(())
}

/// Everything.
pub(crate) fn run() -> Outcome {
    Ok(())
}
