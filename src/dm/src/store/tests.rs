use std::os::unix::fs::MetadataExt;

use eratrack_model::discards::DiscardPolicy;
use eratrack_model::place::MetadataPlace;
use eratrack_model::record::{Keeper, Phase};
use eratrack_model::units::{DevNo, Granularity, Sectors};

use super::*;

fn store(dir: &Path) -> FileStore {
    FileStore::new(&Machine::new(dir), StoreConfig::new("/var/lib/eratrack"))
}

fn record(stack: &StackId) -> Record {
    Record {
        stack: stack.clone(),
        chain: "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap(),
        boot: "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10".parse().unwrap(),
        x: DevNo { major: 253, minor: 0 },
        name: "vg-lv".parse().unwrap(),
        uuid: None,
        original: "0 8192 linear 8:0 2048".parse().unwrap(),
        sectors: Sectors(8192),
        granularity: Granularity::DEFAULT,
        discards: DiscardPolicy::Off,
        metadata: MetadataPlace::File("/var/lib/eratrack/a/era-metadata".into()),
        metadata_size: Bytes(1 << 20),
        phase: Phase::Attaching,
        keeper: Keeper::Agent,
        stage: None,
        access: false,
        seal: None,
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
    store.write_record(&record(&stack)).unwrap();
    let path = store.stack_dir(&stack).join(RECORD);
    let newer = fs::read_to_string(&path).unwrap().replace("\"version\": 2", "\"version\": 3");
    fs::write(&path, newer).unwrap();
    let error = store.read_record(&stack).unwrap_err().to_string();
    assert!(
        error.contains("record.json") && error.contains("version is 3, expected 1 to 2"),
        "{error}"
    );
    fs::write(&path, "{").unwrap();
    assert!(matches!(store.read_record(&stack), Err(StoreError::Record { .. })));
}

/// The store's directory may be one that others use too: a disk's mount point, say.
#[test]
fn directories_and_files_of_others_are_neither_listed_nor_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let dir = store.make_dir().unwrap().to_owned();
    for (name, file) in [("etcd", "member"), ("app", "record.json"), ("logs", "boundaries.json")] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join(file), "{\"stack\": \"other\"}").unwrap();
    }
    fs::create_dir(dir.join("empty")).unwrap();
    assert_eq!(store.stacks().unwrap(), []);
    let stack: StackId = "etcd".parse().unwrap();
    store.write_record(&record(&stack)).unwrap();
    assert_eq!(store.stacks().unwrap(), std::slice::from_ref(&stack));
    fs::write(dir.join("etcd/record.tmp"), "{").unwrap();
    store.remove(&stack).unwrap();
    let left = fs::read_dir(dir.join("etcd")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["member"]);
    assert_eq!(store.stacks().unwrap(), []);
}

#[test]
fn a_stack_is_known_by_its_metadata_or_its_record() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (with_metadata, with_record): (StackId, StackId) =
        ("a".parse().unwrap(), "b".parse().unwrap());
    store.create_metadata(&with_metadata, Bytes(1 << 20)).unwrap();
    store.write_record(&record(&with_record)).unwrap();
    assert_eq!(store.stacks().unwrap(), [with_metadata.clone(), with_record]);
    // What is unreadable beside metadata is still a stack's, to be cleared up.
    fs::write(store.stack_dir(&with_metadata).join(RECORD), "{").unwrap();
    assert!(store.stacks().unwrap().contains(&with_metadata));
}
