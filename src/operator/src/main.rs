//! `eratrack`: one binary, one subcommand a role. See `cli` for what there is.

mod agent;
mod cli;
mod controller;
#[allow(dead_code, unused_imports)] // until the plugin's commands are in
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
