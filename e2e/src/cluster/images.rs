//! Container images, written by hand: a tar of a few files, and the JSON around it (OCI image layout).
//!
//! No registry is asked: the node's container runtime imports the file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{failure::Outcome, process};

/// The image whose one process holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/pause:e2e";
/// The image of the application that writes records, and of a shell.
pub(crate) const RECORDER: &str = "localhost/recorder:e2e";

/// Debian's busybox-static: the images' shell.
const BUSYBOX: &str = "/usr/bin/busybox";

/// What an image consists of.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// The name by which a pod asks for it.
    pub(crate) name: String,
    /// Path in the image, without a leading slash, and the file's bytes; all are executable.
    pub(crate) programs: Vec<(String, Vec<u8>)>,
    /// Path in the image and what it points to.
    pub(crate) links: Vec<(String, String)>,
    /// What runs when the pod names no command.
    pub(crate) entrypoint: Vec<String>,
}

impl Image {
    /// The image of the pause process: busybox, asleep.
    pub(crate) fn pause() -> Outcome<Self> {
        let entrypoint = ["/busybox", "sleep", "2147483647"].map(str::to_owned).to_vec();
        let programs = vec![("busybox".to_owned(), static_program(Path::new(BUSYBOX))?)];
        Ok(Self { name: PAUSE.to_owned(), programs, links: Vec::new(), entrypoint })
    }

    /// The image of the application: the recorder, and busybox under all of its names.
    pub(crate) fn recorder(program: &Path) -> Outcome<Self> {
        let applets = process::output(Command::new(BUSYBOX).arg("--list"))?;
        let link = |name: &str| (format!("bin/{name}"), "busybox".to_owned());
        let links = applets.lines().filter(|name| *name != "busybox").map(link).collect();
        let programs = vec![
            ("bin/busybox".to_owned(), static_program(Path::new(BUSYBOX))?),
            ("recorder".to_owned(), static_program(program)?),
        ];
        let entrypoint = vec!["/recorder".to_owned()];
        Ok(Self { name: RECORDER.to_owned(), programs, links, entrypoint })
    }

    /// Writes the image as a file that `ctr images import` takes; its size in bytes.
    pub(crate) fn write(&self, path: &Path) -> Outcome<u64> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer()?);
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config =
            Blob::new("application/vnd.oci.image.config.v1+json", serde_json::to_vec(&config)?);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": config.descriptor(), "layers": [layer.descriptor()],
        });
        let manifest = Blob::new(kind, serde_json::to_vec(&manifest)?);
        let mut entry = manifest.descriptor();
        entry["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
        let mut tar = tar::Builder::new(File::create(path)?);
        append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", 0o644, &index)?;
        for blob in [&layer, &config, &manifest] {
            let name = format!("blobs/{}", blob.digest.replace(':', "/"));
            append(&mut tar, &name, 0o644, &blob.bytes)?;
        }
        tar.into_inner()?.sync_all()?;
        Ok(fs::metadata(path)?.len())
    }

    fn layer(&self) -> Outcome<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        // A runtime mounts over these; /tmp and /run are for whoever wants a socket.
        for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            let mut header = header(0o755, 0);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{directory}/"), &[][..])?;
        }
        for (path, bytes) in &self.programs {
            append(&mut tar, path, 0o755, bytes)?;
        }
        for (path, target) in &self.links {
            let mut header = header(0o777, 0);
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// The same at each run: no times, no names.
fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append<W: std::io::Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Outcome {
    tar.append_data(&mut header(mode, bytes.len() as u64), path, bytes)?;
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_digest(bytes))
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    let digits: Vec<String> =
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// A part of an image, named by its digest.
struct Blob {
    kind: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { kind, digest: digest(&bytes), bytes }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// The bytes of a program that needs no library: an image from scratch has none.
pub(super) fn static_program(path: &Path) -> Outcome<Vec<u8>> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if names_an_interpreter(&bytes) {
        let remedy = "it must be linked statically to be put into an image from scratch";
        return Err(format!("{} needs a dynamic linker: {remedy}", path.display()).into());
    }
    Ok(bytes)
}

/// Whether an ELF program for 64 bits has a segment `PT_INTERP` (elf.5): a dynamic linker to start it with.
fn names_an_interpreter(program: &[u8]) -> bool {
    const PT_INTERP: usize = 3;
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| number(table + index * size, 4) == Some(PT_INTERP))
}

/// Writes the images that every node needs into `directory`.
pub(super) fn write_pause(directory: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(directory)?;
    let path = directory.join("pause.tar");
    Image::pause()?.write(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        Image {
            name: "localhost/x:1".into(),
            programs: vec![("x".into(), b"program".to_vec())],
            links: vec![("bin/y".into(), "/x".into())],
            entrypoint: vec!["/x".into()],
        }
    }

    #[test]
    fn every_digest_of_the_layout_is_that_of_its_blob() {
        let path = std::env::temp_dir().join(format!("eratrack-image-{}.tar", std::process::id()));
        image().write(&path).unwrap();
        let mut blobs = 0;
        for entry in tar::Archive::new(File::open(&path).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(expected) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(&bytes), format!("sha256:{expected}"));
                blobs += 1;
            }
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(blobs, 3);
    }

    #[test]
    fn the_same_files_make_the_same_layer() {
        assert_eq!(image().layer().unwrap(), image().layer().unwrap());
    }

    #[test]
    fn a_dynamically_linked_program_is_refused() {
        let error = static_program(&std::env::current_exe().unwrap()).unwrap_err();
        assert!(error.to_string().contains("linked statically"), "{error}");
    }
}
