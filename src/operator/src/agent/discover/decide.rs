//! From what is mounted and mapped to the one device of a volume, or to a refusal. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eratrack_model::units::DevNo;

use super::Refusal;
use super::mountinfo::Mount;
use super::paths::{Place, VolumePaths};

/// The device beneath a mounted volume.
///
/// `own` is the number of the mount at `spec.local.path`, if there is one: the administrator's own mount of the volume.
pub(crate) fn mounted_device(
    paths: &VolumePaths,
    mounts: &[Mount],
    own: Option<u64>,
) -> Result<DevNo, Refusal> {
    let ours: Vec<&Mount> = mounts
        .iter()
        .filter(|mount| matches!(paths.place(&mount.point), Some(Place::Staged | Place::Published)))
        .collect();
    ours.iter().try_for_each(|mount| check_filesystem(mount))?;
    let device = the_only(ours.iter().map(|mount| mount.device))?;
    let foreign = mounts.iter().filter(|mount| mount.device == device).find(|mount| {
        paths.place(&mount.point).is_none() && !(own == Some(mount.id) && is_whole(mount))
    });
    match foreign {
        Some(mount) => Err(Refusal::SharedFilesystem { device, point: mount.point.clone() }),
        None => Ok(device),
    }
}

/// The device that the kubelet mapped for pods; `maps` are the nodes under the volume's map directory.
pub(crate) fn mapped_device(maps: &[(PathBuf, DevNo)], mounts: &[Mount]) -> Result<DevNo, Refusal> {
    let device = the_only(maps.iter().map(|(_, device)| *device))?;
    match mounts.iter().find(|mount| mount.device == device) {
        Some(mount) => Err(Refusal::SharedFilesystem { device, point: mount.point.clone() }),
        None => Ok(device),
    }
}

fn is_whole(mount: &Mount) -> bool {
    mount.root == Path::new("/")
}

fn check_filesystem(mount: &Mount) -> Result<(), Refusal> {
    let refused = |why: &'static str| Refusal::Filesystem {
        point: mount.point.clone(),
        fs_type: mount.fs_type.clone(),
        why,
    };
    if mount.fs_type == "btrfs" || mount.fs_type == "zfs" {
        return Err(refused("it spans devices on its own"));
    }
    if mount.device.major == 0 {
        return Err(Refusal::NotBlockBacked {
            what: format!("{} at {} has no block device", mount.fs_type, mount.point.display()),
        });
    }
    if !is_whole(mount) {
        return Err(Refusal::Directory { root: mount.root.clone(), point: mount.point.clone() });
    }
    // dax=inode and dax=never leave the device alone unless a file asks; ext4 prints "dax" for "always".
    if mount.super_options.split(',').any(|option| option == "dax" || option == "dax=always") {
        return Err(refused("DAX writes past the block layer"));
    }
    if mount.has_option("rtdev") {
        return Err(refused("its realtime device is not tracked"));
    }
    Ok(())
}

