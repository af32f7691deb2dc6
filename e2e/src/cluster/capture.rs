//! Running a program with input and a deadline, whatever its end: a test often wants the refusal.

use std::{
    io::{self, Read, Write},
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{cleanup, failure::Outcome, process, wait};

/// What a program said and whether it succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// The command line as one would type it.
    pub(crate) command: String,
    /// Whether it ended with exit code 0.
    pub(crate) success: bool,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// All of it, for a report.
    pub(crate) fn report(&self) -> String {
        format!("--- {}\n{}{}", self.command, self.stdout, self.stderr)
    }

    /// The standard output of a success; else an error with all that was said.
    pub(crate) fn ok(self) -> Outcome<String> {
        if self.success {
            return Ok(self.stdout);
        }
        let said = format!("{}{}", self.stdout, self.stderr);
        Err(format!("`{}` failed:\n{}", self.command, process::tail(&said, 40)).into())
    }
}

/// Runs `command`, shown in messages as `shown`, to its end or the deadline, after which it is killed.
pub(crate) fn capture(
    shown: String,
    command: &mut Command,
    stdin: Option<&str>,
    deadline: Duration,
) -> Outcome<Output> {
    let input = if stdin.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, ticket) =
        cleanup::spawn(command).map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    let feeder = child.stdin.take().zip(stdin.map(str::to_owned)).map(|(mut pipe, text)| {
        // A program that ends without reading its input has its reasons, and says them.
        thread::spawn(move || drop(pipe.write_all(text.as_bytes())))
    });
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let ended = wait::until_ok(&format!("`{shown}` to end"), deadline, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err("still running".to_owned()),
        Err(error) => Err(error.to_string()),
    });
    // Closes the pipes also where a grandchild holds them.
    drop(ticket);
    feeder.map(JoinHandle::join);
    let (stdout, stderr) = (joined(stdout)?, joined(stderr)?);
    match ended {
        Ok(status) => Ok(Output { command: shown, success: status.success(), stdout, stderr }),
        Err(error) => Err(format!("{error}\n{}", process::tail(&(stdout + &stderr), 40)).into()),
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn joined(reader: JoinHandle<io::Result<Vec<u8>>>) -> Outcome<String> {
    let bytes = reader.join().map_err(|_| "the reader of a program's output panicked")??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, stdin: Option<&str>, deadline: Duration) -> Outcome<Output> {
        capture("sh".into(), Command::new("sh").args(["-c", script]), stdin, deadline)
    }

    #[test]
    fn input_output_and_failure_are_all_seen() {
        let output = sh("cat; echo no >&2; exit 1", Some("in"), Duration::from_secs(10)).unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("in", "no\n"));
        assert!(output.ok().unwrap_err().to_string().contains("no"));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let error = sh("echo working; sleep 1000", None, Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("working"), "{error}");
    }
}
