//! What is kept of each boundary, so that a list can tell whether discards happened since, and how
//! long one of them can have been.

use eratrack_model::Era;
use eratrack_model::discards::DiscardHistory;
use eratrack_model::names::StackId;
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;
use serde::{Deserialize, Serialize};

use super::{Host, HostError};

/// More than snapshots are ever kept; the oldest are forgotten, and discards then assumed.
const MOST: usize = 1024;

/// A boundary and the discards up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The boundary's era.
    era: u32,
    /// What was seen just before it.
    #[serde(flatten)]
    seen: DiscardsSeen,
}

/// Discards as they were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiscardsSeen {
    /// What X-era has completed; none when nobody counts them.
    #[serde(rename = "discards")]
    completed: Option<u64>,
    /// The longest that one may be, in bytes. X-era's limit alone counts: it cuts whatever X sends.
    longest: u64,
}

impl Host {
    pub(super) fn discards_now(&self, record: &Record) -> Result<DiscardsSeen, HostError> {
        let era = self.era_device(record)?;
        let longest = self.machine.discards(era)?.max.0;
        Ok(DiscardsSeen { completed: self.machine.discard_count(era)?, longest })
    }

    pub(super) fn mark_boundary(
        &self,
        stack: &StackId,
        era: Era,
        seen: DiscardsSeen,
    ) -> Result<(), HostError> {
        let mut marks = self.marks(stack)?;
        marks.push(Mark { era: era.0, seen });
        let surplus = marks.len().saturating_sub(MOST);
        let longest = longest(marks.drain(..surplus));
        if let Some(first) = marks.first_mut() {
            first.seen.longest = first.seen.longest.max(longest);
        }
        Ok(self.store.write_boundaries(stack, &marks)?)
    }

    /// After a boot, which begins to count anew: of all boundaries only how long a discard may have
    /// been is still known.
    pub(super) fn forget_counts(&self, stack: &StackId) -> Result<(), HostError> {
        let longest = longest(self.marks(stack)?);
        let before = Mark { era: 0, seen: DiscardsSeen { completed: None, longest } };
        Ok(self.store.write_boundaries(stack, &[before])?)
    }

    /// What is known of discards since a boundary. None happened if they were counted at each
    /// boundary since, and the count is what it was.
    pub(super) fn discards_since(
        &self,
        record: &Record,
        since: Era,
    ) -> Result<DiscardHistory, HostError> {
        let marks = self.marks(&record.stack)?;
        let start = marks.iter().rposition(|mark| mark.era == since.0);
        let mut seen: Vec<_> = marks[start.unwrap_or(0)..].iter().map(|mark| mark.seen).collect();
        seen.push(self.discards_now(record)?);
        let first = seen[0].completed;
        let still = first.is_some() && seen.iter().all(|seen| seen.completed == first);
        Ok(DiscardHistory {
            granularity: self.machine.discards(self.era_device(record)?)?.granularity,
            // Somebody may have raised the limit and lowered it again.
            longest: Bytes(seen.iter().map(|seen| seen.longest).max().unwrap_or(u64::MAX)),
            may_have_happened: start.is_none() || !still,
        })
    }

    /// The era of the last boundary; none if there was none, or nobody knows of it.
    pub(super) fn last_boundary(&self, stack: &StackId) -> Result<Option<Era>, HostError> {
        let last = self.marks(stack)?.last().map(|mark| Era(mark.era));
        Ok(last.filter(|era| *era > Era(0)))
    }

    /// Marks that cannot be read count as none: then discards are assumed.
    fn marks(&self, stack: &StackId) -> Result<Vec<Mark>, HostError> {
        let text = self.store.read_boundaries(stack)?.unwrap_or_default();
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn longest(marks: impl IntoIterator<Item = Mark>) -> u64 {
    marks.into_iter().map(|mark| mark.seen.longest).max().unwrap_or(0)
}
