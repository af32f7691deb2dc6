use std::io;
use std::path::PathBuf;

use era_metadata::ErrorKind;
use era_metadata::sizing::SizingError;
use eratrack_dm::linux::LoopError;
use eratrack_dm::pool::PoolError;
use eratrack_dm::store::StoreError;
use eratrack_dm::{DmError, DmErrorKind, HostError, LvmError, StackLockError, StageError};
use eratrack_model::names::{NameError, StackId};
use eratrack_model::pool::{AllocateError, ReadError};
use eratrack_model::refusal::Refusal;
use eratrack_replica::{ReplicaError, TargetError};

use crate::exit::Code;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("only root can change device-mapper devices; run it with sudo")]
    NotRoot,
    #[error("stack {stack} was named twice; name each once")]
    Twice { stack: eratrack_model::names::StackId },
    #[error("this kernel has no device mapper; load the module dm-mod")]
    NoDeviceMapper(#[source] DmError),
    #[error("this kernel has no dm-era; load or install the module dm-era")]
    NoEra,
    #[error("there is no device {named}; give a path below /dev, or a device-mapper name")]
    NoDevice { named: String },
    #[error("{path} is no block device; name the device, not what is on it")]
    NoBlockDevice { path: PathBuf },
    #[error("{named} is not tracked on this machine; `eratrack device list` shows what is")]
    NotTracked { named: String },
    #[error(
        "{named} is no device-mapper device, so that era cannot go under it while it is in use; stop what uses it and give \
         --stage NAME, which puts /dev/mapper/NAME over it"
    )]
    NeedsStage { named: String },
    #[error("no stack can be called after {named}; choose a name with --name")]
    StackName { named: String, source: NameError },
    #[error(
        "stack {stack}: era is out, but the device of --stage is still in use and stays, with a plain table; stop what uses \
         it, and detach again"
    )]
    TopStays { stack: StackId },
    #[error("{left} of {of} stacks could not be {done}; the list says why")]
    Left { left: usize, of: usize, done: &'static str },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
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
    #[error(
        "{path} is neither a file nor a block device; give an image of metadata, or the device that it is on"
    )]
    NoImage { path: PathBuf },
    #[error("cannot read the metadata in {path}")]
    Metadata { path: PathBuf, source: era_metadata::Error },
    #[error(
        "the metadata in {path} is damaged ({errors} errors): copy the whole device once, and track it with new metadata"
    )]
    Unsound { path: PathBuf, errors: u64 },
    #[error("the pool on {path} is damaged in {count} places; the list says what to do")]
    DamagedPool { path: PathBuf, count: usize },
    #[error("{left} of {of} pools cannot be used; the list says why")]
    UnusablePools { left: usize, of: usize },
    #[error("no metadata fits")]
    Size(#[source] SizingError),
    #[error("cannot print the answer")]
    Print(#[source] io::Error),
}

impl DeviceError {
    /// What a script learns; listed in docs/exit-codes.md.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotRoot | Self::NoDeviceMapper(_) | Self::NoEra | Self::Unknown { .. } => {
                Code::Unsupported
            }
            Self::NoDevice { .. } | Self::NotTracked { .. } => Code::NotFound,
            Self::NeedsStage { .. }
            | Self::NoBlockDevice { .. }
            | Self::Twice { .. }
            | Self::StackName { .. }
            | Self::NoImage { .. }
            | Self::Size(_) => Code::Refused,
            Self::TopStays { .. } | Self::Left { .. } => Code::Incomplete,
            Self::Host(error) => of_host(error),
            Self::Replica(error) => of_replica(error),
            Self::Open { source, .. } | Self::Write { source, .. } => of_io(source),
            Self::InUse { .. } => Code::Busy,
            Self::Metadata { source, .. } => of_metadata(source),
            Self::Unsound { .. } | Self::DamagedPool { .. } | Self::UnusablePools { .. } => {
                Code::Damaged
            }
            Self::Print(_) | Self::Signals(_) => Code::Failed,
        }
    }
}

