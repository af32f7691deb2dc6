//! What is kept of each boundary, so that a list can tell whether discards happened since.

use eratrack_model::Era;
use eratrack_model::names::StackId;
use serde::{Deserialize, Serialize};

use super::{Host, HostError};

/// More than snapshots are ever kept; the oldest are forgotten, and discards then assumed.
const MOST: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The boundary's era.
    pub(super) era: u32,
    /// X-era's discard requests completed before it; none when nobody counts them.
    pub(super) discards: Option<u64>,
}

impl Host {
    pub(super) fn mark_boundary(&self, stack: &StackId, mark: Mark) -> Result<(), HostError> {
        let mut marks = self.marks(stack)?;
        marks.push(mark);
        let surplus = marks.len().saturating_sub(MOST);
        marks.drain(..surplus);
        Ok(self.store.write_boundaries(stack, &marks)?)
    }

    /// Whether discards may have happened since a boundary: not if the count is the same.
    pub(super) fn discards_since(
        &self,
        stack: &StackId,
        since: Era,
        now: Option<u64>,
    ) -> Result<bool, HostError> {
        let marks = self.marks(stack)?;
        let then = marks.iter().rev().find(|mark| mark.era == since.0);
        let then = then.and_then(|mark| mark.discards);
        Ok(then.is_none() || now.is_none() || then != now)
    }

    /// Marks that cannot be read count as none: then discards are assumed.
    fn marks(&self, stack: &StackId) -> Result<Vec<Mark>, HostError> {
        let text = self.store.read_boundaries(stack)?.unwrap_or_default();
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}
