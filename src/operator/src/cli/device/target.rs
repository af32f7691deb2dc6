//! Which device is meant: a path, a device-mapper name, a stack's name.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use eratrack_dm::{Host, Known, Lookup};
use eratrack_model::names::{DmName, DmUuid, StackId};
use eratrack_model::record::Record;
use eratrack_model::units::DevNo;

use super::DeviceError;

/// The block device that a path or a device-mapper name leads to.
pub(super) fn device(host: &Host, named: &str) -> Result<DevNo, DeviceError> {
    if named.contains('/') {
        return at_path(Path::new(named));
    }
    let name: Option<DmName> = named.parse().ok();
    let found = name.map(|name| host.mapped(&Lookup::Name(name))).transpose()?.flatten();
    found.map(|info| info.number).ok_or_else(|| DeviceError::NoDevice { named: named.to_owned() })
}

/// The stack that is meant: by its own name, or by any device of it.
pub(super) fn stack(host: &Host, named: &str) -> Result<StackId, DeviceError> {
    let by_name = named.parse::<StackId>().ok();
    let known = host.stacks()?;
    if let Some(stack) = by_name.filter(|stack| known.iter().any(|it| it.stack == *stack)) {
        return Ok(stack);
    }
    let not_tracked = || DeviceError::NotTracked { named: named.to_owned() };
    let number = match device(host, named) {
        Err(DeviceError::NoDevice { .. }) if !named.contains('/') => return Err(not_tracked()),
        found => found?,
    };
    let uuid = host.mapped(&number.into())?.and_then(|info| info.uuid);
    if let Some((stack, _)) = uuid.as_ref().and_then(DmUuid::owner) {
        return Ok(stack);
    }
    let of = |record: &Record| match &record.uuid {
        Some(found) if record.stage.is_none() => Some(found) == uuid.as_ref(),
        _ => record.x == number || beneath(record) == Some(number),
    };
    let found = known
        .into_iter()
        .find_map(|Known { stack, record }| record.ok().flatten().filter(of).map(|_| stack));
    found.ok_or_else(not_tracked)
}

/// The record of the stack that is meant.
pub(super) fn record(host: &Host, named: &str) -> Result<Record, DeviceError> {
    let stack = stack(host, named)?;
    host.record(&stack)?.ok_or_else(|| DeviceError::NotTracked { named: named.to_owned() })
}

/// The device that a stage is over.
fn beneath(record: &Record) -> Option<DevNo> {
    record.stage.as_ref().and_then(|_| record.original.devices().next()).copied()
}

/// The block device at a path.
pub(super) fn at_path(path: &Path) -> Result<DevNo, DeviceError> {
    let found = std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DeviceError::NoDevice { named: path.display().to_string() },
        _ => DeviceError::Open { path: path.to_owned(), source },
    })?;
    if !found.file_type().is_block_device() {
        return Err(DeviceError::NoBlockDevice { path: path.to_owned() });
    }
    let rdev = found.rdev();
    Ok(DevNo { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) })
}

/// A name for a stack, made of what its device is called.
pub(super) fn stack_name(named: &str) -> Result<StackId, DeviceError> {
    let last = named.rsplit('/').next().unwrap_or(named);
    let plain: String = last
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(63)
        .collect();
    plain.parse().map_err(|source| DeviceError::StackName { named: named.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_called_like_its_device() {
        let cases = [
            ("/dev/vg0/data", "data"),
            ("/dev/mapper/vg-pg_data", "vg-pg-data"),
            ("sda", "sda"),
            ("/dev/disk/by-id/WWN.5", "wwn-5"),
        ];
        for (named, expected) in cases {
            assert_eq!(stack_name(named).unwrap().as_str(), expected);
        }
        assert!(matches!(stack_name("/dev/"), Err(DeviceError::StackName { .. })));
    }

    #[test]
    fn what_is_no_block_device_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(at_path(dir.path()), Err(DeviceError::NoBlockDevice { .. })));
        let nowhere = at_path(&dir.path().join("nowhere"));
        assert!(matches!(nowhere, Err(DeviceError::NoDevice { .. })), "{nowhere:?}");
    }
}
