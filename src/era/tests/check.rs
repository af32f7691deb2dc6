//! What is wrong with metadata is found, all of it, and nothing is found in metadata that the kernel wrote.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part; the fuzz targets use it too"
)]
mod forge;

use era_metadata::check::{Report, Severity, check};
use era_metadata::{Era, ErrorKind, Metadata, View};
use forge::Forge;

fn report(forge: &Forge, view: View) -> Report {
    check(forge, view, 100).unwrap()
}

/// Offsets of the superblock's fields.
mod superblock {
    pub(super) const MANAGED: usize = 44;
    pub(super) const ALLOCATED: usize = 52;
    pub(super) const INDEX: usize = 60;
    pub(super) const COUNTS: usize = 68;
    pub(super) const CURRENT_ERA: usize = 184;
    pub(super) const CURRENT_BITS: usize = 188;
    pub(super) const CURRENT_ROOT: usize = 192;
    pub(super) const WRITESETS: usize = 200;
    pub(super) const ARRAY: usize = 208;
    pub(super) const SNAPSHOT: usize = 216;
}

/// Where the first value of a node of 8-byte values is, and the first of the writeset tree.
const POINTERS: usize = 32 + 252 * 8;
const WRITESETS: usize = 32 + 201 * 8;
const COUNTS: usize = 32 + 336 * 8;

#[test]
fn what_the_kernel_wrote_is_clean() {
    let names = ["fresh", "digested", "odd", "unclean", "unclean_twice", "held", "grown", "deep"];
    for name in names {
        let report = report(&Forge::fixture(name), View::Live);
        assert_eq!((report.errors, report.warnings), (0, 0), "{name}: {:?}", report.findings);
        let summary = report.summary.unwrap();
        let managed = summary.managed_blocks.unwrap();
        assert!(summary.used_blocks < managed, "{name}: {summary:?}");
    }
}

#[test]
fn a_device_that_was_never_activated_is_clean_although_a_sum_of_the_kernels_is_not() {
    let report = report(&Forge::fixture("loaded"), View::Live);
    assert!(report.is_clean());
    assert_eq!(
        told(&report),
        ["warning sum: nr_free is 16316, counted are 16314: lists are right"]
    );
}

#[test]
fn a_metadata_snapshot_is_checked_on_its_own() {
    let forge = Forge::fixture("held");
    let clone = forge.u64(0, superblock::SNAPSHOT);
    for view in [View::Held, View::HeldAt(clone)] {
        let report = report(&forge, view);
        assert_eq!((report.errors, report.warnings), (0, 0), "{:?}", report.findings);
        let summary = report.summary.unwrap();
        assert_eq!((summary.managed_blocks, summary.current_writeset), (None, true));
    }
    let none = Forge::fixture("odd");
    for view in [View::Held, View::HeldAt(0)] {
        let error = check(&none, view, 100).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::NoSnapshot), "{error}");
    }
}

/// Severity, name and message of each finding.
fn told(report: &Report) -> Vec<String> {
    let severity = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let findings = report.findings.iter();
    findings
        .map(|f| format!("{} {}: {}", severity(f.severity()), f.problem.name(), f.problem))
        .collect()
}

/// Changes a fixture and expects exactly these findings, each by how it begins.
#[track_caller]
fn finds(name: &str, change: impl FnOnce(&mut Forge), expected: &[&str]) {
    let mut forge = Forge::fixture(name);
    change(&mut forge);
    let report = report(&forge, View::Live);
    let told = told(&report);
    let agrees = told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected));
    assert!(agrees && told.len() == expected.len(), "{told:#?}");
    // What a reader cannot read is never clean.
    if report.is_clean() {
        let metadata = Metadata::open(&forge, View::Live).unwrap();
        metadata.changed_since(Era(1)).unwrap();
    }
}

#[test]
fn damage_of_a_block() {
    finds("digested", |f| f.damage(0, 100, &[1]), &["error checksum: block 0"]);
    finds("digested", |f| f.put(0, 32, &[0]), &["error magic: block 0 is not dm-era's"]);
    finds("digested", |f| f.put(0, 172, &[9]), &["error field: block 0: data_block_size is 9"]);
    let array = |f: &Forge| f.u64(0, superblock::ARRAY);
    finds("digested", |f| f.damage(array(f), 100, &[1]), &["error checksum: block "]);
    finds("digested", |f| f.put(array(f), 8, &[1]), &["error misplaced: block "]);
    finds("digested", |f| f.put(array(f), 4, &[3]), &["error field: block 49: flags is 3"]);
    let leaf = |f: &Forge| f.u64(array(f), POINTERS);
    finds("digested", |f| f.damage(leaf(f), 100, &[1]), &["error checksum: block "]);
    finds("digested", |f| f.put(leaf(f), 8, &[1]), &["error field: block "]);
}

