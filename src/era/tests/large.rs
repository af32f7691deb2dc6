//! Large metadata: what is read of it, how much memory that takes, and that nothing is told in another order because a
//! thread beside verifies it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use era_image::{Kind, Spec, seal};
use era_metadata::{
    BLOCK_SIZE, Block, BlockSource, Era, Error, ErrorKind, FileSource, MemorySource, Metadata,
    Unread, View,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test at a time: the allocator counts for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A source that counts, and has a block that cannot be read.
struct Watched {
    source: MemorySource,
    calls: Cell<usize>,
    read: RefCell<Vec<u64>>,
    bad: Option<u64>,
}

impl Watched {
    fn new(bytes: Vec<u8>) -> Self {
        let source = MemorySource::new(bytes);
        Self { source, calls: Cell::new(0), read: RefCell::default(), bad: None }
    }
}

impl BlockSource for Watched {
    fn blocks(&self) -> u64 {
        self.source.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        let mut run = [[0; BLOCK_SIZE]];
        self.read_run(number, &mut run).map_err(|unread| unread.source)?;
        *into.bytes_mut() = run[0];
        Ok(())
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        self.calls.set(self.calls.get() + 1);
        let numbers = first..first + into.len() as u64;
        if let Some(bad) = self.bad.filter(|bad| numbers.contains(bad)) {
            let before = usize::try_from(bad - first).unwrap();
            self.source.read_run(first, &mut into[..before])?;
            return Err(Unread { before, source: io::Error::other("a bad sector") });
        }
        self.read.borrow_mut().extend(numbers);
        self.source.read_run(first, into)
    }
}

/// Large enough for a thread to be worth it: 1965 blocks of eras, under nodes of 100 each.
const BLOCKS: u32 = 2_000_000;

fn list(source: &Watched, since: u32) -> Result<Vec<(u64, u64)>, Error> {
    let changed = Metadata::open(source, View::Live)?.changed_since(Era(since))?;
    Ok(changed.runs().map(|run| (run.first, run.last)).collect())
}

/// The oldest archived writeset is of the era asked for, or of one before it.
#[test]
fn where_the_writesets_say_it_all_only_they_are_read() {
    let _alone = alone();
    let spec = Spec::of(BLOCKS);
    // 62 blocks of words under a node, the writeset tree, and the superblock.
    let bitset = 62 + 1;
    for (since, bitsets) in [(spec.digested + 1, 4), (spec.digested + 3, 2), (spec.digested + 4, 1)]
    {
        let source = Watched::new(spec.bytes());
        assert_eq!(list(&source, since).unwrap(), spec.runs_since(since));
        assert_eq!(source.read.borrow().len(), bitsets * bitset + 2, "since {since}");
    }
    let source = Watched::new(spec.bytes());
    list(&source, spec.digested).unwrap();
    assert!(source.read.borrow().len() > 1965, "the array too");
}

#[test]
fn what_lies_side_by_side_is_read_together_and_nothing_twice() {
    let _alone = alone();
    let spec = Spec::of(BLOCKS);
    let source = Watched::new(spec.bytes());
    assert_eq!(list(&source, 1).unwrap(), spec.runs_since(1));
    assert!(source.calls.get() < 80, "{} calls", source.calls.get());
    let mut read = source.read.take();
    let all = read.len();
    read.sort_unstable();
    read.dedup();
    assert_eq!(read.len(), all);
}

/// A bit a block, and what is read at once.
#[test]
fn memory_is_a_bit_a_block_and_sixteen_mebibytes() {
    let _alone = alone();
    let spec = Spec::of(8_000_000);
    let path = std::env::temp_dir().join(format!("era-large-{}", std::process::id()));
    spec.write(&File::create(&path).unwrap()).unwrap();
    for open in [FileSource::open, FileSource::open_direct] {
        let source = open(&path).unwrap();
        let bytes = usize::try_from(source.blocks()).unwrap() * BLOCK_SIZE;
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let changed = Metadata::open(&source, View::Live).unwrap().changed_since(Era(0)).unwrap();
        let used = MEMORY.peak_usage() - before;
        let bound = 8_000_000 / 8 + (16 << 20);
        assert!(used < bound && bound < bytes, "{used} bytes, {bound} are the bound");
        assert!(changed.count() > 4_000_000);
    }
    std::fs::remove_file(&path).unwrap();
}

/// The blocks of eras are allocated one after the other from the fifth block on; from the two hundredth on there is a node
/// before each hundred.
fn leaf(index: u64) -> u64 {
    4 + index + (index / 100).saturating_sub(1)
}

fn damage(source: &mut [u8], index: u64, kind: Option<Kind>) {
    let start = usize::try_from(leaf(index)).unwrap() * BLOCK_SIZE;
    let block = &mut source[start..start + BLOCK_SIZE];
    block[1000..1004].copy_from_slice(&1_000_000_u32.to_le_bytes());
    if let Some(kind) = kind {
        seal(kind, block);
    }
}

#[test]
fn of_two_errors_the_first_in_the_metadata_is_told() {
    let _alone = alone();
    let spec = Spec::of(BLOCKS);
    let whole = spec.bytes();
    let found = |damaged: &[(u64, Option<Kind>)], bad: Option<u64>| {
        let mut bytes = whole.clone();
        for &(index, kind) in damaged {
            damage(&mut bytes, index, kind);
        }
        let source = Watched { bad: bad.map(leaf), ..Watched::new(bytes) };
        let error = list(&source, 1).unwrap_err();
        // Without a thread it is the same.
        let again =
            Metadata::open(&source, View::Live).unwrap().visit_array(|_, _| ()).unwrap_err();
        assert_eq!(error.to_string(), again.to_string());
        error
    };
    let error = found(&[(5, None), (6, Some(Kind::Array)), (1900, None)], Some(1000));
    assert!(matches!(error.kind, ErrorKind::Checksum { block, .. } if block == leaf(5)), "{error}");
    let error = found(&[(150, Some(Kind::Array)), (151, None)], Some(152));
    assert!(matches!(error.kind, ErrorKind::EraBeyond { found: 1_000_000, .. }), "{error}");
    assert!(
        error.to_string().contains(&format!("array block 150 (block {})", leaf(150))),
        "{error}"
    );
    let error = found(&[(1964, None)], Some(1950));
    assert!(matches!(error.kind, ErrorKind::Read { block, .. } if block == leaf(1950)), "{error}");
    let error = found(&[(1964, None)], None);
    assert!(
        matches!(error.kind, ErrorKind::Checksum { block, .. } if block == leaf(1964)),
        "{error}"
    );
}
