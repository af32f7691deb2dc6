//! What is there: all stacks, or one of them.

use std::io::Write;

use clap::Args;

use super::machine::MachineArgs;
use super::output::{self, Format};
use super::view::{StackView, StackViews};
use super::{DeviceError, target};

/// How to list them.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print the stacks
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Which one to look at.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The stack: its name, or any device of it
    #[arg(value_name = "DEVICE")]
    device: String,
    /// How to print the stack
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Lists all stacks.
pub(super) fn list(args: &ListArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let views = host.stacks()?.into_iter().map(|known| StackView::of(&host, known));
    let views = StackViews(views.collect::<Result<_, _>>()?);
    output::print(out, args.output, &views).map_err(DeviceError::Print)
}

/// Shows one stack, with what era says.
pub(super) fn status(args: &StatusArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let record = target::record(&host, &args.device)?;
    let view = StackView::of_record(&host, &record)?.asking_era(&host, &record)?;
    output::print(out, args.output, &view).map_err(DeviceError::Print)
}
