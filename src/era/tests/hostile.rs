//! Metadata that somebody made up: never a panic, never a walk that does not end, never more memory than was read.

#[allow(dead_code, reason = "each test binary uses its part of the generator")]
mod generator;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use era_metadata::{
    BLOCK_SIZE, Block, BlockSource, Era, Error, ErrorKind, MemorySource, Metadata, View,
};
use generator::{History, Image, Kind};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The nodes on the way down, one block each, the path of an error, and its text.
const FIXED: usize = 128 << 10;

/// One test at a time: the allocator counts for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Counting {
    source: MemorySource,
    reads: Cell<usize>,
}

impl BlockSource for Counting {
    fn blocks(&self) -> u64 {
        self.source.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.source.read(number, into)
    }
}

/// Does something with metadata and checks what it cost.
fn frugally<T>(
    image: &Image,
    work: impl FnOnce(&Metadata<&Counting>) -> Result<T, Error>,
) -> Result<T, Error> {
    let blocks = image.blocks.len();
    let source = Counting { source: MemorySource::new(image.bytes()), reads: Cell::new(0) };
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let done = Metadata::open(&source, View::Live).and_then(|metadata| work(&metadata));
    let used = MEMORY.peak_usage().saturating_sub(before);
    // A vector that grows has up to twice the room, and for a moment the old one beside the new.
    let bound = FIXED + 3 * BLOCK_SIZE * source.reads.get();
    assert!(used <= bound, "{used} bytes, {bound} are the bound");
    assert!(source.reads.get() <= blocks + 1, "{} reads", source.reads.get());
    done
}

fn everything(image: &Image, since: Era) -> Vec<Result<u64, Error>> {
    let mut found = vec![frugally(image, |m| m.changed_since(since).map(|set| set.count()))];
    let mut count = 0;
    found.push(
        frugally(image, |m| m.visit_array(|_, era| count += u64::from(era.0))).map(|()| count),
    );
    let mut count = 0;
    let walked = frugally(image, |m| m.visit_writesets(|_, _, blocks| count += blocks.count()));
    found.push(walked.map(|()| count));
    found
}

