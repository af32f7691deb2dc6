//! Where metadata blocks come from.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::block::{BLOCK_SIZE, Block};

/// `O_DIRECT` of this architecture's include/uapi/asm/fcntl.h; the generic value
/// (include/uapi/asm-generic/fcntl.h) where the architecture has none of its own.
#[cfg(any(target_arch = "arm", target_arch = "aarch64"))]
const O_DIRECT: i32 = 0o200_000;
#[cfg(any(target_arch = "powerpc", target_arch = "powerpc64"))]
const O_DIRECT: i32 = 0o400_000;
#[cfg(not(any(
    target_arch = "arm",
    target_arch = "aarch64",
    target_arch = "powerpc",
    target_arch = "powerpc64"
)))]
const O_DIRECT: i32 = 0o40_000;

/// Something that metadata blocks can be read from.
pub trait BlockSource {
    /// How many whole blocks of [`BLOCK_SIZE`] bytes there are.
    fn blocks(&self) -> u64;

    /// Reads the block with this number, which is less than [`Self::blocks`].
    fn read(&self, number: u64, into: &mut Block) -> io::Result<()>;
}

impl<S: BlockSource + ?Sized> BlockSource for &S {
    fn blocks(&self) -> u64 {
        (**self).blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        (**self).read(number, into)
    }
}

impl<S: BlockSource + ?Sized> BlockSource for Box<S> {
    fn blocks(&self) -> u64 {
        (**self).blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        (**self).read(number, into)
    }
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    blocks: u64,
}

impl FileSource {
    /// Opens an image file, or a block device: the device with `O_DIRECT`, because the
    /// kernel writes metadata around the page cache and a buffered read may be stale.
    pub fn open(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.file_type().is_block_device() {
            Self::open_direct(path)
        } else {
            Self::from_file(File::open(path)?)
        }
    }

    /// Opens a file or device read-only with `O_DIRECT`, and without `O_EXCL`, which a
    /// device in use by device mapper would refuse with EBUSY.
    pub fn open_direct(path: &Path) -> io::Result<Self> {
        Self::from_file(OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path)?)
    }

    /// Reads from a file or device that the caller opened. If something is writing to
    /// it, it must have been opened with `O_DIRECT`. Leaves the file's position moved.
    pub fn from_file(mut file: File) -> io::Result<Self> {
        // Seeking tells a block device's length too, where the inode's size is zero.
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, blocks: bytes / BLOCK_SIZE as u64 })
    }
}

impl BlockSource for FileSource {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        let offset = number.checked_mul(BLOCK_SIZE as u64).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.read_exact_at(into.bytes_mut(), offset)
    }
}

/// An image in memory; a last part shorter than a block is ignored.
#[derive(Clone, Debug)]
pub struct MemorySource {
    bytes: Vec<u8>,
}

impl MemorySource {
    /// Takes the image's bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl BlockSource for MemorySource {
    fn blocks(&self) -> u64 {
        (self.bytes.len() / BLOCK_SIZE) as u64
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        let block = usize::try_from(number)
            .ok()
            .and_then(|number| self.bytes.as_chunks::<BLOCK_SIZE>().0.get(number))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        into.bytes_mut().copy_from_slice(block);
        Ok(())
    }
}
