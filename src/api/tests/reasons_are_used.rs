//! Every reason that is documented is one that some program gives.

use std::fs;
use std::path::Path;

use eratrack_api::Reason;

/// What is compiled into the programs, but for tests: files, and what stands in them before their tests.
fn sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory of sources").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && name != "testing" {
            sources(&path, into);
        }
        if name.strip_suffix(".rs").is_some_and(|stem| !stem.ends_with("tests")) {
            let text = fs::read_to_string(&path).expect("a source");
            into.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
}

#[test]
fn every_reason_has_a_producer() {
    let members = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut text = String::new();
    for member in ["operator", "dm", "model"] {
        sources(&members.join(member).join("src"), &mut text);
    }
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
    let unused: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| {
            let (variant, word) = (format!("Reason::{reason}"), format!("\"{reason}\""));
            let used =
                text.match_indices(&variant).any(|(at, _)| ends(&text[at + variant.len()..]));
            !used && !text.contains(&word)
        })
        .collect();
    assert!(unused.is_empty(), "nobody gives {unused:?}");
}
