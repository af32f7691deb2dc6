//! What the product prints, byte for byte against the packaged tools, on metadata that a kernel wrote: small and large
//! devices, many eras. Where the tools are wrong, after an unclean end, the kernel has the last word: what is printed
//! before it goes on with the metadata is what it and the tools say afterwards.

#[allow(dead_code, reason = "each test binary uses its part of it")]
mod rig;

use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use era_metadata::check::check;
use era_metadata::{Era, FileSource, Metadata, View, dump, render, sizing};
use rig::{Mapped, Random, Tracked};

/// A device, its metadata, and room for a copy of that.
struct Rig {
    tracked: Option<Tracked>,
    metadata: Mapped,
    copy: Mapped,
    below: Mapped,
    origin: Mapped,
    blocks: u64,
    metadata_blocks: u64,
}

impl Rig {
    fn new(name: &str, blocks: u64) -> Self {
        // All of it is not needed for few writes; the RAM disks have 64 MiB.
        let required = sizing::required(blocks * 8, 8, 10).unwrap().total().min(16_384);
        let metadata = rig::metadata_device(&format!("{name}-meta"), 0, required);
        let copy = rig::metadata_device(&format!("{name}-copy"), 1, required);
        let below = format!("0 {} linear /dev/ram0 0", required * 8);
        let below = Mapped::create(&format!("{name}-below"), &below);
        let origin = Mapped::create(&format!("{name}-origin"), &format!("0 {} zero", blocks * 8));
        let tracked = Some(Tracked::create(&format!("{name}-era"), &metadata, &origin, blocks));
        Self { tracked, metadata, copy, below, origin, blocks, metadata_blocks: required }
    }

    /// Eras of writes, one after the other without a pause, so that some are not digested yet.
    fn live(&mut self, eras: usize, random: &mut Random) {
        let blocks = self.blocks;
        let tracked = self.tracked.as_mut().unwrap();
        for _ in 0..eras {
            let first = random.below(blocks);
            let run = first..blocks.min(first + 1 + random.below(150));
            tracked.write(run.chain(random.blocks(30, blocks)));
            tracked.message("checkpoint");
        }
        tracked.write([0, blocks - 1]);
    }

