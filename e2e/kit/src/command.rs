use std::ffi::OsStr;
use std::process::Command;

/// A command that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{command}: {outcome}\n{output}")]
pub struct CommandError {
    /// The command line.
    pub command: String,
    /// Its exit status, or why it was not started.
    pub outcome: String,
    /// What it printed.
    pub output: String,
}

/// Runs a command line, split at blanks; its standard output.
///
/// # Panics
/// If it fails: in a test there is nothing else to do.
#[track_caller]
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command line is not empty");
    match run_with(program, words) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// Runs a program with arguments; its standard output. LVM and dmsetup are told that there is
/// no udev, and LVM is given the configuration of [`crate::setup`].
pub fn run_with<A: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
) -> Result<String, CommandError> {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").env("LVM_SYSTEM_DIR", crate::lvm::SYSTEM_DIR);
    command.env("LVM_SUPPRESS_FD_WARNINGS", "1");
    if !std::path::Path::new("/run/udev/control").exists() {
        command.env("DM_DISABLE_UDEV", "1");
    }
    let failed = |outcome: String, output: String| CommandError {
        command: format!("{command:?}"),
        outcome,
        output,
    };
    let output = Command::output(&mut clone(&command))
        .map_err(|e| failed(format!("not started: {e}"), String::new()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let printed = text(&output.stdout) + &text(&output.stderr);
    Err(failed(output.status.to_string(), printed))
}

fn clone(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        copy.env(name, value.unwrap_or_default());
    }
    copy
}
