//! Metadata that is read while its era device is in use. A long list on a slow disk takes minutes, and meanwhile nobody
//! else may take out an era device that fails: so it is asked between reads how the device is.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use era_metadata::{BLOCK_SIZE, Block, BlockSource, Unread};

use super::HostError;

/// How often it is asked: each answer is a commit of the metadata with two flushes.
const INTERVAL: Duration = Duration::from_secs(3);

/// A source whose reader gives up when `look` fails.
pub(super) struct Attended<S, F> {
    source: S,
    look: F,
    looked: Cell<Instant>,
    found: RefCell<Option<HostError>>,
}

impl<S: BlockSource, F: Fn() -> Result<(), HostError>> Attended<S, F> {
    pub(super) fn new(source: S, look: F) -> Self {
        Self { source, look, looked: Cell::new(Instant::now()), found: RefCell::default() }
    }

    /// Why the reader gave up, if it was told to.
    pub(super) fn found(self) -> Option<HostError> {
        self.found.into_inner()
    }

    fn look_if_due(&self, now: Instant) -> io::Result<()> {
        if now.duration_since(self.looked.get()) < INTERVAL {
            return Ok(());
        }
        self.looked.set(now);
        (self.look)().map_err(|error| {
            let message = error.to_string();
            self.found.replace(Some(error));
            io::Error::other(message)
        })
    }
}

impl<S: BlockSource, F: Fn() -> Result<(), HostError>> BlockSource for Attended<S, F> {
    fn blocks(&self) -> u64 {
        self.source.blocks()
    }

    fn read(&self, number: u64, into: &mut Block) -> io::Result<()> {
        self.look_if_due(Instant::now())?;
        self.source.read(number, into)
    }

    /// At most 1 MiB: as good as between blocks.
    fn read_run(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
        self.look_if_due(Instant::now()).map_err(|source| Unread { before: 0, source })?;
        self.source.read_run(first, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use era_metadata::MemorySource;

    #[test]
    fn a_reader_gives_up_when_the_device_has_failed_and_says_why() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            let failed = HostError::EraFailed { stack: "a".parse().unwrap() };
            if looks.get() < 2 { Ok(()) } else { Err(failed) }
        };
        let attended = Attended::new(MemorySource::new(vec![0; 8192]), look);
        let begun = attended.looked.get();
        attended.look_if_due(begun + INTERVAL / 2).unwrap();
        assert_eq!(looks.get(), 0, "not yet");
        attended.look_if_due(begun + INTERVAL).unwrap();
        attended.look_if_due(begun + INTERVAL).unwrap();
        assert_eq!(looks.get(), 1, "once an interval");
        attended.look_if_due(begun + INTERVAL * 2).unwrap_err();
        assert!(matches!(attended.found(), Some(HostError::EraFailed { .. })));
    }

    #[test]
    fn it_is_asked_between_runs_too() {
        let failed = || Err(HostError::EraFailed { stack: "a".parse().unwrap() });
        let attended = Attended::new(MemorySource::new(vec![0; 8192]), failed);
        let mut run = [[0; BLOCK_SIZE]; 2];
        attended.read_run(0, &mut run).unwrap();
        attended.looked.set(attended.looked.get().checked_sub(INTERVAL).unwrap());
        let unread = attended.read_run(0, &mut run).unwrap_err();
        assert_eq!(unread.before, 0);
        assert!(matches!(attended.found(), Some(HostError::EraFailed { .. })));
    }

    #[test]
    fn blocks_are_the_sources() {
        let attended = Attended::new(MemorySource::new(vec![7; 8192]), || Ok(()));
        let mut block = Block::zeroed();
        attended.read(1, &mut block).unwrap();
        assert_eq!((attended.blocks(), block.bytes()[0]), (2, 7));
        let mut run = [[0; BLOCK_SIZE]; 2];
        attended.read_run(0, &mut run).unwrap();
        assert_eq!(run, [[7; BLOCK_SIZE]; 2]);
    }
}
