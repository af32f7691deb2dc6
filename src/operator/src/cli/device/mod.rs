//! Commands for one machine, without Kubernetes.
//!
//! A command: arguments, parsed once -> what it asks of the machine or of an image -> an answer as data -> printed as
//! `--output` says. A file a command; what went wrong, and the exit code for it, in `error`.

mod attach;
mod changed;
mod check;
mod detach;
mod dump;
mod error;
mod heat_map;
mod look;
mod machine;
mod offline;
pub(super) mod output;
mod pool;
mod progress;
mod replicate;
mod restore;
mod size;
mod snapshot;
mod source;
mod target;
mod tree;
mod unit;
mod view;
mod watched;

use std::io::{self, BufWriter, Write};

use clap::Subcommand;

pub(crate) use error::DeviceError;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Put era under a device, while it is in use
    ///
    /// Example: eratrack device attach /dev/vg0/data --granularity 64Ki
    Attach(attach::AttachArgs),
    /// Give a device its own table back, while it is in use
    ///
    /// Example: eratrack device detach /dev/vg0/data
    Detach(detach::DetachArgs),
    /// List the stacks of this machine
    List(look::ListArgs),
    /// Show a stack in full, with what era says: costs era a commit of its metadata
    ///
    /// Example: eratrack device status data --output json
    Status(look::StatusArgs),
    /// Draw stacks as lsblk draws devices, with eras and usage
    Tree(tree::TreeArgs),
    /// Draw a boundary: `changed --since` the era it prints lists what is written from now on
    ///
    /// Example: ERA=$(eratrack device boundary data --output name)
    ///
    /// Of several devices it is one boundary, at one instant: all are suspended together, for milliseconds, and an era is
    /// printed for each, in the order given.
    Boundary(snapshot::BoundaryArgs),
    /// Take era's metadata snapshot and leave it held, for as many readings of one moment as you like
    ///
    /// Reading commands hold and release one by themselves; this is for reading several times, or with other tools. Until it
    /// is released, `changed` and `dump` read it, and no newer one can be taken.
    Hold(snapshot::OfStackArgs),
    /// Give back the metadata snapshot that is held
    Release(snapshot::OfStackArgs),
    /// Keep a copy of a device that follows it: first all of it, then only what changed
    ///
    /// Example: eratrack device replicate /dev/vg0/data /backup/data.img --every 30s
    ///
    /// Each round ends with a target that equals the device at one moment, while the device goes on being written: what is
    /// overwritten meanwhile is kept aside (--copies). A call that is ended or killed anywhere is made up for by the next one.
    Replicate(replicate::ReplicateArgs),
    /// After a boot: put every stack back, before its device is used
    ///
    /// Says for each whether its chain goes on or has ended, and why. It goes on where `seal` ran at shutdown and nothing was
    /// written to the device since. `install-unit` has both done by systemd.
    Restore(restore::RestoreArgs),
    /// At shutdown: write down what each device holds, so that its chain may go on after the boot
    Seal(restore::SealArgs),
    /// Write a systemd unit that restores at start-up and seals at shutdown, and a udev rule that has writes counted
    InstallUnit(unit::InstallUnitArgs),
    /// List the blocks that were written since an era, from dm-era's metadata
    ///
    /// What the kernel marked is listed, no more. It marks only the first block of a discard: if the device took discards
    /// since then, take the blocks after each range as changed too, as many as the longest discard can cover
    /// (`discard_max_bytes` of the era device, divided by the block and rounded up). The lists of the node agent have them.
    ///
    /// Example: eratrack device changed --image era-metadata.img --since 17
    ///
    /// Example: eratrack device changed --image era-metadata.img --since 17 --bitmap=changed.svg
    Changed(changed::ChangedArgs),
    /// Print all that dm-era's metadata says: every writeset, and the last era of every block
    ///
    /// The XML is that of `era_dump`, byte for byte, so that `era_restore` takes it. Where a device ended without being
    /// suspended, the writeset of the era that was current is in it too: `era_dump` leaves that out, and what was written in
    /// that era would be lost.
    ///
    /// Example: eratrack device dump --image era-metadata.img --output json
    Dump(dump::DumpArgs),
    /// Check the structure of dm-era's metadata in full
    ///
    /// Every block that is in use is read: checksums, block numbers, bounds and keys; writesets, eras, the metadata snapshot,
    /// and the space map's counts against what refers to each block. All that is wrong is listed, with the way to it. Errors
    /// mean that no list may be read from such metadata (exit code 8); warnings, that room is lost.
    ///
    /// Example: eratrack device check --image era-metadata.img
    Check(check::CheckArgs),
    /// Pools: disks that many stacks keep their metadata on
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Tell how much room dm-era's metadata needs at worst, and how that comes about
    ///
    /// For the granularity asked for in full, for all others in short, so that one can be chosen: a finer one makes shorter
    /// copies and needs more metadata.
    ///
    /// Example: eratrack device size /dev/vg0/data --granularity 64Ki
    ///
    /// Example: eratrack device size 1Ti --granularity 4096s --output json
    Size(size::SizeArgs),
}

/// Does what the command says.
pub(crate) fn run(command: DeviceCommand) -> Result<(), DeviceError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        DeviceCommand::Attach(args) => attach::run(&args, &mut out),
        DeviceCommand::Detach(args) => detach::run(&args, &mut out),
        DeviceCommand::List(args) => look::list(&args, &mut out),
        DeviceCommand::Status(args) => look::status(&args, &mut out),
        DeviceCommand::Tree(args) => tree::run(&args, &mut out),
        DeviceCommand::Boundary(args) => snapshot::boundary(&args, &mut out),
        DeviceCommand::Hold(args) => snapshot::hold(&args, &mut out),
        DeviceCommand::Release(args) => snapshot::release(&args, &mut out),
        DeviceCommand::Replicate(args) => replicate::run(&args, &mut out),
        DeviceCommand::Restore(args) => restore::restore(&args, &mut out),
        DeviceCommand::Seal(args) => restore::seal(&args, &mut out),
        DeviceCommand::InstallUnit(args) => unit::run(&args, &mut out),
        DeviceCommand::Changed(args) => changed::run(&args, &mut out),
        DeviceCommand::Check(args) => check::run(&args, &mut out),
        DeviceCommand::Dump(args) => dump::run(&args, &mut out),
        DeviceCommand::Pool(command) => pool::run(&command, &mut out),
        DeviceCommand::Size(args) => size::run(&args, &mut out),
    };
    // Also what was printed before an error: the findings of a check.
    let flushed = out.flush().map_err(DeviceError::Print);
    match done.and(flushed) {
        // A reader that went away (`| head`) is no failure.
        Err(DeviceError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod testing {
    use super::DeviceCommand;
    use clap::Parser;
    use era_metadata::MemorySource;
    use std::process::Command;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: DeviceCommand,
    }

    /// The command that a user's words are.
    pub(super) fn parse(words: &[&str]) -> DeviceCommand {
        try_parse(words).unwrap()
    }

    /// The same, of words that may be refused.
    pub(super) fn try_parse(words: &[&str]) -> Result<DeviceCommand, clap::Error> {
        Ok(Cli::try_parse_from([&["device"], words].concat())?.command)
    }

    /// Metadata that a real kernel wrote; the log beside it says what was written.
    pub(super) fn fixture(name: &str) -> MemorySource {
        let path = format!("{}/../era/tests/fixtures/{name}.img.gz", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("gzip").args(["-dc", &path]).output().unwrap();
        assert!(output.status.success(), "{path}");
        MemorySource::new(output.stdout)
    }
}
