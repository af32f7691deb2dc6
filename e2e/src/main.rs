//! The harness of eratrack: a real kernel, a real Kubernetes, the demo.
//!
//! Called as `cargo e2e`. Everything runs on this machine and touches nothing of it: kernels run as processes
//! (User-Mode Linux), networks in namespaces of their own, files under `target/e2e`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cleanup;
mod cluster;
mod demo;
mod failure;
mod generate;
mod guest;
mod paths;
mod process;
mod progress;
mod scenario;
mod setup;
mod test;
mod wait;

use failure::Outcome;

#[derive(Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e", about, long_about = LONG_ABOUT)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
The harness of eratrack: a real kernel, a real Kubernetes, the demo.

It needs Rust, Go and, to install what is missing, apt and root. Kernels run as processes (User-Mode Linux), networks \
in namespaces of their own; nothing of this machine is changed but packages it lacks, and files under target/.

How long it takes on two cores: the first run builds Kubernetes and eratrack, up to 20 minutes; after that the demo \
takes under 4 minutes and the whole test run under 10.";

#[derive(Subcommand)]
enum Command {
    /// Show eratrack at work: a cluster, an application, its changed blocks (first run: up to 20 minutes, then under 4)
    Demo {
        /// Leave the cluster up afterwards and say how to use it; `cargo e2e down` ends it
        #[arg(long)]
        keep: bool,
    },
    /// Run the tests of every tier, a line a test (under 10 minutes once all is built)
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
        /// Only this tier
        #[arg(long, value_enum)]
        tier: Option<test::Tier>,
    },
    /// End what an earlier run left up: a cluster kept by `demo --keep`, or what a killed run could not clean up
    Down,
    /// Install and build what the other commands need, saying what and why
    Setup,
    /// Boot a kernel and run a command in it as root: a look at what a kernel test sees
    Guest {
        /// Memory of the guest in MiB
        #[arg(long, default_value_t = 1024)]
        memory: u32,
        /// Give up after this many seconds
        #[arg(long, default_value_t = 600)]
        deadline: u64,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Write the files that are generated from the code: CRDs, chart, manifests, reference pages
    Generate {
        /// Change nothing; fail if a file is not what would be generated
        #[arg(long)]
        check: bool,
    },
    /// Measure what tracking costs: throughput and stalls as ratios within one boot, memory, requests (about 50 minutes)
    Bench {
        /// Only benchmarks whose name contains this
        filter: Option<String>,
    },
    /// Wait for the end of the run that started this, and undo what it left
    #[command(hide = true)]
    Reap,
    /// Serve a root shell to the harness: what runs in a node's guest
    #[command(hide = true)]
    NodeShell,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Inside a guest the journals of the machine's runs are in sight, and none of its business.
    if !matches!(arguments.command, Command::NodeShell | Command::Reap)
        && let Err(error) = cleanup::install()
    {
        eprintln!("error: cannot handle signals: {error}");
        return ExitCode::FAILURE;
    }
    let _finish = cleanup::Finish;
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", failure::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Demo { keep } => demo::run(keep).map(|()| ExitCode::SUCCESS),
        Command::Test { filter, tier } => test::run(filter.as_deref(), tier),
        Command::Down => {
            cleanup::down();
            Ok(ExitCode::SUCCESS)
        }
        Command::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Command::Guest { memory, deadline, command } => guest::command(memory, deadline, &command),
        Command::Generate { check } => generate::run(check).map(|()| ExitCode::SUCCESS),
        Command::Bench { filter } => bench::run(filter.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::Reap => {
            cleanup::reap();
            Ok(ExitCode::SUCCESS)
        }
        Command::NodeShell => cluster::serve_node_shell().map(|()| ExitCode::SUCCESS),
    }
}
