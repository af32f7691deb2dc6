//! Why there is no answer, and the exit code for it.

use std::io;

use eratrack_model::delta::DeltaError;
use kube::config::{InferConfigError, KubeconfigError};

use crate::delta::{ListError, ReadError};
use crate::exit::Code;

/// A question could not be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubectlError {
    #[error("cannot use the kubeconfig; see --kubeconfig and --context")]
    Kubeconfig(#[source] KubeconfigError),
    #[error("there is neither a kubeconfig nor a pod's account; give --kubeconfig")]
    NoCluster(#[source] InferConfigError),
    #[error("cannot make a client of the kubeconfig")]
    Client(#[source] kube::Error),
    #[error("the claim is of namespace {claim}, but --namespace says {flag}; give one of them")]
    Namespaces { claim: String, flag: String },
    #[error("cannot {what}")]
    Request { what: &'static str, source: Box<kube::Error> },
    #[error("cannot {what}: no answer within {seconds} s")]
    Timeout { what: &'static str, seconds: u64 },
    #[error(
        "{namespace}/{claim} is not tracked: name the claim in an EraTracking of the same namespace"
    )]
    NotTracked { namespace: String, claim: String },
    #[error(
        "claim {namespace}/{claim} has no EraSnapshot {snapshot}; see `kubectl get esnap -n {namespace}`"
    )]
    NoSnapshot { namespace: String, claim: String, snapshot: String },
    #[error("EraSnapshot {snapshot} failed ({reason}) and has no list; choose another")]
    Failed { snapshot: String, reason: String },
    #[error(transparent)]
    Read(#[from] Box<ReadError<kube::Error>>),
    #[error("cannot print the answer")]
    Print(#[source] io::Error),
}

impl KubectlError {
    /// What a script learns; listed in docs/exit-codes.md.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Kubeconfig(_)
            | Self::NoCluster(_)
            | Self::Client(_)
            | Self::Request { .. }
            | Self::Timeout { .. }
            | Self::Print(_) => Code::Failed,
            Self::NotTracked { .. } | Self::NoSnapshot { .. } => Code::NotFound,
            Self::Namespaces { .. } | Self::Failed { .. } => Code::Refused,
            Self::Read(error) => match &**error {
                ReadError::Slice { .. } => Code::Failed,
                ReadError::List(error) => of_list(error),
                ReadError::Delta(error) => of_delta(error),
            },
        }
    }
}

fn of_list(error: &ListError) -> Code {
    match error {
        ListError::NotReady { .. } => Code::Busy,
        ListError::Status { .. }
        | ListError::Missing { .. }
        | ListError::Field { .. }
        | ListError::Ranges { .. }
        | ListError::Summary { .. } => Code::Damaged,
    }
}

fn of_delta(error: &DeltaError) -> Code {
    match error {
        DeltaError::OtherLine { .. }
        | DeltaError::OtherChain { .. }
        | DeltaError::Full { .. }
        | DeltaError::Gap { .. } => Code::ChainEnded,
        DeltaError::Nothing | DeltaError::NotBefore { .. } => Code::Refused,
        DeltaError::SameEra { .. } | DeltaError::Backwards { .. } => Code::Damaged,
    }
}
