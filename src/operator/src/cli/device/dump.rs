//! All of dm-era's metadata, as text.

use std::io::{self, BufWriter, IsTerminal, Seek, Write};

use clap::{Args, ValueEnum};
use era_metadata::dump::{self as dumping, DumpError};
use era_metadata::{BlockSource, Metadata, View};

use super::DeviceError;
use super::progress::Meter;
use super::source::SourceArgs;

/// What to dump, and how.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Xml)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The document of `era_dump`: a line for each bit of each writeset and for each block
    Xml,
    /// An object with the sizes, the writesets as ranges and the eras as ranges, both ends included
    Json,
}

/// Dumps what there is.
pub(super) fn run(args: &DumpArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let failed = |error| match error {
        DumpError::Metadata(source) => DeviceError::Metadata { path: args.source.name(), source },
        DumpError::Write(error) => DeviceError::Print(error),
    };
    if !args.source.is_stack() {
        // A line of its own would be lost among those that are printed.
        let meter = if io::stdout().is_terminal() { Meter::off() } else { Meter::new() };
        return args
            .source
            .read_image(meter, |source, view| dump(args, source, view, out))?
            .map_err(failed);
    }
    // Nothing else can be done to a stack while it is read, and whoever takes what is printed may take
    // all day.
    let path = std::env::temp_dir();
    let spool = |source| DeviceError::Write { path: path.clone(), source };
    let mut file = BufWriter::new(tempfile::tempfile().map_err(spool)?);
    match args.source.read(Meter::new(), |source, view| dump(args, source, view, &mut file))? {
        Err(DumpError::Write(source)) => return Err(spool(source)),
        dumped => dumped.map_err(failed)?,
    }
    let mut file = file.into_inner().map_err(|e| spool(e.into_error()))?;
    file.rewind().map_err(spool)?;
    io::copy(&mut file, out).map(drop).map_err(DeviceError::Print)
}

fn dump(
    args: &DumpArgs,
    source: impl BlockSource,
    view: View,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    print(args, &Metadata::open(source, view)?, out)
}

/// Dumps one view of the metadata.
fn print<S: BlockSource>(
    args: &DumpArgs,
    metadata: &Metadata<S>,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    match args.output {
        Output::Xml => dumping::xml(metadata, out),
        Output::Json => dumping::json(metadata, out),
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::{fixture, parse};
    use super::*;
    use era_metadata::MemorySource;

    fn dumped(output: &str, image: &MemorySource, view: View) -> Result<String, DumpError> {
        let words = ["dump", "--image", "x", "--output", output];
        let DeviceCommand::Dump(args) = parse(&words) else { panic!("{words:?}") };
        let mut out = Vec::new();
        print(&args, &Metadata::open(image, view)?, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_dump_in_each_format() {
        let xml = dumped("xml", &fixture("digested"), View::Live).unwrap();
        let head = "<superblock uuid=\"\" block_size=\"8\" nr_blocks=\"1000\" current_era=\"3\">\n  \
             <writeset era=\"3\" nr_bits=\"1000\">\n    <bit block=\"0\" value=\"false\"/>\n";
        assert!(xml.starts_with(head), "{}", &xml[..200]);

        let json = dumped("json", &fixture("odd"), View::Live).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({
            "blockBytes": 4096, "deviceBlocks": 1001, "currentEra": 3,
            "writesets": [{"era": 3, "state": "current", "bits": 1001,
                "ranges": [{"first": 512, "last": 512}, {"first": 1000, "last": 1000}]}],
            "eras": [{"first": 0, "last": 997, "era": 0}, {"first": 998, "last": 999, "era": 2},
                {"first": 1000, "last": 1000, "era": 1}],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_cannot_be_read_ends_it() {
        let error = dumped("json", &fixture("many"), View::Live).unwrap_err();
        assert!(matches!(error, DumpError::Metadata(_)), "{error}");
        let error = dumped("xml", &fixture("odd"), View::Held).unwrap_err();
        assert!(error.to_string().contains("no metadata snapshot is held"), "{error}");
    }
}
