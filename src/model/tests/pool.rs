//! The table of a pool: areas never overlap, what is written reads back, and a write that is torn
//! anywhere leaves the table before it or the one after it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use eratrack_model::names::StackId;
use eratrack_model::pool::{
    AllocateError, Copies, Copy, HEAD, LEAST_DISK, MOST_AREAS, PoolId, ReadError, Table,
    TableError, UNIT, Unsound, Write,
};
use eratrack_model::units::Bytes;
use proptest::prelude::*;

const SECTOR: usize = 512;

fn id(last: u8) -> PoolId {
    format!("0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c{last:02x}").parse().unwrap()
}

fn stack(number: u8) -> StackId {
    format!("s-{number}").parse().unwrap()
}

fn mib(count: u64) -> Bytes {
    Bytes(count * UNIT)
}

/// A disk of which only written sectors are kept.
#[derive(Clone, Default)]
struct Disk {
    length: Bytes,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
}

impl Disk {
    fn new(length: Bytes) -> Self {
        Self { length, sectors: BTreeMap::new() }
    }

    fn read(&self) -> Result<Copies, ReadError> {
        Copies::read(self.length, |offset, bytes| {
            assert!(offset + bytes.len() as u64 <= self.length.0, "beyond the end");
            for (index, sector) in bytes.chunks_exact_mut(SECTOR).enumerate() {
                let there = self.sectors.get(&(offset / SECTOR as u64 + index as u64));
                sector.copy_from_slice(there.unwrap_or(&[0; SECTOR]));
            }
            Ok(())
        })
    }

    /// The first so many bytes of it.
    fn write_torn(&mut self, write: &Write, cut: usize) {
        for (index, new) in write.bytes.chunks_exact(SECTOR).enumerate() {
            let kept = cut.saturating_sub(index * SECTOR).min(SECTOR);
            let at = write.offset / SECTOR as u64 + index as u64;
            self.sectors.entry(at).or_insert([0; SECTOR])[..kept].copy_from_slice(&new[..kept]);
        }
    }

    fn write(&mut self, write: &Write) {
        self.write_torn(write, write.bytes.len());
    }

    /// Changes the table as [`Copies::next`] says.
    fn change_to(&mut self, copies: &Copies, next: Table) -> Copies {
        let (writes, after) = copies.next(next).unwrap();
        for write in &writes {
            self.write(write);
        }
        after
    }

    /// Those of its sectors that the mask has.
    fn write_some(&mut self, write: &Write, mask: &[bool]) {
        for (index, new) in write.bytes.chunks_exact(SECTOR).enumerate() {
            if mask[index % mask.len()] {
                let at = write.offset / SECTOR as u64 + index as u64;
                self.sectors.insert(at, new.try_into().unwrap());
            }
        }
    }

    fn with_pool(length: Bytes) -> (Self, Copies) {
        let mut disk = Self::new(length);
        for write in Copies::create(&Table::new(id(1), length).unwrap()).unwrap() {
            disk.write(&write);
        }
        let copies = disk.read().unwrap();
        (disk, copies)
    }
}

#[derive(Clone, Debug)]
enum Change {
    Allocate(u8, u64),
    Free(u8),
    Grow(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (0..12_u8, 1..6 * UNIT).prop_map(|(stack, length)| Change::Allocate(stack, length)),
        3 => (0..12_u8).prop_map(Change::Free),
        1 => (0..3 * UNIT).prop_map(Change::Grow),
    ]
}

fn changed(table: &Table, change: &Change, taken: &[Range<u64>]) -> Result<Table, AllocateError> {
    match change {
        Change::Allocate(number, length) => {
            table.allocate(&stack(*number), Bytes(*length), taken).map(|(next, _)| next)
        }
        Change::Free(number) => table.free(&stack(*number)),
        Change::Grow(more) => table.grow(Bytes(table.disk().0 + more)),
    }
}

