//! Commands for one machine, without Kubernetes.

use std::io;

use clap::Subcommand;

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {}

/// Does what the command says.
pub(crate) fn run(command: DeviceCommand) -> Result<(), io::Error> {
    match command {}
}
