#![no_main]

use eratrack_model::table::Table;
use libfuzzer_sys::fuzz_target;

// A table that is read is the same when it is displayed and read again, and has a length and no gap.
fuzz_target!(|text: &str| {
    let Ok(table) = text.parse::<Table>() else { return };
    let again = table.to_string();
    assert_eq!(again.parse::<Table>().as_ref(), Ok(&table), "{again}");
    let mut end = 0;
    for segment in table.segments() {
        assert!(segment.length.0 > 0);
        end += segment.length.0;
    }
    assert_eq!(end, table.length().0);
    assert!(table.devices().count() <= text.len());
});
