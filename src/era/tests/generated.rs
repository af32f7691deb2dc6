//! Metadata of any size: the lists are what the generator says was written.

use era_image::{Placement, Spec};
use era_metadata::check::check;
use era_metadata::{Era, MemorySource, Metadata, View, WritesetState};

fn open(spec: &Spec, view: View) -> Metadata<MemorySource> {
    let source = MemorySource::new(spec.bytes());
    Metadata::open(source, view).unwrap_or_else(|error| panic!("{spec:?}: {error}"))
}

fn runs(metadata: &Metadata<MemorySource>, since: u32) -> Vec<(u64, u64)> {
    let changed = metadata.changed_since(Era(since)).unwrap_or_else(|error| panic!("{error}"));
    changed.runs().map(|run| (run.first, run.last)).collect()
}

/// One of each kind, and lengths on both sides of where a block of the metadata is full.
fn specs() -> Vec<Spec> {
    let lengths = [1, 63, 64, 65, 1018, 1019, 32_576, 32_577, 700_001];
    let mut specs: Vec<Spec> = lengths.map(Spec::of).to_vec();
    let base = Spec { written_ppm: 20_000, ..Spec::of(200_000) };
    specs.push(Spec { placement: Placement::Shuffled, fan_out: 3, ..base.clone() });
    specs.push(Spec { placement: Placement::Aged, held: true, unclean: true, ..base.clone() });
    specs.push(Spec { undigested: 300, unclean: true, ..Spec::of(70_000) });
    specs.push(Spec { undigested: 0, ..base.clone() });
    specs.push(Spec { digested: 2, unclean: true, undigested: 1, ..base });
    specs
}

#[test]
fn lists_are_what_was_written() {
    for spec in specs() {
        let metadata = open(&spec, View::Live);
        assert_eq!(metadata.current_era(), Era(spec.current_era()));
        let digested = spec.digested;
        let current = spec.current_era();
        for since in [0, digested - 1, digested, current.min(digested + 1), current] {
            assert_eq!(runs(&metadata, since), spec.runs_since(since), "since {since}: {spec:?}");
        }
    }
}

#[test]
fn a_held_snapshot_lacks_the_current_writeset() {
    let spec = Spec { held: true, unclean: true, ..Spec::of(200_000) };
    let metadata = open(&spec, View::Held);
    let since = spec.digested;
    let changed = metadata.changed_since(Era(since)).unwrap();
    for block in 0..spec.nr_blocks {
        let expected = spec.held_changed_since(since, block);
        assert_eq!(changed.contains(block.into()), expected, "{block}");
    }
    assert_ne!(runs(&metadata, since), spec.runs_since(since));
    metadata.visit_writesets(|_, state, _| assert_eq!(state, WritesetState::Archived)).unwrap();
}

#[test]
fn the_checker_finds_nothing_wrong() {
    for spec in specs() {
        let source = MemorySource::new(spec.bytes());
        let report = check(&source, View::Live, 10).unwrap();
        assert_eq!((report.errors, report.warnings), (0, 0), "{spec:?}: {:?}", report.findings);
        assert_eq!(report.summary.unwrap().current_era, Era(spec.current_era()));
    }
}
