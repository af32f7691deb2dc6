//! Where the kubelet mounts and maps a volume.
//!
//! The layouts are the kubelet's own (pkg/volume/csi, pkg/volume/local and pkg/volume/util/subpath of Kubernetes 1.35);
//! `<root>` is its `--root-dir`.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::volume::Source;

/// What a mount point of the kubelet is to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Mounted once for the node, before any pod.
    Staged,
    /// Mounted for a pod.
    Published,
    /// A directory or file of it, mounted for a container with `subPath`.
    SubPath,
}

/// The kubelet's paths of one volume.
#[derive(Clone, Debug)]
pub(crate) struct VolumePaths {
    root: PathBuf,
    volume: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Local,
    Csi { driver: String, handle: String },
}

impl VolumePaths {
    /// `root` is the kubelet's directory without symbolic links, `volume` the PersistentVolume's name.
    pub(crate) fn new(root: &Path, volume: &str, source: &Source) -> Self {
        let kind = match source {
            Source::Local { path: _ } => Kind::Local,
            Source::Csi { driver, handle } => Kind::Csi {
                driver: driver.clone(),
                handle: hex(&Sha256::digest(handle.as_bytes())),
            },
        };
        Self { root: root.to_owned(), volume: volume.to_owned(), kind }
    }

    /// What `point` is to this volume; none if it is not the kubelet's, or another volume's.
    pub(crate) fn place(&self, point: &Path) -> Option<Place> {
        let below: Vec<&str> = point
            .strip_prefix(&self.root)
            .ok()?
            .components()
            .map(|part| part.as_os_str().to_str())
            .collect::<Option<_>>()?;
        let own = |name: &str| name == self.volume;
        match (below.as_slice(), &self.kind) {
            (["pods", _, "volumes", "kubernetes.io~local-volume", pv], Kind::Local) if own(pv) => {
                Some(Place::Published)
            }
            (["pods", _, "volumes", "kubernetes.io~csi", pv, "mount"], Kind::Csi { .. })
                if own(pv) =>
            {
                Some(Place::Published)
            }
            (["pods", _, "volume-subpaths", pv, _, _], _) if own(pv) => Some(Place::SubPath),
            (["plugins", "kubernetes.io", "local-volume", "mounts", pv], Kind::Local)
                if own(pv) =>
            {
                Some(Place::Staged)
            }
            // Up to Kubernetes 1.23 the staging path was named by the volume.
            (
                ["plugins", "kubernetes.io", "csi", "pv", pv, "globalmount", ..],
                Kind::Csi { .. },
            ) if own(pv) => Some(Place::Staged),
            // Some drivers mount one level below the path they were given.
            (
                ["plugins", "kubernetes.io", "csi", name, sha, "globalmount", ..],
                Kind::Csi { driver, handle },
            ) if name == driver && sha == handle => Some(Place::Staged),
            _ => None,
        }
    }

    /// The directory that holds one bind mount of the device a pod, when the volume's mode is Block.
    pub(crate) fn map_dir(&self) -> PathBuf {
        let plugins = self.root.join("plugins");
        match &self.kind {
            Kind::Local => {
                plugins.join("kubernetes.io~local-volume/volumeDevices").join(&self.volume)
            }
            Kind::Csi { .. } => {
                plugins.join("kubernetes.io/csi/volumeDevices").join(&self.volume).join("dev")
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "6f1d8a5e-91c5-4a14-9a1b-3f2f6f9f0a11";

    fn local() -> VolumePaths {
        let source = Source::Local { path: "/dev/vg/a".into() };
        VolumePaths::new(Path::new("/var/lib/kubelet"), "pv-a", &source)
    }

    fn csi() -> VolumePaths {
        let source = Source::Csi { driver: "topolvm.io".into(), handle: "abc".into() };
        VolumePaths::new(Path::new("/var/lib/kubelet"), "pv-a", &source)
    }

    #[test]
    fn places_of_a_local_volume() {
        let place = |below: &str| local().place(&Path::new("/var/lib/kubelet").join(below));
        assert_eq!(
            place(&format!("pods/{POD}/volumes/kubernetes.io~local-volume/pv-a")),
            Some(Place::Published)
        );
        assert_eq!(place("plugins/kubernetes.io/local-volume/mounts/pv-a"), Some(Place::Staged));
        assert_eq!(place(&format!("pods/{POD}/volume-subpaths/pv-a/app/0")), Some(Place::SubPath));
        assert_eq!(place(&format!("pods/{POD}/volumes/kubernetes.io~local-volume/pv-b")), None);
        assert_eq!(place(&format!("pods/{POD}/volumes/kubernetes.io~empty-dir/pv-a")), None);
        assert_eq!(local().place(Path::new("/mnt/pv-a")), None);
    }

    #[test]
    fn places_of_a_csi_volume() {
        let place = |below: &str| csi().place(&Path::new("/var/lib/kubelet").join(below));
        assert_eq!(
            place(&format!("pods/{POD}/volumes/kubernetes.io~csi/pv-a/mount")),
            Some(Place::Published)
        );
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let staged = format!("plugins/kubernetes.io/csi/topolvm.io/{sha}/globalmount");
        assert_eq!(place(&staged), Some(Place::Staged));
        assert_eq!(place(&format!("{staged}/abc")), Some(Place::Staged));
        assert_eq!(place(&format!("plugins/kubernetes.io/csi/other.io/{sha}/globalmount")), None);
        assert_eq!(place("plugins/kubernetes.io/csi/pv/pv-a/globalmount"), Some(Place::Staged));
    }

    #[test]
    fn map_directories() {
        assert_eq!(
            local().map_dir(),
            Path::new("/var/lib/kubelet/plugins/kubernetes.io~local-volume/volumeDevices/pv-a")
        );
        assert_eq!(
            csi().map_dir(),
            Path::new("/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pv-a/dev")
        );
    }
}
