#![no_main]

use eratrack_model::extents::RunList;
use libfuzzer_sys::fuzz_target;

// A list that is read is in order, and the same when it is displayed and read again.
fuzz_target!(|text: &str| {
    let Ok(list) = text.parse::<RunList>() else { return };
    let runs = list.as_slice();
    assert!(runs.iter().all(|run| run.first <= run.last));
    assert!(runs.windows(2).all(|pair| pair[0].last.saturating_add(1) < pair[1].first));
    assert_eq!(list.to_string().parse().as_ref(), Ok(&list));
});
