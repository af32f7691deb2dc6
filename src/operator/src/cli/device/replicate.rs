//! A copy that follows a device.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use eratrack_dm::Host;
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;
use eratrack_replica::{Options, Phase, Progress, Replica, ReplicaError, Round, Start};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::machine::MachineArgs;
use super::output::{self, Format, Show, size as shown};
use super::progress::Meter;
use super::{DeviceError, target};
use crate::cli::args::seconds;
use crate::cli::size;

/// What to copy, and where.
#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    /// The device: a stack's name, or any device of it
    #[arg(value_name = "DEVICE")]
    device: String,
    /// A file, which is made if it is not there, or a block device that nobody uses; as large as the device or larger
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// Go on, a round in so much time, until SIGINT or SIGTERM; without this there is one round
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    every: Option<Duration>,
    /// Compare target and device in full after each round
    #[arg(long)]
    verify: bool,
    /// Copy in full over whatever is in a target that is not known to be this replica
    #[arg(long)]
    overwrite: bool,
    /// How much of the device may be overwritten during a round before the round fails; without this a tenth of the device,
    /// 64Mi to 1Gi, or what fits
    #[arg(long, value_parser = size::parse, value_name = "SIZE")]
    copies: Option<Bytes>,
    /// Copy no more than this a second
    #[arg(long, value_parser = size::parse, value_name = "SIZE")]
    max_rate: Option<Bytes>,
    /// Say what would be done, step by step, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print each round
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A finished round, for people and for scripts (docs/formats.md).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RoundView {
    stack: String,
    target: PathBuf,
    round: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    chain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u32>,
    era: u32,
    time: String,
    blocks: u64,
    bytes: u64,
    written_bytes: u64,
    milliseconds: u64,
    verified: bool,
    state: &'static str,
}

impl RoundView {
    fn new(record: &Record, target: &Path, round: &Round) -> Self {
        let (kind, why, since) = match &round.start {
            Start::Full(why) => ("Full", Some(why.to_string()), None),
            Start::Resume { since, .. } => ("Resumed", None, Some(since.0)),
            Start::Changed { since } => ("Changed", None, Some(since.0)),
        };
        let time = jiff::Timestamp::try_from(round.boundary.time).unwrap_or_default();
        Self {
            stack: record.stack.to_string(),
            target: target.to_owned(),
            round: round.number,
            kind,
            why,
            chain: record.chain.to_string(),
            since,
            era: round.boundary.era.0,
            time: format!("{time:.3}"),
            blocks: round.blocks,
            bytes: round.bytes,
            written_bytes: round.written,
            milliseconds: u64::try_from(round.copied_in.as_millis()).unwrap_or(u64::MAX),
            verified: round.verified_in.is_some(),
            state: "Consistent",
        }
    }
}

impl Show for RoundView {
    fn names(&self) -> Vec<String> {
        vec![self.era.to_string()]
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let head = vec!["ROUND", "KIND", "COPIED", "TOOK", "RATE", "ERA", "EQUALS", "VERIFIED"];
        let rate = self.bytes.saturating_mul(1000) / self.milliseconds.max(1);
        let row = vec![
            self.round.to_string(),
            self.kind.to_owned(),
            shown(self.bytes),
            format!("{}.{:03} s", self.milliseconds / 1000, self.milliseconds % 1000),
            format!("{}/s", shown(rate)),
            self.era.to_string(),
            self.time.clone(),
            if self.verified { "yes" } else { "no" }.to_owned(),
        ];
        (head, vec![row])
    }
}

/// The wish to end, from a terminal or from systemd.
struct Wish {
    stop: Arc<AtomicBool>,
    came: Receiver<()>,
}

impl Wish {
    fn listen() -> Result<Self, DeviceError> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(DeviceError::Signals)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, came) = mpsc::channel();
        let told = Arc::clone(&stop);
        thread::spawn(move || {
            for _ in signals.forever() {
                told.store(true, Ordering::Relaxed);
                let _ = sender.send(());
            }
        });
        Ok(Self { stop, came })
    }

    /// Waits; true when the wish came.
    fn comes_within(&self, time: Duration) -> bool {
        !matches!(self.came.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

/// Makes rounds.
pub(super) fn run(args: &ReplicateArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let record = target::record(&host, &args.device)?;
    host.require_ours(&record.stack)?;
    if args.dry_run {
        return preview(args, &host, record, out);
    }
    let wish = Wish::listen()?;
    let mut replica = open(args, &host, record.clone(), &wish.stop)?;
    if let Start::Full(why) = replica.start() {
        eprintln!("eratrack: copying all of {}: {why}", record.stack);
    }
    rounds(args, &record, &mut replica, &wish, out)
}

fn open<'a>(
    args: &ReplicateArgs,
    host: &'a Host,
    record: Record,
    stop: &'a AtomicBool,
) -> Result<Replica<'a>, DeviceError> {
    let options = Options {
        overwrite: args.overwrite,
        verify: args.verify,
        copies: args.copies,
        max_rate: args.max_rate,
    };
    let machine = args.machine.machine();
    let state_dir = &args.machine.state_dir;
    Ok(Replica::open((host, &machine), state_dir, record, &args.target, options, stop)?)
}

