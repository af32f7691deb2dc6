//! Prints the repository's generated files as a JSON object of path and contents: what `cargo e2e generate` writes.

use std::collections::BTreeMap;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = eratrack_api::generated::files()?;
    let files: BTreeMap<String, String> =
        files.into_iter().map(|file| (file.path, file.contents)).collect();
    serde_json::to_writer(std::io::stdout().lock(), &files)?;
    Ok(())
}