fn the_only(devices: impl Iterator<Item = DevNo>) -> Result<DevNo, Refusal> {
    let devices: BTreeSet<DevNo> = devices.collect();
    let mut all = devices.iter();
    match (all.next(), all.next()) {
        (None, _) => Err(Refusal::NotInUse),
        (Some(device), None) => Ok(*device),
        (Some(_), Some(_)) => Err(Refusal::Ambiguous { devices: devices.into_iter().collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::discover::mountinfo;
    use crate::agent::discover::volume::Source;

    /// A node of this project's test cluster: ext4 for containerd and the kubelet, one local volume (253:3) with two
    /// pods, one of them with a subPath.
    const NODE: &str = include_str!("testdata/node.mountinfo");

    fn paths(pv: &str) -> VolumePaths {
        let source = Source::Local { path: format!("/dev/vg/{pv}").into() };
        VolumePaths::new(Path::new("/var/lib/kubelet"), pv, &source)
    }

    fn mounts(extra: &str) -> Vec<Mount> {
        mountinfo::parse(format!("{NODE}{extra}").as_bytes()).expect("mountinfo")
    }

    fn decide(pv: &str, extra: &str, own: Option<u64>) -> Result<String, Refusal> {
        mounted_device(&paths(pv), &mounts(extra), own).map(|device| device.to_string())
    }

    const POD: &str = "/var/lib/kubelet/pods/0a4a63d7-6d2c-4f7c-9d3c-2a1b8a8f5b11";

    #[test]
    fn a_local_volume_of_two_pods() {
        assert_eq!(decide("pv-data", "", None), Ok("253:3".to_owned()));
    }

    #[test]
    fn nobody_uses_it() {
        assert_eq!(decide("pv-other", "", None), Err(Refusal::NotInUse));
    }

    #[test]
    fn somebody_else_mounted_it_too() {
        let extra = "900 40 253:3 / /mnt/backup rw - ext4 /dev/mapper/vg-data rw\n";
        let refusal = decide("pv-data", extra, None).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::SharedFilesystem {
                device: DevNo { major: 253, minor: 3 },
                point: "/mnt/backup".into()
            }
        );
        assert_eq!(decide("pv-data", extra, Some(900)), Ok("253:3".to_owned()), "its local.path");
        let part = "900 40 253:3 /dir /mnt/backup rw - ext4 /dev/mapper/vg-data rw\n";
        assert!(decide("pv-data", part, Some(900)).is_err(), "a part of it at local.path");
    }

    #[test]
    fn a_directory_of_the_nodes_own_disk() {
        let extra = format!(
            "901 40 98:16 /srv/vol {POD}/volumes/kubernetes.io~local-volume/pv-dir rw - ext4 /dev/ubdb rw\n"
        );
        let refusal = decide("pv-dir", &extra, None).unwrap_err();
        assert!(matches!(refusal, Refusal::Directory { .. }), "{refusal}");
    }

    #[test]
    fn filesystems_that_cannot_be_tracked() {
        let volume = |device: &str, fs: &str, options: &str| {
            let line = format!(
                "901 40 {device} / {POD}/volumes/kubernetes.io~local-volume/pv-x rw - {fs} src {options}\n"
            );
            decide("pv-x", &line, None)
        };
        assert!(matches!(volume("0:51", "nfs4", "rw"), Err(Refusal::NotBlockBacked { .. })));
        assert!(matches!(volume("0:51", "btrfs", "rw"), Err(Refusal::Filesystem { .. })));
        assert!(matches!(volume("253:9", "xfs", "rw,dax=always"), Err(Refusal::Filesystem { .. })));
        assert!(matches!(volume("253:9", "ext4", "rw,dax"), Err(Refusal::Filesystem { .. })));
        assert_eq!(volume("253:9", "xfs", "rw,dax=inode"), Ok("253:9".to_owned()));
    }

    #[test]
    fn two_devices_under_one_name() {
        let extra = format!(
            "901 40 253:9 / {POD}/volumes/kubernetes.io~local-volume/pv-data rw - ext4 x rw\n"
        );
        let refusal = decide("pv-data", &extra, None).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Ambiguous { devices } if devices.len() == 2),
            "{refusal}"
        );
    }

    #[test]
    fn block_mode() {
        let device = |minor| DevNo { major: 253, minor };
        let map = |minor| (PathBuf::from(format!("/maps/{minor}")), device(minor));
        assert_eq!(mapped_device(&[], &mounts("")), Err(Refusal::NotInUse));
        assert_eq!(mapped_device(&[map(7), map(7)], &mounts("")), Ok(device(7)));
        assert!(matches!(
            mapped_device(&[map(7), map(8)], &mounts("")),
            Err(Refusal::Ambiguous { .. })
        ));
        assert!(matches!(
            mapped_device(&[map(3)], &mounts("")),
            Err(Refusal::SharedFilesystem { .. })
        ));
    }
}
