//! Era under a device.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use eratrack_dm::{AttachRequest, Host, HostError, Preview, StageRequest};
use eratrack_model::discards::DiscardPolicy;
use eratrack_model::names::{DmName, StackId};
use eratrack_model::place::MetadataRequest;
use eratrack_model::record::Stage;
use eratrack_model::refusal::Refusal;
use eratrack_model::units::Granularity;

use super::machine::MachineArgs;
use super::output::{self, Format};
use super::view::StackView;
use super::{DeviceError, target};

/// What to track, and how.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The device: a path, or a device-mapper name
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The size of a tracked block: a power of two from 4Ki to 1Gi, or in sectors as 4096s
    #[arg(long, default_value_t, value_name = "SIZE")]
    granularity: Granularity,
    /// Put /dev/mapper/NAME over the device, which nobody may be using, and track that: for disks and partitions, which are
    /// no device-mapper devices. From then on use /dev/mapper/NAME only: what is written around it is not seen
    #[arg(long, value_name = "NAME")]
    stage: Option<DmName>,
    /// Where dm-era's metadata goes: `file:PATH`, `lv:VG` (a volume that is made for it) or `pool:DEVICE` (an area of a disk that
    /// `pool init` prepared); without this, a file in the state directory
    #[arg(long, value_name = "PLACE")]
    metadata: Option<MetadataRequest>,
    /// Make /dev/mapper/eratrack-STACK-access, a second way to the metadata for tools that insist on opening it exclusively
    #[arg(long)]
    era_access: bool,
    /// What becomes of discards; without this the device decides
    #[arg(long, value_enum, value_name = "POLICY")]
    discards: Option<Discards>,
    /// What to call the stack; without this, like the device
    #[arg(long, value_name = "STACK")]
    name: Option<StackId>,
    /// Say what would be done, step by step, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the stack
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Discards {
    /// They go through, each no longer than one block
    Limit,
    /// There are none: the device reports that it takes none
    Off,
}

/// Does it, or says what would be done.
pub(super) fn run(args: &AttachArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let request = request(args, &host)?;
    if args.dry_run {
        let preview = host.preview(&request).map_err(|error| refused(args, error))?;
        return show(&preview, out).map_err(DeviceError::Print);
    }
    let attached = host.attach(&request).map_err(|error| refused(args, error))?;
    if !attached.created {
        eprintln!("eratrack: stack {} was in place already; its chain goes on", request.stack);
    }
    let view = StackView::of_record(&host, &attached.record)?;
    let view = view.asking_era(&host, &attached.record)?;
    output::print(out, args.output, &view).map_err(DeviceError::Print)
}

/// Here there is a remedy that a node's agent has not.
fn refused(args: &AttachArgs, error: HostError) -> DeviceError {
    match error {
        HostError::Refused(Refusal::NotDeviceMapper { .. }) => {
            DeviceError::NeedsStage { named: args.device.clone() }
        }
        error => error.into(),
    }
}

fn request(args: &AttachArgs, host: &Host) -> Result<AttachRequest, DeviceError> {
    let number = target::device(host, &args.device)?;
    let named = args.stage.as_ref().map_or(args.device.as_str(), DmName::as_str);
    let stack = args.name.clone().map_or_else(|| target::stack_name(named), Ok)?;
    let mut request = AttachRequest::new(stack, number, args.granularity);
    request.discards = args.discards.map(|discards| match discards {
        Discards::Limit => DiscardPolicy::Limit,
        Discards::Off => DiscardPolicy::Off,
    });
    request.access = args.era_access;
    request.metadata = args.metadata.clone().unwrap_or_default();
    if let Some(name) = &args.stage {
        let device = Stage { path: lasting(&args.device)?, identity: host.identity(number)? };
        request.stage = Some(StageRequest { name: name.clone(), device });
    }
    Ok(request)
}

/// A path that still leads to the device after a reboot, as far as links tell.
fn lasting(named: &str) -> Result<PathBuf, DeviceError> {
    let given = if named.contains('/') {
        std::path::absolute(named)
            .map_err(|source| DeviceError::Open { path: named.into(), source })?
    } else {
        Path::new("/dev/mapper").join(named)
    };
    if given.starts_with("/dev/disk") {
        return Ok(given);
    }
    let node = std::fs::canonicalize(&given).unwrap_or_else(|_| given.clone());
    let links = std::fs::read_dir("/dev/disk/by-id").into_iter().flatten().flatten();
    let mut found: Vec<_> = links
        .map(|entry| entry.path())
        .filter(|link| std::fs::canonicalize(link).is_ok_and(|to| to == node))
        .collect();
    found.sort();
    Ok(found.into_iter().next().unwrap_or(given))
}

fn show(preview: &Preview, out: &mut impl Write) -> io::Result<()> {
    let Preview { record, plan, steps_before } = preview;
    writeln!(out, "stack {}, {} blocks of {}", record.stack, record.blocks(), record.granularity)?;
    for step in steps_before {
        writeln!(out, "first {step}")?;
    }
    write!(out, "{plan}")?;
    writeln!(out, "nothing was changed")
}