#[derive(Clone, Debug)]
struct Change {
    block: prop::sample::Index,
    offset: usize,
    value: Vec<u8>,
    sealed: bool,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let small = 0_u64..64;
    let edge = prop_oneof![
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        Just(1 << 31),
        Just((1 << 31) - 1),
        any::<u64>()
    ];
    let number = prop_oneof![3 => small, 2 => edge];
    let value = prop_oneof![
        number.clone().prop_map(|n| n.to_le_bytes()[..4].to_vec()),
        number.prop_map(|n| n.to_le_bytes().to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    // Where headers, superblock fields, keys and the values of nodes are.
    let offset = prop_oneof![
        3 => (0_usize..15).prop_map(|n| n * 4),
        3 => (43_usize..56).prop_map(|n| n * 4),
        2 => (0_usize..6).prop_map(|n| 32 + 252 * 8 + n * 8),
        2 => (0_usize..6).prop_map(|n| 32 + 201 * 8 + n * 4),
        1 => 0..BLOCK_SIZE - 8,
    ];
    let change = (any::<prop::sample::Index>(), offset, value, prop::bool::weighted(0.95))
        .prop_map(|(block, offset, value, sealed)| Change { block, offset, value, sealed });
    prop::collection::vec(change, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_metadata_is_read_frugally(
        history in generator::histories(),
        changes in changes(),
        since in 0_u32..12,
    ) {
        let _alone = alone();
        let mut image = generator::image(&history);
        for change in changes {
            let block = change.block.index(image.blocks.len());
            image.put(block, change.offset, &change.value);
            if change.sealed {
                image.seal(block);
            }
        }
        prop_assert_eq!(everything(&image, Era(since)).len(), 3);
    }
}

/// A small device: era 1 archived, era 2 current.
fn plain() -> (Image, Numbers) {
    let history = History {
        nr_blocks: 100,
        old_blocks: 100,
        old_eras: 0,
        eras: vec![BTreeSet::from([1]), BTreeSet::from([2])],
        digested: 0,
        digested_below: 0,
        unclean: true,
        fan_out: 4,
    };
    let image = generator::image(&history);
    let root = |offset: usize| {
        u64::from_le_bytes(image.blocks[0].1[offset..offset + 8].try_into().unwrap())
    };
    let numbers = Numbers { current: root(192), writesets: root(200), array: root(208) };
    (image, numbers)
}

/// The blocks that the superblock refers to.
struct Numbers {
    current: u64,
    writesets: u64,
    array: u64,
}

fn superblock(image: &mut Image, offset: usize, bytes: &[u8]) {
    image.put(0, offset, bytes);
    image.seal(0);
}

fn refused(image: &Image) -> Error {
    frugally(image, |metadata| metadata.changed_since(Era(1))).unwrap_err()
}

#[test]
fn a_device_of_many_blocks_takes_no_memory_for_them() {
    let _alone = alone();
    let (mut image, _) = plain();
    superblock(&mut image, 180, &((1_u32 << 31) - 1).to_le_bytes());
    superblock(&mut image, 188, &((1_u32 << 31) - 1).to_le_bytes());
    let error = refused(&image);
    let expected = matches!(error.kind, ErrorKind::Field { field: "nr_entries", found: 2, .. });
    assert!(expected, "{error}");

    superblock(&mut image, 180, &(1_u32 << 31).to_le_bytes());
    let error = refused(&image);
    assert!(matches!(error.kind, ErrorKind::Field { field: "nr_blocks", .. }), "{error}");
}

#[test]
fn a_far_away_array_block_takes_no_memory_for_those_before_it() {
    let _alone = alone();
    let (mut image, Numbers { current, .. }) = plain();
    superblock(&mut image, 180, &((1_u32 << 31) - 1).to_le_bytes());
    superblock(&mut image, 188, &((1_u32 << 31) - 1).to_le_bytes());
    let node = usize::try_from(current).unwrap();
    image.put(node, 32, &65_000_u64.to_le_bytes());
    image.seal(node);
    let error = refused(&image);
    assert!(matches!(error.kind, ErrorKind::ArrayKey { found: 65_000, .. }), "{error}");
}

#[test]
fn a_cycle_is_refused() {
    let _alone = alone();
    let (mut image, _) = plain();
    // The next node to be made refers to itself.
    let own = image.blocks.len() as u64;
    let root = image.node(true, &[(0, own.to_le_bytes().to_vec())], 8);
    assert_eq!(root, own);
    superblock(&mut image, 200, &root.to_le_bytes());
    let error = refused(&image);
    assert!(matches!(error.kind, ErrorKind::Visited { block } if block == own), "{error}");
}

#[test]
fn a_tower_of_nodes_is_refused() {
    let _alone = alone();
    let (mut image, _) = plain();
    let mut root = image.node(false, &[(1, vec![0; 12])], 12);
    for _ in 0..100 {
        root = image.node(true, &[(1, root.to_le_bytes().to_vec())], 8);
    }
    superblock(&mut image, 200, &root.to_le_bytes());
    let error = refused(&image);
    assert!(matches!(error.kind, ErrorKind::TooDeep { .. }), "{error}");
}

#[test]
fn writesets_that_share_a_bitset_are_refused() {
    let _alone = alone();
    let (mut image, Numbers { current, .. }) = plain();
    let shared = [&100_u32.to_le_bytes()[..], &current.to_le_bytes()].concat();
    let root = image.node(false, &[(1, shared.clone()), (2, shared)], 12);
    superblock(&mut image, 200, &root.to_le_bytes());
    let error = refused(&image);
    assert!(matches!(error.kind, ErrorKind::Visited { block } if block == current), "{error}");
}

#[test]
fn a_child_outside_its_parents_range_is_refused() {
    let _alone = alone();
    let (mut image, _) = plain();
    let entry = |image: &mut Image, key: u64| {
        let bits = image.bitset(&BTreeSet::new(), 100, 4);
        (key, [&100_u32.to_le_bytes()[..], &bits.to_le_bytes()].concat())
    };
    let (two, one) = (entry(&mut image, 2), entry(&mut image, 1));
    let left = image.node(false, &[two], 12);
    let right = image.node(false, &[one], 12);
    let children = [(1, left.to_le_bytes().to_vec()), (2, right.to_le_bytes().to_vec())];
    let root = image.node(true, &children, 8);
    superblock(&mut image, 200, &root.to_le_bytes());
    let error = refused(&image);
    let text = "superblock -> writeset tree -> ";
    assert!(error.to_string().starts_with(text), "{error}");
    let in_left = |block| block == left;
    assert!(
        matches!(error.kind, ErrorKind::Key { block, index: 0, found: 2, .. } if in_left(block)),
        "{error}"
    );
}

#[test]
fn eras_that_have_not_begun_are_refused() {
    let _alone = alone();
    let (mut image, Numbers { array, .. }) = plain();
    let node = usize::try_from(array).unwrap();
    let leaf = image.blocks.iter().position(|(kind, _)| matches!(kind, Kind::Array)).unwrap();
    assert!(leaf < node, "the generator writes the era array first");
    image.put(leaf, 24, &3_u32.to_le_bytes());
    image.seal(leaf);
    let error = frugally(&image, |metadata| metadata.visit_array(|_, _| ())).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::EraBeyond { found: 3, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "superblock -> era array -> node (block {array}) -> array block 0 (block {leaf}): \
             a write in era 3 is recorded, but the current era is 2"
        )
    );
}

#[test]
fn a_bit_beyond_the_last_block_is_refused() {
    let _alone = alone();
    let (mut image, _) = plain();
    let bits = image.bitset(&BTreeSet::from([100]), 101, 4);
    superblock(&mut image, 192, &bits.to_le_bytes());
    let error = refused(&image);
    assert!(matches!(error.kind, ErrorKind::Field { field: "last word", .. }), "{error}");
}

#[test]
fn a_writeset_longer_than_the_device_is_refused() {
    let _alone = alone();
    let (mut image, _) = plain();
    superblock(&mut image, 188, &101_u32.to_le_bytes());
    let error = refused(&image);
    let expected = matches!(error.kind, ErrorKind::WritesetTooLong { found: 101, nr_blocks: 100 });
    assert!(expected, "{error}");
}

#[test]
fn an_array_that_lacks_a_block_is_refused() {
    let _alone = alone();
    let (mut image, Numbers { writesets, .. }) = plain();
    // An empty writeset tree, so that the array must be read.
    let empty = image.node(false, &[], 12);
    assert_ne!(empty, writesets);
    let array = image.node(false, &[], 8);
    superblock(&mut image, 200, &empty.to_le_bytes());
    superblock(&mut image, 208, &array.to_le_bytes());
    let error = refused(&image);
    let expected = matches!(error.kind, ErrorKind::ArrayTooShort { expected: 1, found: 0 });
    assert!(expected, "{error}");
}

#[test]
fn what_is_no_superblock_is_named() {
    let _alone = alone();
    let open = |bytes: Vec<u8>, view| Metadata::open(MemorySource::new(bytes), view).unwrap_err();
    let error = open(vec![0; BLOCK_SIZE], View::Live);
    assert!(matches!(error.kind, ErrorKind::Unformatted { block: 0 }), "{error}");
    let error = open(vec![1; BLOCK_SIZE], View::Live);
    assert!(matches!(error.kind, ErrorKind::Magic { .. }), "{error}");
    let error = open(vec![1; BLOCK_SIZE - 1], View::Live);
    assert!(matches!(error.kind, ErrorKind::OutOfBounds { block: 0, .. }), "{error}");
    let error = open(vec![1; BLOCK_SIZE], View::HeldAt(u64::MAX));
    assert!(matches!(error.kind, ErrorKind::OutOfBounds { block: u64::MAX, .. }), "{error}");

    let (image, _) = plain();
    let error = open(image.bytes(), View::HeldAt(0));
    assert!(matches!(error.kind, ErrorKind::NoSnapshot), "{error}");
    let mut bytes = image.bytes();
    bytes.extend_from_within(..BLOCK_SIZE);
    let moved = image.blocks.len() as u64;
    let error = open(bytes, View::HeldAt(moved));
    assert!(matches!(error.kind, ErrorKind::Misplaced { found: 0, .. }), "{error}");
}
