//! The machine that the tests run on: a guest, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Disk, Mount, run_with};

static SETUP: Once = Once::new();
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Where the kit keeps its files: in memory.
pub(crate) const DIR: &str = "/run/kit";

/// Loads the modules and writes the configuration that the rest of the kit needs. May be
/// called any number of times.
///
/// # Panics
/// On any machine but a User-Mode Linux guest: these tests change the machine.
pub fn setup() {
    SETUP.call_once(|| {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        assert!(cpu.contains("User Mode Linux"), "kernel tests run in a guest alone");
        fs::create_dir_all(DIR).expect("/run is writable in a guest");
        for module in ["loop", "dm-mod", "dm-era", "dm-thin-pool", "dm-snapshot", "dm-switch"] {
            run_with("modprobe", [module]).expect("the guest has the module");
        }
        crate::lvm::write_configuration();
    });
}

/// A name that no other test of this guest has: the prefix, the process and a count.
pub fn unique(prefix: &str) -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}x{count}", std::process::id())
}

/// A directory that is removed with this value.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// A new directory below `/run/kit`, in memory.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(prefix: &str) -> Self {
        let path = Path::new(DIR).join(unique(prefix));
        fs::create_dir_all(&path).expect("/run is writable in a guest");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A mounted ext4 of its own for metadata files, as a machine's own disk would be.
pub fn metadata_dir(mib: u64) -> Mount {
    Mount::new("ext4", Disk::new(mib).into_backing())
}
