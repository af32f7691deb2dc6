//! The file that takes what X held at a point in time before it is overwritten: allocated to its
//! last byte, and gone with the point in time.

use std::fs;
use std::path::PathBuf;

use eratrack_model::names::StackId;
use eratrack_model::units::{Bytes, Sectors};

use super::{FileStore, Room, StoreConfig, StoreError, durable, io_error, remove_file};

/// Its name, in the stack's directory.
pub(super) const COPIES: &str = "point-in-time";

/// Without a wish, a tenth of X, but not more than this.
const USUAL_MOST: u64 = 1 << 30;
/// Nor less than this, if X is not smaller itself.
const USUAL_LEAST: u64 = 64 << 20;
/// With less than this it is not worth to begin.
const LEAST: u64 = 1 << 20;
/// Files are sized in whole blocks of the loop device.
const BLOCK: u64 = 4096;

impl FileStore {
    /// The file for copies of the stack, as seen from here.
    pub(crate) fn copies(&self, stack: &StackId) -> PathBuf {
        self.stack_dir(stack).join(COPIES)
    }

    /// The stack's directory, as the machine sees it.
    pub(crate) fn dir_on_machine(&self, stack: &StackId) -> PathBuf {
        self.config.dir.join(stack.as_str())
    }

    /// Makes the file anew, of the size that is wished for, or of a size that suits an X of that
    /// length and fits.
    pub(crate) fn create_copies(
        &self,
        stack: &StackId,
        size: Option<Bytes>,
        length: Sectors,
    ) -> Result<(PathBuf, Bytes), StoreError> {
        self.remove_copies(stack)?;
        let dir = self.stack_dir(stack);
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        let size = choose(&self.config, &Room::look(&dir, self.used()?)?, size, length)?;
        let path = self.copies(stack);
        self.allocated(&path, size)?;
        durable::sync_dir(&dir)?;
        Ok((path, size))
    }

    /// Fails if the file would have no room. The stack's directory is there.
    pub(crate) fn look_for_copies(
        &self,
        stack: &StackId,
        size: Option<Bytes>,
        length: Sectors,
    ) -> Result<(), StoreError> {
        let Room { dir, total, free, used } = Room::look(&self.stack_dir(stack), self.used()?)?;
        // One that is there, of a process that was killed, would make room.
        let left = fs::metadata(self.copies(stack)).map_or(0, |found| found.len());
        let (free, used) = (Bytes(free.0 + left), Bytes(used.0.saturating_sub(left)));
        choose(&self.config, &Room { dir, total, free, used }, size, length).map(drop)
    }

    pub(crate) fn remove_copies(&self, stack: &StackId) -> Result<(), StoreError> {
        remove_file(&self.copies(stack))
    }
}

fn choose(
    config: &StoreConfig,
    room: &Room,
    wish: Option<Bytes>,
    length: Sectors,
) -> Result<Bytes, StoreError> {
    let allowed = room.allowed(config).0 / BLOCK * BLOCK;
    let whole = length.to_bytes().map_or(u64::MAX, |bytes| bytes.0);
    let usual = (whole / 10).clamp(USUAL_LEAST, USUAL_MOST).min(allowed);
    // More than X has is never used.
    let size = wish.map_or(usual, |wish| wish.0).min(whole).next_multiple_of(BLOCK);
    if size > allowed || size < LEAST.min(whole) {
        let (needed, allowed) = (Bytes(size.max(LEAST)), Bytes(allowed));
        return Err(StoreError::CopiesRoom { needed, allowed, dir: room.dir.clone() });
    }
    Ok(Bytes(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MI: u64 = 1 << 20;

    /// In MiB: what is chosen for an X of that size, where so much is free of 100 GiB.
    fn chosen(wish: Option<u64>, x: u64, free: u64) -> Result<u64, String> {
        let (total, used) = (Bytes(100 << 30), Bytes(0));
        let room = Room { dir: "/d".into(), total, free: Bytes(free * MI), used };
        let wish = wish.map(|wish| Bytes(wish * MI));
        let size = choose(&StoreConfig::new("/d"), &room, wish, Sectors(x * 2048));
        size.map(|size| size.0 / MI).map_err(|e| e.to_string())
    }

    #[test]
    fn a_tenth_of_the_device_within_bounds_unless_another_size_is_wished_for() {
        let plenty = 90 << 10;
        assert_eq!(chosen(None, 32, plenty), Ok(32));
        assert_eq!(chosen(None, 100, plenty), Ok(64));
        assert_eq!(chosen(None, 5000, plenty), Ok(500));
        assert_eq!(chosen(None, 1 << 20, plenty), Ok(1024));
        assert_eq!(chosen(Some(3), 5000, plenty), Ok(3));
        assert_eq!(chosen(Some(5000), 1000, plenty), Ok(1000));
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_would() {
        // 15 % of 100 GiB must stay free.
        let kept = 15 << 10;
        assert_eq!(chosen(None, 1 << 20, kept + 100), Ok(100));
        let (total, free, used) = (Bytes(100 << 30), Bytes((kept + 100) * MI + 100), Bytes(0));
        let room = Room { dir: "/d".into(), total, free, used };
        let odd = choose(&StoreConfig::new("/d"), &room, None, Sectors(1 << 30));
        assert_eq!(odd.unwrap(), Bytes(100 * MI), "whole blocks of what is free");
        let error = chosen(Some(200), 1 << 20, kept + 100).unwrap_err();
        assert!(error.contains("200Mi in /d, where 100Mi"), "{error}");
        assert!(chosen(None, 1 << 20, kept).is_err());
        assert!(chosen(Some(0), 1 << 20, kept + 100).is_err());
    }
}
