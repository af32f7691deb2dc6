//! How a step that failed is passed up and shown.

use std::{error::Error, fmt::Write as _};

/// Any step's error. The harness never chooses by kind: it reports, with the whole chain of causes.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The result of a step.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The error and its causes, one a line.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, "\n  because: {error}");
        cause = error.source();
    }
    text
}
