//! A metadata file at a path that a person chose. Nothing of theirs is overwritten or removed:
//! ours appears there at once and whole, from under a name that nobody else uses.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use eratrack_model::names::StackId;
use eratrack_model::units::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Room, SUPERBLOCK, StoreError, allocate, durable, in_place, io_error, remove_file};

/// dm-era's magic, at byte 32 of its superblock (`SUPERBLOCK_MAGIC`, dm-era-target.c).
const MAGIC: [u8; 8] = 2_126_579_579_u64.to_le_bytes();

/// Fails if there is something at the path, if its directory is not there, or has no room.
pub(crate) fn check(path: &Path, needed: Bytes) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => return Err(StoreError::Exists { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error("look at", path)(e)),
    }
    let Room { dir, free, .. } = Room::look(dir_of(path), Bytes(0))?;
    let keep = Bytes(0);
    if needed > free { Err(StoreError::NoSpace { needed, free, keep, dir }) } else { Ok(()) }
}

/// Fails if the file's directory is not there.
pub(crate) fn look_for_dir(path: &Path) -> Result<(), StoreError> {
    let dir = dir_of(path);
    fs::metadata(dir).map(|_| ()).map_err(io_error("look at", dir))
}

/// Makes the file, allocated to its last byte, its superblock zero. Fails if there is something
/// at the path.
pub(crate) fn create(stack: &StackId, path: &Path, size: Bytes) -> Result<(), StoreError> {
    let begun = begun(stack, path);
    remove_file(&begun)?;
    make(&begun, size).inspect_err(|_| {
        // Why it failed is what counts.
        let _ = fs::remove_file(&begun);
    })?;
    match renameat_with(CWD, &begun, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => durable::sync_dir(dir_of(path)),
        Err(e) => {
            remove_file(&begun)?;
            if e == rustix::io::Errno::EXIST {
                return Err(StoreError::Exists { path: path.to_owned() });
            }
            Err(io_error("make", path)(e.into()))
        }
    }
}

/// Removes what [`create`] made or began. What does not look like it stays.
pub(crate) fn remove(stack: &StackId, path: &Path, size: Bytes) -> Result<(), StoreError> {
    remove_file(&begun(stack, path))?;
    match is_metadata(path, size) {
        Ok(true) => remove_file(path),
        Ok(false) => {
            tracing::warn!(file = %path.display(), "left: it is not the metadata that was there");
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("look at", path)(e)),
    }
}

fn make(path: &Path, size: Bytes) -> Result<(), StoreError> {
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = new.map_err(io_error("make", path))?;
    if !in_place::ensure(&file).map_err(io_error("look at the file system of", path))? {
        return Err(StoreError::CopyOnWrite { dir: dir_of(path).to_owned() });
    }
    allocate(&file, size).map_err(io_error("allocate", path))
}

/// A file of that length which dm-era has formatted or is to format.
fn is_metadata(path: &Path, size: Bytes) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.len() != size.0 {
        return Ok(false);
    }
    let mut superblock = [0; SUPERBLOCK];
    File::open(path)?.read_exact(&mut superblock)?;
    Ok(superblock[32..40] == MAGIC || superblock.iter().all(|byte| *byte == 0))
}

fn begun(stack: &StackId, path: &Path) -> PathBuf {
    path.with_file_name(format!(".eratrack-{stack}"))
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Bytes = Bytes(1 << 20);

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_where_it_is_wanted_and_removed_again() {
        let dir = tempfile::tempdir().unwrap();
        let (stack, path) = ("s".parse().unwrap(), dir.path().join("a.era"));
        check(&path, SIZE).unwrap();
        // What a kill left of an earlier attempt.
        fs::write(dir.path().join(".eratrack-s"), "half").unwrap();
        create(&stack, &path, SIZE).unwrap();
        assert_eq!(names(dir.path()), ["a.era"]);
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE.0);
        fs::write(dir.path().join(".eratrack-s"), "half").unwrap();
        remove(&stack, &path, SIZE).unwrap();
        remove(&stack, &path, SIZE).unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_is_somebody_elses_is_neither_overwritten_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (stack, path) = ("s".parse().unwrap(), dir.path().join("a.era"));
        fs::write(&path, "precious").unwrap();
        let error = check(&path, SIZE).unwrap_err().to_string();
        assert!(error.contains("a.era") && error.contains("choose another"), "{error}");
        assert!(matches!(create(&stack, &path, SIZE), Err(StoreError::Exists { .. })));
        remove(&stack, &path, SIZE).unwrap();
        let mut same_length = vec![0; 1 << 20];
        same_length[..8].copy_from_slice(b"precious");
        fs::write(&path, &same_length).unwrap();
        remove(&stack, &path, SIZE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), same_length);
        assert_eq!(names(dir.path()), ["a.era"]);
    }

    #[test]
    fn formatted_metadata_is_ours_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let (stack, path) = ("s".parse().unwrap(), dir.path().join("a.era"));
        let mut formatted = vec![0; 1 << 20];
        formatted[..40].copy_from_slice(&[7; 40]);
        formatted[32..40].copy_from_slice(&MAGIC);
        fs::write(&path, formatted).unwrap();
        remove(&stack, &path, SIZE).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_is_not_there_or_full_is_said_before() {
        let dir = tempfile::tempdir().unwrap();
        let error = check(&dir.path().join("no/a.era"), SIZE).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        let error = check(&dir.path().join("a.era"), Bytes(u64::MAX)).unwrap_err();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    }
}
