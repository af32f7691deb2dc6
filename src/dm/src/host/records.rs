//! What stacks there are.

use eratrack_model::names::StackId;
use eratrack_model::record::Record;
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;

use super::{Host, HostError};
use crate::port::{Info, Lookup, Slot};

/// A stack that has a record, a file or a device on this machine.
#[derive(Clone, Debug)]
pub struct Known {
    /// The stack.
    pub stack: StackId,
    /// Its record; none if it has none, and why if it cannot be understood.
    pub record: Result<Option<Record>, String>,
}

impl Host {
    /// Every stack of this machine, whoever keeps it, by name.
    pub fn stacks(&self) -> Result<Vec<Known>, HostError> {
        let known = self.all_stacks()?.into_iter().map(|stack| {
            let record = self.store.read_record(&stack).map_err(|e| e.to_string());
            Known { stack, record }
        });
        Ok(known.collect())
    }

    /// The stack's record; none if there is none.
    pub fn record(&self, stack: &StackId) -> Result<Option<Record>, HostError> {
        Ok(self.store.read_record(stack)?)
    }

    /// A device, as device mapper has it; none if it is not a device-mapper device.
    pub fn mapped(&self, of: &Lookup) -> Result<Option<Info>, HostError> {
        Ok(self.find(of)?)
    }

    /// A device's live table.
    pub fn live_table(&self, dev: DevNo) -> Result<Option<Table>, HostError> {
        Ok(self.dm.table(dev, Slot::Live)?)
    }

    /// What a block device says of itself; none if it says nothing.
    pub fn identity(&self, dev: DevNo) -> Result<Option<String>, HostError> {
        Ok(self.machine.identity(dev)?)
    }
}
