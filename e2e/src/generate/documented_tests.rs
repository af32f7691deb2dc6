//! The tests that the documents name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn documented_tests_exist() {
    let workspace = crate::paths::workspace();
    let sources: Vec<(String, String)> = ["src", "e2e"]
        .iter()
        .flat_map(|directory| rust_files(&workspace.join(directory)))
        .map(|path| (stem(&path), fs::read_to_string(path).expect("a source file")))
        .collect();
    let mut missing = BTreeSet::new();
    let mut count = 0;
    for document in [
        "docs/rules.md",
        "docs/chain.md",
        "ARCHITECTURE.md",
        "docs/design/0005-broken-on-purpose.md",
    ] {
        let text = fs::read_to_string(workspace.join(document)).expect("the document");
        let rows = text.lines().filter(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
        for name in names.filter(|it| is_test_name(it)) {
            count += 1;
            if !exists(name, &sources) {
                missing.insert(format!("{document}: {name}"));
            }
        }
    }
    assert!(count > 50, "the documents name tests, {count} were found");
    assert!(missing.is_empty(), "no such test:\n{missing:#?}");
}

/// `file::test`, or a scenario: `cluster_…`.
fn is_test_name(name: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    match name.split_once("::") {
        Some((file, test)) => word(file) && word(test),
        None => word(name) && name.starts_with("cluster_"),
    }
}

fn exists(name: &str, sources: &[(String, String)]) -> bool {
    match name.split_once("::") {
        Some((file, test)) => {
            sources.iter().any(|(stem, text)| stem == file && text.contains(&format!("fn {test}(")))
        }
        None => sources.iter().any(|(_, text)| text.contains(&format!("scenario(\"{name}\""))),
    }
}

/// What a test's file is called: `mod.rs` and `tests.rs` by their directory.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
    let name = if stem == "mod" || stem == "tests" { parent } else { stem };
    name.to_string_lossy().into_owned()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory of the workspace").flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return rust_files(&path);
            }
            let is_source = path.extension().is_some_and(|it| it == "rs");
            if is_source { vec![path] } else { Vec::new() }
        })
        .collect()
}