    /// Waits until the kernel has put every archived writeset into the array, so that the current one alone is left. It
    /// commits that with a write to a block that is new in this era.
    fn digested(&mut self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(240);
        for block in 1.. {
            self.tracked.as_mut().unwrap().write([block]);
            let mut writesets = 0;
            metadata(&self.metadata).visit_writesets(|_, _, _| writesets += 1).unwrap();
            if writesets == 1 {
                return;
            }
            assert!(Instant::now() < deadline, "{writesets} writesets are left");
            done(name, &format!("{writesets} writesets to be digested"));
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// As by a loss of power, the metadata is cut off from the device and copied.
    fn cut(&self) -> &Mapped {
        self.metadata.dmsetup("suspend", &["--noflush", "--nolockfs"]);
        rig::copy(&self.below, &self.copy, self.metadata_blocks);
        self.metadata.dmsetup("resume", &[]);
        &self.copy
    }

    fn end(&mut self) -> &Mapped {
        self.tracked = None;
        &self.metadata
    }
}

fn metadata(device: &Mapped) -> Metadata<FileSource> {
    rig::open(device, View::Live)
}

fn changed_xml(device: &Mapped, since: Era) -> String {
    let mut out = Vec::new();
    let changed = metadata(device).changed_since(since).unwrap();
    render::xml(&mut out, changed.runs()).unwrap();
    String::from_utf8(out).unwrap()
}

fn era_invalidate(device: &Mapped, since: Era) -> String {
    let (since, path) = (since.to_string(), device.path());
    rig::run("era_invalidate", &["--written-since", &since, path.to_str().unwrap()])
}

/// A tool's output, read while it is written.
struct Tool {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Tool {
    fn era_dump(path: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new("era_dump");
        let mut child =
            command.args(flags).arg(path).stdout(Stdio::piped()).spawn().expect("era_dump");
        let output = BufReader::with_capacity(1 << 20, child.stdout.take().expect("a pipe"));
        Self { child, output }
    }

    fn finish(mut self) {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "era_dump goes on: {}", String::from_utf8_lossy(&rest));
        assert!(self.child.wait().unwrap().success(), "era_dump failed");
    }
}

/// Takes only what the tool prints too, and says how far it is.
struct Same<'a> {
    name: &'a str,
    expected: &'a mut Tool,
    at: u64,
}

impl Write for Same<'_> {
    fn write(&mut self, ours: &[u8]) -> io::Result<usize> {
        let mut theirs = vec![0; ours.len()];
        self.expected.output.read_exact(&mut theirs)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(ours), text(&theirs), "at byte {}", self.at);
        progress(self.name, "compared", &mut self.at, ours.len());
        Ok(ours.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The dump, byte for byte.
fn dumps_alike(name: &str, device: &Mapped) {
    let mut tool = Tool::era_dump(&device.path(), &[]);
    let same = Same { name, expected: &mut tool, at: 0 };
    let mut same = io::BufWriter::with_capacity(1 << 20, same);
    dump::xml(&metadata(device), &mut same).unwrap();
    same.flush().unwrap();
    drop(same);
    tool.finish();
}

/// The last era of each block in a dump that is written here, whether the array or a writeset has it.
struct LastEras<'a> {
    name: &'a str,
    last: Vec<u32>,
    writeset: u64,
    line: Vec<u8>,
    read: u64,
}

impl<'a> LastEras<'a> {
    fn of(name: &'a str, blocks: u64) -> Self {
        let last = vec![0; usize::try_from(blocks).unwrap()];
        Self { name, last, writeset: 0, line: Vec::new(), read: 0 }
    }

