//! By what it is seen that nobody but us has written to a target device since its checkpoint.
//!
//! The kernel counts the sectors that are written to a device and discarded on it, whoever does it and however often the
//! device is closed and opened in between. While a copy is under way the checkpoint says how many more there may be, so that
//! a copier that is killed is found to have written no more than that. The count begins anew with the device, which is why
//! the boot, the disk and its table are noted beside it.

use eratrack_dm::machine::{Machine, MachineError};
use eratrack_model::record::BootId;
use eratrack_model::units::DevNo;
use serde::{Deserialize, Serialize};

use crate::decide::Why;

/// What was seen of a target when its checkpoint was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The boot.
    pub boot: BootId,
    /// The device's number, and which of all disks of the boot it is.
    pub disk: String,
    /// The live table of a device-mapper device.
    pub table: Option<String>,
    /// Sectors written and discarded.
    pub sectors: u64,
    /// How many more we may write before the next checkpoint.
    pub ahead: u64,
}

/// A device whose writers are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    machine: Machine,
    device: DevNo,
    table: Option<String>,
}

impl Witness {
    /// Of a device with that live table.
    pub(crate) fn new(machine: &Machine, device: DevNo, table: Option<String>) -> Self {
        Self { machine: machine.clone(), device, table }
    }

    /// What is seen now; none if the kernel does not count.
    pub(crate) fn see(&self) -> Result<Option<Proof>, MachineError> {
        let Some(sectors) = self.machine.sectors_written(self.device)? else { return Ok(None) };
        let sequence = self.machine.disk_sequence(self.device)?;
        Ok(Some(Proof {
            boot: self.machine.boot_id()?,
            disk: format!("{} disk {sequence}", self.device),
            table: self.table.clone(),
            sectors,
            ahead: 0,
        }))
    }

    /// Has the kernel count what is written to the device, if it does not yet.
    pub(crate) fn have_counted(&self) -> Result<(), MachineError> {
        match self.machine.sectors_written(self.device)? {
            Some(_) => Ok(()),
            None => self.machine.count_requests(self.device),
        }
    }
}

/// Why what is in the target cannot be what its checkpoint says, if it cannot.
pub(crate) fn judge(noted: Option<&Proof>, now: Option<&Proof>) -> Option<Why> {
    let (Some(noted), Some(now)) = (noted, now) else { return Some(Why::Unproven) };
    let Proof { boot, disk, table, sectors, ahead } = noted;
    if (boot, disk, table) != (&now.boot, &now.disk, &now.table) || now.sectors < *sectors {
        return Some(Why::Unproven);
    }
    (now.sectors > sectors.saturating_add(*ahead)).then_some(Why::Written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(change: impl FnOnce(&mut Proof)) -> Proof {
        let mut proof = Proof {
            boot: "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10".parse().unwrap(),
            disk: "253:7 disk 12".to_owned(),
            table: Some("0 65536 linear 8:0 2048".to_owned()),
            sectors: 1000,
            ahead: 64,
        };
        change(&mut proof);
        proof
    }

    fn judged(change: impl FnOnce(&mut Proof)) -> Option<Why> {
        judge(Some(&proof(|_| ())), Some(&proof(change)))
    }

    #[test]
    fn as_much_as_we_may_have_written_ourselves_is_nobody_elses() {
        for sectors in [1000, 1001, 1064] {
            assert_eq!(judged(|now| now.sectors = sectors), None, "{sectors}");
        }
        assert_eq!(judged(|now| now.sectors = 1065), Some(Why::Written));
    }

    #[test]
    fn what_cannot_be_told_is_no_proof() {
        let changes: [fn(&mut Proof); 5] = [
            |now| now.boot = "00000000-372b-4b5a-a9f1-7d0c4f3b2a10".parse().unwrap(),
            |now| now.disk = "253:7 disk 13".to_owned(),
            |now| now.table = Some("0 65536 linear 8:0 4096".to_owned()),
            |now| now.table = None,
            |now| now.sectors = 999,
        ];
        for change in changes {
            assert_eq!(judged(change), Some(Why::Unproven));
        }
        assert_eq!(judge(None, Some(&proof(|_| ()))), Some(Why::Unproven), "it was never counted");
        assert_eq!(judge(Some(&proof(|_| ())), None), Some(Why::Unproven), "nobody counts now");
    }
}
