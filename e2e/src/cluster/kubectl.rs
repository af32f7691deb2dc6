//! kubectl, the real one, as a user of the cluster would run it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use super::{
    capture::{Output, capture},
    network::Namespace,
};
use crate::{failure::Outcome, paths};

/// A kubectl that talks to one cluster, as one user.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    pub(super) network: Namespace,
    pub(super) program: PathBuf,
    pub(super) kubeconfig: PathBuf,
    /// Discovery is cached here, and nothing in the user's home.
    pub(super) home: PathBuf,
    pub(super) namespace: Option<String>,
    /// `--as`, `--as-group` and the like.
    pub(super) identity: Vec<String>,
}

/// Longer than any single command may take; waits have their own deadlines.
const DEADLINE: Duration = Duration::from_secs(120);

impl Kubectl {
    /// The same kubectl with another default namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// The same kubectl as another user: `--as=…`, `--as-group=…`, `--as-user-extra=…`.
    pub(crate) fn with_identity(&self, flags: &[&str]) -> Self {
        Self { identity: flags.iter().map(ToString::to_string).collect(), ..self.clone() }
    }

    /// Runs kubectl with these arguments, whatever its end.
    pub(crate) fn kubectl(&self, arguments: &[&str], stdin: Option<&str>) -> Outcome<Output> {
        self.within(DEADLINE, arguments, stdin)
    }

    /// Runs kubectl and expects success; its standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<String> {
        self.kubectl(arguments, None)?.ok()
    }

    /// Runs kubectl with `-o json` and expects success.
    pub(crate) fn json(&self, arguments: &[&str]) -> Outcome<Value> {
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Applies a manifest and expects success; what kubectl said.
    pub(crate) fn apply(&self, manifest: &str) -> Outcome<String> {
        self.kubectl(&["apply", "-f", "-"], Some(manifest))?.ok()
    }

    /// Runs kubectl with a deadline of its own.
    pub(crate) fn within(
        &self,
        deadline: Duration,
        arguments: &[&str],
        stdin: Option<&str>,
    ) -> Outcome<Output> {
        let mut command = self.command();
        command.args(arguments);
        capture(self.shown(arguments), &mut command, stdin, deadline)
    }

    /// Runs a script of `/bin/sh` as a user of the cluster would on this machine, with kubectl and what is in `more` in the
    /// path, whatever its end.
    pub(crate) fn shell(&self, more: &Path, script: &str) -> Outcome<Output> {
        let mut command = self.network.command("/bin/sh");
        command.current_dir(paths::workspace()).args(["-c", script]);
        let usual = env::var("PATH").unwrap_or_default();
        let directory = self.program.parent().unwrap_or(Path::new("/"));
        command.env("PATH", format!("{}:{}:{usual}", more.display(), directory.display()));
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        capture(script.to_owned(), &mut command, None, DEADLINE)
    }

    /// kubectl without arguments of its own yet.
    pub(super) fn command(&self) -> Command {
        let mut command = self.network.command(&self.program);
        // The samples of the workspace are named as a reader of the README would name them.
        command.current_dir(paths::workspace());
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--cache-dir").arg(self.home.join("cache")).env("HOME", &self.home);
        if let Some(namespace) = &self.namespace {
            command.arg("--namespace").arg(namespace);
        }
        command.args(&self.identity);
        command
    }

    /// The command as a user would type it.
    pub(crate) fn shown(&self, arguments: &[&str]) -> String {
        let mut words = vec!["kubectl".to_owned()];
        words.extend(self.namespace.iter().flat_map(|name| ["-n".to_owned(), name.clone()]));
        words.extend(self.identity.iter().cloned());
        words.extend(arguments.iter().map(|word| quoted(word)));
        words.join(" ")
    }
}

/// A word as a shell needs it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shown_as_they_must_be_typed() {
        assert_eq!(quoted("jsonpath={.ranges}"), "'jsonpath={.ranges}'");
        assert_eq!(quoted("--tail=3"), "--tail=3");
    }
}
