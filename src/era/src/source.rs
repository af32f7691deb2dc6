//! Where metadata blocks come from.

mod ahead;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ahead::Ahead;

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

    /// Reads blocks that lie side by side, the first of which has this number; there are at
    /// least one, at most 256 (1 MiB), and so many blocks. The memory is aligned to
    /// [`BLOCK_SIZE`]. A source that can read them at once does so.
    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        let mut block = Block::zeroed();
        for (before, (number, bytes)) in (first..).zip(into).enumerate() {
            self.read(number, &mut block).map_err(|source| Unread { before, source })?;
            bytes.copy_from_slice(block.bytes());
        }
        Ok(())
    }
}

/// Not all blocks of a run could be read.
#[derive(Debug)]
pub struct Unread {
    /// How many blocks were read; fewer than there are in the run.
    pub before: usize,
    /// Why the one after them was not.
    pub source: io::Error,
}

impl<S: BlockSource + ?Sized> BlockSource for &S {
    fn blocks(&self) -> u64 {
        (**self).blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        (**self).read(number, into)
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        (**self).read_run(first, into)
    }
}

impl<S: BlockSource + ?Sized> BlockSource for Box<S> {
    fn blocks(&self) -> u64 {
        (**self).blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        (**self).read(number, into)
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        (**self).read_run(first, into)
    }
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    blocks: u64,
    /// None where the page cache reads ahead.
    ahead: Option<Mutex<Ahead>>,
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
    /// device in use by device mapper would refuse with EBUSY. Reads ahead as
    /// [`Self::from_direct`] does.
    pub fn open_direct(path: &Path) -> io::Result<Self> {
        Self::from_direct(OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path)?)
    }

    /// Reads from a file or device that the caller opened with `O_DIRECT`, and reads ahead:
    /// for metadata that does not change while it is walked, as that of a held snapshot.
    pub fn from_direct(file: File) -> io::Result<Self> {
        Ok(Self { ahead: Some(Mutex::default()), ..Self::from_file(file)? })
    }

    /// Reads from a file or device that the caller opened. If something is writing to
    /// it, it must have been opened with `O_DIRECT`. Leaves the file's position moved.
    pub fn from_file(mut file: File) -> io::Result<Self> {
        // Seeking tells a block device's length too, where the inode's size is zero.
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, blocks: bytes / BLOCK_SIZE as u64, ahead: None })
    }

    fn read_side_by_side(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        let Err(error) = self.read_at(first, into.as_flattened_mut()) else { return Ok(()) };
        // Which of them it is that cannot be read is worth reading once more.
        for (before, (number, bytes)) in (first..).zip(into).enumerate() {
            self.read_at(number, bytes).map_err(|source| Unread { before, source })?;
        }
        Err(Unread { before: 0, source: error })
    }

    fn read_at(&self, number: u64, into: &mut [u8]) -> io::Result<()> {
        let offset = number.checked_mul(BLOCK_SIZE as u64).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.read_exact_at(into, offset)
    }
}

impl BlockSource for FileSource {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        let run = std::slice::from_mut(into.bytes_mut());
        self.read_run(number, run).map_err(|unread| unread.source)
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        let Some(ahead) = &self.ahead else { return self.read_side_by_side(first, into) };
        let mut ahead = ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead
            .read_run((first, self.blocks), into, |first, into| self.read_side_by_side(first, into))
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

impl MemorySource {
    fn block(&self, number: u64) -> io::Result<&[u8; BLOCK_SIZE]> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.bytes.as_chunks::<BLOCK_SIZE>().0.get(number))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl BlockSource for MemorySource {
    fn blocks(&self) -> u64 {
        (self.bytes.len() / BLOCK_SIZE) as u64
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        into.bytes_mut().copy_from_slice(self.block(number)?);
        Ok(())
    }

    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        for (before, (number, bytes)) in (first..).zip(into).enumerate() {
            *bytes = *self.block(number).map_err(|source| Unread { before, source })?;
        }
        Ok(())
    }
}
