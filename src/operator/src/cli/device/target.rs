//! Which device is meant: a path, a device-mapper name, a stack's name.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use eratrack_dm::{Host, HostError, Known, Liveness, Lookup};
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
    for Known { stack, record } in known {
        let Some(record) = record.ok().flatten() else { continue };
        let of_this_boot = || Ok(host.liveness(&record)? != Liveness::Rebooted);
        if is_of(&record, number, uuid.as_ref(), of_this_boot)? {
            return Ok(stack);
        }
    }
    Err(not_tracked())
}

/// Whether a record is of the device with this number and uuid. Numbers are given out anew at each boot, so that one
/// alone tells only of the boot that it was written down in.
fn is_of(
    record: &Record,
    number: DevNo,
    uuid: Option<&DmUuid>,
    of_this_boot: impl FnOnce() -> Result<bool, HostError>,
) -> Result<bool, HostError> {
    match &record.uuid {
        Some(found) if record.stage.is_none() => Ok(Some(found) == uuid),
        _ if record.x == number || beneath(record) == Some(number) => of_this_boot(),
        _ => Ok(false),
    }
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

    fn record(uuid: Option<&str>, stage: bool) -> Record {
        let stage = stage.then(|| serde_json::json!({"path": "/dev/sdb", "identity": null}));
        serde_json::from_value(serde_json::json!({
            "version": 2, "stack": "a", "chain": "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11",
            "boot": "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10", "x": "253:3", "name": "a", "uuid": uuid,
            "original": "0 65536 linear 8:16 0", "sectors": 65536, "granularity": "256Ki",
            "discards": "Limit", "metadata": "/m/a", "metadata_size": 4_194_304,
            "phase": "Attached", "stage": stage,
        }))
        .expect("a record")
    }

    #[test]
    fn a_number_of_an_earlier_boot_names_nothing() {
        let (x, disk) = (DevNo { major: 253, minor: 3 }, DevNo { major: 8, minor: 16 });
        let staged = record(Some("CRYPT-SUBDEV-ERATRACK-a-top"), true);
        for (record, number) in [(record(None, false), x), (staged.clone(), x), (staged, disk)] {
            assert!(is_of(&record, number, None, || Ok(true)).unwrap());
            assert!(!is_of(&record, number, None, || Ok(false)).unwrap(), "{number}");
        }
        let other = DevNo { major: 253, minor: 4 };
        assert!(!is_of(&record(None, false), other, None, || Ok(true)).unwrap());
    }

    #[test]
    fn a_uuid_names_the_device_over_boots() {
        let uuid: DmUuid = "LVM-abc".parse().unwrap();
        let (named, elsewhere) = (record(Some("LVM-abc"), false), DevNo { major: 253, minor: 9 });
        assert!(is_of(&named, elsewhere, Some(&uuid), || Ok(false)).unwrap());
        assert!(
            !is_of(&named, named.x, None, || Ok(true)).unwrap(),
            "another device has its number"
        );
    }

    #[test]
    fn what_is_no_block_device_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(at_path(dir.path()), Err(DeviceError::NoBlockDevice { .. })));
        let nowhere = at_path(&dir.path().join("nowhere"));
        assert!(matches!(nowhere, Err(DeviceError::NoDevice { .. })), "{nowhere:?}");
    }
}
