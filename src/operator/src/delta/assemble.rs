//! A list put together from its slices, each checked as it comes. Pure.

use eratrack_api::changed_block_slice::Summing;
use eratrack_api::{ChangedBlockSlice, EraSnapshot, SliceSummary, SnapshotType, names};
use eratrack_model::Run;
use eratrack_model::delta::{Delta, Head};
use eratrack_model::extents::RunList;
use kube::ResourceExt;

use super::error::ListError;
use super::head::{complete, head};

/// A list of which some slices were seen. It holds the runs of those, never their texts.
#[derive(Clone, Debug)]
pub(super) struct Assembly {
    head: Head,
    uid: String,
    summary: SliceSummary,
    listed: Option<u64>,
    ranges: Option<u64>,
    full: bool,
    seen: Summing,
    next: u32,
    seen_ranges: u64,
    runs: Vec<Run>,
}

impl Assembly {
    /// Nothing seen yet.
    pub(super) fn new(snapshot: &EraSnapshot) -> Result<Self, ListError> {
        let status = complete(snapshot)?;
        let lacks = |field| ListError::Status { snapshot: snapshot.name_any(), field };
        let summary = status.slices.clone().ok_or_else(|| lacks("slices"))?;
        if summary.count > names::SLICES_MAX {
            return Err(lacks("slices.count"));
        }
        Ok(Self {
            head: head(snapshot)?,
            uid: snapshot.uid().ok_or_else(|| lacks("uid"))?,
            summary,
            listed: status.listed_bytes,
            ranges: status.ranges,
            full: status.type_ == Some(SnapshotType::Full),
            seen: Summing::default(),
            next: 0,
            seen_ranges: 0,
            runs: Vec::new(),
        })
    }

    /// The name of the slice that is to come next; none once all were seen.
    pub(super) fn next(&self) -> Option<String> {
        let index = self.summary.indexes().nth(self.next as usize)?;
        Some(names::slice_name(&self.head.snapshot, index))
    }

    /// With the slice that was to come next.
    pub(super) fn add(&mut self, slice: &ChangedBlockSlice) -> Result<(), ListError> {
        self.check_identity(slice)?;
        let fields = &slice.spec;
        let runs: RunList = fields
            .ranges
            .parse()
            .map_err(|source| ListError::Ranges { slice: slice.name_any(), source })?;
        self.check_place(slice, &runs)?;
        self.seen = std::mem::take(&mut self.seen).with(&fields.ranges);
        self.seen_ranges += fields.ranges.split(',').count() as u64;
        self.runs.extend(&runs);
        self.next += 1;
        Ok(())
    }

    /// It is of this list, and this part of it.
    fn check_identity(&self, slice: &ChangedBlockSlice) -> Result<(), ListError> {
        let fields = &slice.spec;
        let block = self.head.line.block.bytes().0;
        same(slice, "name", &slice.name_any(), &self.next().unwrap_or_default())?;
        same(slice, "snapshot.name", &fields.snapshot.name, &self.head.snapshot)?;
        same(slice, "snapshot.uid", &fields.snapshot.uid, &self.uid)?;
        same(slice, "index", &fields.index, &self.summary.first.saturating_add(self.next))?;
        same(slice, "count", &fields.count, &self.summary.count)?;
        same(slice, "blockSizeBytes", &fields.block_size_bytes, &block)?;
        let length = fields.ranges.len();
        same(slice, "length of ranges", &length, &length.min(names::SLICE_RANGES_MAX))
    }

    /// Its ranges are what it says of them, follow those before, and lie in the volume.
    fn check_place(&self, slice: &ChangedBlockSlice, runs: &RunList) -> Result<(), ListError> {
        let (Some(first), Some(last)) = (runs.as_slice().first(), runs.as_slice().last()) else {
            return same(slice, "ranges", &"nothing", &"at least one block");
        };
        same(slice, "blocks", &slice.spec.blocks, &runs.blocks())?;
        same(slice, "first", &slice.spec.first, &first.first)?;
        same(slice, "last", &slice.spec.last, &last.last)?;
        let after = self.runs.last().map_or(0, |before| before.last.saturating_add(1));
        same(slice, "first", &first.first, &first.first.max(after))?;
        let end = self.head.line.blocks().saturating_sub(1);
        same(slice, "last", &last.last, &last.last.min(end))
    }

    /// The list, if it is whole.
    pub(super) fn finish(self) -> Result<Delta, ListError> {
        let snapshot = self.head.snapshot.clone();
        let same = |field, found: &dyn ToString, expected: &dyn ToString| {
            let (found, expected) = (found.to_string(), expected.to_string());
            if found == expected {
                return Ok(());
            }
            Err(ListError::Summary { snapshot: snapshot.clone(), field, found, expected })
        };
        let seen = self.seen.finish();
        same("slices.count", &seen.count, &self.summary.count)?;
        same("slices.bytes", &seen.bytes, &self.summary.bytes)?;
        same("slices.sha256", &seen.sha256, &self.summary.sha256)?;
        same("ranges", &self.seen_ranges, &self.ranges.unwrap_or(self.seen_ranges))?;
        let delta = Delta { runs: RunList::new(self.runs), head: self.head };
        let listed = delta.listed().0;
        same("listedBytes", &listed, &self.listed.unwrap_or(listed))?;
        if self.full {
            same("blocks", &delta.runs.blocks(), &delta.head.line.blocks())?;
        }
        Ok(delta)
    }
}

fn same<T: PartialEq + ToString>(
    slice: &ChangedBlockSlice,
    field: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), ListError> {
    if found == expected {
        return Ok(());
    }
    Err(ListError::Field {
        slice: slice.name_any(),
        field,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}