#[test]
fn references_that_lead_elsewhere() {
    let array = |f: &Forge| f.u64(0, superblock::ARRAY);
    finds(
        "digested",
        |f| f.put(array(f), POINTERS, &[0, 1]),
        &["error outOfBounds: refers to block 256"],
    );
    // Twice to the same block: the other one is lost.
    let twice = |f: &mut Forge| {
        let first = f.u64(array(f), POINTERS);
        f.put(array(f), POINTERS + 8, &first.to_le_bytes());
    };
    let expected = [
        "error visited: refers to block ",
        "error countTooLow: block ",
        "warning countTooHigh: 1 blocks are counted more often",
    ];
    finds("unclean", twice, &expected);
    let gap = |f: &mut Forge| f.put(array(f), 40, &[7]);
    finds(
        "unclean",
        gap,
        &["error arrayKey: the array's next block has index 7, expected 1", "error field: "],
    );
    // An index beyond all others, of a block that holds nothing, as is right for there.
    let beyond = |f: &mut Forge| {
        f.put(f.u64(array(f), POINTERS), 8, &[0, 0]);
        f.put(array(f), 32, &[0xff; 8]);
    };
    finds("digested", beyond, &["error arrayKey: "]);
    let short = |f: &mut Forge| f.put(array(f), 16, &[1]);
    finds("unclean", short, &["error arrayTooShort: ", "warning countTooHigh: "]);
}

#[test]
fn writesets_and_eras_that_contradict_each_other() {
    let tree = |f: &Forge| f.u64(0, superblock::WRITESETS);
    let leaf = |f: &Forge| f.u64(f.u64(0, superblock::ARRAY), POINTERS);
    finds("digested", |f| f.put(leaf(f), 24, &[9]), &["error eraBeyond: a write in era 9"]);
    finds("digested", |f| f.put(tree(f), 32, &[4]), &["error eraBeyond: a write in era 4"]);
    let early = |f: &mut Forge| {
        f.put(tree(f), 32, &[1]);
        f.put(leaf(f), 24, &[2]);
    };
    let expected = "error digestedTooEarly: block 0 of the device has era 2, although era 1 is not";
    finds("digested", early, &[expected]);
    finds(
        "digested",
        |f| f.put(leaf(f), 24, &[3]),
        &["error digestedFromNothing: block 0 of the device has era 3"],
    );
    let longer = |f: &mut Forge| f.put(0, 180, &999_u32.to_le_bytes());
    finds(
        "digested",
        longer,
        &["error writesetTooLong: the writeset is of 1000", "error field: block "],
    );
    let both = |f: &mut Forge| {
        let era = f.u32(0, superblock::CURRENT_ERA);
        // The archived writeset is made the current one too.
        let root = f.u64(tree(f), WRITESETS + 4);
        f.put(0, superblock::CURRENT_BITS, &1000_u32.to_le_bytes());
        f.put(0, superblock::CURRENT_ROOT, &root.to_le_bytes());
        assert_eq!(u64::from(era), f.u64(tree(f), 32));
    };
    let expected = ["error archivedAndCurrent: ", "error visited: ", "error countTooLow: "];
    finds("digested", both, &expected);
}

#[test]
fn the_metadata_snapshot_is_checked_too() {
    let clone = |f: &Forge| f.u64(0, superblock::SNAPSHOT);
    finds(
        "held",
        |f| f.damage(clone(f), 100, &[1]),
        &["error checksum: block 145: checksum of superblock"],
    );
    finds("held", |f| f.put(clone(f), superblock::CURRENT_ERA, &[5]), &["error snapshotAhead: "]);
    let nowhere = |f: &mut Forge| f.put(0, superblock::SNAPSHOT, &u64::MAX.to_le_bytes());
    finds("odd", nowhere, &["error outOfBounds: refers to block 18446744073709551615"]);
    let array = |f: &Forge| f.u64(f.u64(clone(f), superblock::ARRAY), POINTERS);
    finds("held", |f| f.damage(array(f), 100, &[1]), &["error checksum: block "]);
}

