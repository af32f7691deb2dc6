//! Which blocks changed, by dm-era's metadata.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use era_metadata::render::{self, Header};
use era_metadata::{BlockSet, BlockSource, Era, Metadata, Run, View};
use eratrack_dm::Host;
use eratrack_model::record::Record;

use super::DeviceError;
use super::heat_map::{self, Ink, Picture, Shape};
use super::progress::Meter;
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
    #[command(flatten)]
    picture: PictureArgs,
}

/// A picture instead of the list.
#[derive(Clone, Debug, Args)]
pub(super) struct PictureArgs {
    /// Instead of the list, draw the device as a heat map: when was each part of it last written. Into the terminal, as
    /// wide as that is; or into FILE.svg, which is overwritten
    #[arg(
        long,
        value_name = "FILE.svg",
        num_args = 0..=1,
        require_equals = true,
        value_parser = svg_path,
        conflicts_with = "output"
    )]
    #[allow(clippy::option_option)] // clap: absent, given alone, given with a file
    bitmap: Option<Option<PathBuf>>,
    /// Whether to draw in colour: `auto` does on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Colour::Auto)]
    color: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The kernel's list format: 0,2-4,30-49
    List,
    /// An object with the eras, the sizes and the ranges, both ends included
    Json,
    /// Extents in bytes, `offset,length`. An image does not know where in its last block a device ends: the last
    /// extent may reach beyond the device
    Csv,
    /// As `era_invalidate` 0.9 prints it, byte for byte: the end of a range is not included
    Xml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

/// So that no image or device is overwritten by mistake.
fn svg_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.extension().is_some_and(|extension| extension == "svg") {
        Ok(path)
    } else {
        Err("the name of the picture must end with .svg".to_owned())
    }
}

/// Lists what the metadata says, and for a stack what its discards add to that; or draws it.
pub(super) fn run(args: &ChangedArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    if let Some(file) = &args.picture.bitmap {
        return draw(args, file.as_ref(), out);
    }
    if let Some((host, record)) = args.source.stack()? {
        return list_stack(args, &host, &record, out);
    }
    let list = args.source.read_image(Meter::new(), |source, view| changes(args, source, view))?;
    print_changes(args, &list?, out)
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
    let length = record.sectors.to_bytes().ok().map(|bytes| bytes.0);
    print_runs(args, &header, length, || changes.runs.iter(), out)
}

/// What the metadata says changed.
fn changes(
    args: &ChangedArgs,
    source: &(impl BlockSource + ?Sized),
    view: View,
) -> Result<(Header, BlockSet), DeviceError> {
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
    Ok((header, blocks))
}

fn print_changes(
    args: &ChangedArgs,
    (header, blocks): &(Header, BlockSet),
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    print_runs(args, header, None, || blocks.runs(), out)
}

/// `length` is the device's in bytes, where it is known.
fn print_runs<R: Iterator<Item = Run>>(
    args: &ChangedArgs,
    header: &Header,
    length: Option<u64>,
    runs: impl Fn() -> R,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    match args.output {
        Output::List => render::list(out, runs()),
        Output::Json => render::json(out, header, runs()),
        Output::Csv => render::csv(out, header.block_bytes, length, runs()),
        Output::Xml => render::xml(out, runs()),
    }
    .map_err(DeviceError::Print)
}

/// Draws what the metadata says, into a file if there is one.
fn draw(
    args: &ChangedArgs,
    file: Option<&PathBuf>,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    let gathered = args
        .source
        .read(Meter::new(), |source, view| gather(args, file.is_some(), source, view))?;
    let picture =
        gathered.map_err(|source| DeviceError::Metadata { path: args.source.name(), source })?;
    let Some(file) = file else {
        let ink = args.picture.color.ink();
        return heat_map::text(&picture, ink, out).map_err(DeviceError::Print);
    };
    let mut drawing = Vec::new();
    heat_map::svg(&picture, &mut drawing)
        .and_then(|()| std::fs::write(file, drawing))
        .map_err(|source| DeviceError::Write { path: file.clone(), source })
}

fn gather(
    args: &ChangedArgs,
    svg: bool,
    source: impl BlockSource,
    view: View,
) -> Result<Picture, era_metadata::Error> {
    let metadata = Metadata::open(source, view)?;
    let shape = if svg { svg_shape(metadata.nr_blocks()) } else { terminal_shape() };
    Picture::gather(&metadata, Era(args.since), shape)
}

impl Colour {
    fn ink(self) -> Ink {
        let plain = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let wanted = match self {
            Self::Auto => std::io::stdout().is_terminal() && !plain(),
            Self::Always => true,
            Self::Never => false,
        };
        if wanted { Ink::Colour } else { Ink::Shade }
    }
}

