//! helm, the real one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    capture::{Output, capture},
    network::Namespace,
};
use crate::{failure::Outcome, paths};

/// A helm that talks to one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Helm {
    network: Namespace,
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Its caches and settings are here, and nothing in the user's home.
    home: PathBuf,
}

/// Longer than helm's own deadlines as the harness gives them.
const DEADLINE: Duration = Duration::from_secs(400);

impl Helm {
    pub(super) fn new(
        network: Namespace,
        program: PathBuf,
        kubeconfig: &Path,
        home: &Path,
    ) -> Self {
        Self { network, program, kubeconfig: kubeconfig.to_owned(), home: home.to_owned() }
    }

    /// The program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs helm with these arguments in the workspace's directory, whatever its end.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Outcome<Output> {
        let mut command = self.network.command(&self.program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        command.current_dir(paths::workspace());
        capture(format!("helm {}", arguments.join(" ")), &mut command, None, DEADLINE)
    }

    /// Runs helm and expects success; its standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<String> {
        self.helm(arguments)?.ok()
    }
}