#[test]
fn the_space_map_against_what_is_in_use() {
    let index = |f: &Forge| f.u64(0, superblock::INDEX);
    let bitmap = |f: &Forge| f.u64(index(f), 16);
    let bits = |f: &Forge| f.u8(bitmap(f), 16);
    let cut = |f: &mut Forge| f.total = 200;
    finds(
        "digested",
        cut,
        &["error moreManagedThanThere: the space map manages 256 blocks, but there are only 200"],
    );
    finds(
        "digested",
        |f| f.put(0, superblock::MANAGED, &[0, 0]),
        &["error field: block 0: space map nr_blocks is 0"],
    );
    finds(
        "digested",
        |f| f.put(0, superblock::ALLOCATED, &[1]),
        &["warning sum: nr_allocated is 1, counted are "],
    );
    finds("digested", |f| f.put(index(f), 24, &[1, 0]), &["warning sum: nr_free is "]);
    finds(
        "digested",
        |f| f.put(index(f), 28, &[200]),
        &["warning freeBefore: none_free_before is 200"],
    );
    finds("digested", |f| f.damage(index(f), 100, &[1]), &["error checksum: "]);
    finds("digested", |f| f.damage(bitmap(f), 100, &[1]), &["error checksum: "]);

    // The superblock's own count.
    let free = |f: &mut Forge| {
        let others = bits(f) & !3;
        f.put(bitmap(f), 16, &[others]);
    };
    let sums = "warning sum: ";
    finds(
        "digested",
        free,
        &[sums, "warning freeBefore: ", sums, "error countTooLow: block 0 is counted as 0"],
    );
    let more = |f: &mut Forge| f.put(bitmap(f), 16 + 255 / 4, &[0b1000_0000]);
    finds("digested", more, &[sums, sums, "warning countTooHigh: 1 blocks "]);
    let beyond = |f: &mut Forge| f.put(bitmap(f), 16 + 256 / 4, &[1]);
    finds("digested", beyond, &[sums, "warning sum: entries beyond the last block is 1"]);
}

#[test]
fn counts_above_two_are_in_the_tree() {
    let bitmap = |f: &Forge| f.u64(f.u64(0, superblock::INDEX), 16);
    let tree = |f: &Forge| f.u64(0, superblock::COUNTS);
    let missing = |f: &mut Forge| {
        let bits = f.u8(bitmap(f), 16) | 3;
        f.put(bitmap(f), 16, &[bits]);
    };
    finds("digested", missing, &["error countMissing: block 0 "]);
    let entry = |f: &mut Forge, count: u8| {
        f.put(tree(f), 16, &[1]);
        f.put(tree(f), 32, &0_u64.to_le_bytes());
        f.put(tree(f), COUNTS, &u32::from(count).to_le_bytes());
    };
    finds(
        "digested",
        |f| entry(f, 5),
        &["error countUnused: the tree of reference counts has 5 for block 0"],
    );
    let counted = |f: &mut Forge| {
        missing(f);
        entry(f, 3);
    };
    finds("digested", counted, &["warning countTooHigh: 1 blocks "]);
}

#[test]
fn all_of_it_is_found_and_no_more_is_kept_than_asked_for() {
    let mut forge = Forge::fixture("deep");
    let array = forge.u64(0, superblock::ARRAY);
    let blocks: Vec<u64> = (0..3).map(|child| forge.u64(array, POINTERS + child * 8)).collect();
    for node in &blocks[..2] {
        for leaf in 0..5 {
            let block = forge.u64(*node, POINTERS + leaf * 8);
            forge.damage(block, 100, &[0xff]);
        }
    }
    // The whole of the third.
    forge.damage(blocks[2], 100, &[0xff]);
    let all = check(&forge, View::Live, 100).unwrap();
    // The metadata snapshot shares all of the array but what was digested since.
    assert!(all.errors >= 11 && all.errors == all.findings.len() as u64, "{:#?}", told(&all));
    let first = all.findings[0].to_string();
    let way = "superblock -> era array -> node (block ";
    assert!(first.starts_with(way) && first.contains(" -> array block 0 (block "), "{first}");

    let few = check(&forge, View::Live, 3).unwrap();
    assert_eq!((few.findings.len(), few.errors), (3, all.errors));
}
