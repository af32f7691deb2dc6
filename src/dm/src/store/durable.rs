//! Files that are whole or not there, also after a power cut.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{StoreError, io_error};

/// Replaces the file's contents at once: a temporary file, its fsync, a rename, and the fsync
/// of the directory.
pub fn replace_durably(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    write().map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename", path))?;
    sync_dir(path.parent().unwrap_or(path))
}

/// Where a file is written before it replaces the one of that name.
pub(super) fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Makes what was created, renamed or removed in a directory survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}
