//! Metadata at rest, or held: an image, or the device itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use clap::Args;
use era_metadata::{FileSource, View};
use eratrack_dm::linux::{Loops, Nodes};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::DeviceError;

/// Which view of the metadata to read.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Read the held metadata snapshot, which may be done while the era device is active; without this, read the
    /// metadata as last committed, which needs a device at rest. BLOCK is the last field of the device's status: give
    /// it while the device is active; else it is found in the superblock
    #[arg(long, value_name = "BLOCK", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option)] // clap: absent, given alone, given with a block
    metadata_snapshot: Option<Option<u64>>,
}

impl SnapshotArgs {
    /// What they ask for.
    pub(super) fn view(self) -> View {
        match self.metadata_snapshot {
            None => View::Live,
            Some(None) => View::Held,
            Some(Some(block)) => View::HeldAt(block),
        }
    }
}

/// What something holds open may change under a reader of its live view.
pub(super) fn open(path: &Path, view: View) -> Result<FileSource, DeviceError> {
    let failed = |source: io::Error| DeviceError::Open { path: path.to_owned(), source };
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    // Opening a pipe would wait for somebody to write.
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DeviceError::NoImage { path: path.to_owned() });
    }
    match (view, kind.is_block_device()) {
        (View::Held | View::HeldAt(_), _) => FileSource::open(path).map_err(failed),
        (View::Live, true) => open_alone(path),
        (View::Live, false) => {
            let loops = Loops::new(Nodes::new("/dev"), Path::new("/sys"));
            refuse_behind_loop(path, &loops)?;
            FileSource::open(path).map_err(failed)
        }
    }
}

/// `O_EXCL` finds out whether a device is in use: device mapper claims what it uses.
fn open_alone(path: &Path) -> Result<FileSource, DeviceError> {
    let failed = |source: io::Error| DeviceError::Open { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => FileSource::from_direct(File::from(file)).map_err(failed),
        Err(Errno::BUSY) => Err(DeviceError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// dm-era's metadata in a file lies behind a loop device while it is in use.
fn refuse_behind_loop(path: &Path, loops: &Loops) -> Result<(), DeviceError> {
    let path = path.to_owned();
    // A link may have another name than its file.
    let named = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    match loops.find(&named) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(DeviceError::InUse { path }),
        Err(source) => Err(DeviceError::Unknown { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_be_behind_a_loop_device_is_not_read_as_at_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (image, link) = (dir.path().join("era-metadata"), dir.path().join("link"));
        std::fs::write(&image, [0; 4096]).unwrap();
        std::os::unix::fs::symlink(&image, &link).unwrap();
        let listed = dir.path().join("block/loop9");
        std::fs::create_dir_all(listed.join("loop")).unwrap();
        std::fs::write(listed.join("dev"), "7:9").unwrap();
        // There is nowhere to make its node: as for a user who is not root.
        let loops = Loops::new(Nodes::new(dir.path().join("no-nodes")), dir.path());
        let over = |backing: &str| {
            std::fs::write(listed.join("loop/backing_file"), backing).unwrap();
            refuse_behind_loop(&link, &loops)
        };
        assert!(over("/somebody/else.img").is_ok());
        let text = crate::exit::chain(&over("/var/lib/eratrack/a/era-metadata").unwrap_err());
        assert!(text.contains("--metadata-snapshot=BLOCK") && text.contains("link"), "{text}");
    }
}
