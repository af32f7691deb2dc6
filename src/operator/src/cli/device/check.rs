//! Whether dm-era's metadata is sound.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use era_metadata::check::{self, Finding, Report, Severity, Summary};
use serde::Serialize;

use super::DeviceError;
use super::progress::Meter;
use super::source::SourceArgs;

/// What to check, and how to tell.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Show no more findings than this; all are counted
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u16,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each finding, and what the metadata is
    Table,
    /// An object with the findings and the figures
    Json,
}

/// Checks what there is.
pub(super) fn run(args: &CheckArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let checked = args
        .source
        .read(Meter::new(), |source, view| check::check(&source, view, args.limit.into()))?;
    let report =
        checked.map_err(|source| DeviceError::Metadata { path: args.source.name(), source })?;
    print(args, &report, out)
}

/// Prints the findings; damage is an error.
fn print(args: &CheckArgs, report: &Report, out: &mut impl Write) -> Result<(), DeviceError> {
    match args.output {
        Output::Table => print_table(report, out),
        Output::Json => print_json(report, out),
    }
    .map_err(DeviceError::Print)?;
    if report.is_clean() {
        return Ok(());
    }
    Err(DeviceError::Unsound { path: args.source.name(), errors: report.errors })
}

fn print_table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{:8} {finding}", severity(finding))?;
    }
    let Report { summary, errors, warnings, findings } = report;
    let shown = findings.len() as u64;
    if shown < errors + warnings {
        writeln!(out, "and {} more", errors + warnings - shown)?;
    }
    if let Some(summary) = summary {
        print_summary(summary, out)?;
    }
    writeln!(out, "errors             {errors:>12}\nwarnings           {warnings:>12}")
}

fn print_summary(summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let Summary {
        granularity_sectors,
        nr_blocks,
        current_era,
        archived,
        current_writeset,
        metadata_snapshot,
        used_blocks,
        managed_blocks,
    } = *summary;
    let writesets = archived + u64::from(current_writeset);
    writeln!(out, "tracked blocks     {nr_blocks:>12}")?;
    writeln!(out, "bytes a block      {:>12}", u64::from(granularity_sectors) * 512)?;
    writeln!(out, "current era        {:>12}", current_era.0)?;
    writeln!(out, "writesets          {writesets:>12}")?;
    let held = metadata_snapshot.map_or("-".to_owned(), |block| block.to_string());
    writeln!(out, "metadata snapshot  {held:>12}")?;
    writeln!(out, "4 KiB blocks used  {used_blocks:>12}")?;
    match managed_blocks {
        Some(managed) => writeln!(out, "of                 {managed:>12}"),
        None => Ok(()),
    }
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// docs/formats.md has the schema.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonReport<'a> {
    clean: bool,
    errors: u64,
    warnings: u64,
    findings: Vec<JsonFinding<'a>>,
    metadata: Option<JsonSummary>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonFinding<'a> {
    severity: &'a str,
    problem: &'a str,
    path: Vec<String>,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSummary {
    block_bytes: u64,
    device_blocks: u32,
    current_era: u32,
    archived_writesets: u64,
    current_writeset: bool,
    metadata_snapshot: Option<u64>,
    metadata_blocks_used: u64,
    metadata_blocks: Option<u64>,
}

fn print_json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let finding = |finding: &'_ Finding| JsonFinding {
        severity: severity(finding),
        problem: finding.problem.name(),
        path: finding.path.iter().map(ToString::to_string).collect(),
        message: finding.problem.to_string(),
    };
    let json = JsonReport {
        clean: report.is_clean(),
        errors: report.errors,
        warnings: report.warnings,
        findings: report.findings.iter().map(finding).collect(),
        metadata: report.summary.map(JsonSummary::from),
    };
    serde_json::to_writer(&mut *out, &json)?;
    writeln!(out)
}

impl From<Summary> for JsonSummary {
    fn from(summary: Summary) -> Self {
        let Summary {
            granularity_sectors,
            nr_blocks,
            current_era,
            archived,
            current_writeset,
            metadata_snapshot,
            used_blocks,
            managed_blocks,
        } = summary;
        Self {
            block_bytes: u64::from(granularity_sectors) * 512,
            device_blocks: nr_blocks,
            current_era: current_era.0,
            archived_writesets: archived,
            current_writeset,
            metadata_snapshot,
            metadata_blocks_used: used_blocks,
            metadata_blocks: managed_blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::{fixture, parse};
    use super::*;
    use era_metadata::View;

    fn checked(name: &str, output: &str) -> (Result<(), DeviceError>, String) {
        let words = ["check", "--image", "x.img", "--limit", "1", "--output", output];
        let DeviceCommand::Check(args) = parse(&words) else { panic!("{words:?}") };
        let report = check::check(&fixture(name), View::Live, args.limit.into()).unwrap();
        let mut out = Vec::new();
        let done = print(&args, &report, &mut out);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn sound_metadata_is_described() {
        let (done, text) = checked("held", "table");
        done.unwrap();
        let expected = "\
tracked blocks             2000
bytes a block              8192
current era                   4
writesets                     1
metadata snapshot           145
4 KiB blocks used            17
of                          256
errors                        0
warnings                      0
";
        assert_eq!(text, expected);
    }

    #[test]
    fn damage_is_told_and_is_an_error() {
        let (done, text) = checked("many", "table");
        let error = done.unwrap_err();
        assert_eq!(error.code(), crate::exit::Code::Damaged);
        let said = error.to_string();
        assert!(said.contains("x.img") && said.contains("3 errors"), "{said}");
        let first = "error    superblock -> era array -> node (block 8) -> array block 0 (block 6): \
             block 6: checksum of array block is 0x0685f3e3, found 0x25046772\nand 3 more\n";
        assert!(text.starts_with(first), "{text}");

        let (_, text) = checked("many", "json");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["clean"], false);
        assert_eq!((&json["errors"], &json["warnings"]), (&3.into(), &1.into()));
        assert_eq!(json["findings"][0]["problem"], "checksum");
        assert_eq!(json["findings"][0]["path"][2], "node (block 8)");
        assert_eq!(json["metadata"]["metadataBlocks"], 1024);
    }
}
