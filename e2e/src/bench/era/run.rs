//! Running what is measured.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{cleanup, failure::Outcome, process};

/// Seconds from start to end; what it prints goes nowhere.
pub(super) fn to_end(command: &mut Command) -> Outcome<f64> {
    let begun = Instant::now();
    let (mut child, _ticket) = cleanup::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    let status = child.wait()?;
    let seconds = begun.elapsed().as_secs_f64();
    if status.success() {
        return Ok(seconds);
    }
    Err(format!("`{}` ended with {status}", process::shown(command)).into())
}

/// What a process took.
pub(super) struct Ended {
    pub(super) seconds: f64,
    pub(super) peak_bytes: f64,
}

/// Runs a program that prints more than a pipe holds when it has done its work: while it waits for its reader, it is
/// asked how much memory it took.
pub(super) fn with_peak(command: &mut Command) -> Outcome<Ended> {
    let begun = Instant::now();
    let (mut child, _ticket) = cleanup::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut printed = child.stdout.take().ok_or("it has no output")?;
    let mut first = [0];
    printed.read_exact(&mut first)?;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let rest = io::copy(&mut printed, &mut io::sink())?;
    let ended = child.wait()?;
    let seconds = begun.elapsed().as_secs_f64();
    if !ended.success() || rest < 1 << 17 {
        return Err(format!(
            "`{}` ended with {ended} after {rest} bytes of output",
            process::shown(command)
        )
        .into());
    }
    Ok(Ended { seconds, peak_bytes: peak(&status)? })
}

/// Of `/proc/PID/status`, where it is in KiB (proc.5).
fn peak(status: &str) -> Outcome<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|it| it.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    Ok(kib * 1024.0)
}

/// How many instructions a program takes.
pub(super) fn callgrind(program: &Command) -> Outcome<f64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1"]);
    command.arg(program.get_program()).args(program.get_args());
    collected(&process::output(&mut command)?)
}

/// The line is `==PID== Collected : NUMBER`.
fn collected(log: &str) -> Outcome<f64> {
    let number = log.lines().find_map(|line| line.split_once("Collected :"));
    Ok(number.ok_or("callgrind has counted nothing")?.1.trim().parse()?)
}

/// The words and numbers that the measured program prints.
pub(super) struct Numbers<'t>(BTreeMap<&'t str, f64>);

impl<'t> Numbers<'t> {
    pub(super) fn parse(line: &'t str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pairs = words.as_chunks::<2>().0.iter();
        Self(pairs.filter_map(|[word, number]| Some((*word, number.parse().ok()?))).collect())
    }

    pub(super) fn get(&self, word: &str) -> Outcome<f64> {
        Ok(*self.0.get(word).ok_or_else(|| format!("{word} was not measured"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_is_understood() {
        assert!((collected("==7== \n==7== Collected : 110826\n").unwrap() - 110_826.0).abs() < 0.1);
        assert!(collected("==7== nothing\n").is_err());
        assert!((peak("VmPeak:\t9 kB\nVmHWM:\t    2 kB\n").unwrap() - 2048.0).abs() < 0.1);
        let numbers = Numbers::parse("micros 12 calls 3\n");
        assert!((numbers.get("micros").unwrap() - 12.0).abs() < 0.1);
        assert!(numbers.get("bytes").is_err());
    }

    #[test]
    fn a_program_that_fails_measures_nothing() {
        assert!(to_end(&mut Command::new("false")).is_err());
        assert!(to_end(&mut Command::new("true")).unwrap() < 60.0);
        assert!(with_peak(Command::new("echo").arg("short")).is_err());
        let long = with_peak(Command::new("seq").arg("100000")).unwrap();
        assert!(long.peak_bytes > 0.0 && long.seconds > 0.0);
    }
}
