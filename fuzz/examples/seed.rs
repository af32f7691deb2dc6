//! Writes the corpora that the targets begin with, from what a kernel wrote: `cargo run --example seed`, then `cargo fuzz run`.

use std::fs;
use std::io;
use std::path::Path;

use eratrack_fuzz::{SEEDS, Structure};
use eratrack_model::pool::{Copy, Table};
use eratrack_model::units::Bytes;

const STRUCTURES: [(&str, Structure); 6] = [
    ("superblock", Structure::Superblock),
    ("btree_node", Structure::Node),
    ("array_block", Structure::Eras),
    ("bitset", Structure::Bits),
    ("writesets", Structure::Writesets),
    ("space_map", Structure::SpaceMap),
];

const RECORD: &str = r#"{"version":2,"stack":"pv-1","chain":"0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11",
"boot":"9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10","x":"253:3","name":"vg-lv","uuid":null,
"original":"0 32768 linear 8:0 2048\n32768 32768 linear 8:16 0","sectors":65536,"granularity":"256Ki","discards":"Limit",
"metadata":"/var/lib/eratrack/pv-1/metadata","metadata_size":4194304,"phase":"Attached","keeper":"Administrator",
"stage":null,"access":false,"seal":null}"#;

const LINES: [&str; 5] =
    ["Error", "8 21/64 4 -", "8 21/64 4 17", "8 4161536/4161600 4294967295 1", "8 0/0 0 0"];

const LISTS: [&str; 5] = ["", "0", "0,2-4,30-49", "2147483646", "1-18446744073709551615"];

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, content: &[u8]| -> io::Result<()> {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(name), content)
    };
    for (number, forge) in SEEDS.iter().enumerate() {
        put("image", &format!("seed-{number}"), &forge.encode())?;
        for (target, structure) in STRUCTURES {
            for block in 0.. {
                let Some(seed) = structure.seed(number, block) else { break };
                put(target, &format!("seed-{number}-{block}"), &seed)?;
            }
        }
    }
    put("record", "seed", RECORD.as_bytes())?;
    for (number, line) in LINES.iter().enumerate() {
        put("status_line", &format!("seed-{number}"), line.as_bytes())?;
    }
    for (number, list) in LISTS.iter().enumerate() {
        put("list", &format!("seed-{number}"), list.as_bytes())?;
    }
    let tables = include_str!("../../src/model/tests/golden/tables.txt");
    for (number, table) in tables.split("\n\n").enumerate() {
        put("table", &format!("seed-{number}"), table.as_bytes())?;
    }
    pools(&put)
}

/// An empty table and one with areas; both copies.
fn pools(put: &dyn Fn(&str, &str, &[u8]) -> io::Result<()>) -> io::Result<()> {
    const DISK_MIB: u8 = 64;
    let pool = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().expect("a uuid");
    let mut table = Table::new(pool, Bytes(u64::from(DISK_MIB) << 20)).expect("a pool");
    for areas in 0..4 {
        for copy in [Copy::First, Copy::Second] {
            let content = [&[DISK_MIB][..], &table.encode(copy)].concat();
            put("pool", &format!("seed-{areas}-{copy:?}"), &content)?;
        }
        let stack = format!("stack-{areas}").parse().expect("a name");
        (table, _) = table.allocate(&stack, Bytes(3 << 20), &[]).expect("room");
    }
    Ok(())
}
