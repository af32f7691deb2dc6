//! Whether a tracked volume could be tracked at another granularity.

use era_metadata::sizing;
use eratrack_model::plan;
use eratrack_model::record::Record;
use eratrack_model::stack::{Observed, Subject};
use eratrack_model::units::{Bytes, Granularity};

use super::{Host, HostError};

impl Host {
    /// Fails if the volume could not be tracked at that granularity, once it is no longer tracked as
    /// it is: so that a chain need not end for a wish that cannot come true. Changes nothing.
    pub fn check_refit(&self, record: &Record, granularity: Granularity) -> Result<(), HostError> {
        let _lock = self.lock_stack(&record.stack)?;
        self.require_intact(record)?;
        let observed = self.observe(&record.stack, Some(record.x))?;
        plan::eligible(&untracked(observed, record), granularity)?;
        let sizing = sizing::required(
            record.sectors.0,
            granularity.sectors().0,
            sizing::DEFAULT_UNDIGESTED,
        )?;
        Ok(self.store.check_room_instead(record.metadata_size, Bytes(sizing.bytes()))?)
    }
}

/// What will be observed when the stack is out.
fn untracked(mut observed: Observed, record: &Record) -> Observed {
    (observed.era, observed.base) = (None, None);
    (observed.origin, observed.snapshot) = (None, None);
    if let Subject::Mapped(volume) = &mut observed.x {
        volume.device.live = Some(record.original.clone());
        // Of the stack's own devices only; what was beneath X has not changed since it was put in.
        volume.beneath.clear();
    }
    observed
}