    fn line(&mut self, line: &str) {
        let line = line.trim_start();
        let era = if line.starts_with("<writeset ") {
            self.writeset = rig::number(line, "era");
            return;
        } else if line.starts_with("<bit ") && line.contains("true") {
            self.writeset
        } else if line.starts_with("<era ") {
            rig::number(line, "era")
        } else {
            return;
        };
        let slot = &mut self.last[usize::try_from(rig::number(line, "block")).unwrap()];
        *slot = (*slot).max(u32::try_from(era).unwrap());
    }
}

impl Write for LastEras<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
                self.line(&line);
            }
        }
        progress(self.name, "read", &mut self.read, bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dumped_by_us(name: &str, device: &Mapped, blocks: u64) -> Vec<u32> {
    let mut last = LastEras::of(name, blocks);
    dump::xml(&metadata(device), &mut last).unwrap();
    last.last
}

fn dumped_by_the_tool(name: &str, device: &Mapped, flags: &[&str], blocks: u64) -> Vec<u32> {
    let (mut tool, mut last) = (Tool::era_dump(&device.path(), flags), LastEras::of(name, blocks));
    io::copy(&mut tool.output, &mut last).unwrap();
    tool.finish();
    last.last
}

fn sound(device: &Mapped) {
    let report = check(&FileSource::open(&device.path()).unwrap(), View::Live, 10).unwrap();
    let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!((report.errors, report.warnings), (0, 0), "{found:?}");
}

/// A clean end: what is printed is what the tools print. Looks at no more than so many eras.
fn agrees_after_a_clean_end(name: &str, blocks: u64, eras: usize, looks: usize) {
    let mut rig = Rig::new(name, blocks);
    rig.live(eras, &mut Random(blocks));
    let device = rig.end();
    done(name, "written");
    sound(device);
    dumps_alike(name, device);
    lists_alike(name, device, looks);
}

fn lists_alike(name: &str, device: &Mapped, looks: usize) {
    let last = metadata(device).current_era().0;
    let step = (last as usize).div_ceil(looks);
    for since in (1..=last).step_by(step).chain([last]) {
        let since = Era(since);
        assert_eq!(changed_xml(device, since), era_invalidate(device, since), "since {since}");
        done(name, "lists compared");
    }
}

fn progress(name: &str, what: &str, sum: &mut u64, more: usize) {
    let before = *sum;
    *sum += more as u64;
    if before >> 26 != *sum >> 26 {
        done(name, &format!("{} MiB of a dump {what}", *sum >> 20));
    }
}

/// Large devices take their time; who is silent for minutes is taken for dead.
fn done(name: &str, what: &str) {
    // Not captured, as what `println!` prints is.
    io::stdout().write_all(format!("{name}: {what}\n").as_bytes()).unwrap();
}

/// An unclean end: the tools leave the current writeset out until the kernel has taken it over.
fn is_right_after_an_unclean_end(name: &str, blocks: u64, eras: usize) {
    let mut rig = Rig::new(name, blocks);
    rig.live(eras, &mut Random(blocks + 1));
    let cut = rig.cut();
    sound(cut);
    let dumped = dumped_by_us(name, cut, blocks);
    lists_are_what_the_kernel_goes_on_with(name, &mut rig);
    assert!(dumped == dumped_by_the_tool(name, &rig.copy, &[], blocks), "the dumps differ");
    dumps_alike(name, &rig.copy);
}

/// What was cut off, before and after the kernel activates it.
fn lists_are_what_the_kernel_goes_on_with(name: &str, rig: &mut Rig) {
    let read = metadata(&rig.copy);
    let mut writesets = 0;
    read.visit_writesets(|_, _, _| writesets += 1).unwrap();
    let current = read.current_era();
    done(name, &format!("{writesets} writesets at era {current}"));
    let eras = [1, current.0 / 2, current.0 - 1, current.0].map(Era);
    let ours = eras.map(|since| changed_xml(&rig.copy, since));
    assert_ne!(era_invalidate(&rig.copy, current), ours[3], "the tool knows the current writeset");

    done(name, "looked into before the kernel goes on");
    rig.end();
    drop(Tracked::create(&format!("{name}-again"), &rig.copy, &rig.origin, rig.blocks));
    sound(&rig.copy);
    for (since, ours) in eras.iter().zip(ours) {
        assert_eq!(ours, era_invalidate(&rig.copy, *since), "since {since}");
        done(name, "lists compared");
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_hundred_blocks() {
    agrees_after_a_clean_end("compat-a", 100, 12, 12);
    is_right_after_an_unclean_end("compat-a", 100, 12);
}

#[test]
#[ignore = "kernel tier"]
fn many_eras_of_a_hundred_thousand_blocks() {
    agrees_after_a_clean_end("compat-b", 100_003, 60, 20);
    is_right_after_an_unclean_end("compat-b", 100_003, 60);
}

#[test]
#[ignore = "kernel tier"]
fn a_million_blocks() {
    agrees_after_a_clean_end("compat-c", 1_000_000, 8, 3);
    is_right_after_an_unclean_end("compat-c", 1_000_000, 8);
}

/// The tool is slow at writesets: it is let fold them into the array before it prints.
#[test]
#[ignore = "kernel tier"]
fn ten_million_blocks() {
    let (name, blocks) = ("compat-d", 10_000_000);
    let mut rig = Rig::new(name, blocks);
    rig.live(3, &mut Random(blocks));
    rig.digested(name);
    rig.live(1, &mut Random(blocks + 1));
    sound(rig.cut());
    done(name, "written and cut off");
    lists_are_what_the_kernel_goes_on_with(name, &mut rig);
    let device = &rig.metadata;
    lists_alike(name, device, 2);
    let ours = dumped_by_us(name, device, blocks);
    done(name, "dumped");
    assert!(ours == dumped_by_the_tool(name, device, &["--logical"], blocks), "the dumps differ");
}
