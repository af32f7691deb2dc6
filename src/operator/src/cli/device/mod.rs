//! Commands for one machine, without Kubernetes.
//!
//! A command: arguments, parsed once -> what it asks of the machine or of an image -> an answer as data -> printed as
//! `--output` says. A file a command; what went wrong, and the exit code for it, in `error`.

mod changed;
mod error;
mod offline;
mod size;

use std::io::{self, BufWriter, Write};

use clap::Subcommand;

pub(crate) use error::DeviceError;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List the blocks that were written since an era, from dm-era's metadata
    ///
    /// What the kernel marked is listed, no more. It marks only the first block of a discard: if the device took discards
    /// since then, take the blocks after each range as changed too, as many as the longest discard can cover
    /// (`discard_max_bytes` of the era device, divided by the block and rounded up). The lists of the node agent have them.
    Changed(changed::ChangedArgs),
    /// Tell how much room dm-era's metadata needs at worst
    Size(size::SizeArgs),
}

/// Does what the command says.
pub(crate) fn run(command: DeviceCommand) -> Result<(), DeviceError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        DeviceCommand::Changed(args) => changed::run(&args, &mut out),
        DeviceCommand::Size(args) => size::run(&args, &mut out),
    };
    let done = done.and_then(|()| out.flush().map_err(DeviceError::Print));
    match done {
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
        Cli::try_parse_from([&["device"], words].concat()).unwrap().command
    }

    /// Metadata that a real kernel wrote; the log beside it says what was written.
    pub(super) fn fixture(name: &str) -> MemorySource {
        let path = format!("{}/../era/tests/fixtures/{name}.img.gz", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("gzip").args(["-dc", &path]).output().unwrap();
        assert!(output.status.success(), "{path}");
        MemorySource::new(output.stdout)
    }
}
