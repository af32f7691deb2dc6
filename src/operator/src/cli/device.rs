//! Commands for one machine, without Kubernetes: what dm-era's metadata says, and how much room it needs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use era_metadata::render::{self, Header};
use era_metadata::sizing::{self, Sizing, SizingError};
use era_metadata::{BlockSource, Era, FileSource, Metadata, View};
use eratrack_api::Granularity;
use eratrack_dm::linux::{LoopError, Loops, Nodes};
use eratrack_model::units::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::size;

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List the blocks that were written since an era, from dm-era's metadata
    ///
    /// What the kernel marked is listed, no more. It marks only the first block of a discard: if the device took discards
    /// since then, take the blocks after each range as changed too, as many as the longest discard can cover
    /// (`discard_max_bytes` of the era device, divided by the block and rounded up). The lists of the node agent have them.
    Changed(ChangedArgs),
    /// Tell how much room dm-era's metadata needs at worst
    Size(SizeArgs),
}

/// What to list, and how.
#[derive(Debug, Args)]
pub(crate) struct ChangedArgs {
    /// The metadata: an image file, or the device itself (as root)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// List what was written in this era or later; 0 lists every block ever written
    #[arg(long, value_name = "ERA")]
    since: u32,
    /// Read the held metadata snapshot, which may be done while the era device is active; without this, read the
    /// metadata as last committed, which needs a device at rest. BLOCK is the last field of the device's status: give
    /// it while the device is active; else it is found in the superblock
    #[arg(long, value_name = "BLOCK", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option)] // clap: absent, given alone, given with a block
    metadata_snapshot: Option<Option<u64>>,
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

/// What is to be tracked.
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// The size of the device to be tracked (1Ti)
    #[arg(long, value_parser = size::parse, value_name = "SIZE")]
    device: Bytes,
    /// The size of a tracked block, a power of two from 4Ki to 1Gi
    #[arg(long, default_value_t, value_name = "SIZE")]
    granularity: Granularity,
    /// How many eras may wait to be merged at once
    #[arg(long, default_value_t = sizing::DEFAULT_UNDIGESTED, value_name = "COUNT")]
    undigested: u32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{path} is in use, and what is written meanwhile would be missed: take a metadata snapshot and give \
         --metadata-snapshot=BLOCK, or remove the era device first"
    )]
    InUse { path: PathBuf },
    #[error(
        "cannot tell whether {path} is in use: give --metadata-snapshot=BLOCK, run as root, or read a copy of another name"
    )]
    Unknown { path: PathBuf, source: LoopError },
    #[error("cannot read the metadata in {path}")]
    Metadata { path: PathBuf, source: era_metadata::Error },
    #[error("no metadata fits")]
    Size(#[source] SizingError),
    #[error("cannot print the answer")]
    Print(#[source] io::Error),
}

/// Does what the command says.
pub(crate) fn run(command: DeviceCommand) -> Result<(), DeviceError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        DeviceCommand::Changed(args) => changed(&args, &mut out),
        DeviceCommand::Size(args) => size(&args, &mut out),
    };
    let done = done.and_then(|()| out.flush().map_err(DeviceError::Print));
    match done {
        // A reader that went away (`| head`) is no failure.
        Err(DeviceError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn changed(args: &ChangedArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let view = match args.metadata_snapshot {
        None => View::Live,
        Some(None) => View::Held,
        Some(Some(block)) => View::HeldAt(block),
    };
    let source = open(&args.image, view)?;
    print_changes(args, &source, view, out)
}

fn print_changes(
    args: &ChangedArgs,
    source: &impl BlockSource,
    view: View,
    out: &mut impl Write,
) -> Result<(), DeviceError> {
    let unreadable = |source| DeviceError::Metadata { path: args.image.clone(), source };
    let metadata = Metadata::open(source, view).map_err(unreadable)?;
    let since = Era(args.since);
    let blocks = metadata.changed_since(since).map_err(unreadable)?;
    let header = Header {
        since,
        current: metadata.current_era(),
        block_bytes: u64::from(metadata.granularity_sectors()) * 512,
        device_blocks: metadata.nr_blocks().into(),
    };
    match args.output {
        Output::List => render::list(out, blocks.runs()),
        Output::Json => render::json(out, &header, blocks.runs()),
        Output::Xml => render::xml(out, blocks.runs()),
    }
    .map_err(DeviceError::Print)
}

/// What something holds open may change under a reader of its live view.
fn open(path: &Path, view: View) -> Result<FileSource, DeviceError> {
    let failed = |source: io::Error| DeviceError::Open { path: path.to_owned(), source };
    let is_device = std::fs::metadata(path).map_err(failed)?.file_type().is_block_device();
    match (view, is_device) {
        (View::Held | View::HeldAt(_), _) => FileSource::open(path).map_err(failed),
        (View::Live, true) => open_alone(path),
        (View::Live, false) => {
            let loops = Loops::new(Nodes::new("/dev"), Path::new("/sys"));
            refuse_behind_loop(path, &loops)?;
            FileSource::open(path).map_err(failed)
        }
    }
}

/// `O_EXCL` finds out whether a device is in use: device mapper claims what it uses.
fn open_alone(path: &Path) -> Result<FileSource, DeviceError> {
    let failed = |source: io::Error| DeviceError::Open { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => FileSource::from_file(File::from(file)).map_err(failed),
        Err(Errno::BUSY) => Err(DeviceError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// dm-era's metadata in a file lies behind a loop device while it is in use.
fn refuse_behind_loop(path: &Path, loops: &Loops) -> Result<(), DeviceError> {
    let path = path.to_owned();
    // A link may have another name than its file.
    let named = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    match loops.find(&named) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(DeviceError::InUse { path }),
        Err(source) => Err(DeviceError::Unknown { path, source }),
    }
}

fn size(args: &SizeArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let (device, granularity) = (args.device.0, args.granularity.bytes());
    let sizing = sizing::required(device.div_ceil(512), granularity / 512, args.undigested)
        .map_err(DeviceError::Size)?;
    print_size(&sizing, out).map_err(DeviceError::Print)
}

fn print_size(sizing: &Sizing, out: &mut impl Write) -> io::Result<()> {
    let Sizing { device_blocks, array, writesets, space_maps, spare } = *sizing;
    writeln!(out, "tracked blocks  {device_blocks:>12}")?;
    writeln!(out, "bytes needed    {:>12}", sizing.bytes())?;
    writeln!(out, "4 KiB blocks    {:>12}", sizing.total())?;
    writeln!(out, "  era array     {array:>12}")?;
    writeln!(out, "  writesets     {writesets:>12}")?;
    writeln!(out, "  space maps    {space_maps:>12}")?;
    writeln!(out, "  spare         {spare:>12}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use era_metadata::MemorySource;
    use std::process::Command;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: DeviceCommand,
    }

    fn parse(words: &[&str]) -> DeviceCommand {
        Cli::try_parse_from([&["device"], words].concat()).unwrap().command
    }

    fn changed_args(words: &[&str]) -> ChangedArgs {
        let DeviceCommand::Changed(args) = parse(words) else { panic!("{words:?}") };
        args
    }

    /// Metadata that a real kernel wrote; the log beside it says what was written.
    fn fixture(name: &str) -> MemorySource {
        let path = format!("{}/../era/tests/fixtures/{name}.img.gz", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("gzip").args(["-dc", &path]).output().unwrap();
        assert!(output.status.success(), "{path}");
        MemorySource::new(output.stdout)
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
    fn the_snapshot_is_the_superblocks_or_the_one_named() {
        let base = ["changed", "--image", "x", "--since", "1"];
        let snapshot = |more: &[&str]| changed_args(&[&base, more].concat()).metadata_snapshot;
        assert_eq!(snapshot(&[]), None);
        assert_eq!(snapshot(&["--metadata-snapshot"]), Some(None));
        assert_eq!(snapshot(&["--metadata-snapshot=17"]), Some(Some(17)));
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
        let text = crate::exit::chain(&changed(&args, &mut Vec::new()).unwrap_err());
        assert!(text.starts_with("cannot open /nowhere: "), "{text}");
    }

    #[test]
    fn a_file_that_may_be_behind_a_loop_device_is_not_read_as_at_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (image, link) = (dir.path().join("era-metadata"), dir.path().join("link"));
        std::fs::write(&image, [0; 4096]).unwrap();
        std::os::unix::fs::symlink(&image, &link).unwrap();
        let listed = dir.path().join("block/loop9");
        std::fs::create_dir_all(listed.join("loop")).unwrap();
        std::fs::write(listed.join("dev"), "7:9").unwrap();
        // There is nowhere to make its node: as for a user who is not root.
        let loops = Loops::new(Nodes::new(dir.path().join("no-nodes")), dir.path());
        let over = |backing: &str| {
            std::fs::write(listed.join("loop/backing_file"), backing).unwrap();
            refuse_behind_loop(&link, &loops)
        };
        assert!(over("/somebody/else.img").is_ok());
        let text = crate::exit::chain(&over("/var/lib/eratrack/a/era-metadata").unwrap_err());
        assert!(text.contains("--metadata-snapshot=BLOCK") && text.contains("link"), "{text}");
    }

    #[test]
    fn the_room_for_a_tebibyte() {
        let DeviceCommand::Size(args) = parse(&["size", "--device", "1Ti", "--granularity", "2Mi"])
        else {
            panic!("not size")
        };
        let mut out = Vec::new();
        size(&args, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("tracked blocks        524288\nbytes needed         7"), "{text}");

        let DeviceCommand::Size(args) = parse(&["size", "--device", "8Ti", "--granularity", "4Ki"])
        else {
            panic!("not size")
        };
        let text = crate::exit::chain(&size(&args, &mut Vec::new()).unwrap_err());
        assert!(text.contains("choose a larger granularity"), "{text}");
    }
}
