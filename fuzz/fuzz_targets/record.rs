#![no_main]

use eratrack_model::record::Record;
use libfuzzer_sys::fuzz_target;

// What is read as a record is the same record when it was written and read again.
fuzz_target!(|data: &[u8]| {
    let Ok(record) = serde_json::from_slice::<Record>(data) else { return };
    assert!(record.metadata_size.0 > 0);
    assert_eq!(record.sectors, record.original.length());
    let text = serde_json::to_string(&record).expect("it is written");
    let again: Record = serde_json::from_str(&text).expect("it is read again");
    assert_eq!(again, record);
});
