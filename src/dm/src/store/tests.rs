use std::os::unix::fs::MetadataExt;

use eratrack_model::discards::DiscardPolicy;
use eratrack_model::units::{DevNo, Granularity, Sectors};

use super::*;
use crate::record::Phase;

fn store(dir: &Path) -> FileStore {
    FileStore::new(&Machine::new(dir), StoreConfig::new("/var/lib/eratrack"))
}

fn record(stack: &StackId) -> Record {
    Record {
        version: VERSION,
        stack: stack.clone(),
        chain: "c".into(),
        boot: "b".into(),
        x: DevNo { major: 253, minor: 0 },
        name: "vg-lv".parse().unwrap(),
        uuid: None,
        original: "0 8192 linear 8:0 2048".parse().unwrap(),
        sectors: Sectors(8192),
        granularity: Granularity::DEFAULT,
        discards: DiscardPolicy::Off,
        metadata: "/var/lib/eratrack/a/era-metadata".into(),
        metadata_size: Bytes(1 << 20),
        phase: Phase::Attaching,
    }
}

#[test]
fn metadata_is_allocated_and_starts_with_zeroes() {
    let root = tempfile::tempdir().unwrap();
    let (store, stack) = (store(root.path()), "a".parse().unwrap());
    let path = store.create_metadata(&stack, Bytes(1 << 20)).unwrap();
    fs::write(&path, "old").unwrap();
    assert_eq!(store.create_metadata(&stack, Bytes(1 << 20)).unwrap(), path);
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.len(), 1 << 20);
    assert!(found.blocks() >= (1 << 20) / 512, "{} blocks", found.blocks());
    assert!(fs::read(&path).unwrap()[..SUPERBLOCK].iter().all(|&byte| byte == 0));
    assert_eq!(store.used().unwrap(), Bytes(1 << 20));
}

#[test]
fn a_record_reads_back_until_it_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let (store, stack) = (store(root.path()), "a".parse().unwrap());
    assert_eq!(store.read_record(&stack).unwrap(), None);
    let record = record(&stack);
    store.write_record(&record).unwrap();
    assert_eq!(store.read_record(&stack).unwrap(), Some(record));
    assert_eq!(store.stacks().unwrap(), std::slice::from_ref(&stack));
    store.remove(&stack).unwrap();
    store.remove(&stack).unwrap();
    assert_eq!(store.stacks().unwrap(), []);
}

#[test]
fn a_record_that_is_not_understood_says_where_and_why() {
    let root = tempfile::tempdir().unwrap();
    let (store, stack): (_, StackId) = (store(root.path()), "a".parse().unwrap());
    let mut newer = record(&stack);
    newer.version = VERSION + 1;
    store.write_record(&newer).unwrap();
    let error = store.read_record(&stack).unwrap_err().to_string();
    assert!(error.contains("record.json") && error.contains("version 2, expected 1"), "{error}");
    fs::write(store.stack_dir(&stack).join(RECORD), "{").unwrap();
    assert!(matches!(store.read_record(&stack), Err(StoreError::Record { .. })));
}
