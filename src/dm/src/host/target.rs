//! A device that copies are made in: opened by nobody else, and how it is seen that somebody else has written to it.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use eratrack_model::units::DevNo;
use rustix::io::Errno;

use super::{Host, HostError};
use crate::machine::Machine;
use crate::port::Lookup;

/// How long somebody else may have it open for nothing but a look.
const LOOKS: Duration = Duration::from_secs(2);

impl Host {
    /// The machine's own files.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Opens a block device for reading and writing around the page cache, claimed as a mount would claim it. None if
    /// somebody mounts it, has claimed it or, as far as device mapper tells, has it open for longer than a look takes:
    /// udev looks into a device whenever one that could write has closed it.
    pub fn open_target(&self, device: DevNo) -> Result<Option<File>, HostError> {
        let until = Instant::now() + LOOKS;
        loop {
            if let Some(file) = self.open_alone(device)? {
                return Ok(Some(file));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            thread::sleep(LOOKS / 20);
        }
    }

    fn open_alone(&self, device: DevNo) -> Result<Option<File>, HostError> {
        let file = match self.nodes.open_direct_claimed(device) {
            Err(error) if is_busy(&error) => return Ok(None),
            opened => opened.map_err(|source| HostError::Open { device, source })?,
        };
        let alone = self.openers(device)?.is_none_or(|openers| openers == 1);
        Ok(alone.then_some(file))
    }

    /// How often a device-mapper device is open; none of another device.
    pub fn openers(&self, device: DevNo) -> Result<Option<u32>, HostError> {
        if !self.machine.is_device_mapper(device) {
            return Ok(None);
        }
        Ok(Some(self.dm.info(&Lookup::Number(device))?.open_count))
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}