/// Who has each unit of the disk, counted without the code under test.
fn owners(table: &Table) -> Vec<Option<StackId>> {
    let units = usize::try_from(table.disk().0 / UNIT).unwrap();
    let mut owners = vec![None; units];
    for area in table.areas() {
        assert!(area.start.0.is_multiple_of(UNIT) && area.length.0.is_multiple_of(UNIT));
        let first = usize::try_from(area.start.0 / UNIT).unwrap();
        let count = usize::try_from(area.length.0 / UNIT).unwrap();
        assert!(count > 0 && first > 0 && first + count < units, "over a copy, or beyond");
        for unit in &mut owners[first..first + count] {
            assert_eq!(*unit, None, "two areas overlap");
            *unit = Some(area.stack.clone());
        }
    }
    owners
}

/// The longest run of units that nobody has.
fn longest_gap(table: &Table, taken: &[Range<u64>]) -> usize {
    let mut free: Vec<bool> = owners(table).iter().map(Option::is_none).collect();
    let last = free.len() - 1;
    (free[0], free[last]) = (false, false);
    for (index, unit) in free.iter_mut().enumerate() {
        let unit_range = index as u64 * UNIT..(index as u64 + 1) * UNIT;
        let hit = |range: &Range<u64>| range.start < unit_range.end && unit_range.start < range.end;
        *unit &= !taken.iter().any(hit);
    }
    free.split(|free| !free).map(<[bool]>::len).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn areas_never_overlap_and_a_gap_that_is_long_enough_is_found(
        changes in prop::collection::vec((change(), 0..40 * UNIT, 0..3 * UNIT), 1..40),
    ) {
        let mut table = Table::new(id(1), mib(40)).unwrap();
        for (change, from, length) in changes {
            let taken = vec![Range { start: from, end: from + length }];
            let before = owners(&table);
            match changed(&table, &change, &taken) {
                Ok(next) => {
                    prop_assert_eq!(next.sequence(), table.sequence() + 1);
                    if let Change::Allocate(number, wanted) = &change {
                        let area = next.area(&stack(*number)).unwrap();
                        prop_assert!(area.length.0 >= *wanted && area.length.0 < *wanted + UNIT);
                        let end = area.start.0 + area.length.0;
                        let hits = length > 0 && taken[0].start < end && area.start.0 < taken[0].end;
                        prop_assert!(!hits, "given away although it is taken");
                    }
                    table = next;
                }
                Err(AllocateError::NoRoom { needed, .. }) => {
                    prop_assert!((longest_gap(&table, &taken) as u64) < needed.0 / UNIT);
                }
                Err(AllocateError::HasArea(it)) => prop_assert!(before.contains(&Some(it))),
                Err(AllocateError::NoArea(it)) => prop_assert!(!before.contains(&Some(it))),
                Err(AllocateError::NotGrown { used, disk }) => {
                    prop_assert!(disk.0 / UNIT == used.0 / UNIT);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            owners(&table);
        }
    }

    #[test]
    fn what_is_written_reads_back(changes in prop::collection::vec(change(), 0..30)) {
        let (mut disk, mut copies) = Disk::with_pool(mib(40));
        for change in &changes {
            let Ok(next) = changed(&copies.table, change, &[]) else { continue };
            for copy in [Copy::First, Copy::Second] {
                let decoded = Table::decode(&next.encode(copy)).unwrap();
                prop_assert_eq!((&decoded.table, decoded.copy), (&next, copy));
            }
            disk.length = disk.length.max(next.disk());
            copies = disk.change_to(&copies, next);
            prop_assert_eq!(&disk.read().unwrap(), &copies);
        }
    }

    #[test]
    fn a_write_torn_anywhere_leaves_the_old_table_or_the_new(
        changes in prop::collection::vec(change(), 1..20),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<[bool; 5]>()), 20),
    ) {
        let (mut disk, mut copies) = Disk::with_pool(mib(40));
        for (change, (cut, mask)) in changes.iter().zip(&cuts) {
            let Ok(next) = changed(&copies.table, change, &[]) else { continue };
            disk.length = disk.length.max(next.disk());
            let (writes, after) = copies.next(next).unwrap();
            for write in &writes {
                let (mut torn, mut scattered) = (disk.clone(), disk.clone());
                torn.write_torn(write, cut.index(write.bytes.len() + 1));
                scattered.write_some(write, mask);
                for found in [torn.read(), scattered.read()] {
                    let found = found.unwrap().table;
                    let old = found.areas() == copies.table.areas();
                    let new = found.areas() == after.table.areas();
                    let one = found.sequence() >= copies.table.sequence();
                    prop_assert!(one && (old || new), "{:?}", found);
                    prop_assert!(new || found == copies.table, "{:?}", found);
                }
                // What was torn is written again by whoever comes next.
                let survivor = torn.read().unwrap();
                let repaired = torn.change_to(&survivor, survivor.table.again().unwrap());
                prop_assert_eq!(torn.read().unwrap().table, repaired.table);
                disk.write(write);
            }
            copies = after;
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_fail_otherwise(
        bytes in prop::collection::vec(any::<u8>(), 0..3 * HEAD),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        repaired in any::<bool>(),
    ) {
        drop(Table::decode(&bytes));
        let (table, _) = Table::new(id(1), mib(9)).unwrap()
            .allocate(&stack(1), mib(2), &[]).unwrap();
        let mut near = table.encode(Copy::First);
        for (place, value) in places {
            let at = place.index(near.len());
            near[at] = value;
        }
        if repaired {
            let checksum = crc32c::crc32c(&near[20..HEAD + 128]);
            near[16..20].copy_from_slice(&checksum.to_le_bytes());
        }
        if let Ok(found) = Table::decode(&near) {
            // Whatever is believed is sound, and is written as it was read.
            owners(&found.table);
            let written = found.table.encode(found.copy);
            let used = HEAD + 128 * found.table.areas().len();
            prop_assert_eq!(&written[..used], &near[..used]);
        }
    }
}

#[test]
fn every_cut_of_one_write_leaves_a_whole_table() {
    let (mut disk, mut copies) = Disk::with_pool(mib(200));
    for number in 0..40 {
        let (next, _) = copies.table.allocate(&stack(number), mib(1), &[]).unwrap();
        copies = disk.change_to(&copies, next);
    }
    let next = copies.table.free(&stack(7)).unwrap();
    let (writes, after) = copies.next(next).unwrap();
    let [write] = &writes[..] else { panic!("{} writes", writes.len()) };
    for cut in 0..=write.bytes.len() {
        let mut torn = disk.clone();
        torn.write_torn(write, cut);
        let found = torn.read().unwrap();
        assert!(found.table == copies.table || found.table == after.table, "cut at {cut}");
    }
}

/// A disk that was a pool before has an older table with a higher number.
#[test]
fn making_a_pool_anew_leaves_the_former_one_none_or_the_new() {
    let (mut disk, copies) = Disk::with_pool(mib(20));
    let (mut next, _) = copies.table.allocate(&stack(1), mib(1), &[]).unwrap();
    for _ in 0..9 {
        next = disk.change_to(&disk.read().unwrap(), next).table.again().unwrap();
    }
    let former = disk.read().unwrap().table;
    let table = Table::new(id(2), mib(20)).unwrap();
    let writes = Copies::create(&table).unwrap();
    let mut seen = [false; 3];
    for write in &writes {
        for cut in (0..=write.bytes.len()).step_by(7) {
            let mut torn = disk.clone();
            torn.write_torn(write, cut);
            match torn.read() {
                Ok(found) if found.table.pool() == former.pool() => {
                    assert_eq!(found.table.areas(), former.areas());
                    seen[0] = true;
                }
                Ok(found) => {
                    assert!(found.table.areas().is_empty());
                    seen[2] = true;
                }
                Err(ReadError::NoPool | ReadError::Damaged { .. }) => seen[1] = true,
                Err(error) => panic!("{error}"),
            }
        }
        disk.write(write);
    }
    assert_eq!(seen, [true; 3]);
    assert_eq!(disk.read().unwrap().other, None);
}

#[test]
fn a_disk_that_lost_its_head_is_still_known() {
    for lost in [0, mib(19).0] {
        let (mut disk, copies) = Disk::with_pool(mib(20));
        let (next, _) = copies.table.allocate(&stack(1), mib(1), &[]).unwrap();
        let after = disk.change_to(&copies, next);
        disk.write(&Write { offset: lost, bytes: vec![0; 2 * HEAD] });
        let found = disk.read().unwrap();
        assert_eq!(found.other, Some(TableError::NoTable));
        // Each change is in one copy alone: what was lost may be the newer one.
        assert!(found.table.sequence() + 1 >= after.table.sequence());
        disk.change_to(&found, found.table.again().unwrap());
        assert_eq!(disk.read().unwrap().other, None, "the next change mends it");
    }
}

#[test]
fn a_disk_that_has_grown_is_used_once_it_is_told_so() {
    let (mut disk, copies) = Disk::with_pool(mib(10));
    let (full, _) = copies.table.allocate(&stack(1), mib(8), &[]).unwrap();
    let copies = disk.change_to(&copies, full);
    disk.length = mib(20);
    assert_eq!(disk.read().unwrap(), copies);
    assert!(copies.table.allocate(&stack(2), mib(1), &[]).is_err());
    for _ in 0..2 {
        // Whichever copy is the newer one.
        let found = disk.read().unwrap();
        let before = disk.change_to(&found, found.table.again().unwrap());
        let (writes, grown) = before.next(before.table.grow(mib(20)).unwrap()).unwrap();
        let mut torn = disk.clone();
        torn.write_torn(&writes[0], 100);
        assert_eq!(torn.read().unwrap().table, before.table);
        for write in &writes {
            torn.write(write);
            assert_eq!(torn.read().unwrap().table.room(), mib(18));
        }
        assert_eq!(torn.read().unwrap(), grown);
        let (wide, area) = grown.table.allocate(&stack(2), mib(10), &[]).unwrap();
        assert_eq!((area.start, wide.room()), (mib(9), mib(18)));
    }
}

/// It grew, was told so, was killed before the first copy followed, and grew once more.
#[test]
fn a_disk_that_grows_again_and_again_keeps_its_areas() {
    let (mut disk, copies) = Disk::with_pool(mib(10));
    let (some, _) = copies.table.allocate(&stack(1), mib(3), &[]).unwrap();
    let copies = disk.change_to(&copies, some);
    for length in [20, 30, 40] {
        disk.length = mib(length);
        let found = disk.read().unwrap();
        assert_eq!(found.table.areas(), copies.table.areas());
        let (writes, _) = found.next(found.table.grow(mib(length)).unwrap()).unwrap();
        disk.write(&writes[0]);
        assert_eq!(disk.read().unwrap().table.disk(), mib(length));
    }
}

#[test]
fn what_is_no_table_says_why() {
    let (table, _) = Table::new(id(1), mib(9)).unwrap().allocate(&stack(1), mib(2), &[]).unwrap();
    let error_with = |at: usize, bytes: &[u8]| {
        let mut copy = table.encode(Copy::First);
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        let checksum = crc32c::crc32c(&copy[20..HEAD + 128]);
        copy[16..20].copy_from_slice(&checksum.to_le_bytes());
        Table::decode(&copy).unwrap_err()
    };
    assert_eq!(error_with(0, b"x"), TableError::NoTable);
    assert_eq!(error_with(20, &[2]), TableError::Version(2));
    assert_eq!(error_with(24, &[2]), TableError::Copy(2));
    assert_eq!(error_with(30, &[1]), Unsound::TooMany(65537).into());
    assert_eq!(error_with(42, &[0]), Unsound::Disk(Bytes(0)).into());
    assert_eq!(error_with(64, &[1]), TableError::Reserved(64));
    assert_eq!(error_with(HEAD, &[0]), TableError::Reserved(HEAD + 1));
    assert_eq!(error_with(HEAD, &[64]), TableError::Stack(0));
    assert_eq!(error_with(HEAD + 1, b"S"), TableError::Stack(0));
    assert_eq!(error_with(HEAD + 80, &[1]), TableError::Reserved(HEAD + 80));
    assert_eq!(error_with(HEAD + 64, &[1]), Unsound::Unaligned(stack(1)).into());
    assert_eq!(error_with(HEAD + 66, &[0]), Unsound::Beyond(stack(1)).into());
    assert_eq!(error_with(HEAD + 74, &[0x80]), Unsound::Beyond(stack(1)).into());
    let copy = table.encode(Copy::Second);
    let short = |length: usize| Table::decode(&copy[..length]).unwrap_err();
    assert_eq!(short(100), TableError::Short { needed: HEAD, found: 100 });
    let error = TableError::Short { needed: HEAD + 128, found: HEAD };
    assert_eq!(short(HEAD), error);
    for bit in 0..(HEAD + 128) * 8 {
        let mut flipped = copy.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Table::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn areas_that_contradict_each_other_are_not_believed() {
    let table = Table::new(id(1), mib(9)).unwrap();
    let (table, _) = table.allocate(&stack(1), mib(2), &[]).unwrap();
    let (table, _) = table.allocate(&stack(2), mib(2), &[]).unwrap();
    let error_with = |at: usize, byte: u8| {
        let mut copy = table.encode(Copy::First);
        copy[HEAD + 128 + at] = byte;
        let checksum = crc32c::crc32c(&copy[20..HEAD + 256]);
        copy[16..20].copy_from_slice(&checksum.to_le_bytes());
        Table::decode(&copy).unwrap_err()
    };
    assert_eq!(error_with(66, 0x20), Unsound::Overlap(stack(2)).into());
    assert_eq!(error_with(3, b'1'), Unsound::Twice(stack(1)).into());
}

#[test]
fn a_pool_is_bounded() {
    assert_eq!(
        Table::new(id(1), Bytes(LEAST_DISK.0 - 1)),
        Err(Unsound::Disk(Bytes(LEAST_DISK.0 - 1)))
    );
    let mut table = Table::new(id(1), mib(5000)).unwrap();
    for number in 0..MOST_AREAS {
        let stack = format!("s-{number}").parse().unwrap();
        (table, _) = table.allocate(&stack, Bytes(1), &[]).unwrap();
    }
    let more = table.allocate(&stack(0), Bytes(1), &[]);
    assert_eq!(more, Err(AllocateError::HasArea(stack(0))));
    let more = table.allocate(&"other".parse().unwrap(), Bytes(1), &[]);
    assert_eq!(more, Err(AllocateError::TableFull));
    assert!(table.encode(Copy::Second).len() as u64 <= UNIT);
    assert_eq!(Table::decode(&table.encode(Copy::Second)).unwrap().table, table);
}

#[test]
fn a_pool_that_is_not_whole_says_what_is_wrong() {
    let blank = Disk::new(mib(20));
    assert_eq!(blank.read(), Err(ReadError::NoPool));
    assert_eq!(Disk::new(mib(2)).read(), Err(ReadError::NoPool));
    let (mut damaged, copies) = Disk::with_pool(mib(20));
    let mut shorter = damaged.clone();
    shorter.length = mib(19);
    assert_eq!(shorter.read(), Err(ReadError::Shrunk { table: mib(20), disk: mib(19) }));
    for copy in [Copy::First, Copy::Second] {
        let mut bytes = copies.table.encode(copy);
        bytes[40] ^= 1;
        damaged.write(&Write { offset: copy.offset(mib(20)), bytes });
    }
    let (first, second) = (TableError::Checksum, TableError::Checksum);
    assert_eq!(damaged.read(), Err(ReadError::Damaged { first, second }));

    let (mut mixed, _) = Disk::with_pool(mib(20));
    let other = Table::new(id(2), mib(20)).unwrap();
    mixed.write(&Write { offset: mib(19).0, bytes: other.encode(Copy::Second) });
    let error = mixed.read().unwrap_err();
    assert!(matches!(error, ReadError::Contradiction(_)), "{error}");
    mixed.write(&Write { offset: mib(19).0, bytes: copies.table.encode(Copy::First) });
    assert_eq!(mixed.read().unwrap().other, Some(TableError::Copy(0)));
}

#[test]
fn reading_is_asked_for_no_more_than_the_table() {
    let (disk, _) = Disk::with_pool(mib(20));
    let asked = RefCell::new(Vec::new());
    let read = Copies::read(disk.length, |offset, bytes| {
        asked.borrow_mut().push((offset, bytes.len()));
        bytes.fill(0);
        Ok::<(), ReadError>(())
    });
    assert_eq!(read, Err(ReadError::NoPool));
    assert_eq!(*asked.borrow(), [(0, HEAD), (mib(19).0, HEAD)]);
}
