//! Pools: disks that many stacks keep their metadata on.

mod view;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use eratrack_dm::FoundPool;
use eratrack_model::names::StackId;

use super::DeviceError;
use super::machine::MachineArgs;
use super::output::{self, Format};
use view::{AreaViews, FindingViews, PoolView, PoolViews};

/// What can be done with pools.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Make a pool of a whole disk, a partition or a volume
    ///
    /// The disk must be in no use, and blank: its first and last MiB all zero. What is on one that is not is lost, and so it
    /// must be named once more, by what it says of itself: the error of an attempt without --serial shows that.
    ///
    /// Example: eratrack device pool init /dev/disk/by-id/nvme-META
    Init(InitArgs),
    /// List the pools of this machine, or the areas of one
    ///
    /// Example: eratrack device pool list /dev/disk/by-id/nvme-META --output json
    List(ListArgs),
    /// Say what is not as it should be in a pool
    ///
    /// Damage (exit code 8) is a copy of the table that cannot be used, which the next change mends; and a device that maps
    /// what is not its area. That the disk has grown, or that nobody on this machine needs an area, is said as well.
    ///
    /// Example: eratrack device pool check /dev/disk/by-id/nvme-META
    Check(DiskArgs),
    /// Free an area whose stack has neither a record nor a device on this machine
    ///
    /// `detach` frees areas by itself; this is for one whose record was lost, or that another machine left.
    ///
    /// Example: eratrack device pool free /dev/disk/by-id/nvme-META data
    Free(FreeArgs),
    /// Have a pool use its disk to the end, after the disk has grown; stacks stay as they are
    ///
    /// Example: eratrack device pool grow /dev/vg0/metadata
    Grow(DiskArgs),
}

/// What to make a pool of.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    disk: DiskArgs,
    /// All that is on the disk may be lost: on the one that says this of itself, and on no other
    #[arg(long, value_name = "SERIAL")]
    serial: Option<String>,
}

/// Which ones to list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The pool's disk, to list its areas; without this, all pools
    #[arg(value_name = "DEVICE")]
    device: Option<PathBuf>,
    /// How to print them
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Which area to free.
#[derive(Debug, Args)]
pub(crate) struct FreeArgs {
    #[command(flatten)]
    disk: DiskArgs,
    /// The stack that the area is of
    #[arg(value_name = "STACK")]
    stack: StackId,
}

/// A pool's disk.
#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// The disk: a path below /dev
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Does what the command says.
pub(super) fn run(command: &PoolCommand, out: &mut impl Write) -> Result<(), DeviceError> {
    match command {
        PoolCommand::Init(InitArgs { disk, serial }) => {
            let made = disk.machine.host()?.init_pool(&disk.device, serial.as_deref())?;
            show(&PoolView::of(&made), disk, out)
        }
        PoolCommand::List(args) => list(args, out),
        PoolCommand::Check(disk) => check(disk, out),
        PoolCommand::Free(FreeArgs { disk, stack }) => {
            let pool = disk.machine.host()?.free_area(&disk.device, stack)?;
            show(&PoolView::of(&pool), disk, out)
        }
        PoolCommand::Grow(disk) => {
            let pool = disk.machine.host()?.grow_pool(&disk.device)?;
            show(&PoolView::of(&pool), disk, out)
        }
    }
}

fn show(view: &PoolView, disk: &DiskArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    output::print(out, disk.output, view).map_err(DeviceError::Print)
}

fn list(args: &ListArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let host = args.machine.host()?;
    if let Some(device) = &args.device {
        let areas = AreaViews::of(&host.pool(device)?);
        return output::print(out, args.output, &areas).map_err(DeviceError::Print);
    }
    let pools = host.pools()?;
    let broken = pools.iter().filter(|pool| pool.state.is_err()).count();
    let of = pools.len();
    let view = |FoundPool { device, path, state }: FoundPool| match state {
        Ok(pool) => PoolView::of(&pool),
        Err(error) => PoolView::broken(device, path, crate::exit::chain(&error)),
    };
    let views = PoolViews(pools.into_iter().map(view).collect());
    output::print(out, args.output, &views).map_err(DeviceError::Print)?;
    match broken {
        0 => Ok(()),
        left => Err(DeviceError::UnusablePools { left, of }),
    }
}

fn check(disk: &DiskArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let pool = disk.machine.host()?.pool(&disk.device)?;
    let findings = FindingViews::of(&pool);
    output::print(out, disk.output, &findings).map_err(DeviceError::Print)?;
    match findings.damage() {
        0 => Ok(()),
        count => Err(DeviceError::DamagedPool { path: disk.device.clone(), count }),
    }
}
