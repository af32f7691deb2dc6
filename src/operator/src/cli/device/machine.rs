//! This machine, as the commands for it reach it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use eratrack_dm::hold::HoldError;
use eratrack_dm::linux::{HelperProcess, Kernel};
use eratrack_dm::machine::Machine;
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{DeviceMapper as _, Host, HostConfig};
use eratrack_model::record::Keeper;
use eratrack_model::units::Bytes;
use rustix::process::geteuid;

use super::DeviceError;
use crate::cli::args::seconds;

/// Where this machine keeps what it knows of its stacks.
#[derive(Clone, Debug, Args)]
pub(super) struct MachineArgs {
    /// The machine's directory for records and metadata: one for all of its stacks
    #[arg(
        long,
        env = "ERATRACK_METADATA_DIR",
        default_value = "/var/lib/eratrack",
        value_name = "DIR"
    )]
    pub(super) state_dir: PathBuf,
    /// How long to wait for LVM, or for another eratrack, to be done with the device
    #[arg(long, default_value = "30s", value_parser = seconds, value_name = "TIME")]
    pub(super) wait: Duration,
}

impl MachineArgs {
    /// The machine, for its administrator. Fails without root and without device mapper.
    pub(super) fn host(&self) -> Result<Host, DeviceError> {
        let kernel = kernel()?;
        Ok(Host::new(HostConfig {
            root: "/".into(),
            dm: Arc::new(kernel),
            store: self.store(),
            nodes: "/dev".into(),
            lock_deadline: self.wait,
            keeper: Keeper::Administrator,
        }))
    }

    /// Where this machine's files are seen.
    #[allow(clippy::unused_self)] // as `host`: one day it may be told where
    pub(super) fn machine(&self) -> Machine {
        Machine::new("/")
    }

    /// An administrator sees what is used; only a little must stay free, so that the machine does
    /// not stop for want of it.
    fn store(&self) -> StoreConfig {
        StoreConfig {
            per_volume: Bytes(u64::MAX),
            per_node: Bytes(u64::MAX),
            per_node_percent: 100,
            keep_free_percent: 2,
            ..StoreConfig::new(&self.state_dir)
        }
    }
}

/// Who holds several volumes of this machine at once: this program, started again.
pub(super) fn holder() -> Result<Arc<HelperProcess>, DeviceError> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| DeviceError::Host(HoldError::Start(error).into()))?;
    Ok(Arc::new(HelperProcess::new(program, ["hold-group"])))
}

fn kernel() -> Result<Kernel, DeviceError> {
    if !geteuid().is_root() {
        return Err(DeviceError::NotRoot);
    }
    let kernel = Kernel::open().map_err(DeviceError::NoDeviceMapper)?;
    match kernel.has_target("era") {
        Ok(true) => Ok(kernel),
        Ok(false) => Err(DeviceError::NoEra),
        Err(error) => Err(DeviceError::Host(error.into())),
    }
}
