//! The example client of docs/for-backup-vendors.md, run on lists that a kubectl made of files gives.
#![cfg(test)]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{cluster::hex_digest, paths};

/// Answers as kubectl would, from files.
const KUBECTL: &str = "#!/bin/sh
cd \"${0%/*}\"
case $2 in erasnapshots) cat snapshots.json ;; *) [ ! -e \"$5.json\" ] || cat \"$5.json\" ;; esac
";

/// A snapshot, and its one slice in a file.
fn snapshot(dir: &Path, name: &str, since: Option<u32>, era: u32, list: &str) -> Value {
    let slice = json!({ "snapshot": { "uid": name }, "encoding": "List", "ranges": list });
    fs::write(dir.join(format!("{name}-0.json")), slice.to_string()).unwrap();
    json!({
        "metadata": { "name": name, "uid": name },
        "status": {
            "chainID": "chain", "era": era, "sinceEra": since, "blockSizeBytes": 4096, "sizeBytes": 50 * 4096 - 512,
            "type": if since.is_some() { "Incremental" } else { "Full" }, "fullReason": "SlicesLost",
            "slices": { "count": 1, "sha256": hex_digest(list.as_bytes()) },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

struct Store(tempfile::TempDir);

impl Store {
    fn of(make: impl FnOnce(&Path) -> Vec<Value>) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let kubectl = dir.path().join("kubectl");
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        let items = json!({ "items": make(dir.path()) });
        fs::write(dir.path().join("snapshots.json"), items.to_string()).unwrap();
        Self(dir)
    }

    /// What the example says, and its exit code.
    fn ask(&self, from: &str, to: &str) -> (String, Option<i32>) {
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        let client = paths::workspace().join("examples/changed-extents.sh");
        let output = Command::new(client)
            .args(["shop", "data", from, to])
            .env("PATH", path)
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (text, output.status.code())
    }
}

#[test]
fn the_example_client_joins_what_it_can_prove_and_nothing_else() {
    let store = Store::of(|dir| {
        vec![
            snapshot(dir, "a", None, 2, "0-49"),
            snapshot(dir, "b", Some(2), 4, "1,5-6,49"),
            snapshot(dir, "c", Some(4), 6, "2-4"),
            snapshot(dir, "d", None, 8, "0-49"),
            snapshot(dir, "e", Some(8), 9, "7"),
        ]
    });
    let extents = "offset,length\n4096,24576\n200704,3584\n";
    assert_eq!(store.ask("a", "c"), (extents.to_owned(), Some(0)));
    assert_eq!(store.ask("d", "e"), ("offset,length\n28672,4096\n".to_owned(), Some(0)));
    let refused = |from, to, why: &str| {
        let (said, code) = store.ask(from, to);
        assert!(code == Some(10) && said.contains(why), "{from} to {to}: {code:?} {said}");
    };
    refused("c", "e", "d is full (SlicesLost)");
    refused("c", "a", "c is not before a");
    // After a merge the slices begin elsewhere.
    let merged = Store::of(|dir| {
        let mut last = snapshot(dir, "c", Some(2), 6, "1-6");
        last["status"]["slices"]["first"] = 16.into();
        fs::rename(dir.join("c-0.json"), dir.join("c-16.json")).unwrap();
        vec![snapshot(dir, "a", None, 2, "0-49"), last]
    });
    assert_eq!(merged.ask("a", "c"), ("offset,length\n4096,24576\n".to_owned(), Some(0)));
    refused("x", "c", "x is not complete");
    fs::write(
        store.0.path().join("b-0.json"),
        json!({ "snapshot": { "uid": "b" }, "encoding": "List", "ranges": "1" }).to_string(),
    )
    .unwrap();
    refused("a", "c", "the list of b was changed");
    fs::remove_file(store.0.path().join("b-0.json")).unwrap();
    refused("a", "c", "slice b-0 is gone");
}
