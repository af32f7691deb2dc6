//! Every file of the repository that is made from this crate, so that one command writes them and one test compares them.

use crate::crd::{self, NotWritable};
use crate::reason_table;

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Its path from the root of the repository.
    pub path: String,
    /// What it must hold.
    pub contents: String,
}

/// Where the definitions lie: for `kubectl apply`, and once more in the chart, which can read only its own files.
const DEFINITIONS: [&str; 2] = ["crds", "charts/eratrack/files/crds"];

/// All of them.
pub fn files() -> Result<Vec<GeneratedFile>, NotWritable> {
    let reasons =
        GeneratedFile { path: "docs/reasons.md".to_owned(), contents: reason_table::markdown() };
    let mut files = vec![reasons];
    for definition in crd::crds() {
        let contents = crd::to_yaml(&definition)?;
        files.extend(DEFINITIONS.map(|directory| GeneratedFile {
            path: format!("{directory}/{}", crd::file_name(&definition)),
            contents: contents.clone(),
        }));
    }
    Ok(files)
}
