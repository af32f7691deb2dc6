//! Metadata that a real kernel wrote (tests/fixtures/make.sh), against the log of what was written.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use era_metadata::{BlockSet, Era, ErrorKind, MemorySource, Metadata, Step, View, WritesetState};
use flate2::read::GzDecoder;

/// What was written while the metadata was made.
#[derive(Default)]
struct Log {
    granularity: u32,
    blocks: u32,
    writes: Vec<(Era, u64)>,
    held: Option<Held>,
    current: Era,
}

/// A metadata snapshot knows the writes before it.
#[derive(Clone, Copy)]
struct Held {
    root: u64,
    writes: usize,
}

impl Log {
    fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let verb = words.next().unwrap();
            let numbers: Vec<u32> = words.map(|word| word.parse().unwrap()).collect();
            match (verb, &numbers[..]) {
                ("granularity", &[sectors]) => log.granularity = sectors,
                ("blocks", &[count]) => log.blocks = count,
                ("write", &[era, first, count]) => {
                    log.writes.extend((first..first + count).map(|b| (Era(era), b.into())));
                }
                ("held", &[root]) => {
                    log.held = Some(Held { root: root.into(), writes: log.writes.len() });
                }
                ("current", &[era]) => log.current = Era(era),
                _ => panic!("{line}"),
            }
        }
        log
    }
}

fn since(writes: &[(Era, u64)], since: Era) -> Vec<u64> {
    let blocks: BTreeSet<u64> =
        writes.iter().filter(|(era, _)| *era >= since).map(|(_, block)| *block).collect();
    blocks.into_iter().collect()
}

fn numbers(blocks: &BlockSet) -> Vec<u64> {
    blocks.runs().flat_map(|run| run.first..=run.last).collect()
}

struct Fixture {
    image: MemorySource,
    log: Log,
}

impl Fixture {
    fn load(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let file = std::fs::File::open(directory.join(format!("{name}.img.gz"))).unwrap();
        let mut image = Vec::new();
        GzDecoder::new(file).read_to_end(&mut image).unwrap();
        let text = std::fs::read_to_string(directory.join(format!("{name}.log"))).unwrap();
        Self { image: MemorySource::new(image), log: Log::parse(&text) }
    }

    fn open(&self, view: View) -> Metadata<&MemorySource> {
        Metadata::open(&self.image, view).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Every list of a view is exactly what was written.
    #[track_caller]
    fn check(&self, view: View, writes: &[(Era, u64)]) {
        let metadata = self.open(view);
        for era in 0..=metadata.current_era().0 {
            let changed = metadata.changed_since(Era(era)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(numbers(&changed), since(writes, Era(era)), "since {era}, {view:?}");
        }
    }

    #[track_caller]
    fn check_live(&self) {
        let metadata = self.open(View::Live);
        assert_eq!(metadata.current_era(), self.log.current);
        assert_eq!(metadata.granularity_sectors(), self.log.granularity);
        assert_eq!(metadata.nr_blocks(), self.log.blocks);
        self.check(View::Live, &self.log.writes);

        let next = Era(self.log.current.0 + 1);
        if next > Era(1) {
            let error = metadata.changed_since(next).unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Future { since, .. } if since == next));
        }
    }

    #[track_caller]
    fn check_held(&self) {
        let held = self.log.held.expect("a fixture with a metadata snapshot");
        let writes = &self.log.writes[..held.writes];
        assert!(writes.len() < self.log.writes.len(), "live has moved on");
        self.check(View::Held, writes);
        self.check(View::HeldAt(held.root), writes);
    }

    fn writesets(&self, view: View) -> Vec<(Era, WritesetState)> {
        let mut found = Vec::new();
        let metadata = self.open(view);
        metadata.visit_writesets(|era, state, _| found.push((era, state))).unwrap();
        found
    }
}

#[test]
fn loaded_but_never_resumed() {
    let fixture = Fixture::load("loaded");
    let metadata = fixture.open(View::Live);
    // The kernel learns the length when the device is resumed.
    assert_eq!((metadata.nr_blocks(), metadata.current_era()), (0, Era(0)));
    assert!(metadata.changed_since(Era(0)).unwrap().is_empty());
    assert!(metadata.changed_since(Era(1)).unwrap().is_empty());
    let error = metadata.changed_since(Era(2)).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Future { .. }), "{error}");
}

#[test]
fn fresh() {
    Fixture::load("fresh").check_live();
}

#[test]
fn digested() {
    let fixture = Fixture::load("digested");
    fixture.check_live();
    // A clean end archives the last era.
    assert_eq!(fixture.writesets(View::Live), [(Era(3), WritesetState::Archived)]);
}

#[test]
fn a_length_that_is_a_multiple_of_nothing() {
    Fixture::load("odd").check_live();
}

#[test]
fn unclean_end() {
    let fixture = Fixture::load("unclean");
    fixture.check_live();
    let current = (fixture.log.current, WritesetState::Current);
    assert_eq!(fixture.writesets(View::Live).last(), Some(&current));
    assert!(!since(&fixture.log.writes, fixture.log.current).is_empty());
}

#[test]
fn unclean_end_activated_again() {
    Fixture::load("unclean_twice").check_live();
}

#[test]
fn held_while_live_moves_on() {
    let fixture = Fixture::load("held");
    fixture.check_live();
    fixture.check_held();
    let states = fixture.writesets(View::Held);
    assert!(states.iter().all(|(_, state)| *state == WritesetState::Archived), "{states:?}");
}

#[test]
fn nothing_is_held() {
    let fixture = Fixture::load("digested");
    let error = Metadata::open(&fixture.image, View::Held).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NoSnapshot), "{error}");
    assert_eq!(error.path, [Step::Superblock]);
}

#[test]
fn grown() {
    let fixture = Fixture::load("grown");
    fixture.check_live();
    assert_eq!(fixture.log.blocks, 100_001);
}

#[test]
fn deep_trees() {
    let fixture = Fixture::load("deep");
    fixture.check_live();
    fixture.check_held();
}

#[test]
fn more_writesets_than_a_leaf_holds() {
    let fixture = Fixture::load("many");
    fixture.check_live();
    let writesets = fixture.writesets(View::Live);
    assert!(writesets.len() > 201, "{}", writesets.len());
    // That is where it was damaged so that the writesets stay; they alone sufficed above.
    let error = fixture.open(View::Live).visit_array(|_, _| ()).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Checksum { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("superblock -> era array -> node (block "), "{text}");
    assert!(text.contains(" -> array block 0 (block "), "{text}");
}

#[test]
fn the_array_agrees_with_the_log() {
    for name in ["digested", "odd", "unclean", "held", "grown", "deep"] {
        let fixture = Fixture::load(name);
        let metadata = fixture.open(View::Live);
        let mut undigested = BTreeSet::new();
        metadata.visit_writesets(|era, _, _| undigested.extend([era])).unwrap();
        let oldest = undigested.first().copied().unwrap_or(Era(u32::MAX));
        let mut blocks = 0;
        metadata
            .visit_array(|block, era| {
                assert_eq!(block, blocks, "{name}");
                blocks += 1;
                let written = fixture.log.writes.iter().filter(|write| write.1 == block);
                let last = written.map(|write| write.0).filter(|era| *era < oldest).max();
                // The oldest writeset may be in the array already, in part.
                if era != oldest {
                    assert_eq!(era, last.unwrap_or_default(), "{name}: block {block}");
                }
            })
            .unwrap();
        assert_eq!(blocks, fixture.log.blocks.into(), "{name}");
    }
}