fn rounds(
    args: &ReplicateArgs,
    record: &Record,
    replica: &mut Replica<'_>,
    wish: &Wish,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    let mut meter = Meter::new();
    loop {
        let began = Instant::now();
        let round = replica.round(&mut |progress| show(&mut meter, progress));
        meter.clear();
        match round {
            Ok(round) => {
                let view = RoundView::new(record, replica.target().path(), &round);
                let printed = output::print(out, args.output, &view);
                printed.and_then(|()| out.flush()).map_err(DeviceError::Print)?;
            }
            Err(ReplicaError::Differs { path, ranges, bytes }) => {
                list(&ranges, out)?;
                return Err(ReplicaError::Differs { path, ranges, bytes }.into());
            }
            Err(error) if args.every.is_some() && error.is_transient() => {
                eprintln!("eratrack: {}; trying again", crate::exit::chain(&error));
            }
            Err(error) => return Err(error.into()),
        }
        let Some(every) = args.every else { return Ok(()) };
        if wish.comes_within(every.saturating_sub(began.elapsed())) {
            return Ok(());
        }
    }
}

fn show(meter: &mut Meter, progress: Progress) {
    let what = match progress.phase {
        Phase::Seeding => "copying all",
        Phase::Copying => "copying",
        Phase::Verifying => "comparing",
    };
    meter.show(what, progress.done, progress.total);
}

/// What differs, as extents in bytes.
fn list(ranges: &[(u64, u64)], out: &mut impl Write) -> Result<(), DeviceError> {
    let lines = ranges.iter().map(|(offset, length)| format!("{offset},{length}\n"));
    let text = std::iter::once("offset,length\n".to_owned()).chain(lines).collect::<String>();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(DeviceError::Print)
}

fn preview(
    args: &ReplicateArgs,
    host: &Host,
    record: Record,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    let there = std::fs::metadata(&args.target);
    // A new or empty file would be made as large as the device.
    let new = there.map_or(true, |found| found.is_file() && found.len() == 0);
    let plan = host.preview_point_in_time(&record)?;
    let begin = if new {
        "all would be copied: there is no copy yet".to_owned()
    } else {
        match open(args, host, record, &AtomicBool::new(false))?.start() {
            Start::Full(why) => format!("all would be copied: {why}"),
            Start::Resume { cursor, .. } => format!("the first copy would go on at {cursor}"),
            Start::Changed { since } => {
                format!("what was written in era {since} or later would be copied")
            }
        }
    };
    write!(out, "{begin}\n{plan}then the table that it had; nothing was changed\n")
        .map_err(DeviceError::Print)
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::parse;
    use super::*;

    #[test]
    fn times_and_sizes_are_read() {
        let words = ["replicate", "data", "/b", "--every", "30s", "--max-rate", "10Mi"];
        let DeviceCommand::Replicate(args) = parse(&words) else { panic!("{words:?}") };
        assert_eq!(args.every, Some(Duration::from_secs(30)));
        assert_eq!((args.max_rate, args.copies), (Some(Bytes(10 << 20)), None));
    }

    #[test]
    fn a_round_is_one_object_and_one_row() {
        let view = RoundView {
            stack: "data".into(),
            target: "/b".into(),
            round: 3,
            kind: "Changed",
            why: None,
            chain: "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".into(),
            since: Some(4),
            era: 7,
            time: "2026-01-02T03:04:05.678Z".into(),
            blocks: 16,
            bytes: 1 << 20,
            written_bytes: 65536,
            milliseconds: 250,
            verified: false,
            state: "Consistent",
        };
        let mut out = Vec::new();
        output::print(&mut out, Format::Table, &view).unwrap();
        let text = String::from_utf8(out).unwrap();
        let row =
            "3       Changed   1Mi      0.250 s   4Mi/s   7     2026-01-02T03:04:05.678Z   no";
        assert_eq!(text.lines().nth(1), Some(row));
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["writtenBytes"], &json["since"]), (&65536.into(), &4.into()));
        assert!(json.get("why").is_none());
    }
}
