//! The command line: parse once, start the runtime where one is needed, hand over to the role.

mod args;
mod device;
mod kubectl;
mod size;

use std::ffi::OsStr;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use args::{AgentArgs, ControllerArgs, UninstallArgs};
pub(crate) use device::DeviceError;
pub(crate) use kubectl::KubectlError;

use crate::exit::Failure;
use crate::telemetry::{self, LogArgs};
use crate::{agent, controller};

/// Changed-block tracking for Kubernetes volumes, on the kernel's own dm-era
#[derive(Debug, Parser)]
#[command(name = "eratrack", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Resolve EraTrackings, keep EraVolumes, fire schedules, prune snapshots (a Deployment)
    Controller(ControllerArgs),
    /// Attach, watch and read the volumes of one node (a privileged DaemonSet)
    Agent(AgentArgs),
    /// Give every tracked volume its original table back, before the chart goes
    Uninstall(UninstallArgs),
    /// Print the custom resource definitions as YAML
    Crds,
    /// Track devices of one machine, without Kubernetes
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Ask a cluster about changed blocks; the same as `kubectl era`, once this file is in the path as kubectl-era
    Kubectl(kubectl::KubectlArgs),
    /// Hold several volumes suspended for a moment: what an agent starts, and nobody else
    #[command(hide = true)]
    HoldGroup,
    /// Write the manual pages
    ///
    /// Example: eratrack man /usr/local/share/man/man1
    Man {
        /// Into which directory
        dir: PathBuf,
    },
    /// Print a completion script
    ///
    /// Example: `eratrack completion bash > /etc/bash_completion.d/eratrack`
    Completion {
        /// For which shell
        shell: Shell,
    },
}

/// Parses the process's arguments and does what they say.
pub(crate) fn run() -> Result<(), Failure> {
    if is_plugin(std::env::args_os().next().as_deref()) {
        return plugin(kubectl::Plugin::parse());
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Controller(args) => serve(&cli.log, controller::run(args)),
        Command::Agent(args) => {
            serve(&cli.log, async { agent::run(args).await.map_err(Failure::other) })
        }
        Command::Uninstall(args) => serve(&cli.log, controller::uninstall(args)),
        Command::Crds => print(eratrack_api::crd::crds_yaml().map_err(Failure::other)?.as_bytes()),
        Command::Device(command) => {
            telemetry::init_for_command(&cli.log).map_err(Failure::other)?;
            Ok(device::run(command)?)
        }
        Command::Kubectl(args) => ask(&cli.log, args),
        Command::HoldGroup => {
            telemetry::init_for_command(&cli.log).map_err(Failure::other)?;
            eratrack_dm::linux::serve(&|_| ()).map_err(Failure::other)
        }
        Command::Man { dir } => manual(&dir).map_err(Failure::other),
        Command::Completion { shell } => completion(shell, Cli::command(), "eratrack"),
    }
}

/// kubectl calls a file of that name, which may be a link to this one.
fn is_plugin(called: Option<&OsStr>) -> bool {
    let stem = called.and_then(|called| Path::new(called).file_stem());
    stem.is_some_and(|stem| stem == kubectl::PLUGIN)
}

fn plugin(plugin: kubectl::Plugin) -> Result<(), Failure> {
    let log = plugin.log.clone();
    match plugin.asked() {
        Ok(args) => ask(&log, args),
        Err(shell) => completion(shell, kubectl::Plugin::command(), kubectl::PLUGIN),
    }
}

fn ask(log: &LogArgs, args: kubectl::KubectlArgs) -> Result<(), Failure> {
    telemetry::init_for_command(log).map_err(Failure::other)?;
    block_on(async { Ok(kubectl::run(args).await?) })
}

fn completion(shell: Shell, mut command: clap::Command, name: &str) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Runs a role.
fn serve(log: &LogArgs, role: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    telemetry::init(log).map_err(Failure::other)?;
    block_on(role)
}

/// One thread is enough for waiting on the API server; what blocks runs on the blocking pool.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)?
        .block_on(work)
}

/// A page for each command, as `man` finds them: `eratrack-device-attach.1`; the plugin's under its own name.
fn manual(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), dir)?;
    clap_mangen::generate_to(kubectl::Plugin::command().disable_help_subcommand(true), dir)
}

/// Prints to stdout; a reader that went away (`| head`) is no failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::other(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        kubectl::Plugin::command().debug_assert();
    }

    #[test]
    fn called_as_a_plugin_it_is_one() {
        let is = |name: &str| is_plugin(Some(OsStr::new(name)));
        assert!(is("/usr/local/bin/kubectl-era") && is("kubectl-era"));
        assert!(!is("eratrack") && !is_plugin(None));
        let words =
            ["kubectl-era", "status", "--namespace", "shop", "--context", "x", "-o", "json"];
        assert!(kubectl::Plugin::try_parse_from(words).is_ok());
        let words = ["eratrack", "kubectl", "-n", "shop", "why", "data"];
        assert!(Cli::try_parse_from(words).is_ok());
    }

    #[test]
    fn a_controller_needs_only_its_namespace() {
        let cli = Cli::try_parse_from(["eratrack", "controller", "--namespace", "eratrack-system"]);
        let Ok(Cli { command: Command::Controller(args), .. }) = cli else { panic!("{cli:?}") };
        assert_eq!(args.lease_name, "eratrack-controller");
        assert_eq!(args.min_granularity.bytes(), 64 << 10);
        assert_eq!(args.keep_max, 128);
    }

    #[test]
    fn a_bad_size_is_said_with_its_remedy() {
        let error = Cli::try_parse_from([
            "eratrack",
            "controller",
            "--namespace",
            "x",
            "--min-granularity",
            "64KB",
        ])
        .expect_err("64KB is no binary quantity")
        .to_string();
        assert!(
            error.contains("--min-granularity") && error.contains("64KB") && error.contains("Ki"),
            "{error}"
        );
    }
}
