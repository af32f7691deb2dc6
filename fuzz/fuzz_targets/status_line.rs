#![no_main]

use eratrack_dm::EraStatus;
use libfuzzer_sys::fuzz_target;

// A line that is understood says again what it said.
fuzz_target!(|line: &str| {
    match EraStatus::parse(line) {
        None => {}
        Some(EraStatus::Error) => assert_eq!(line, "Error"),
        Some(EraStatus::Working { era, used, total, held }) => {
            let held = held.map_or("-".to_owned(), |root| root.to_string());
            let numbers = |text: &str| text.split([' ', '/']).map(bare).collect::<Vec<_>>();
            let told = numbers(&format!("{used}/{total} {era} {held}"));
            assert_eq!(numbers(line)[1..], told);
        }
    }
});

/// Without what Rust's numbers may have in front.
fn bare(number: &str) -> String {
    let digits = number.strip_prefix('+').unwrap_or(number).trim_start_matches('0');
    if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
}
