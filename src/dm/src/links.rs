//! Symbolic links of a machine whose root is seen elsewhere. The kernel would take an absolute
//! one from the root of this process, and so into its container.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows in one path (`MAXSYMLINKS`, linux/namei.h).
const MOST: u32 = 40;

/// A path of the machine's, relative to its root, with no symbolic link in it. What is not there
/// stays as it is.
pub(crate) fn resolve(root: &Path, on_machine: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    let mut left = parts_backwards(on_machine);
    let mut links = 0;
    while let Some(part) = left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => found.clear(),
            Some(Component::ParentDir) => drop(found.pop()),
            Some(Component::Normal(name)) => {
                let link = fs::read_link(root.join(&found).join(name)).ok();
                match link.filter(|_| links < MOST) {
                    Some(target) => {
                        links += 1;
                        left.extend(parts_backwards(&target));
                    }
                    None => found.push(name),
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    found
}

fn parts_backwards(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_they_lead_on_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("data/lib/eratrack")).unwrap();
        fs::create_dir_all(at("var")).unwrap();
        symlink("/data/lib", at("var/lib")).unwrap();
        symlink("../data/./lib/../lib", at("var/relative")).unwrap();
        symlink("../../../../data", at("var/above")).unwrap();
        symlink("/var/round", at("var/round")).unwrap();
        let resolved = |on_machine: &str| resolve(root.path(), Path::new(on_machine));
        for way in ["/var/lib", "/var/relative", "/var/above/lib", "/data/lib", "/../data/lib"] {
            let file = format!("{way}/eratrack/file");
            assert_eq!(resolved(&file), Path::new("data/lib/eratrack/file"), "{way}");
        }
        assert_eq!(resolved("/var/lib/not/there"), Path::new("data/lib/not/there"));
        assert_eq!(resolved("/var/round/file"), Path::new("var/round/file"));
    }
}
