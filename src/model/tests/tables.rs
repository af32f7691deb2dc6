//! Tables read back as they were written.

use eratrack_model::table::{Place, Segment, Table, TableError, Target};
use eratrack_model::units::{DevNo, Sectors};
use proptest::prelude::*;

#[test]
fn tables_of_a_real_kernel_read_back() {
    let file = include_str!("golden/tables.txt");
    let tables: Vec<_> = file.split("\n\n").filter(|text| !text.starts_with('#')).collect();
    assert_eq!(tables.len(), 9);
    for text in tables {
        let table: Table = text.parse().unwrap();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(table.to_string(), lines.join("\n"));
        assert_eq!(table.to_string().parse(), Ok(table));
    }
}

#[test]
fn what_eratrack_looks_into_is_typed_and_the_rest_is_kept() {
    let kinds = |text: &str| {
        let table: Table = text.parse().unwrap();
        let other = |s: &Segment| matches!(s.target, Target::Other { .. });
        table.segments().iter().map(other).collect::<Vec<_>>()
    };
    let typed = [
        "0 8 linear 8:0 0",
        "0 8 striped 1 8 8:0 0",
        "0 8 thin 253:1 4294967295",
        "0 8 thin 253:1 5 253:2",
        "0 8 era 7:0 253:1 512",
        "0 8 switch 2 8 0 253:1 0 253:2 0",
        "0 8 snapshot-origin 253:1",
        "0 8 snapshot 253:1 7:0 N 32",
    ];
    let kept = [
        "0 8 crypt aes-xts-plain64 :64:logon:cryptsetup:x 0 8:0 32768",
        "0 8 linear /dev/sda 0",
        "0 8 linear 8:0 00",
        "0 8 linear 8:0",
        "0 8 striped 2 8 8:0 0",
        "0 8 striped 1 8 8:0 0 9",
        "0 8 thin 253:1 4294967296",
        "0 8 era 7:0 253:1 512 1",
        "0 8 switch 2 8 1 253:1 0 253:2 0",
        "0 8 switch 3 8 0 253:1 0 253:2 0",
        "0 8 snapshot 253:1 253:2 P 8",
        "0 8 snapshot 253:1 253:2 PO 8",
        "0 8 snapshot 253:1 7:0 N 32 1 discard_zeroes_cow",
        "0 8 zero",
    ];
    assert!(typed.iter().all(|text| kinds(text) == [false]), "{typed:?}");
    assert!(kept.iter().all(|text| kinds(text) == [true]), "{kept:?}");
}

#[test]
fn segments_that_are_no_table_say_where() {
    let error = |text: &str| text.parse::<Table>().unwrap_err();
    assert_eq!(error(""), TableError::Empty);
    assert_eq!(error("8 8 zero").to_string(), "segment 0 starts at sector 8, expected 0");
    assert_eq!(error("0 0 zero").to_string(), "segment 0 at sector 0 has no length");
    let gap = "0 8 zero\n9 8 zero";
    assert_eq!(error(gap).to_string(), "segment 1 starts at sector 9, expected 8");
    let overlap = "0 8 zero\n7 8 zero";
    assert_eq!(error(overlap).to_string(), "segment 1 starts at sector 7, expected 8");
    let long = format!("0 8 zero\n8 {} zero", u64::MAX);
    assert_eq!(error(&long).to_string(), "segment 1 ends beyond what 64 bits can count");
    for line in ["x", "0 8", "0 8 ", "0 -8 zero", "a 8 zero", "0x0 8 zero"] {
        assert!(matches!(error(line), TableError::Line { .. }), "{line}");
    }
}

fn device() -> impl Strategy<Value = DevNo> {
    (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| DevNo { major, minor })
}

fn places() -> impl Strategy<Value = Vec<Place>> {
    let place = (device(), any::<u64>())
        .prop_map(|(device, offset)| Place { device, offset: Sectors(offset) });
    prop::collection::vec(place, 0..4)
}

fn target() -> impl Strategy<Value = Target> {
    let sectors = || any::<u64>().prop_map(Sectors);
    prop_oneof![
        (device(), sectors()).prop_map(|(device, offset)| Target::Linear { device, offset }),
        (sectors(), places()).prop_map(|(chunk, stripes)| Target::Striped { chunk, stripes }),
        (sectors(), places()).prop_map(|(region, paths)| Target::Switch { region, paths }),
        (device(), any::<u32>(), prop::option::of(device()))
            .prop_map(|(pool, id, origin)| Target::Thin { pool, id, origin }),
        (device(), device(), sectors()).prop_map(|(metadata, origin, granularity)| Target::Era {
            metadata,
            origin,
            granularity
        }),
        device().prop_map(|origin| Target::SnapshotOrigin { origin }),
        ("[a-df-k][a-z-]{0,9}", "([a-z0-9:/]{1,9}( [a-z0-9:/]{1,9}){0,5})?")
            .prop_map(|(kind, params)| Target::Other { kind, params }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_table_reads_back(parts in prop::collection::vec((1..u64::from(u32::MAX), target()), 1..6)) {
        let mut start = 0;
        let mut segments = Vec::new();
        for (length, target) in parts {
            segments.push(Segment { start: Sectors(start), length: Sectors(length), target });
            start += length;
        }
        let table = Table::new(segments).unwrap();
        prop_assert_eq!(table.length(), Sectors(start));
        prop_assert_eq!(table.to_string().parse(), Ok(table));
    }

    #[test]
    fn no_text_makes_the_parser_fail_otherwise(text in "[0-9a-z :\n-]{0,60}") {
        if let Ok(table) = text.parse::<Table>() {
            prop_assert_eq!(table.to_string().parse(), Ok(table));
        }
    }
}
