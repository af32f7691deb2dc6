//! A kernel of its own, run as a process.

use std::process::ExitCode;

use crate::failure::Outcome;

/// Boots a guest and runs `command` in it.
pub(crate) fn command(_memory: u32, _deadline: u64, _command: &[String]) -> Outcome<ExitCode> {
    Err("guests are not written yet".into())
}
