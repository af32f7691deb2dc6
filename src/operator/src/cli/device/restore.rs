//! Stacks over a reboot.

use std::io::Write;

use clap::Args;
use eratrack_dm::{RestoreOutcome, Restored, SealOutcome};
use eratrack_model::continuity::Trust;
use eratrack_model::record::Phase;
use serde::Serialize;

use super::DeviceError;
use super::machine::MachineArgs;
use super::output::{self, Format, Show};
use super::progress::Meter;

/// How to put them back.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Vouch that nobody else writes to this machine's disks while it is off, and that every boot of it runs `restore`: then
    /// the chain goes on also for devices in which no write from elsewhere would show
    #[arg(long)]
    trust_powered_off: bool,
    /// How to print what was done
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Where to look.
#[derive(Debug, Args)]
pub(crate) struct SealArgs {
    /// How to print what was done
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// What became of a stack.
#[derive(Debug, Serialize)]
struct Line {
    stack: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Lines(Vec<Line>);

impl Show for Lines {
    fn names(&self) -> Vec<String> {
        self.0.iter().map(|line| line.stack.clone()).collect()
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let cell = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let row = |line: &Line| {
            vec![line.stack.clone(), line.outcome.to_owned(), cell(&line.chain), cell(&line.why)]
        };
        (vec!["STACK", "OUTCOME", "CHAIN", "WHY"], self.0.iter().map(row).collect())
    }
}

/// Puts every stack back.
pub(super) fn restore(args: &RestoreArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let trust = if args.trust_powered_off { Trust::PoweredOff } else { Trust::Nothing };
    let mut meter = Meter::new();
    let restored = host.restore(trust, |stack| meter.name("restoring", stack));
    meter.clear();
    let lines: Vec<_> = restored?.into_iter().map(line).collect();
    let failed = lines.iter().filter(|line| line.outcome == "Failed").count();
    finish(out, args.output, &Lines(lines), failed, "restored")
}

fn line(Restored { stack, outcome }: Restored) -> Line {
    let (outcome, chain, why) = match outcome {
        Ok(RestoreOutcome::InPlace(record)) => ("InPlace", Some(record.chain), None),
        Ok(RestoreOutcome::Intact(record)) => ("Intact", Some(record.chain), None),
        Ok(RestoreOutcome::Broken { record, why }) => ("Broken", Some(record.chain), Some(why)),
        Ok(RestoreOutcome::Left { why }) => ("Left", None, Some(why)),
        Ok(RestoreOutcome::Removed) => ("Removed", None, None),
        Err(error) => ("Failed", None, Some(crate::exit::chain(&error))),
    };
    Line { stack: stack.to_string(), outcome, chain: chain.map(|chain| chain.to_string()), why }
}

/// Seals every stack, so that its chain may go on after a reboot.
pub(super) fn seal(args: &SealArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let (mut lines, mut meter) = (Vec::new(), Meter::new());
    for known in host.stacks()? {
        let Ok(Some(record)) = known.record else { continue };
        if record.phase != Phase::Attached {
            continue;
        }
        meter.name("sealing", &record.stack);
        let (outcome, why) = match host.seal(&record) {
            Ok(SealOutcome::Sealed) => ("Sealed", None),
            Ok(SealOutcome::InUse { open_count }) => {
                ("InUse", Some(format!("its device is open {open_count} times")))
            }
            Ok(SealOutcome::NotIntact) => {
                ("NotIntact", Some("its device does not go through era".into()))
            }
            Err(error) => ("Failed", Some(crate::exit::chain(&error))),
        };
        let (stack, chain) = (record.stack.to_string(), Some(record.chain.to_string()));
        lines.push(Line { stack, outcome, chain, why });
    }
    meter.clear();
    let unsealed = lines.iter().filter(|line| line.outcome != "Sealed").count();
    finish(out, args.output, &Lines(lines), unsealed, "sealed")
}

fn finish(
    out: &mut impl Write,
    format: Format,
    lines: &Lines,
    left: usize,
    done: &'static str,
) -> Result<(), DeviceError> {
    let of = lines.0.len();
    output::print(out, format, lines).map_err(DeviceError::Print)?;
    if left == 0 { Ok(()) } else { Err(DeviceError::Left { left, of, done }) }
}
