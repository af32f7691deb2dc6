//! Boundaries, and metadata snapshots that are held by hand.

use std::io::Write;

use clap::Args;
use eratrack_dm::{Boundary, HeldByHand, Host, Joined, Joining, Released};
use eratrack_model::record::Record;
use serde::Serialize;

use super::machine::MachineArgs;
use super::output::{self, Format, Show};
use super::{DeviceError, target};

/// Of which stack.
#[derive(Debug, Args)]
pub(crate) struct OfStackArgs {
    /// The stack: its name, or any device of it
    #[arg(value_name = "DEVICE")]
    device: String,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Of which stacks.
#[derive(Debug, Args)]
pub(crate) struct BoundaryArgs {
    /// The stacks: their names, or any device of each
    #[arg(value_name = "DEVICE", required = true, num_args = 1..)]
    devices: Vec<String>,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Boundaries at one instant.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct BoundaryViews(Vec<BoundaryView>);

impl Show for BoundaryViews {
    fn names(&self) -> Vec<String> {
        self.0.iter().flat_map(Show::names).collect()
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let mut all: Vec<_> = self.0.iter().map(Show::rows).collect();
        let head = all.first().map(|(head, _)| head.clone()).unwrap_or_default();
        (head, all.iter_mut().flat_map(|(_, rows)| std::mem::take(rows)).collect())
    }
}

/// A boundary: the era from which later writes are known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BoundaryView {
    era: u32,
    chain: String,
    drained_milliseconds: u64,
    metadata_blocks_used: u64,
    metadata_blocks_total: u64,
}

impl Show for BoundaryView {
    fn names(&self) -> Vec<String> {
        vec![self.era.to_string()]
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let used = format!("{}/{}", self.metadata_blocks_used, self.metadata_blocks_total);
        let drained = format!("{} ms", self.drained_milliseconds);
        let row = vec![self.era.to_string(), self.chain.clone(), drained, used];
        (vec!["ERA", "CHAIN", "DRAINED IN", "METADATA BLOCKS"], vec![row])
    }
}

/// A metadata snapshot that is held.
#[derive(Debug, Serialize)]
struct HeldView {
    block: u64,
    era: u32,
}

impl Show for HeldView {
    fn names(&self) -> Vec<String> {
        vec![self.block.to_string()]
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        (vec!["BLOCK", "ERA"], vec![vec![self.block.to_string(), self.era.to_string()]])
    }
}

/// What was given back.
#[derive(Debug, Serialize)]
struct ReleasedView {
    released: &'static str,
}

impl Show for ReleasedView {
    fn names(&self) -> Vec<String> {
        vec![self.released.to_owned()]
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        (vec!["RELEASED"], vec![vec![self.released.to_owned()]])
    }
}

/// Draws a boundary; of several stacks one, at one instant.
pub(super) fn boundary(args: &BoundaryArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let mut records: Vec<Record> = Vec::new();
    for device in &args.devices {
        let record = target::record(&host, device)?;
        host.require_ours(&record.stack)?;
        if records.iter().any(|other| other.stack == record.stack) {
            return Err(DeviceError::Twice { stack: record.stack });
        }
        records.push(record);
    }
    if let [record] = &records[..] {
        let view = BoundaryView::of(record, host.boundary(record)?);
        return output::print(out, args.output, &view).map_err(DeviceError::Print);
    }
    let views = BoundaryViews(together(host, &records)?);
    output::print(out, args.output, &views).map_err(DeviceError::Print)
}

fn together(host: Host, records: &[Record]) -> Result<Vec<BoundaryView>, DeviceError> {
    let joining: Vec<_> =
        records.iter().map(|record| Joining { record: record.clone(), point: None }).collect();
    let host = host.with_holder(super::machine::holder()?);
    let joined =
        host.boundary_together(&joining).map_err(|error| DeviceError::Host(*error.source))?;
    let boundary = |joined: Joined| match joined {
        Joined::Boundary(boundary) => boundary,
        Joined::Point(point) => point.boundary,
    };
    let drawn = joined.into_iter().map(boundary);
    Ok(records.iter().zip(drawn).map(|(record, drawn)| BoundaryView::of(record, drawn)).collect())
}

impl BoundaryView {
    fn of(record: &Record, boundary: Boundary) -> Self {
        let Boundary { era, time: _, drained_in, metadata_used, metadata_total } = boundary;
        Self {
            era: era.0,
            chain: record.chain.to_string(),
            drained_milliseconds: u64::try_from(drained_in.as_millis()).unwrap_or(u64::MAX),
            metadata_blocks_used: metadata_used,
            metadata_blocks_total: metadata_total,
        }
    }
}

/// Takes the metadata snapshot and leaves it held.
pub(super) fn hold(args: &OfStackArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let record = target::record(&host, &args.device)?;
    let HeldByHand { block, era } = host.hold(&record)?;
    output::print(out, args.output, &HeldView { block, era }).map_err(DeviceError::Print)
}

/// Gives back whatever is held.
pub(super) fn release(args: &OfStackArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let record = target::record(&host, &args.device)?;
    host.require_ours(&record.stack)?;
    let released = match host.release(&record)? {
        Released::ByHand => "held by hand",
        Released::Stale => "left by a reader that was killed",
        Released::Nothing => "nothing",
    };
    output::print(out, args.output, &ReleasedView { released }).map_err(DeviceError::Print)
}
