//! How much room dm-era's metadata needs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use era_metadata::BLOCK_SIZE;
use era_metadata::sizing::{self, Sizing, SizingError};
use eratrack_model::units::{Bytes, DevNo, Granularity, SECTOR_BYTES, Sectors};
use serde::Serialize;

use super::DeviceError;
use super::output::{size, table};
use super::target;
use crate::cli::size as figure;

/// What is to be tracked.
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// The device to be tracked, or how large it is (1Ti)
    #[arg(value_name = "DEVICE|SIZE", value_parser = Tracked::parse)]
    tracked: Tracked,
    /// The size of a tracked block, a power of two from 4Ki to 1Gi; sectors of 512 bytes as 4096s
    #[arg(long, default_value_t, value_name = "SIZE")]
    granularity: Granularity,
    /// How many eras may wait to be merged at once
    #[arg(long, default_value_t = sizing::DEFAULT_UNDIGESTED, value_name = "COUNT")]
    undigested: u32,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// What needs how much, and what other granularities would need
    Table,
    /// The same as one object (docs/formats.md)
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tracked {
    Device(PathBuf),
    Size(Bytes),
}

impl Tracked {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Device(text.into()));
        }
        figure::parse(text)
            .map(Self::Size)
            .map_err(|error| format!("{error}; or the path of a device, such as /dev/vg0/data"))
    }

    /// In bytes.
    fn length(&self) -> Result<u64, DeviceError> {
        match self {
            Self::Size(Bytes(bytes)) => Ok(*bytes),
            Self::Device(path) => {
                let device = target::at_path(path)?;
                length_of(device, Path::new("/sys"))
                    .map_err(|source| DeviceError::Open { path: path.clone(), source })
            }
        }
    }
}

/// Of a block device, in bytes; sysfs tells everybody.
fn length_of(device: DevNo, sys: &Path) -> io::Result<u64> {
    let told = std::fs::read_to_string(sys.join(format!("dev/block/{device}/size")))?;
    let sectors: u64 = told.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    sectors.checked_mul(SECTOR_BYTES).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Tells it.
pub(super) fn run(args: &SizeArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let answer = Answer::new(args.tracked.length()?, args.granularity, args.undigested)
        .map_err(DeviceError::Size)?;
    match args.output {
        Output::Table => print_table(&answer, out),
        Output::Json => print_json(&answer, out),
    }
    .map_err(DeviceError::Print)
}

/// docs/formats.md has the schema.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    device_bytes: u64,
    granularity: Granularity,
    tracked_blocks: u64,
    undigested: u32,
    bytes: u64,
    parts: Vec<Share>,
    tutorial_bytes: u64,
    granularities: Vec<Choice>,
}

/// A part of the whole, in metadata blocks of 4 KiB.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    part: &'static str,
    blocks: u64,
    bytes: u64,
    why: String,
}

/// What another granularity would need.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Choice {
    granularity: Granularity,
    tracked_blocks: u64,
    /// None where no metadata would do.
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

