//! Which blocks changed, by dm-era's metadata.

use std::io::Write;

use clap::{Args, ValueEnum};
use era_metadata::render::{self, Header};
use era_metadata::{BlockSource, Era, Metadata, Run, View};
use eratrack_dm::Host;
use eratrack_model::record::Record;

use super::DeviceError;
use super::source::SourceArgs;

/// What to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ChangedArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// List what was written in this era or later; 0 lists every block ever written
    #[arg(long, value_name = "ERA")]
    since: u32,
    /// How to print the list
    #[arg(long, value_enum, default_value_t = Output::List)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The kernel's list format: 0,2-4,30-49
    List,
    /// An object with the eras, the sizes and the ranges, both ends included
    Json,
    /// As `era_invalidate` prints it: the end of a range is not included
    Xml,
}

/// Lists what the metadata says, and for a stack what its discards add to that.
pub(super) fn run(args: &ChangedArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    match args.source.stack()? {
        Some((host, record)) => list_stack(args, &host, &record, out),
        None => args.source.read_image(|source, view| print_changes(args, source, view, out))?,
    }
}

fn list_stack(
    args: &ChangedArgs,
    host: &Host,
    record: &Record,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    let since = Era(args.since);
    let changes = match host.changes_held(record, since)? {
        Some(held) => {
            let (stack, era) = (&record.stack, held.read_at);
            eprintln!(
                "eratrack: from the metadata snapshot of {stack} that is held since era {era}"
            );
            held
        }
        None => host.changes(record, since)?,
    };
    let header = Header {
        since,
        current: changes.read_at,
        block_bytes: record.granularity.bytes().0,
        device_blocks: changes.blocks,
    };
    print_runs(args, &header, || changes.runs.iter(), out)
}

fn print_changes(
    args: &ChangedArgs,
    source: &(impl BlockSource + ?Sized),
    view: View,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    let unreadable = |source| DeviceError::Metadata { path: args.source.name(), source };
    let metadata = Metadata::open(source, view).map_err(unreadable)?;
    let since = Era(args.since);
    let blocks = metadata.changed_since(since).map_err(unreadable)?;
    let header = Header {
        since,
        current: metadata.current_era(),
        block_bytes: u64::from(metadata.granularity_sectors()) * 512,
        device_blocks: metadata.nr_blocks().into(),
    };
    print_runs(args, &header, || blocks.runs(), out)
}

fn print_runs<R: Iterator<Item = Run>>(
    args: &ChangedArgs,
    header: &Header,
    runs: impl Fn() -> R,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    match args.output {
        Output::List => render::list(out, runs()),
        Output::Json => render::json(out, header, runs()),
        Output::Xml => render::xml(out, runs()),
    }
    .map_err(DeviceError::Print)
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::{fixture, parse};
    use super::*;
    use era_metadata::MemorySource;

    fn changed_args(words: &[&str]) -> ChangedArgs {
        let DeviceCommand::Changed(args) = parse(words) else { panic!("{words:?}") };
        args
    }

    fn printed(since: &str, output: &str) -> String {
        let args = ["changed", "--image", "odd.img", "--since", since, "--output", output];
        let mut out = Vec::new();
        print_changes(&changed_args(&args), &fixture("odd"), View::Live, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn changes_in_each_format() {
        assert_eq!(printed("1", "list"), "512,998-1000\n");
        assert_eq!(printed("3", "list"), "512,1000\n");
        let json: serde_json::Value = serde_json::from_str(&printed("2", "json")).unwrap();
        let expected = serde_json::json!({
            "since": 2, "currentEra": 3, "blockBytes": 4096, "deviceBlocks": 1001, "changedBlocks": 4,
            "ranges": [{"first": 512, "last": 512}, {"first": 998, "last": 1000}],
        });
        assert_eq!(json, expected);
        let xml = "<blocks>\n  <block block=\"512\"/>\n  <range begin=\"998\" end=\"1001\"/>\n</blocks>\n";
        assert_eq!(printed("1", "xml"), xml);
    }

    #[test]
    fn errors_name_the_file_and_the_place() {
        let args = changed_args(&["changed", "--image", "blank.img", "--since", "1"]);
        let blank = MemorySource::new(vec![0; 4096]);
        let error = print_changes(&args, &blank, View::Live, &mut Vec::new()).unwrap_err();
        let text = crate::exit::chain(&error);
        let start = "cannot read the metadata in blank.img: superblock: block 0 is all zeroes";
        assert!(text.starts_with(start), "{text}");

        let args = changed_args(&["changed", "--image", "/nowhere", "--since", "1"]);
        let text = crate::exit::chain(&run(&args, &mut Vec::new()).unwrap_err());
        assert!(text.starts_with("cannot open /nowhere: "), "{text}");
    }
}
