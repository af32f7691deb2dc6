//! The committed files are what the types say.

use std::fs;
use std::path::Path;

use eratrack_api::generated;

#[test]
fn committed_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let outdated: Vec<String> = generated::files()
        .expect("all definitions can be written")
        .into_iter()
        .filter(|file| {
            fs::read_to_string(root.join(&file.path)).ok().as_ref() != Some(&file.contents)
        })
        .map(|file| file.path)
        .collect();
    assert!(
        outdated.is_empty(),
        "run `cargo e2e generate`: {} are not up to date",
        outdated.join(", ")
    );
}

#[test]
fn no_definition_lies_about_that_no_kind_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let known: Vec<String> =
        generated::files().unwrap().into_iter().map(|file| file.path).collect();
    for directory in ["crds", "charts/eratrack/files/crds"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = format!("{directory}/{}", entry.unwrap().file_name().display());
            assert!(known.contains(&path), "{path} belongs to no kind");
        }
    }
}
