//! Logs: `tracing` to stderr, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: a level, or directives such as `info,kube=warn`; without this `info`, and `warn` for `device` and `kubectl`
    #[arg(long, env = "ERATRACK_LOG", global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How a log line looks
    #[arg(long, env = "ERATRACK_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
}

/// The filter could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log {value:?} is not a level (error, warn, info, debug, trace) nor a list of target=level"
)]
pub(crate) struct BadFilter {
    value: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Installs the process-wide subscriber of a role that runs for long. Call it once.
pub(crate) fn init(args: &LogArgs) -> Result<(), BadFilter> {
    install(args, "info")
}

/// The same for a command that says itself what it did.
pub(crate) fn init_for_command(args: &LogArgs) -> Result<(), BadFilter> {
    install(args, "warn")
}

fn install(args: &LogArgs, usual: &str) -> Result<(), BadFilter> {
    let filter = args.log.as_deref().unwrap_or(usual);
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| BadFilter { value: filter.to_owned(), source })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
