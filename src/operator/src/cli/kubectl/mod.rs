//! `kubectl era`: what a cluster knows of changed blocks, for whoever may read it there.
//!
//! A command: arguments, parsed once -> objects, read with the user's own rights -> an answer as data (pure) -> printed as
//! `--output` says (pure). Nothing is written to the cluster.

mod access;
mod changed;
mod claim;
mod error;
mod status;
#[cfg(test)]
mod testing;
mod tree;
mod why;

use std::io::{self, BufWriter, Write};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use error::KubectlError;

use crate::telemetry::LogArgs;

/// The name of the file that kubectl looks for when a user says `kubectl era`.
pub(super) const PLUGIN: &str = "kubectl-era";

/// Changed blocks of volumes, from the cluster's own objects
#[derive(Debug, Parser)]
#[command(name = PLUGIN, bin_name = "kubectl era", version, propagate_version = true)]
pub(super) struct Plugin {
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    access: access::AccessArgs,
    #[command(subcommand)]
    pub(super) command: PluginCommand,
}

/// What the plugin can do.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    #[command(flatten)]
    Ask(KubectlCommand),
    /// Print a completion script for kubectl-era
    Completion {
        /// For which shell
        shell: Shell,
    },
}

/// Which cluster, and what is asked of it.
#[derive(Debug, Args)]
pub(crate) struct KubectlArgs {
    #[command(flatten)]
    access: access::AccessArgs,
    #[command(subcommand)]
    command: KubectlCommand,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum KubectlCommand {
    /// List the blocks that were written between two snapshots of a claim
    ///
    /// The lists of all snapshots between are read, checked against the digests in their statuses, and joined. Where that does
    /// not prove that nothing is missing there is no list, and the exit code is 10: copy the volume in full.
    ///
    /// Example: kubectl era changed shop/data --from data-202611222100 --to data-202611222200 --output csv
    Changed(changed::ChangedArgs),
    /// Show what is tracked, and whether the next snapshots will be incremental
    Status(status::StatusArgs),
    /// Tell in one sentence whether the next snapshot of a claim will be full, why, and what to do about it
    ///
    /// Example: kubectl era why shop/data
    Why(why::WhyArgs),
    /// Draw each EraTracking with its claims, their volumes, and their snapshots with types, eras and sizes
    Tree(tree::TreeArgs),
}

impl Plugin {
    /// What is asked, unless it is something else.
    pub(super) fn asked(self) -> Result<KubectlArgs, Shell> {
        match self.command {
            PluginCommand::Ask(command) => Ok(KubectlArgs { access: self.access, command }),
            PluginCommand::Completion { shell } => Err(shell),
        }
    }
}

/// Asks, and prints the answer.
pub(crate) async fn run(args: KubectlArgs) -> Result<(), KubectlError> {
    let cluster = args.access.connect().await?;
    let mut text = Vec::new();
    match args.command {
        KubectlCommand::Changed(args) => changed::run(&args, &cluster, &mut text).await,
        KubectlCommand::Status(args) => status::run(&args, &cluster, &mut text).await,
        KubectlCommand::Why(args) => why::run(&args, &cluster, &mut text).await,
        KubectlCommand::Tree(args) => tree::run(&args, &cluster, &mut text).await,
    }?;
    let mut out = BufWriter::new(io::stdout().lock());
    match out.write_all(&text).and_then(|()| out.flush()) {
        // A reader that went away (`| head`) is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(KubectlError::Print(error)),
        _ => Ok(()),
    }
}