impl Answer {
    fn new(
        device_bytes: u64,
        granularity: Granularity,
        undigested: u32,
    ) -> Result<Self, SizingError> {
        let sectors = device_bytes.div_ceil(SECTOR_BYTES);
        let required = |granularity: Granularity| {
            sizing::required(sectors, granularity.sectors().0, undigested)
        };
        let sizing = required(granularity)?;
        let all = (12..=30).filter_map(|bits| Granularity::new(Bytes(1 << bits)).ok());
        let choice = |granularity: Granularity| {
            let (bytes, refusal) = match required(granularity) {
                Ok(sizing) => (Some(sizing.bytes()), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let tracked_blocks = sectors.div_ceil(granularity.sectors().0);
            Choice { granularity, tracked_blocks, bytes, refusal }
        };
        Ok(Self {
            device_bytes,
            granularity,
            tracked_blocks: sizing.device_blocks,
            undigested,
            bytes: sizing.bytes(),
            parts: parts(&sizing, undigested),
            tutorial_bytes: sizing::tutorial(sectors),
            granularities: all.map(choice).collect(),
        })
    }
}

fn parts(sizing: &Sizing, undigested: u32) -> Vec<Share> {
    let Sizing { device_blocks: _, array, writesets, space_maps, spare } = *sizing;
    let share = |part, blocks, why: &str| {
        let bytes = blocks * BLOCK_SIZE as u64;
        Share { part, blocks, bytes, why: why.to_owned() }
    };
    let one = array / sizing::ARRAYS;
    let copies = array - one;
    let sets = u64::from(undigested) + sizing::LIVE_WRITESETS;
    let waiting = format!(
        "{sets} of one bit a block: the current, the next, and {undigested} that may wait to be merged"
    );
    vec![
        share("eraArray", one, "the last era of every block, 4 bytes each, and the tree above"),
        share(
            "arrayCopies",
            copies,
            "the one a metadata snapshot holds, and the one being written",
        ),
        share("writesets", writesets, &waiting),
        share(
            "spaceMaps",
            space_maps,
            "which metadata blocks are in use, as committed and as being written",
        ),
        share("spare", spare, "superblock, its held copy, small trees, reserve"),
    ]
}

fn print_json(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    writeln!(out)
}

fn print_table(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let Answer { device_bytes, granularity, tracked_blocks, undigested: _, bytes, .. } = answer;
    writeln!(
        out,
        "{} for a device of {} in {tracked_blocks} blocks of {granularity}: {bytes} bytes\n",
        Bytes(*bytes),
        size(*device_bytes)
    )?;
    let part = |share: &Share| {
        vec![
            share.part.to_owned(),
            share.blocks.to_string(),
            Bytes(share.bytes).to_string(),
            share.why.clone(),
        ]
    };
    let parts: Vec<_> = answer.parts.iter().map(part).collect();
    table(out, &["PART", "4KIB-BLOCKS", "SIZE", "WHY"], &parts)?;
    writeln!(out)?;
    let choice = |choice: &Choice| {
        let needed = choice.bytes.map_or("-".to_owned(), |bytes| Bytes(bytes).to_string());
        let blocks = choice.tracked_blocks.to_string();
        vec![choice.granularity.to_string(), blocks, needed, note(answer, choice)]
    };
    let choices: Vec<_> = answer.granularities.iter().map(choice).collect();
    table(out, &["GRANULARITY", "BLOCKS", "METADATA", "NOTE"], &choices)
}

fn note(answer: &Answer, choice: &Choice) -> String {
    let mut notes = Vec::new();
    if choice.granularity == answer.granularity {
        notes.push("as above".to_owned());
    }
    notes.extend(choice.refusal.clone());
    // The only granularity that the formula is for.
    if choice.granularity.sectors() == Sectors(4096) {
        let tutorial = Bytes(answer.tutorial_bytes);
        notes.push(format!("the tutorial's formula says {tutorial}: too small once it is written"));
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::{parse, try_parse};
    use super::*;

    fn answered(words: &[&str]) -> Result<String, DeviceError> {
        let words = [&["size"], words].concat();
        let DeviceCommand::Size(args) = parse(&words) else { panic!("{words:?}") };
        let mut out = Vec::new();
        run(&args, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_room_for_a_tebibyte() {
        let text = answered(&["1Ti", "--granularity", "2Mi"]).unwrap();
        let expected = "\
8Mi for a device of 1Ti in 524288 blocks of 2Mi: 7438336 bytes

PART          4KIB-BLOCKS   SIZE    WHY
eraArray      522           3Mi     the last era of every block, 4 bytes each, and the tree above
arrayCopies   1044          5Mi     the one a metadata snapshot holds, and the one being written
writesets     216           864Ki   12 of one bit a block: the current, the next, and 10 that may wait to be merged
";
        assert!(text.starts_with(expected), "{text}");
        let rows =
            |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(
            rows("2Mi").ends_with(
                "as above; the tutorial's formula says 3Mi: too small once it is written"
            ),
            "{text}"
        );
        assert_eq!(rows("1Gi"), "1Gi           1024        268Ki");
    }

    #[test]
    fn the_same_for_scripts() {
        let text = answered(&["1Ti", "--granularity", "4096s", "--output", "json"]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&json["granularity"], &json["trackedBlocks"]),
            (&"2Mi".into(), &524_288.into())
        );
        let parts = json["parts"].as_array().unwrap();
        let sum: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
        assert_eq!(json["bytes"], sum);
        assert_eq!(json["tutorialBytes"], 2812 << 10);
        let choices = json["granularities"].as_array().unwrap();
        assert_eq!(choices.len(), 19);
        let chosen = choices.iter().find(|choice| choice["granularity"] == "2Mi").unwrap();
        assert_eq!(chosen["bytes"], json["bytes"]);
    }

    #[test]
    fn too_fine_a_granularity_is_refused_and_the_table_says_which_is_not() {
        let error = answered(&["8Ti", "--granularity", "4Ki"]).unwrap_err();
        assert_eq!(error.code(), crate::exit::Code::Refused);
        let text = crate::exit::chain(&error);
        assert!(text.contains("choose a larger granularity"), "{text}");
        let text = answered(&["8Ti", "--granularity", "64Ki"]).unwrap();
        let row = text.lines().find(|line| line.starts_with("4Ki ")).unwrap();
        assert!(row.contains(" - ") && row.ends_with("choose a larger granularity"), "{row}");
    }

    #[test]
    fn bare_numbers_are_bytes_and_never_sectors() {
        let refused = |granularity: &str| {
            try_parse(&["size", "1Ti", "--granularity", granularity]).unwrap_err().to_string()
        };
        assert!(
            refused("4096 sectors").contains("4096s") || refused("4096 sectors").contains("512s")
        );
        assert!(refused("512").contains("choose from 4Ki to 1Gi"));
        let text = try_parse(&["size", "1TB"]).unwrap_err().to_string();
        assert!(text.contains("1TB") && text.contains("/dev/vg0/data"), "{text}");
    }

    #[test]
    fn a_device_says_itself_how_long_it_is() {
        let sys = tempfile::tempdir().unwrap();
        let device = DevNo { major: 253, minor: 7 };
        let dir = sys.path().join("dev/block/253:7");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("size"), "8003\n").unwrap();
        assert_eq!(length_of(device, sys.path()).unwrap(), 8003 * 512);
        std::fs::write(dir.join("size"), "18446744073709551615\n").unwrap();
        assert!(length_of(device, sys.path()).is_err());

        let error = answered(&["/nowhere"]).unwrap_err();
        assert_eq!(error.code(), crate::exit::Code::NotFound);
        let error = answered(&["/proc/version"]).unwrap_err();
        assert!(matches!(error, DeviceError::NoBlockDevice { .. }), "{error}");
    }
}
