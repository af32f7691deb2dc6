use std::path::{Path, PathBuf};

use eratrack_model::units::Bytes;

use super::{StoreError, io_error};

/// The file store's directory and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The directory, as the machine sees it: `/var/lib/eratrack`.
    pub dir: PathBuf,
    /// The most metadata one volume may take.
    pub per_volume: Bytes,
    /// The most that all volumes of this machine may take together.
    pub per_node: Bytes,
    /// The same as a share of the file system, in percent; the smaller one counts.
    pub per_node_percent: u8,
    /// What share of the file system must stay free, in percent.
    pub keep_free_percent: u8,
}

impl StoreConfig {
    /// This directory with the usual limits: 1 GiB a volume, 10 GiB or 5 % a machine, 15 % free.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            per_volume: Bytes(1 << 30),
            per_node: Bytes(10 << 30),
            per_node_percent: 5,
            keep_free_percent: 15,
        }
    }
}

/// How full the store's file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The store's directory.
    pub dir: PathBuf,
    /// The file system's size.
    pub total: Bytes,
    /// What is free for everybody.
    pub free: Bytes,
    /// What metadata files have already.
    pub used: Bytes,
}

impl Room {
    /// Asks the file system of `dir`.
    pub fn look(dir: &Path, used: Bytes) -> Result<Self, StoreError> {
        let found = rustix::fs::statvfs(dir).map_err(|e| io_error("look at", dir)(e.into()))?;
        Ok(Self {
            dir: dir.to_owned(),
            total: Bytes(found.f_blocks.saturating_mul(found.f_frsize)),
            free: Bytes(found.f_bavail.saturating_mul(found.f_frsize)),
            used,
        })
    }

    /// How much more all stacks together may take.
    pub(super) fn allowed(&self, config: &StoreConfig) -> Bytes {
        let limit = config.per_node.min(percent(self.total, config.per_node_percent));
        let keep = percent(self.total, config.keep_free_percent);
        let free = self.free.0.saturating_sub(keep.0);
        Bytes(free.min(limit.0.saturating_sub(self.used.0)))
    }

    /// Fails if `needed` more is over a limit.
    pub fn check(&self, config: &StoreConfig, needed: Bytes) -> Result<(), StoreError> {
        let limit = config.per_volume;
        if needed > limit {
            return Err(StoreError::VolumeLimit { needed, limit });
        }
        let limit = config.per_node.min(percent(self.total, config.per_node_percent));
        if self.used.0.saturating_add(needed.0) > limit.0 {
            return Err(StoreError::NodeLimit { needed, used: self.used, limit });
        }
        let keep = percent(self.total, config.keep_free_percent);
        if needed.0.saturating_add(keep.0) > self.free.0 {
            let (free, dir) = (self.free, self.dir.clone());
            return Err(StoreError::NoSpace { needed, free, keep, dir });
        }
        Ok(())
    }
}

fn percent(of: Bytes, percent: u8) -> Bytes {
    Bytes(of.0 / 100 * u64::from(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MI: u64 = 1 << 20;

    fn outcome(total: u64, free: u64, used: u64, needed: u64) -> &'static str {
        let room = Room {
            dir: "/d".into(),
            total: Bytes(total * MI),
            free: Bytes(free * MI),
            used: Bytes(used * MI),
        };
        match room.check(&StoreConfig::new("/d"), Bytes(needed * MI)) {
            Ok(()) => "fits",
            Err(StoreError::VolumeLimit { .. }) => "volume",
            Err(StoreError::NodeLimit { .. }) => "node",
            Err(StoreError::NoSpace { .. }) => "space",
            Err(_) => "other",
        }
    }

    #[test]
    fn the_first_limit_that_is_passed_is_named() {
        assert_eq!(outcome(100_000, 90_000, 0, 1024), "fits");
        assert_eq!(outcome(100_000, 90_000, 0, 1025), "volume");
        assert_eq!(outcome(1000, 900, 0, 50), "fits");
        assert_eq!(outcome(1000, 900, 1, 50), "node");
        assert_eq!(outcome(1_000_000, 900_000, 10_000, 240), "fits");
        assert_eq!(outcome(1_000_000, 900_000, 10_000, 241), "node");
        assert_eq!(outcome(1000, 160, 0, 10), "fits");
        assert_eq!(outcome(1000, 159, 0, 10), "space");
    }
}
