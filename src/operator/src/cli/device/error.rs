use std::io;
use std::path::PathBuf;

use era_metadata::ErrorKind;
use era_metadata::sizing::SizingError;
use eratrack_dm::linux::LoopError;

use crate::exit::Code;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{path} is in use, and what is written meanwhile would be missed: take a metadata snapshot and give \
         --metadata-snapshot=BLOCK, or remove the era device first"
    )]
    InUse { path: PathBuf },
    #[error(
        "cannot tell whether {path} is in use: give --metadata-snapshot=BLOCK, run as root, or read a copy of another name"
    )]
    Unknown { path: PathBuf, source: LoopError },
    #[error("cannot read the metadata in {path}")]
    Metadata { path: PathBuf, source: era_metadata::Error },
    #[error("no metadata fits")]
    Size(#[source] SizingError),
    #[error("cannot print the answer")]
    Print(#[source] io::Error),
}

impl DeviceError {
    /// What a script learns; listed in docs/exit-codes.md.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Open { source, .. } => of_io(source),
            Self::InUse { .. } => Code::Busy,
            Self::Unknown { .. } => Code::Unsupported,
            Self::Metadata { source, .. } => of_metadata(source),
            Self::Size(_) => Code::Refused,
            Self::Print(_) => Code::Failed,
        }
    }
}

fn of_io(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::Unsupported,
        io::ErrorKind::ResourceBusy => Code::Busy,
        _ => Code::Failed,
    }
}

fn of_metadata(error: &era_metadata::Error) -> Code {
    match error.kind {
        ErrorKind::Read { .. } => Code::Failed,
        ErrorKind::NoSnapshot | ErrorKind::Future { .. } => Code::Refused,
        _ => Code::Damaged,
    }
}
