//! Reading ahead around the page cache, which would do it otherwise.

use super::Unread;
use crate::block::BLOCK_SIZE;
use crate::buffer::Buffer;

/// Blocks that a first window has, and that the largest has: 64 KiB and 1 MiB. A window is
/// twice as long as the one that it follows.
const FIRST: usize = 16;
const MOST: usize = 256;
/// A read that begins less than so many blocks after the last one goes on with it: a node may
/// lie behind the blocks that it refers to, and is read before them.
const NEAR: u64 = 255;

/// What was read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The last window that was read, and the one before it, of which blocks may still be asked
    /// for when a node behind them was.
    windows: [Option<Window>; 2],
    /// Where the last read that no window served has ended.
    end: Option<u64>,
}

#[derive(Debug)]
struct Window {
    first: u64,
    blocks: usize,
    buffer: Buffer,
    /// No block is given out twice: who asks again wants to know what is there now.
    given: [bool; MOST],
}

impl Window {
    fn end(&self) -> u64 {
        self.first + self.blocks as u64
    }

    /// Gives out the blocks from this one on, as far as they are there; how many.
    fn give(&mut self, number: u64, into: &mut [[u8; BLOCK_SIZE]]) -> usize {
        let skipped = number.checked_sub(self.first).and_then(|it| usize::try_from(it).ok());
        let start = skipped.unwrap_or(self.blocks).min(self.blocks);
        let (blocks, given) = (&self.buffer.blocks()[start..], &mut self.given[start..self.blocks]);
        let count = given.iter().take(into.len()).take_while(|given| !**given).count();
        into[..count].copy_from_slice(&blocks[..count]);
        given[..count].fill(true);
        count
    }
}

impl Ahead {
    /// Reads a run of a source that has so many blocks: `read` reads some that lie side by side.
    pub(super) fn read_run(
        &mut self,
        (mut first, blocks): (u64, u64),
        mut into: &mut [[u8; BLOCK_SIZE]],
        mut read: impl FnMut(u64, &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread>,
    ) -> Result<(), Unread> {
        let mut before = 0;
        while !into.is_empty() {
            let mut count = self.give(first, into);
            if count == 0 && self.go_on(first, blocks, &mut read) {
                count = self.give(first, into);
            }
            if count == 0 {
                self.end = Some(first + into.len() as u64);
                let done = read(first, into);
                return done.map_err(|it| Unread { before: before + it.before, ..it });
            }
            before += count;
            first += count as u64;
            into = &mut into[count..];
        }
        Ok(())
    }

    fn give(&mut self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> usize {
        let mut windows = self.windows.iter_mut().flatten();
        windows.find_map(|window| Some(window.give(first, into)).filter(|&it| it > 0)).unwrap_or(0)
    }

    /// Reads the next window, if a read there goes on with another one, and if it can be read.
    fn go_on(
        &mut self,
        first: u64,
        blocks: u64,
        read: &mut impl FnMut(u64, &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread>,
    ) -> bool {
        let near = |end: u64| (end..end.saturating_add(NEAR)).contains(&first);
        let (start, length) = match (&self.windows[0], self.end) {
            (Some(window), _) if near(window.end()) => (window.end(), window.blocks * 2),
            (_, Some(end)) if near(end) => (end, FIRST),
            _ => return false,
        };
        let reaches = usize::try_from(first - start).unwrap_or(MOST) + 1;
        let there = usize::try_from(blocks.saturating_sub(start)).unwrap_or(MOST);
        let count = length.max(reaches).min(MOST).min(there);
        let [last, before] = &mut self.windows;
        let old = before.take().map(|window| window.buffer);
        let fits = |buffer: &Buffer| buffer.room() >= count;
        let mut buffer = old.filter(fits).unwrap_or_else(|| Buffer::new(count));
        let done = count > 0 && read(start, &mut buffer.blocks_mut()[..count]).is_ok();
        if done {
            let window = Window { first: start, blocks: count, buffer, given: [false; MOST] };
            *before = last.replace(window);
            self.end = None;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::io;

    /// A source of blocks that hold their number, and what was asked of it.
    struct Disk {
        blocks: u64,
        bad: Option<u64>,
        asked: RefCell<Vec<(u64, usize)>>,
    }

    impl Disk {
        fn read(&self, first: u64, into: &mut [[u8; BLOCK_SIZE]]) -> Result<(), Unread> {
            self.asked.borrow_mut().push((first, into.len()));
            for (before, (number, block)) in (first..).zip(into).enumerate() {
                if number >= self.blocks || Some(number) == self.bad {
                    return Err(Unread { before, source: io::ErrorKind::Other.into() });
                }
                block[..8].copy_from_slice(&number.to_le_bytes());
            }
            Ok(())
        }

        /// Reads runs, and checks what was read.
        fn runs(&self, runs: &[(u64, usize)]) -> Vec<Result<(), usize>> {
            let mut ahead = Ahead::default();
            let read = |&(first, count): &(u64, usize)| {
                let mut into = vec![[0xff; BLOCK_SIZE]; count];
                let done =
                    ahead.read_run((first, self.blocks), &mut into, |at, into| self.read(at, into));
                let whole = done.as_ref().map_or_else(|unread| unread.before, |()| count);
                for (number, block) in (first..).zip(&into[..whole]) {
                    assert_eq!(block[..8], number.to_le_bytes());
                }
                done.map_err(|unread| unread.before)
            };
            runs.iter().map(read).collect()
        }
    }

    fn disk(blocks: u64) -> Disk {
        Disk { blocks, bad: None, asked: RefCell::default() }
    }

    #[test]
    fn what_is_read_in_order_is_read_in_few_long_reads() {
        // Runs with a node before them, or behind: that is read first in any case.
        for node in [0, 100] {
            let disk = disk(2000);
            let runs: Vec<_> = (100..1900)
                .step_by(101)
                .flat_map(|at| [(at + node, 1), (at + u64::from(node == 0), 100)])
                .collect();
            assert!(disk.runs(&runs).iter().all(Result::is_ok));
            let asked = disk.asked.take();
            assert!(asked.len() < 18, "{asked:?}");
            assert_eq!(asked.last().map(|(first, count)| first + *count as u64), Some(2000));
        }
    }

    #[test]
    fn what_is_read_here_and_there_is_not_read_ahead() {
        let disk = disk(10_000);
        let runs = [(5000, 1), (900, 7), (3000, 1), (5, 2), (9999, 1)];
        assert!(disk.runs(&runs).iter().all(Result::is_ok));
        assert_eq!(disk.asked.take()[..], runs);
    }

    #[test]
    fn what_is_asked_for_again_is_read_again() {
        let disk = disk(100);
        assert!(disk.runs(&[(0, 1), (1, 1), (3, 1), (1, 1), (1, 2)]).iter().all(Result::is_ok));
        assert_eq!(disk.asked.take(), [(0, 1), (1, 16), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_block_that_cannot_be_read_does_no_harm_to_its_neighbours() {
        let disk = Disk { bad: Some(30), ..disk(100) };
        let found = disk.runs(&[(10, 5), (15, 5), (20, 20), (31, 69)]);
        assert_eq!(found, [Ok(()), Ok(()), Err(10), Ok(())]);
    }
}
