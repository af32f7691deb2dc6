//! The device of a point in time where a reader finds it: a node below `/dev/eratrack` of the machine, named by
//! the caller, that takes no writes.
//!
//! Device numbers are used again: a node goes before its device does, and a process that finds nodes which it
//! did not make removes them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Host, HostError, PointInTime};
use crate::linux::Nodes;

/// Where the nodes are, on the machine.
const SHOWN: &str = "/dev/eratrack";

impl Host {
    /// Makes X-snap a block device of that name, for reading alone. Returns its path on the machine.
    pub fn show_point_in_time(
        &self,
        point: &PointInTime,
        name: &str,
    ) -> Result<PathBuf, HostError> {
        let path = shown(name)?;
        let here = self.machine.path(&path);
        self.about_to("show the point in time");
        let made = || {
            fs::create_dir_all(self.machine.path(Path::new(SHOWN)))?;
            self.nodes.forbid_writes(point.device)?;
            Nodes::make_lasting(&here, point.device)
        };
        made().map_err(failed(&path))?;
        Ok(path)
    }

    /// Nobody finds it any more. Whoever has it open keeps it open.
    pub fn hide_point_in_time(&self, name: &str) -> Result<(), HostError> {
        let path = shown(name)?;
        self.about_to("hide the point in time");
        absent(fs::remove_file(self.machine.path(&path))).map_err(failed(&path))
    }

    /// Removes what an earlier process has left to be found.
    pub fn hide_points_in_time(&self) -> Result<(), HostError> {
        let path = Path::new(SHOWN);
        absent(fs::remove_dir_all(self.machine.path(path))).map_err(failed(path))
    }
}

/// One component of a path that names nothing else.
fn shown(name: &str) -> Result<PathBuf, HostError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let path = Path::new(SHOWN).join(name);
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(plain) {
        return Ok(path);
    }
    Err(failed(&path)(io::Error::other("it must be of letters, digits and hyphens, at most 64")))
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> HostError {
    move |source| HostError::Shown { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_name_leads_nowhere_else() {
        let path = shown("0b5c1a52-6f0e-4b3f-9d6e-0c64d7c1a001").unwrap();
        assert_eq!(path.parent().unwrap().to_str(), Some("/dev/eratrack"));
        for name in ["", "..", "../sda", "a/b", "a b"] {
            let error = shown(name).unwrap_err();
            assert_eq!(error.reason(), "OperationFailed", "{error}");
        }
    }
}
