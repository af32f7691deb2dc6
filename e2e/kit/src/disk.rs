//! Scratch disks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::guest::{DIR, setup, unique};
use crate::run;

/// A loop device over a file in memory; it takes discards. Gone with this value.
#[derive(Debug)]
pub struct Disk {
    file: PathBuf,
    device: PathBuf,
}

impl Disk {
    /// A new disk of so many MiB, all zero.
    ///
    /// # Panics
    /// If the guest cannot make it.
    pub fn new(mib: u64) -> Self {
        setup();
        let file = Path::new(DIR).join(unique("disk"));
        let new = File::create(&file).expect("/run is writable in a guest");
        new.set_len(mib << 20).expect("a sparse file takes no room");
        let device = run(&format!("losetup --find --show {}", file.display()));
        Self { file, device: device.trim().into() }
    }

    /// Its device node.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The same, to be kept by what is built on it.
    pub fn into_backing(self) -> Backing {
        Backing { device: self.device.clone(), _below: Box::new(self) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = crate::run_with("losetup", [Path::new("-d"), &self.device]);
        let _ = fs::remove_file(&self.file);
    }
}

/// A device, and whatever must live as long as it is in use.
pub struct Backing {
    pub(crate) device: PathBuf,
    pub(crate) _below: Box<dyn Send>,
}

/// The machine's `scsi_debug` disk: a disk in memory whose discards can be set up. There is one
/// in a guest at a time.
#[derive(Debug)]
pub struct ScsiDebug {
    device: PathBuf,
}

impl ScsiDebug {
    /// So many MiB, with discards in units of so many bytes (a multiple of 512).
    ///
    /// # Panics
    /// If the guest cannot make it.
    pub fn new(mib: u64, discard_unit: u64) -> Self {
        setup();
        run("modprobe sd_mod");
        let blocks = discard_unit / 512;
        run(&format!(
            "modprobe scsi_debug dev_size_mb={mib} lbpu=1 lbpws=1 unmap_granularity={blocks} \
             unmap_max_blocks=4194304 delay=0"
        ));
        let found = crate::wait_for("the scsi_debug disk", || {
            let pattern = "/sys/bus/pseudo/drivers/scsi_debug";
            let host = fs::read_dir(pattern).ok()?.flatten().map(|e| e.path()).find(|p| {
                p.file_name().is_some_and(|name| name.to_string_lossy().starts_with("adapter"))
            })?;
            find_block(&host, 6)
        });
        Self { device: Path::new("/dev").join(found) }
    }

    /// Its device node.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The same, to be kept by what is built on it.
    pub fn into_backing(self) -> Backing {
        Backing { device: self.device.clone(), _below: Box::new(self) }
    }
}

impl Drop for ScsiDebug {
    fn drop(&mut self) {
        let _ = crate::run_with("modprobe", ["-r", "scsi_debug"]);
    }
}

/// The name of the first disk below a device's directory in sysfs.
fn find_block(dir: &Path, depth: u32) -> Option<String> {
    if let Ok(mut entries) = fs::read_dir(dir.join("block")) {
        return entries.next()?.ok()?.file_name().into_string().ok();
    }
    if depth == 0 {
        return None;
    }
    let below =
        fs::read_dir(dir).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    below.map(|entry| entry.path()).find_map(|path| find_block(&path, depth - 1))
}
