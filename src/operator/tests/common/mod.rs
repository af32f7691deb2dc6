//! The program as its users run it, with a state directory of its own.
#![allow(dead_code)] // each test binary uses its own part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kit::Mount;
use serde_json::Value;

/// `eratrack device`, on this machine.
pub(crate) struct Eratrack {
    state: PathBuf,
    _store: Mount,
}

impl Eratrack {
    /// With an empty state directory, on a file system of its own.
    pub(crate) fn new() -> Self {
        let store = kit::metadata_dir(64);
        Self { state: store.path().join("eratrack"), _store: store }
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Runs it with these words, which must not have blanks in them.
    pub(crate) fn run(&self, words: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_eratrack"))
            .arg("device")
            .args(words.split_whitespace())
            .env("ERATRACK_METADATA_DIR", &self.state)
            .env_remove("RUST_BACKTRACE")
            .output()
            .expect("it runs")
    }

    /// What it prints, if it succeeds.
    #[track_caller]
    pub(crate) fn ok(&self, words: &str) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "device {words}: {} {said}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// The same as JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --output json"))).expect("JSON")
    }

    /// What it says, if it fails with that exit code.
    #[track_caller]
    pub(crate) fn fails(&self, words: &str, code: i32) -> String {
        let output = self.run(words);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "device {words}: {said}");
        said
    }
}

/// The kernel's list as blocks.
pub(crate) fn blocks(list: &str) -> Vec<u64> {
    let ranges = list.trim().split(',').filter(|range| !range.is_empty());
    let ends = ranges.map(|range| range.split_once('-').unwrap_or((range, range)));
    let number = |text: &str| text.parse::<u64>().expect("a number");
    ends.flat_map(|(first, last)| number(first)..=number(last)).collect()
}
