//! Changes of a table. Each makes the next table, with the next sequence number.

use std::ops::Range;

use thiserror::Error;

use super::{Area, MOST_AREAS, Table, UNIT, room_end};
use crate::names::StackId;
use crate::units::Bytes;

/// Why a table is not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocateError {
    /// No gap is long enough.
    #[error(
        "the pool has no room for an area of {needed}: {free} of {room} are free, {longest} of them together; free areas, or enlarge the disk and grow the pool"
    )]
    NoRoom {
        /// How long the area would be.
        needed: Bytes,
        /// What is free.
        free: Bytes,
        /// What areas may have together.
        room: Bytes,
        /// The longest area that there is room for.
        longest: Bytes,
    },
    /// The table is full.
    #[error("the pool has {MOST_AREAS} areas, the most that fit; free one, or use another pool")]
    TableFull,
    /// It has one already.
    #[error("stack {0} has an area in the pool already")]
    HasArea(StackId),
    /// It has none.
    #[error("stack {0} has no area in the pool")]
    NoArea(StackId),
    /// A disk that has not grown.
    #[error("the pool uses {used} of its disk, which has {disk}: there is nothing to grow into")]
    NotGrown {
        /// What the pool uses.
        used: Bytes,
        /// How long the disk is.
        disk: Bytes,
    },
    /// There have been 2^64 tables.
    #[error("the pool's table cannot be changed any more; make the pool anew")]
    WornOut,
}

impl Table {
    /// Gives the stack the first gap that is long enough for `length`, rounded up to whole units.
    /// What is in `taken` (byte ranges of the disk) is not given away either: a device may map it,
    /// whatever the table says.
    pub fn allocate(
        &self,
        stack: &StackId,
        length: Bytes,
        taken: &[Range<u64>],
    ) -> Result<(Self, Area), AllocateError> {
        if self.area(stack).is_some() {
            return Err(AllocateError::HasArea(stack.clone()));
        }
        if self.areas.len() >= MOST_AREAS {
            return Err(AllocateError::TableFull);
        }
        let needed = length.0.max(1).div_ceil(UNIT).saturating_mul(UNIT);
        let gaps = self.gaps(taken);
        let Some(gap) = gaps.iter().find(|gap| gap.end - gap.start >= needed) else {
            return Err(self.no_room(Bytes(needed), &gaps));
        };
        let area = Area { stack: stack.clone(), start: Bytes(gap.start), length: Bytes(needed) };
        let mut next = self.next()?;
        let index = next.areas.partition_point(|there| there.start < area.start);
        next.areas.insert(index, area.clone());
        Ok((next, area))
    }

    /// Takes the stack's area back.
    pub fn free(&self, stack: &StackId) -> Result<Self, AllocateError> {
        let mut next = self.next()?;
        next.areas.retain(|area| area.stack != *stack);
        if next.areas.len() == self.areas.len() {
            return Err(AllocateError::NoArea(stack.clone()));
        }
        Ok(next)
    }

    /// Uses a disk that has become longer to its end. Areas stay where they are.
    pub fn grow(&self, disk: Bytes) -> Result<Self, AllocateError> {
        if room_end(disk.max(self.disk)) <= room_end(self.disk) {
            return Err(AllocateError::NotGrown { used: self.disk, disk });
        }
        Ok(Self { disk, ..self.next()? })
    }

    /// The same table once more, for the copy that does not have it.
    pub fn again(&self) -> Result<Self, AllocateError> {
        self.next()
    }

    fn next(&self) -> Result<Self, AllocateError> {
        let sequence = self.sequence.checked_add(1).ok_or(AllocateError::WornOut)?;
        Ok(Self { sequence, ..self.clone() })
    }

    /// Whole units that nobody has, in ascending order.
    fn gaps(&self, taken: &[Range<u64>]) -> Vec<Range<u64>> {
        let areas = self.areas.iter().map(|area| area.start.0..area.start.0 + area.length.0);
        let mut busy: Vec<_> = areas.chain(taken.iter().cloned()).collect();
        busy.sort_unstable_by_key(|range| range.start);
        let (mut gaps, mut free, end) = (Vec::new(), UNIT, room_end(self.disk));
        for range in busy {
            let until = (range.start / UNIT * UNIT).min(end);
            if until > free {
                gaps.push(free..until);
            }
            free = free.max(range.end.div_ceil(UNIT).saturating_mul(UNIT));
        }
        if end > free {
            gaps.push(free..end);
        }
        gaps
    }

    fn no_room(&self, needed: Bytes, gaps: &[Range<u64>]) -> AllocateError {
        let lengths = || gaps.iter().map(|gap| gap.end - gap.start);
        let free = Bytes(lengths().sum());
        let longest = Bytes(lengths().max().unwrap_or(0));
        AllocateError::NoRoom { needed, free, room: self.room(), longest }
    }
}
