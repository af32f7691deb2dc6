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
    /// What to log: a level, or directives such as `info,kube=warn`
    #[arg(
        long,
        env = "ERATRACK_LOG",
        default_value = "info",
        global = true,
        value_name = "FILTER"
    )]
    pub(crate) log: String,
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

/// Installs the process-wide subscriber. Call it once.
pub(crate) fn init(args: &LogArgs) -> Result<(), BadFilter> {
    let filter = EnvFilter::builder()
        .parse(&args.log)
        .map_err(|source| BadFilter { value: args.log.clone(), source })?;
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
