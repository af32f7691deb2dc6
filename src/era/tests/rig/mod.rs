//! An era device over RAM disks, and the tools to compare with. As root, on a machine that may be spoilt.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use era_metadata::{Block, BlockSet, Era, FileSource, Metadata, View};

const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("DM_DISABLE_UDEV", "1")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A device made by `dmsetup`, gone when this is dropped.
pub(crate) struct Mapped {
    name: String,
}

impl Mapped {
    pub(crate) fn create(name: &str, table: &str) -> Self {
        run("dmsetup", &["create", name, "--table", table]);
        Self { name: name.to_owned() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/dev/mapper").join(&self.name)
    }

    pub(crate) fn dmsetup(&self, verb: &str, flags: &[&str]) {
        run("dmsetup", &[&[verb, &self.name], flags].concat());
    }

    pub(crate) fn message(&self, text: &str) {
        run("dmsetup", &["message", &self.name, "0", text]);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let removed = Command::new("dmsetup")
            .args(["remove", "--retry", &self.name])
            .env("DM_DISABLE_UDEV", "1")
            .output();
        let removed = removed.is_ok_and(|output| output.status.success());
        assert!(removed || std::thread::panicking(), "{} cannot be removed", self.name);
    }
}

/// A metadata device, zeroed.
pub(crate) fn metadata_device(name: &str, ram: u32, blocks: u64) -> Mapped {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    assert!(cpu.contains("User Mode Linux"), "kernel tests run in a guest alone");
    run("modprobe", &["brd", "rd_nr=8", "rd_size=65536"]);
    run("modprobe", &["dm-era"]);
    let device = Mapped::create(name, &format!("0 {} linear /dev/ram{ram} 0", blocks * 8));
    let file = direct(&device);
    let zeroes = Block::zeroed();
    for block in 0..blocks {
        file.write_all_at(zeroes.bytes(), block * 4096).unwrap();
    }
    device
}

fn direct(device: &Mapped) -> File {
    let path = device.path();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_DIRECT)
        .open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Copies a metadata device that may be in use.
pub(crate) fn copy(from: &Mapped, to: &Mapped, blocks: u64) {
    let (from, to) = (direct(from), direct(to));
    let mut block = Block::zeroed();
    for number in 0..blocks {
        from.read_exact_at(block.bytes_mut(), number * 4096).unwrap();
        to.write_all_at(block.bytes(), number * 4096).unwrap();
    }
}

pub(crate) struct Status {
    pub(crate) used: u64,
    pub(crate) total: u64,
    pub(crate) era: Era,
    pub(crate) held: Option<u64>,
}

/// An era device of blocks of 4 KiB over nothing, and what was written to it in which era.
pub(crate) struct Tracked {
    // Closed before the device goes.
    file: File,
    device: Mapped,
    pub(crate) writes: Vec<(Era, u64)>,
}

impl Tracked {
    pub(crate) fn create(name: &str, metadata: &Mapped, origin: &Mapped, blocks: u64) -> Self {
        let (metadata, origin) = (metadata.path(), origin.path());
        let sectors = blocks * 8;
        let table = format!("0 {sectors} era {} {} 8", metadata.display(), origin.display());
        let device = Mapped::create(name, &table);
        let file = direct(&device);
        Self { file, device, writes: Vec::new() }
    }

    pub(crate) fn status(&self) -> Status {
        let line = run("dmsetup", &["status", &self.device.name]);
        // 0 SECTORS era 8 USED/TOTAL ERA HELD
        let words: Vec<&str> = line.split_whitespace().collect();
        let (used, total) = words.get(4).and_then(|word| word.split_once('/')).expect(&line);
        Status {
            used: used.parse().unwrap(),
            total: total.parse().unwrap(),
            era: Era(words[5].parse().unwrap()),
            held: words[6].parse().ok(),
        }
    }

    pub(crate) fn message(&self, text: &str) {
        self.device.message(text);
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes blocks in the current era.
    pub(crate) fn write(&mut self, blocks: impl IntoIterator<Item = u64>) {
        let era = self.status().era;
        let content = Block::zeroed();
        for block in blocks {
            self.file.write_all_at(content.bytes(), block * 4096).unwrap();
            self.writes.push((era, block));
        }
    }
}

/// Blocks written in an era or later.
pub(crate) fn since(writes: &[(Era, u64)], since: Era) -> BTreeSet<u64> {
    writes.iter().filter(|(era, _)| *era >= since).map(|(_, block)| *block).collect()
}

pub(crate) fn numbers(blocks: &BlockSet) -> BTreeSet<u64> {
    blocks.runs().flat_map(|run| run.first..=run.last).collect()
}

pub(crate) fn open(device: &Mapped, view: View) -> Metadata<FileSource> {
    let source = FileSource::open(&device.path()).unwrap();
    Metadata::open(source, view).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn changed(metadata: &Metadata<FileSource>, since: Era) -> BTreeSet<u64> {
    numbers(&metadata.changed_since(since).unwrap_or_else(|error| panic!("{error}")))
}

/// What the packaged tool lists of metadata that is not in use.
pub(crate) fn era_invalidate(path: &Path, since: Era) -> BTreeSet<u64> {
    let since = since.to_string();
    parse_blocks(&run("era_invalidate", &["--written-since", &since, path.to_str().unwrap()]))
}

/// The blocks in a document such as `era_invalidate` prints, with or without spaces around `=`.
pub(crate) fn parse_blocks(document: &str) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    for line in document.lines() {
        if line.trim_start().starts_with("<range ") {
            blocks.extend(number(line, "begin")..number(line, "end"));
        } else if line.trim_start().starts_with("<block ") {
            blocks.insert(number(line, "block"));
        }
    }
    blocks
}

/// The number in an attribute.
pub(crate) fn number(line: &str, name: &str) -> u64 {
    attribute(line, name).parse().unwrap_or_else(|_| panic!("{name} in {line}"))
}

pub(crate) fn attribute<'l>(line: &'l str, name: &str) -> &'l str {
    let start = line.find(&format!(" {name}")).unwrap_or_else(|| panic!("no {name} in {line}"));
    line[start..].split('"').nth(1).unwrap_or_else(|| panic!("no value of {name} in {line}"))
}

/// A generator of numbers that is the same each time (xorshift64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(crate) fn blocks(&mut self, count: usize, limit: u64) -> Vec<u64> {
        (0..count).map(|_| self.below(limit)).collect()
    }
}
