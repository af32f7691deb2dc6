//! Running other programs: each in a process group of its own that never outlives us, with an error that tells what was
//! run and what it said.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::cleanup::{self, Ticket};

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be started.
    #[error("cannot start `{command}`{}", missing(source))]
    Start {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// Its output could not be read.
    #[error("cannot follow `{command}`")]
    Follow {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It was ended.
    #[error("`{command}` was ended: it said nothing for {minutes} minutes")]
    Silent {
        /// The command line.
        command: String,
        /// For how long.
        minutes: u64,
    },
    /// It ended without success.
    #[error("`{command}` ended with {status}{}", quoted(output))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it printed.
        output: String,
    },
}

fn missing(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            ": it is not installed (`cargo e2e setup` installs what the harness needs)"
        }
        _ => "",
    }
}

fn quoted(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}

/// Runs a program to its end; what it prints is only shown in the error.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    output(command).map(drop)
}

/// Runs a program to its end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let shown = shown(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (child, _ticket) = cleanup::spawn(command)
        .map_err(|source| Error::Start { command: shown.clone(), source })?;
    let output = child
        .wait_with_output()
        .map_err(|source| Error::Follow { command: shown.clone(), source })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let said = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed { command: shown, status: output.status, output: tail(&said, 40) })
}

/// Longer than a program that is at work says nothing.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Runs a program to its end and hands over each line of its standard output as it comes; errors go where ours go. One
/// that says nothing for too long is ended.
pub(crate) fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<(), Error> {
    let shown = shown(command);
    let (mut child, ticket) = cleanup::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))
        .map_err(|source| Error::Start { command: shown.clone(), source })?;
    let follow = |source| Error::Follow { command: shown.clone(), source };
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            // A receiver that is gone has given up.
            BufReader::new(stdout).split(b'\n').try_for_each(|line| sender.send(line))
        });
    }
    loop {
        match receiver.recv_timeout(SILENCE) {
            Ok(line) => each(&String::from_utf8_lossy(&line.map_err(follow)?)),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                drop(ticket);
                return Err(Error::Silent { command: shown, minutes: SILENCE.as_secs() / 60 });
            }
        }
    }
    let status = child.wait().map_err(follow)?;
    succeeded(shown, status)
}

fn succeeded(command: String, status: ExitStatus) -> Result<(), Error> {
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed { command, status, output: String::new() })
    }
}

/// A program that runs beside us; it and all it started end when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    command: String,
    _ticket: Ticket,
}

impl Background {
    /// Starts `command` with its output going to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, Error> {
        let shown = shown(command);
        let open = || {
            let file = File::create(log)?;
            Ok((file.try_clone()?, file))
        };
        let start = |source| Error::Start { command: shown.clone(), source };
        let (output, errors): (File, File) = open().map_err(start)?;
        let (child, ticket) =
            cleanup::spawn(command.stdin(Stdio::null()).stdout(output).stderr(errors))
                .map_err(start)?;
        Ok(Self { child, command: shown, _ticket: ticket })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child
            .try_wait()
            .map_err(|source| Error::Follow { command: self.command.clone(), source })
    }
}

/// The command line as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_command_status_and_output() {
        let error =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c echo out; echo err >&2; exit 3` ended with exit status: 3:\nout\nerr"
        );
    }

    #[test]
    fn a_missing_program_tells_the_remedy() {
        let error = run(&mut Command::new("eratrack-no-such-program")).unwrap_err();
        assert!(error.to_string().contains("cargo e2e setup"), "{error}");
    }

    #[test]
    fn lines_come_one_by_one() {
        let mut seen = Vec::new();
        lines(Command::new("printf").arg("a\\nb\\n"), |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn the_tail_is_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
