//! File systems that copy on write: what is overwritten goes elsewhere, so that a file that was
//! allocated to its last byte still needs room.

use std::fs::File;
use std::io;

use rustix::fs::{IFlags, fstatfs, ioctl_getflags, ioctl_setflags};

// include/uapi/linux/magic.h; ZFS and bcachefs have theirs in their own sources.
const BTRFS: u64 = 0x9123_683e;
const BCACHEFS: u64 = 0xca45_1a4e;
const ZFS: u64 = 0x2fc1_2fc1;

/// How a file is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overwriting {
    /// Where it is.
    InPlace,
    /// Elsewhere, unless it is told not to while it is empty.
    Elsewhere,
}

/// Sees to it that an empty file will be overwritten in place; false if it will not.
pub(super) fn ensure(empty: &File) -> io::Result<bool> {
    match overwriting(u64::try_from(fstatfs(empty)?.f_type).unwrap_or_default()) {
        Overwriting::InPlace => Ok(true),
        Overwriting::Elsewhere => Ok(told_not_to_copy(empty).unwrap_or(false)),
    }
}

fn overwriting(file_system: u64) -> Overwriting {
    match file_system {
        BTRFS | BCACHEFS | ZFS => Overwriting::Elsewhere,
        _ => Overwriting::InPlace,
    }
}

fn told_not_to_copy(empty: &File) -> io::Result<bool> {
    ioctl_setflags(empty, ioctl_getflags(empty)? | IFlags::NOCOW)?;
    Ok(ioctl_getflags(empty)?.contains(IFlags::NOCOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_that_copy_on_write_are_told_not_to() {
        for copying in [BTRFS, BCACHEFS, ZFS] {
            assert_eq!(overwriting(copying), Overwriting::Elsewhere);
        }
        // ext2 to ext4, XFS, tmpfs, overlay.
        for other in [0xef53, 0x5846_5342, 0x0102_1994, 0x794c_7630] {
            assert_eq!(overwriting(other), Overwriting::InPlace);
        }
        let file = tempfile::tempfile().unwrap();
        assert!(ensure(&file).unwrap() || overwriting_of(&file) == Overwriting::Elsewhere);
    }

    fn overwriting_of(file: &File) -> Overwriting {
        overwriting(u64::try_from(fstatfs(file).unwrap().f_type).unwrap())
    }
}
