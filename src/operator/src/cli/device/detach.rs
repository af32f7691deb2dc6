//! The original table back.

use std::io::Write;

use clap::Args;
use eratrack_dm::Detached;

use super::machine::MachineArgs;
use super::{DeviceError, target};

/// What to take out.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The stack: its name, or any device of it
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Say what would be done, step by step, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Also take out a stack that the agent of a Kubernetes node keeps, and would put back
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Does it, or says what would be done.
pub(super) fn run(args: &DetachArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    let stack = target::stack(&host, &args.device)?;
    if args.dry_run {
        let plan = host.preview_detach(&stack)?;
        return writeln!(out, "{plan}nothing was changed").map_err(DeviceError::Print);
    }
    if !args.force {
        host.require_ours(&stack)?;
    }
    let said = match host.detach(&stack)? {
        Detached::Restored => "its device has its own table back",
        Detached::RemainsRemoved => {
            "its device went on without era, or is gone; the remains are removed"
        }
        Detached::NothingThere => "nothing of it was left",
        Detached::TopStays => return Err(DeviceError::TopStays { stack }),
    };
    writeln!(out, "stack {stack}: {said}").map_err(DeviceError::Print)
}
