//! Finding the device of an `EraVolume`, by number and never by a guessed name.
//!
//! 1. `volume`: which PersistentVolume is meant, and may it be tracked (API server's word, checked)
//! 2. `machine`: what the machine has mounted and mapped (needs the machine)
//! 3. `paths`, `mountinfo`, `decide`: the one device beneath, or why not (pure)

mod decide;
mod machine;
mod mountinfo;
mod paths;
mod refusal;
mod replica;
pub(crate) mod volume;

use std::path::PathBuf;

use eratrack_model::units::DevNo;

pub(crate) use machine::{Machine, MachineError};
use paths::VolumePaths;
pub(crate) use refusal::Refusal;
pub(crate) use replica::{ReplicaRefusal, ReplicaVolume};
pub(crate) use volume::ClaimedVolume;
use volume::{Mode, Source};

/// Why no device was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoverError {
    /// The volume cannot be tracked, or not now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The machine could not be looked at.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// The machine, as far as finding and watching devices goes.
pub(crate) trait Node: Send + Sync + 'static {
    /// The device-mapper device beneath a volume that is in use. May block.
    fn find(&self, volume: &ClaimedVolume) -> Result<DevNo, DiscoverError>;

    /// The block device of a replica, which no pod may have. May block.
    fn find_replica(&self, volume: &ReplicaVolume) -> Result<DevNo, ReplicaRefusal>;

    /// Figures that grow with each write to the device; none if they cannot be had.
    fn write_counters(&self, device: DevNo) -> Option<[u64; 4]>;
}

/// A machine with a kubelet.
#[derive(Debug)]
pub(crate) struct KubeletNode {
    /// The machine.
    pub(crate) machine: Machine,
    /// The kubelet's directory, as the machine names it.
    pub(crate) kubelet: PathBuf,
}

impl Node for KubeletNode {
    fn find(&self, volume: &ClaimedVolume) -> Result<DevNo, DiscoverError> {
        let machine = &self.machine;
        let kubelet = machine.real_path(&self.kubelet)?;
        let paths = VolumePaths::new(&kubelet, &volume.name, &volume.source);
        let mounts = machine.mounts()?;
        let device = match volume.mode {
            Mode::Filesystem => {
                decide::mounted_device(&paths, &mounts, own_mount(machine, volume)?)?
            }
            Mode::Block => {
                decide::mapped_device(&machine.device_nodes(&paths.map_dir())?, &mounts)?
            }
        };
        if machine.is_device_mapper(device)? {
            Ok(device)
        } else {
            Err(Refusal::NotDeviceMapper { device }.into())
        }
    }

    fn find_replica(&self, volume: &ReplicaVolume) -> Result<DevNo, ReplicaRefusal> {
        let machine = &self.machine;
        let source = Source::Local { path: volume.path.clone() };
        let kubelet = machine.real_path(&self.kubelet)?;
        let maps = VolumePaths::new(&kubelet, &volume.name, &source).map_dir();
        if !machine.device_nodes(&maps)?.is_empty() {
            return Err(ReplicaRefusal::Mapped(volume.claim.clone()));
        }
        machine.device_at(&volume.path)?.ok_or_else(|| ReplicaRefusal::NoDevice {
            volume: volume.name.clone(),
            path: volume.path.clone(),
        })
    }

    fn write_counters(&self, device: DevNo) -> Option<[u64; 4]> {
        let read = self.machine.write_counters(device);
        read.inspect_err(|error| tracing::debug!(%error, "no write counters")).ok()
    }
}

fn own_mount(machine: &Machine, volume: &ClaimedVolume) -> Result<Option<u64>, MachineError> {
    match &volume.source {
        Source::Local { path } => machine.mount_id(path),
        Source::Csi { .. } => Ok(None),
    }
}
