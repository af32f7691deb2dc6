use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::Backing;
use crate::guest::{DIR, unique};
use crate::{run, run_with};

/// A file system that is mounted as long as this value lives.
pub struct Mount {
    path: PathBuf,
    device: PathBuf,
    below: Option<Backing>,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({} on {})", self.device.display(), self.path.display())
    }
}

impl Mount {
    /// Makes a file system of that type on a device, and mounts it.
    ///
    /// # Panics
    /// If either fails.
    pub fn new(kind: &str, on: Backing) -> Self {
        let device = on.device.clone();
        let mut mount = Self::over(kind, &device, "");
        mount.below = Some(on);
        mount
    }

    /// The same on a device that somebody else keeps, with mount options.
    ///
    /// # Panics
    /// If either fails.
    pub fn over(kind: &str, device: &Path, options: &str) -> Self {
        let force = if kind == "ext4" { "-F" } else { "-f" };
        run(&format!("mkfs.{kind} -q {force} {}", device.display()));
        Self::existing(device, options)
    }

    /// Mounts the file system that is there.
    ///
    /// # Panics
    /// If that fails.
    pub fn existing(device: &Path, options: &str) -> Self {
        let path = Path::new(DIR).join(unique("mnt"));
        fs::create_dir_all(&path).expect("/run is writable in a guest");
        let options = if options.is_empty() { String::new() } else { format!("-o {options} ") };
        run(&format!("mount {options}{} {}", device.display(), path.display()));
        Self { path, device: device.to_owned(), below: None }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it and mounts it again, at another place. What lets a filesystem that has turned
    /// read-only or shut down live again.
    ///
    /// # Panics
    /// If either fails.
    #[must_use]
    pub fn again(self) -> Self {
        run(&format!("umount {}", self.path.display()));
        Self::existing(&self.device, "")
    }

    /// Unmounts it and has it checked, without repair.
    ///
    /// # Panics
    /// If the check finds anything.
    pub fn unmount_and_check(self, kind: &str) {
        let device = self.device.display().to_string();
        run(&format!("umount {}", self.path.display()));
        match kind {
            "ext4" => run(&format!("fsck.ext4 -fn {device}")),
            "xfs" => run(&format!("xfs_repair -n {device}")),
            other => panic!("no check is known for {other}"),
        };
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run_with("umount", [&self.path]);
        let _ = fs::remove_dir(&self.path);
    }
}
