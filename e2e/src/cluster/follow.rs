//! Following what a program prints until it has said what is waited for: a watch, not a poll.

use std::{
    io::{BufRead, BufReader, Read},
    process::{ChildStderr, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{cleanup, failure::Outcome};

/// How what was followed ended.
#[derive(Debug)]
pub(super) enum Followed<T> {
    /// It said what was waited for.
    Found(T),
    /// The deadline came first.
    TimedOut,
    /// The program ended by itself; what it said last on its standard error.
    Ended(String),
}

/// Something printed, cut out of the stream of bytes.
pub(super) trait Item: Send + Sized + 'static {
    /// Sends each as it comes, until the stream or the listener ends.
    fn read(output: ChildStdout, to: &Sender<Self>);
}

impl Item for String {
    fn read(output: ChildStdout, to: &Sender<Self>) {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        lines.map(|line| to.send(line)).take_while(Result::is_ok).for_each(drop);
    }
}

impl Item for Value {
    fn read(output: ChildStdout, to: &Sender<Self>) {
        let values = serde_json::Deserializer::from_reader(BufReader::new(output)).into_iter();
        values.map_while(Result::ok).map(|it| to.send(it)).take_while(Result::is_ok).for_each(drop);
    }
}

/// Runs `command` until `check` finds what it looks for in what is printed.
pub(super) fn follow<I: Item, T>(
    command: &mut Command,
    deadline: Instant,
    mut check: impl FnMut(I) -> Option<T>,
) -> Outcome<Followed<T>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, ticket) = cleanup::spawn(command)?;
    let (sender, items) = mpsc::channel();
    let output = child.stdout.take().ok_or("a program without output")?;
    let reader = thread::spawn(move || I::read(output, &sender));
    let errors = child.stderr.take();
    let ending = loop {
        match items.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(item) => {
                if let Some(found) = check(item) {
                    break Followed::Found(found);
                }
            }
            Err(RecvTimeoutError::Timeout) => break Followed::TimedOut,
            Err(RecvTimeoutError::Disconnected) => break Followed::Ended(rest(errors)),
        }
    };
    // Ends the program and reaps it, all of its group; whatever was left to reap is reaped here.
    drop(ticket);
    let _ = child.wait();
    drop(items);
    let _ = reader.join();
    Ok(ending)
}

fn rest(errors: Option<ChildStderr>) -> String {
    let mut text = String::new();
    if let Some(mut errors) = errors {
        let _ = errors.read_to_string(&mut text);
    }
    text.trim().to_owned()
}

/// The time that lies this far ahead.
pub(super) fn ahead(duration: Duration) -> Instant {
    Instant::now() + duration
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh<I: Item, T>(
        script: &str,
        milliseconds: u64,
        check: impl FnMut(I) -> Option<T>,
    ) -> Followed<T> {
        let deadline = ahead(Duration::from_millis(milliseconds));
        follow(Command::new("sh").args(["-c", script]), deadline, check).unwrap()
    }

    #[test]
    fn what_is_waited_for_is_found_while_the_program_goes_on() {
        let found =
            sh("echo a; echo b; sleep 1000", 10_000, |line: String| (line == "b").then_some(7));
        assert!(matches!(found, Followed::Found(7)), "{found:?}");
    }

    #[test]
    fn documents_are_told_apart() {
        let mut seen = 0;
        let script = r#"printf '{"a": 1}\n{\n"a": 2}'; sleep 1000"#;
        let found = sh(script, 10_000, |value: Value| {
            seen += 1;
            (value["a"] == 2).then_some(())
        });
        assert!(matches!(found, Followed::Found(())), "{found:?}");
        assert_eq!(seen, 2);
    }

    #[test]
    fn deadlines_and_endings_are_told() {
        let never = |_: String| None::<()>;
        assert!(matches!(sh("sleep 1000", 100, never), Followed::TimedOut));
        let Followed::Ended(why) = sh("echo no such thing >&2", 10_000, never) else { panic!() };
        assert_eq!(why, "no such thing");
    }
}