/// As wide as the terminal, and no higher than that it is seen whole; 80 by 24 where there is none.
fn terminal_shape() -> Shape {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
    Shape {
        columns: u32::saturating_sub(columns, heat_map::MARGIN).max(8),
        rows: u32::saturating_sub(rows, 3).clamp(1, 48),
    }
}

/// Twice as wide as high; small devices are drawn small.
fn svg_shape(blocks: u32) -> Shape {
    const COLUMNS: u32 = 128;
    let columns = (u64::from(blocks) * 2).isqrt().clamp(16, COLUMNS.into());
    Shape { columns: u32::try_from(columns).unwrap_or(COLUMNS), rows: COLUMNS / 2 }
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::{fixture, parse, try_parse};
    use super::*;
    use era_metadata::MemorySource;

    fn changed_args(words: &[&str]) -> ChangedArgs {
        let DeviceCommand::Changed(args) = parse(words) else { panic!("{words:?}") };
        args
    }

    fn printed(since: &str, output: &str) -> String {
        let args = ["changed", "--image", "odd.img", "--since", since, "--output", output];
        let mut out = Vec::new();
        let args = changed_args(&args);
        let list = changes(&args, &fixture("odd"), View::Live).unwrap();
        print_changes(&args, &list, &mut out).unwrap();
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
        assert_eq!(printed("1", "csv"), "offset,length\n2097152,4096\n4087808,12288\n");
        let xml = "<blocks>\n  <block block=\"512\"/>\n  <range begin=\"998\" end = \"1001\"/>\n</blocks>\n";
        assert_eq!(printed("1", "xml"), xml);
    }

    /// An image in a file, and the directory that it is in.
    fn image() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd.img").display().to_string();
        std::fs::write(&path, testing_bytes()).unwrap();
        (dir, path)
    }

    fn testing_bytes() -> Vec<u8> {
        let source = fixture("odd");
        let mut bytes = Vec::new();
        for number in 0..source.blocks() {
            let mut block = era_metadata::Block::zeroed();
            source.read(number, &mut block).unwrap();
            bytes.extend_from_slice(block.bytes());
        }
        bytes
    }

    fn drawn(image: &str, more: &[&str]) -> String {
        let words = [&["changed", "--image", image, "--since", "3"], more].concat();
        let mut out = Vec::new();
        run(&changed_args(&words), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_picture_instead_of_the_list() {
        let (dir, image) = image();
        let text = drawn(&image, &["--bitmap", "--color", "never"]);
        assert!(text.lines().last().unwrap().contains("░▒▓█ era 3   · before"), "{text}");
        let colour = drawn(&image, &["--bitmap", "--color", "always"]);
        assert!(colour.contains("\x1b[48;5;227m"), "{colour:?}");

        let file = dir.path().join("a.svg");
        let bitmap = format!("--bitmap={}", file.display());
        assert_eq!(drawn(&image, &[&bitmap]), "");
        assert!(std::fs::read_to_string(&file).unwrap().ends_with("</svg>\n"));
    }

    #[test]
    fn a_picture_overwrites_nothing_else() {
        let refused = |more: &[&str]| {
            let words = [&["changed", "--image", "x", "--since", "3"], more].concat();
            try_parse(&words).unwrap_err().to_string()
        };
        assert!(refused(&["--bitmap=/dev/sda"]).contains("must end with .svg"));
        assert!(refused(&["--bitmap", "--output", "json"]).contains("cannot be used with"));
    }

    #[test]
    fn pictures_of_small_devices_are_small() {
        let columns = [0, 50, 5000, 8192, u32::MAX].map(|blocks| svg_shape(blocks).columns);
        assert_eq!(columns, [16, 16, 100, 128, 128]);
    }

    #[test]
    fn errors_name_the_file_and_the_place() {
        let args = changed_args(&["changed", "--image", "blank.img", "--since", "1"]);
        let blank = MemorySource::new(vec![0; 4096]);
        let error = changes(&args, &blank, View::Live).unwrap_err();
        let text = crate::exit::chain(&error);
        let start = "cannot read the metadata in blank.img: superblock: block 0 is all zeroes";
        assert!(text.starts_with(start), "{text}");

        let args = changed_args(&["changed", "--image", "/nowhere", "--since", "1"]);
        let text = crate::exit::chain(&run(&args, &mut Vec::new()).unwrap_err());
        assert!(text.starts_with("cannot open /nowhere: "), "{text}");
    }
}
