//! All that reads an image, and what must hold whatever is in it.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use era_metadata::check::{Report, check};
use era_metadata::dump::{self, DumpError};
use era_metadata::{
    BLOCK_SIZE, Block, BlockSet, BlockSource, Era, Error, MAX_BLOCKS, Metadata, Part, View, render,
};

use super::Forge;

/// Counts what is read.
#[derive(Debug)]
pub struct Counting<'a> {
    forge: &'a Forge,
    reads: AtomicU64,
}

impl BlockSource for Counting<'_> {
    fn blocks(&self) -> u64 {
        self.forge.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        assert!(number < self.forge.total, "read beyond the end: {number}");
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.forge.read(number, into)
    }
}

/// One way to read an image.
pub struct Reading {
    pub name: &'static str,
    pub read: fn(&Counting<'_>),
    /// How often each block may be read.
    times: u64,
    /// Bytes that may be allocated for each block of the image.
    per_block: u64,
}

/// Every way.
pub const READINGS: [Reading; 9] = [
    Reading { name: "changed since 0", read: |source| list(source, View::Live, 0), ..LIST },
    Reading { name: "changed since 3", read: |source| list(source, View::Live, 3), ..LIST },
    Reading { name: "changed, held", read: |source| list(source, View::Held, 1), ..LIST },
    Reading { name: "array", read: array, ..LIST },
    Reading { name: "writesets", read: writesets, ..LIST },
    Reading { name: "dump as XML", read: dump_xml, ..LIST },
    Reading { name: "dump as JSON", read: dump_json, ..LIST },
    Reading { name: "check", read: check_live, times: 2, per_block: 32 },
    Reading { name: "check, held", read: check_held, times: 2, per_block: 32 },
];

const LIST: Reading = Reading { name: "", read: |_| (), times: 1, per_block: 0 };

impl Reading {
    /// Reads; returns how many bytes may have been allocated at once at most.
    pub fn run(&self, forge: &Forge) -> u64 {
        /// Nodes on the way down, one block each, the path of an error and its text, the findings.
        const FIXED: u64 = 192 << 10;
        let source = Counting { forge, reads: AtomicU64::new(0) };
        (self.read)(&source);
        let reads = source.reads.into_inner();
        let blocks = forge.total.min(MAX_BLOCKS);
        let most = self.times * blocks + 3;
        assert!(reads <= most, "{}: {reads} reads of {blocks} blocks", self.name);
        FIXED + 3 * BLOCK_SIZE as u64 * reads + self.per_block * blocks
    }
}

fn list(source: &Counting<'_>, view: View, since: u32) {
    let changed = Metadata::open(source, view).and_then(|metadata| {
        let changed = metadata.changed_since(Era(since))?;
        assert!(
            changed.runs().all(|run| run.last < u64::from(metadata.nr_blocks())),
            "beyond the end"
        );
        Ok(changed)
    });
    if let Ok(changed) = changed {
        render::list(&mut Sink::default(), changed.runs().take(1000)).unwrap();
    }
}

fn array(source: &Counting<'_>) {
    let mut blocks = 0;
    let visited = Metadata::open(source, View::Live).and_then(|metadata| {
        metadata.visit_array(|_, _| blocks += 1)?;
        Ok(metadata.nr_blocks())
    });
    assert!(
        visited.is_err() || visited.is_ok_and(|nr_blocks| nr_blocks == blocks),
        "array cut off"
    );
}

fn writesets(source: &Counting<'_>) {
    let _ = Metadata::open(source, View::Live).and_then(|metadata| {
        metadata.visit_writesets(|_, _, blocks| assert!(blocks.count() < 1 << 31))
    });
}

/// Takes some and then no more, as `head` does.
#[derive(Default)]
struct Sink {
    written: usize,
    limit: Option<usize>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        match self.limit {
            Some(limit) if self.written > limit => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dump_xml(source: &Counting<'_>) {
    if let Ok(metadata) = Metadata::open(source, View::Live) {
        let mut sink = Sink { written: 0, limit: Some(256 << 10) };
        let dumped = dump::xml(&metadata, &mut sink);
        assert!(!matches!(dumped, Err(DumpError::Write(_))) || sink.written > 256 << 10);
    }
}

fn dump_json(source: &Counting<'_>) {
    if let Ok(metadata) = Metadata::open(source, View::Live) {
        let dumped = dump::json(&metadata, &mut Sink::default());
        assert!(!matches!(dumped, Err(DumpError::Write(_))), "the sink takes all");
    }
}

fn check_live(source: &Counting<'_>) {
    if let Ok(report) = check(source, View::Live, 50) {
        hold_to(&report);
    }
}

fn check_held(source: &Counting<'_>) {
    if let Ok(report) = check(source, View::Held, 50) {
        hold_to(&report);
    }
}

fn hold_to(report: &Report) {
    assert!(report.findings.len() <= 50);
    assert_eq!(report.is_clean(), report.errors == 0);
    for finding in &report.findings {
        assert!(!finding.to_string().is_empty() && !finding.problem.name().is_empty());
    }
}

/// What the checker finds nothing wrong with can be read, and every way to read it says the same; what cannot be read
/// is found.
pub fn agree(forge: &Forge) {
    for view in [View::Live, View::Held] {
        let Ok(report) = check(forge, view, 50) else { continue };
        let listed = lists(forge, view);
        let wrong = || report.findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        match listed {
            Ok(lists) if report.is_clean() => {
                for (since, (listed, dumped)) in lists {
                    assert!(listed == dumped, "{view:?}: since {since} differs from the dump");
                }
            }
            Ok(_) => {}
            Err(error) => {
                assert!(!report.is_clean(), "{view:?}: {error}, not found: {:?}", wrong());
            }
        }
    }
}

type Lists = Vec<(u32, (BlockSet, BlockSet))>;

/// Of some eras, what is listed and what the dump has.
fn lists(forge: &Forge, view: View) -> Result<Lists, Error> {
    let metadata = Metadata::open(forge, view)?;
    let current = metadata.current_era().0;
    let mut lists = Vec::new();
    for since in [1, current.saturating_sub(1), current] {
        let listed = metadata.changed_since(Era(since))?;
        let dumped = dumped_since(&metadata, since.max(1))?;
        let (listed, dumped) = (listed.runs(), dumped.iter().copied());
        lists.push((
            since,
            (listed.flat_map(|run| run.first..=run.last).collect(), dumped.collect()),
        ));
    }
    Ok(lists)
}

fn dumped_since(metadata: &Metadata<&Forge>, since: u32) -> Result<Vec<u64>, Error> {
    let (mut blocks, mut wanted) = (Vec::new(), false);
    metadata.visit(|part| {
        match part {
            Part::Writeset { era, .. } => wanted = era.0 >= since,
            Part::Bits { first, words } if wanted => {
                let bits = words.iter().flat_map(|word| {
                    let word = u64::from_le_bytes(*word);
                    (0..64).map(move |bit| word >> bit & 1 == 1)
                });
                blocks.extend((first..).zip(bits).filter(|(_, set)| *set).map(|(block, _)| block));
            }
            Part::Eras { first, eras } => {
                let eras = eras.iter().map(|era| u32::from_le_bytes(*era) >= since);
                blocks.extend((first..).zip(eras).filter(|(_, set)| *set).map(|(block, _)| block));
            }
            Part::Bits { .. } | Part::WritesetEnd => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(blocks)
}
