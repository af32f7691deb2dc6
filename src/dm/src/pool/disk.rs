use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use era_metadata::{BLOCK_SIZE, Block};
use eratrack_model::pool::{Copies, ReadError, Table, UNIT, Write};
use eratrack_model::units::{Bytes, DevNo};

use super::PoolError;

/// A disk that was opened around the page cache: whole blocks of 4 KiB are read and written.
#[derive(Debug)]
pub(crate) struct PoolDisk {
    file: File,
    dev: DevNo,
    length: Bytes,
}

impl PoolDisk {
    pub(crate) fn over(file: File, dev: DevNo, length: Bytes) -> Self {
        Self { file, dev, length }
    }

    /// How long the disk is now.
    pub(crate) fn length(&self) -> Bytes {
        self.length
    }

    /// Its table.
    pub(crate) fn read(&self) -> Result<Copies, PoolError> {
        let read = Copies::read(self.length, |offset, bytes| {
            self.fill(offset, bytes).map_err(Stopped::Io)
        });
        read.map_err(|stopped| match stopped {
            Stopped::Io(source) => self.io("read", source),
            Stopped::Table(source) => PoolError::Table { device: self.dev, source },
        })
    }

    /// Gives it another table, durably, and reads it back.
    pub(crate) fn change(&self, from: &Copies, to: Table) -> Result<Copies, PoolError> {
        let (writes, expected) = from.next(to)?;
        self.write(&writes)?;
        let found = self.read()?;
        if found.table == expected.table { Ok(found) } else { Err(PoolError::ReadBack(self.dev)) }
    }

    /// Makes it the pool of that table, whatever it was.
    pub(crate) fn create(&self, table: &Table) -> Result<Copies, PoolError> {
        self.write(&Copies::create(table)?)?;
        let found = self.read()?;
        let same = found.table.pool() == table.pool() && found.table.areas().is_empty();
        if same { Ok(found) } else { Err(PoolError::ReadBack(self.dev)) }
    }

    /// Its first and its last MiB.
    pub(crate) fn ends(&self) -> Result<[Vec<u8>; 2], PoolError> {
        let mib = usize::try_from(UNIT).unwrap_or(BLOCK_SIZE);
        let last = (self.length.0 / BLOCK_SIZE as u64 * BLOCK_SIZE as u64).saturating_sub(UNIT);
        let mut ends = [vec![0; mib], vec![0; mib]];
        for (bytes, offset) in ends.iter_mut().zip([0, last]) {
            self.fill(offset, bytes).map_err(|source| self.io("read", source))?;
        }
        Ok(ends)
    }

    fn fill(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut block = Block::zeroed();
        for (index, part) in bytes.chunks_mut(BLOCK_SIZE).enumerate() {
            self.file.read_exact_at(block.bytes_mut(), offset + (index * BLOCK_SIZE) as u64)?;
            part.copy_from_slice(&block.bytes()[..part.len()]);
        }
        Ok(())
    }

    /// In order, each on the disk before the next begins.
    fn write(&self, writes: &[Write]) -> Result<(), PoolError> {
        for write in writes {
            self.write_one(write).map_err(|source| self.io("write", source))?;
        }
        Ok(())
    }

    fn write_one(&self, write: &Write) -> io::Result<()> {
        let mut block = Block::zeroed();
        for (index, part) in write.bytes.chunks_exact(BLOCK_SIZE).enumerate() {
            block.bytes_mut().copy_from_slice(part);
            self.file.write_all_at(block.bytes(), write.offset + (index * BLOCK_SIZE) as u64)?;
        }
        // A direct write may still be in the disk's own cache.
        self.file.sync_data()
    }

    fn io(&self, doing: &'static str, source: io::Error) -> PoolError {
        PoolError::Io { doing, device: self.dev, source }
    }
}

enum Stopped {
    Io(io::Error),
    Table(ReadError),
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Self::Table(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eratrack_model::names::StackId;

    const DEV: DevNo = DevNo { major: 8, minor: 16 };

    fn disk(mib: u64) -> PoolDisk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(mib << 20).unwrap();
        PoolDisk::over(file, DEV, Bytes(mib << 20))
    }

    fn table(mib: u64) -> Table {
        let id = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap();
        Table::new(id, Bytes(mib << 20)).unwrap()
    }

    #[test]
    fn a_pool_is_made_changed_and_read_back() {
        let disk = disk(16);
        let error = disk.read().unwrap_err();
        assert!(matches!(&error, PoolError::Table { source: ReadError::NoPool, .. }), "{error}");
        let mut copies = disk.create(&table(16)).unwrap();
        for number in 0..5 {
            let stack: StackId = format!("s-{number}").parse().unwrap();
            let (next, _) = copies.table.allocate(&stack, Bytes(1), &[]).unwrap();
            copies = disk.change(&copies, next).unwrap();
        }
        assert_eq!(disk.read().unwrap(), copies);
        assert_eq!(copies.table.areas().len(), 5);
    }

    #[test]
    fn a_disk_that_does_not_keep_what_it_is_given_is_found_out() {
        // Nothing that is written to it is kept.
        let file = File::options().read(true).write(true).open("/dev/zero").unwrap();
        let sink = PoolDisk::over(file, DEV, Bytes(16 << 20));
        let error = sink.create(&table(16)).unwrap_err();
        assert!(error.to_string().contains("8:16"), "{error}");
    }

    #[test]
    fn both_ends_are_read_whole() {
        let disk = disk(4);
        disk.file.write_all_at(&[1], (1 << 20) - 1).unwrap();
        disk.file.write_all_at(&[2], 3 << 20).unwrap();
        let [first, last] = disk.ends().unwrap();
        assert_eq!((first[(1 << 20) - 1], last[0], first.len()), (1, 2, 1 << 20));
    }
}
