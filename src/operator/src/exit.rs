//! How the process ends: one enum, one mapping to an exit code, one line on stderr.

use std::error::Error;
use std::process::ExitCode;

use crate::cli::{DeviceError, KubectlError};

/// What a script learns of how a command ended. Never reassigned; docs/exit-codes.md says what to do about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Something else: reading, writing, the kernel, the API server.
    Failed = 1,
    /// Wrong usage, which clap says itself.
    #[allow(dead_code)]
    Usage = 2,
    /// Another controller leads.
    LeaseLost = 3,
    /// Done in part; the message says what is left.
    Incomplete = 4,
    /// What is asked for cannot be done with this device, file or figure. Nothing was changed.
    Refused = 5,
    /// There is no such device, stack, file or pool.
    NotFound = 6,
    /// Somebody else is using it just now; the same may succeed later.
    Busy = 7,
    /// Metadata, a record or a pool's table is damaged.
    Damaged = 8,
    /// This machine cannot: not root, no dm-era, a kernel that is refused.
    Unsupported = 9,
    /// The device is not tracked without a gap any more: there can be no list.
    ChainEnded = 10,
}

/// Why a subcommand did not succeed, as far as a caller in a script must tell apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Anything that has no code of its own.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
    /// Another holds the Lease: a controller that goes on would write beside the new leader.
    #[error(
        "the Lease {lease} is no longer ours: {reason}; ending, so that only one controller acts"
    )]
    LeaseLost {
        /// Namespace and name.
        lease: String,
        /// What was seen.
        reason: String,
    },
    /// A command for one machine.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A question to a cluster.
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
    /// Volumes are still tracked.
    #[error("{0}")]
    Incomplete(String),
}

impl Failure {
    /// Wraps an error that has no code of its own.
    pub(crate) fn other(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    fn code(&self) -> Code {
        match self {
            Self::Other(_) => Code::Failed,
            Self::LeaseLost { .. } => Code::LeaseLost,
            Self::Incomplete(_) => Code::Incomplete,
            Self::Device(error) => error.code(),
            Self::Kubectl(error) => error.code(),
        }
    }
}

/// Prints the error with its causes, each said once, and gives the exit code.
pub(crate) fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("eratrack: {}", chain(&failure));
            ExitCode::from(failure.code() as u8)
        }
    }
}

/// The error and its causes on one line; a cause that its error already quotes is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_cause_is_said_once() {
        let outer = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(chain(&outer), "cannot read it: disk on fire");
        assert_eq!(chain(&Failure::other(outer)), "cannot read it: disk on fire");
    }

    #[test]
    fn codes_differ() {
        let lost = Failure::LeaseLost { lease: "a/b".into(), reason: "c".into() };
        let codes =
            [Failure::other(std::io::Error::other("x")), lost, Failure::Incomplete("y".into())]
                .map(|failure| failure.code() as u8);
        assert_eq!(codes, [1, 3, 4]);
    }
}
