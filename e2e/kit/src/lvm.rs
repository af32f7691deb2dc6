//! Real volume groups, thick and thin.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::Backing;
use crate::guest::{setup, unique};
use crate::{run, run_with, wait_for};

/// Where [`write_configuration`] puts LVM's configuration; `LVM_SYSTEM_DIR`.
pub(crate) const SYSTEM_DIR: &str = "/run/kit-lvm";

/// LVM without udev, over the guest's scratch disks and nothing else.
pub(crate) fn write_configuration() {
    let configuration = r#"
devices {
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
    use_devicesfile = 0
    global_filter = [ "a|^/dev/loop|", "a|^/dev/sd|", "a|^/dev/ram|", "a|^/dev/mapper/|", "r|.*|" ]
}
activation {
    udev_sync = 0
    udev_rules = 0
    verify_udev_operations = 1
    monitoring = 0
}
backup { backup = 0 archive = 0 }
"#;
    fs::create_dir_all(SYSTEM_DIR).expect("/run is writable in a guest");
    fs::write(Path::new(SYSTEM_DIR).join("lvm.conf"), configuration)
        .expect("/run is writable in a guest");
}

/// A volume group; its volumes and itself are removed with this value.
pub struct VolumeGroup {
    name: String,
    disks: Vec<Backing>,
}

impl std::fmt::Debug for VolumeGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VolumeGroup({})", self.name)
    }
}

impl VolumeGroup {
    /// Over these disks.
    ///
    /// # Panics
    /// If LVM refuses.
    pub fn new(disks: impl IntoIterator<Item = Backing>) -> Self {
        setup();
        let (name, disks): (_, Vec<_>) = (unique("vg"), disks.into_iter().collect());
        let devices: Vec<_> = disks.iter().map(|disk| disk.device.display().to_string()).collect();
        run(&format!("vgcreate -qq {name} {}", devices.join(" ")));
        Self { name, disks }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The disks that it is on.
    pub fn disks(&self) -> impl Iterator<Item = &Path> {
        self.disks.iter().map(|disk| disk.device.as_path())
    }

    /// A new thick volume.
    pub fn thick(&self, volume: &str, mib: u64) -> Volume {
        run(&format!("lvcreate -qq -y -Wn -Zn -L {mib}m -n {volume} {}", self.name));
        self.volume(volume)
    }

    /// A new thin pool with chunks of so many KiB.
    pub fn thin_pool(&self, pool: &str, mib: u64, chunk_kib: u64) {
        let name = &self.name;
        run(&format!("lvcreate -qq -y -L {mib}m -c {chunk_kib}k -T {name}/{pool}"));
    }

    /// A new thin volume.
    pub fn thin(&self, pool: &str, volume: &str, mib: u64) -> Volume {
        run(&format!("lvcreate -qq -y -V {mib}m -T {}/{pool} -n {volume}", self.name));
        self.volume(volume)
    }

    /// A volume that is there.
    pub fn volume(&self, volume: &str) -> Volume {
        let dm_name = format!("{}-{}", escape(&self.name), escape(volume));
        let path = PathBuf::from(format!("/dev/mapper/{dm_name}"));
        wait_for("the volume's node", || path.exists().then_some(()));
        Volume { lv: format!("{}/{volume}", self.name), dm_name, path }
    }
}

impl Drop for VolumeGroup {
    fn drop(&mut self) {
        let _ = run_with("vgremove", ["-qq", "-ff", "-y", &self.name]);
    }
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// `group/volume`, for LVM's commands.
    pub lv: String,
    /// `group-volume`, for device mapper.
    pub dm_name: String,
    /// Its node below `/dev/mapper`.
    pub path: PathBuf,
}

impl Volume {
    /// Its number, `(major, minor)`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn number(&self) -> (u32, u32) {
        let found = rustix::fs::stat(&self.path).expect("the volume is active");
        (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev))
    }

    /// Its live table, as `dmsetup table` prints it.
    pub fn table(&self) -> String {
        run(&format!("dmsetup table {}", self.dm_name)).trim_end().to_owned()
    }
}

fn escape(name: &str) -> String {
    name.replace('-', "--")
}
