//! `/proc/<pid>/mountinfo` as typed values (`proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use eratrack_model::units::DevNo;

/// One mount of the machine's own mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mount {
    /// The mount's number; what `statx` calls `stx_mnt_id`.
    pub(crate) id: u64,
    /// `st_dev` of the files in it. The major is 0 for filesystems without a block device of their own.
    pub(crate) device: DevNo,
    /// Which directory of the filesystem is mounted; `/` when it is the whole.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The filesystem's name.
    pub(crate) fs_type: String,
    /// Options of the filesystem itself, comma separated.
    pub(crate) super_options: String,
}

impl Mount {
    /// Whether the filesystem has this option, as a word or as `word=value`.
    pub(crate) fn has_option(&self, name: &str) -> bool {
        self.super_options.split(',').any(|option| option.split('=').next() == Some(name))
    }
}

/// A line that is not what the kernel prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mountinfo line {line}: {field} is missing or malformed")]
pub(crate) struct MountInfoError {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// Which field of it.
    pub(crate) field: &'static str,
}

/// Parses the whole file.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Mount>, MountInfoError> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            parse_line(line).map_err(|field| MountInfoError { line: index + 1, field })
        })
        .collect()
}

fn parse_line(line: &[u8]) -> Result<Mount, &'static str> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()).ok_or("mount ID")?;
    number(fields.next()).ok_or("parent ID")?;
    let device = device(fields.next()).ok_or("major:minor")?;
    let root = path(fields.next()).ok_or("root")?;
    let point = path(fields.next()).ok_or("mount point")?;
    fields.next().ok_or("mount options")?;
    // Optional fields (shared:N, master:N, ...) end with a lone hyphen.
    fields.by_ref().find(|field| *field == b"-").ok_or("separator")?;
    let fs_type = text(fields.next()).ok_or("filesystem type")?;
    fields.next().ok_or("mount source")?;
    let super_options = text(fields.next()).ok_or("super options")?;
    Ok(Mount { id, device, root, point, fs_type, super_options })
}

fn number(field: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(field?).ok()?.parse().ok()
}

fn device(field: Option<&[u8]>) -> Option<DevNo> {
    let (major, minor) = std::str::from_utf8(field?).ok()?.split_once(':')?;
    Some(DevNo { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn text(field: Option<&[u8]>) -> Option<String> {
    Some(String::from_utf8_lossy(&unescape(field?)).into_owned())
}

fn path(field: Option<&[u8]>) -> Option<PathBuf> {
    let bytes = unescape(field?);
    (!bytes.is_empty()).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits (`fs/proc_namespace.c`).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = octal(byte, tail);
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    out
}

fn octal(first: u8, tail: &[u8]) -> Option<u8> {
    if first != b'\\' {
        return None;
    }
    let digits = std::str::from_utf8(tail.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Mount {
        parse(line.as_bytes()).expect("parses").remove(0)
    }

    #[test]
    fn a_plain_mount() {
        let mount = one(
            "331 29 253:4 / /var/lib/kubelet/plugins/kubernetes.io/local-volume/mounts/pv-a rw,relatime shared:152 - ext4 /dev/mapper/vg-a rw,stripe=16\n",
        );
        assert_eq!(mount.id, 331);
        assert_eq!(mount.device.to_string(), "253:4");
        assert_eq!(mount.root, PathBuf::from("/"));
        assert_eq!(mount.fs_type, "ext4");
        assert!(mount.has_option("stripe") && mount.has_option("rw") && !mount.has_option("r"));
    }

    #[test]
    fn no_optional_fields_and_several() {
        assert_eq!(one("1 0 0:2 / / rw - rootfs rootfs rw").fs_type, "rootfs");
        let many = one("5 1 8:1 / /b rw shared:1 master:2 unbindable - xfs /dev/sda1 rw");
        assert_eq!(many.point, PathBuf::from("/b"));
    }

    #[test]
    fn octal_escapes_are_undone() {
        let mount = one(r"7 1 8:1 /a\040b /mnt/tab\011back\134slash rw - ext4 /dev/x rw");
        assert_eq!(mount.root, PathBuf::from("/a b"));
        assert_eq!(mount.point, PathBuf::from("/mnt/tab\tback\\slash"));
    }

    #[test]
    fn a_source_may_be_empty() {
        let mount = one("7 1 0:44 / /mnt rw - tmpfs  rw");
        assert_eq!((mount.fs_type.as_str(), mount.super_options.as_str()), ("tmpfs", "rw"));
    }

    #[test]
    fn a_broken_line_is_named() {
        let error =
            parse(b"1 0 0:2 / / rw - rootfs rootfs rw\n7 1 8-1 / /b rw - x y rw\n").unwrap_err();
        assert_eq!(error.to_string(), "mountinfo line 2: major:minor is missing or malformed");
        let error = parse(b"7 1 8:1 / /b rw shared:1 xfs /dev/sda1 rw").unwrap_err();
        assert_eq!(error.field, "separator");
    }
}