fn of_host(error: &HostError) -> Code {
    match error {
        HostError::Refused(refusal) => of_refusal(refusal),
        HostError::Store(error) => of_store(error),
        HostError::Stage(error) => of_stage(error),
        HostError::Pool(error) => of_pool(error),
        HostError::Lvm(error) => of_lvm(error),
        HostError::Sizing(_)
        | HostError::KeptByAnother { .. }
        | HostError::GroupSize { .. }
        | HostError::GroupNested { .. } => Code::Refused,
        HostError::Lock(StackLockError::Deadline { .. })
        | HostError::Held { .. }
        | HostError::InUse { .. } => Code::Busy,
        HostError::Step(_) if error.is_transient() => Code::Busy,
        HostError::DeviceMapper(error) | HostError::NewEra(error) => of_kernel(error),
        HostError::NotIntact { .. } | HostError::OtherRecord { .. } => Code::ChainEnded,
        HostError::EraFailed { .. } => Code::Damaged,
        HostError::Metadata { source, .. } => of_metadata(source),
        HostError::Open { source, .. } => of_io(source),
        HostError::Lock(StackLockError::Io { .. })
        | HostError::Plan { .. }
        | HostError::Step(_)
        | HostError::Loop(_)
        | HostError::Hold(_)
        | HostError::Machine(_)
        | HostError::PointInTimeLost { .. }
        | HostError::Shown { .. }
        | HostError::Unexpected { .. } => Code::Failed,
    }
}

fn of_replica(error: &ReplicaError) -> Code {
    match error {
        ReplicaError::Target(error) => of_target(error),
        ReplicaError::Host(error) => of_host(error),
        ReplicaError::Stopped(_) => Code::Incomplete,
        ReplicaError::Differs { .. } => Code::Damaged,
        ReplicaError::Written { .. } => Code::Busy,
        ReplicaError::Machine(_)
        | ReplicaError::Source(_)
        | ReplicaError::Checkpoint(_)
        | ReplicaError::Read { .. }
        | ReplicaError::Write { .. } => Code::Failed,
    }
}

fn of_target(error: &TargetError) -> Code {
    match error {
        TargetError::InUse { .. } => Code::Busy,
        TargetError::NoDevice { .. } => Code::NotFound,
        TargetError::Io { source, .. } => of_io(source),
        TargetError::Kind { .. }
        | TargetError::IsSource { .. }
        | TargetError::OnSource { .. }
        | TargetError::PartOfStack { .. }
        | TargetError::TooSmall { .. }
        | TargetError::NotEmpty { .. } => Code::Refused,
    }
}

fn of_refusal(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::KernelTooOld { .. } | Refusal::TargetMissing { .. } => Code::Unsupported,
        Refusal::Gone => Code::NotFound,
        Refusal::NotTracked { .. } => Code::ChainEnded,
        other if other.is_transient() => Code::Busy,
        _ => Code::Refused,
    }
}

fn of_store(error: &StoreError) -> Code {
    match error {
        StoreError::Record { .. } => Code::Damaged,
        StoreError::Io { source, .. } => of_io(source),
        _ => Code::Refused,
    }
}

fn of_pool(error: &PoolError) -> Code {
    match error {
        PoolError::NoDevice { .. }
        | PoolError::Missing { .. }
        | PoolError::Table { source: ReadError::NoPool, .. }
        | PoolError::Area(AllocateError::NoArea(_)) => Code::NotFound,
        PoolError::Table { .. } | PoolError::ReadBack(_) => Code::Damaged,
        PoolError::Busy { .. } | PoolError::Locked { .. } => Code::Busy,
        PoolError::NotBlank { .. }
        | PoolError::OtherSerial { .. }
        | PoolError::Unfit { .. }
        | PoolError::TooSmall { .. }
        | PoolError::Area(_)
        | PoolError::AreaInUse { .. } => Code::Refused,
        PoolError::Io { source, .. } => of_io(source),
    }
}

fn of_lvm(error: &LvmError) -> Code {
    match error {
        LvmError::Absent(_) | LvmError::NotHere => Code::Unsupported,
        LvmError::NoGroup(_) | LvmError::NoVolume { .. } => Code::NotFound,
        LvmError::NoRoom { .. } | LvmError::NameTaken { .. } => Code::Refused,
        LvmError::Deadline { .. } => Code::Busy,
        LvmError::Failed { .. } => Code::Failed,
        LvmError::Io { source, .. } => of_io(source),
    }
}

fn of_stage(error: &StageError) -> Code {
    match error {
        StageError::NoDevice(_) => Code::NotFound,
        StageError::InUse { .. } => Code::Busy,
        StageError::ReadOnly(_)
        | StageError::NameTaken(_)
        | StageError::Empty(_)
        | StageError::OwnDevice(_) => Code::Refused,
    }
}

fn of_kernel(error: &DmError) -> Code {
    match error.kind {
        DmErrorKind::NotFound => Code::NotFound,
        DmErrorKind::Busy | DmErrorKind::Suspended | DmErrorKind::Deadline => Code::Busy,
        DmErrorKind::Denied => Code::Unsupported,
        DmErrorKind::Invalid
        | DmErrorKind::MissingDependency
        | DmErrorKind::Unreadable
        | DmErrorKind::Errno(_) => Code::Failed,
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
