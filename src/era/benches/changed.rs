//! What listing changed blocks takes, measured from within: `changed MODE IMAGE SINCE [ROUNDS]`. A line for each round
//! goes to standard output, of words and numbers in turn.
//!
//! - `open` reads the superblock alone: what is to be subtracted when instructions are counted.
//! - `cached` reads the image through the page cache, `direct` around it.
//! - `plain` reads the whole image around the page cache and does nothing with it.

use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use era_metadata::{BLOCK_SIZE, Block, BlockSource, Era, FileSource, Metadata, Unread, View};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    // Run by `cargo test` or `cargo bench` it has nothing to measure.
    let [mode, image, since, rest @ ..] = &words[..] else { return Ok(()) };
    let (image, since) = (PathBuf::from(image), Era(since.parse()?));
    let rounds = rest.first().map_or(Ok(1), |rounds| rounds.parse())?;
    for _ in 0..rounds {
        match mode.as_str() {
            "open" => open(&image)?,
            "cached" => list(FileSource::open(&image)?, since)?,
            "direct" => list(FileSource::open_direct(&image)?, since)?,
            "plain" => plain(&FileSource::open_direct(&image)?)?,
            other => return Err(format!("{other} is not a mode").into()),
        }
    }
    Ok(())
}

fn open(image: &Path) -> Result<(), Box<dyn Error>> {
    let metadata = Metadata::open(FileSource::open(image)?, View::Live)?;
    println!("era {}", metadata.current_era());
    Ok(())
}

fn list(source: FileSource, since: Era) -> Result<(), Box<dyn Error>> {
    let source = Counted { source, calls: Cell::new(0), blocks: Cell::new(0) };
    let start = Instant::now();
    let changed = Metadata::open(&source, View::Live)?.changed_since(since)?;
    let micros = start.elapsed().as_micros();
    let Counted { calls, blocks, .. } = &source;
    let (calls, bytes) = (calls.get(), blocks.get() * BLOCK_SIZE);
    println!("micros {micros} calls {calls} bytes {bytes} changed {}", changed.count());
    Ok(())
}

/// In reads of 1 MiB.
fn plain(source: &FileSource) -> Result<(), Box<dyn Error>> {
    const TOGETHER: usize = 256;
    let mut bytes = vec![0; (TOGETHER + 1) * BLOCK_SIZE];
    let start = bytes.as_ptr().align_offset(BLOCK_SIZE);
    let blocks = bytes[start..start + TOGETHER * BLOCK_SIZE].as_chunks_mut::<BLOCK_SIZE>().0;
    let begun = Instant::now();
    for first in (0..source.blocks()).step_by(TOGETHER) {
        let count = usize::try_from(source.blocks() - first)?.min(TOGETHER);
        source.read_run(first, &mut blocks[..count]).map_err(|unread| unread.source)?;
        black_box(&mut *blocks);
    }
    let (micros, read) = (begun.elapsed().as_micros(), source.blocks() * BLOCK_SIZE as u64);
    println!("micros {micros} bytes {read}");
    Ok(())
}

/// Counts what is read.
struct Counted {
    source: FileSource,
    calls: Cell<usize>,
    blocks: Cell<usize>,
}

impl Counted {
    fn count(&self, blocks: usize) {
        self.calls.set(self.calls.get() + 1);
        self.blocks.set(self.blocks.get() + blocks);
    }
}

impl BlockSource for Counted {
    fn blocks(&self) -> u64 {
        self.source.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> std::io::Result<()> {
        self.count(1);
        self.source.read(number, into)
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        self.count(into.len());
        self.source.read_run(first, into)
    }
}
