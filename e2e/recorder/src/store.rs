//! The records on the volume: a few files that grow together, so that neighbours in time lie apart.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::record::{self, SIZE};

const FILES: u64 = 4;

/// The records of one directory, and what may still be added.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    files: Vec<File>,
    /// How many records are durable: 1 to this number.
    acknowledged: u64,
}

impl Store {
    /// Opens the directory and counts the records that are there.
    pub(crate) fn open(directory: &Path) -> Result<Self, String> {
        let open = |index: u64| {
            let path = directory.join(format!("records-{index}"));
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path);
            file.map_err(|error| format!("{}: {error}", path.display()))
        };
        let files = (0..FILES).map(open).collect::<Result<_, _>>()?;
        let named = File::open(directory).and_then(|directory| directory.sync_all());
        named.map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut store = Self { directory: directory.to_owned(), files, acknowledged: 0 };
        while store.is_there(store.acknowledged + 1) {
            store.acknowledged += 1;
        }
        Ok(store)
    }

    /// How many records are durable.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Writes the next record and makes it durable; its number and checksum.
    pub(crate) fn append(&mut self) -> Result<(u64, u64), String> {
        let number = self.acknowledged + 1;
        let (record, (file, offset)) = (record::record(number), self.place(number));
        let written = file.write_all_at(&record, offset).and_then(|()| file.sync_data());
        written.map_err(|error| format!("record {number} cannot be written: {error}"))?;
        self.acknowledged = number;
        Ok((number, record::carried(&record)))
    }

    /// Reads every acknowledged record back; how many there are.
    pub(crate) fn verify(&self) -> Result<u64, String> {
        match (1..=self.acknowledged).find(|number| !self.is_there(*number)) {
            None => Ok(self.acknowledged),
            Some(bad) => {
                let all = self.acknowledged;
                Err(format!("record {bad} of {all} was acknowledged and is not what was written"))
            }
        }
    }

    /// Writes noise of `seed` at `offset` of a file beside the records and makes it durable.
    pub(crate) fn pattern(
        &self,
        file: &str,
        offset: u64,
        length: usize,
        seed: u64,
    ) -> io::Result<()> {
        let mut bytes = vec![0; length];
        record::fill(&mut bytes, seed);
        let path = self.directory.join(file);
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(&bytes, offset)?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    fn place(&self, number: u64) -> (&File, u64) {
        let index = usize::try_from(number % FILES).unwrap_or_default();
        (&self.files[index], number / FILES * SIZE as u64)
    }

    fn is_there(&self, number: u64) -> bool {
        let ((file, offset), mut bytes) = (self.place(number), [0; SIZE]);
        file.read_exact_at(&mut bytes, offset).is_ok() && bytes == record::record(number)
    }
}

/// Whether a name is one of a file right here.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != ".." && !name.starts_with("records-")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("recorder-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn goes_on_where_it_ended_and_finds_a_spoilt_record() {
        let directory = scratch("spoilt");
        let mut store = Store::open(&directory).unwrap();
        for _ in 0..10 {
            store.append().unwrap();
        }
        let store = Store::open(&directory).unwrap();
        assert_eq!(store.verify(), Ok(10));
        let (file, offset) = store.place(6);
        file.write_all_at(b"x", offset + 100).unwrap();
        assert!(store.verify().unwrap_err().starts_with("record 6 of 10 "));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_pattern_lies_where_it_was_asked_for() {
        let directory = scratch("pattern");
        let store = Store::open(&directory).unwrap();
        store.pattern("known", 100, 50, 3).unwrap();
        let bytes = fs::read(directory.join("known")).unwrap();
        let mut expected = vec![0; 150];
        record::fill(&mut expected[100..], 3);
        assert_eq!(bytes, expected);
        assert!(is_plain("known") && !is_plain("../x") && !is_plain("records-1"));
        fs::remove_dir_all(directory).unwrap();
    }
}
