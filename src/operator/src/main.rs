//! `eratrack`: one binary, one subcommand a role. See `cli` for what there is.

mod agent;
mod cli;
mod controller;
mod delta;
mod event_note;
mod exit;
mod http_server;
mod metrics;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::report(cli::run())
}
