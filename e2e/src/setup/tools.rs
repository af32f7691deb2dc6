//! Kubernetes and Helm, built from Go modules at the versions that `e2e/go` pins, and kept until those change.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{failure::Outcome, paths, process, progress};

/// The components that the one Kubernetes program can be, by the name it is called by.
const COMPONENTS: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"];

/// Where the built programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The directory of `kube-apiserver`, `kubelet`, `kubectl`, …
    pub(crate) kube: PathBuf,
    /// The directory of `helm`.
    pub(crate) helm: PathBuf,
}

impl Tools {
    /// A component of Kubernetes, `kubectl` among them.
    pub(crate) fn component(&self, name: &str) -> PathBuf {
        self.kube.join(name)
    }

    /// Helm.
    pub(crate) fn helm(&self) -> PathBuf {
        self.helm.join("helm")
    }
}

/// Builds what is not built yet.
pub(crate) fn ensure() -> Outcome<Tools> {
    let kube = kubernetes()?.ensure()?;
    let helm = helm()?.ensure()?;
    Ok(Tools { kube, helm })
}

/// One Go program to build.
struct Module {
    name: &'static str,
    what: String,
    /// Where its go.mod is.
    source: PathBuf,
    package: &'static str,
    linker: String,
    /// Further names of the program.
    links: &'static [&'static str],
}

fn kubernetes() -> Outcome<Module> {
    let source = paths::workspace().join("e2e/go/kubernetes");
    let version = pinned(&read(&source.join("go.mod"))?, "k8s.io/kubernetes")?;
    Ok(Module {
        name: "kube",
        what: format!("Kubernetes {version} (once: about 5 minutes on two cores)"),
        source,
        package: ".",
        linker: format!("-s -w -X k8s.io/component-base/version.gitVersion={version}"),
        links: COMPONENTS,
    })
}

fn helm() -> Outcome<Module> {
    let source = paths::workspace().join("e2e/go/helm");
    let version = pinned(&read(&source.join("go.mod"))?, "helm.sh/helm/v4")?;
    Ok(Module {
        name: "helm",
        what: format!("Helm {version} (once: about 2 minutes on two cores)"),
        source,
        package: "helm.sh/helm/v4/cmd/helm",
        linker: "-s -w".to_owned(),
        links: &[],
    })
}

impl Module {
    /// The directory with the program in it, built if need be.
    fn ensure(&self) -> Outcome<PathBuf> {
        let tools = paths::cache().join("tools");
        let directory = tools.join(format!("{}-{}", self.name, self.key()?));
        if !directory.exists() {
            fs::create_dir_all(&tools)?;
            go_is_there()?;
            progress::step(&format!("building {}", self.what), || self.build(&directory))?;
            forget_others(&tools, self.name, &directory)?;
        }
        Ok(directory)
    }

    /// What decides the program: its sources and how it is linked.
    fn key(&self) -> Outcome<String> {
        let mut digest = Sha256::new();
        digest.update(&self.linker);
        for file in sources(&self.source)? {
            digest.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            digest.update(fs::read(&file)?);
        }
        let start = digest
            .finalize()
            .iter()
            .take(8)
            .fold(0_u64, |start, &byte| start << 8 | u64::from(byte));
        Ok(format!("{start:016x}"))
    }

    fn build(&self, directory: &Path) -> Outcome {
        let unfinished = directory.with_extension("unfinished");
        gone(fs::remove_dir_all(&unfinished))?;
        fs::create_dir_all(&unfinished)?;
        let mut go = Command::new("go");
        go.current_dir(&self.source).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
        go.args(["build", "-trimpath", "-ldflags", &self.linker, "-o"])
            .arg(unfinished.join(self.name))
            .arg(self.package);
        process::run(&mut go)?;
        for link in self.links {
            symlink(self.name, unfinished.join(link))?;
        }
        Ok(fs::rename(unfinished, directory)?)
    }
}

fn go_is_there() -> Outcome {
    let asked = process::run(Command::new("go").arg("version"));
    asked.map_err(|_| "Go is needed to build Kubernetes and is not on the PATH: get 1.25 or newer from go.dev/dl".into())
}

/// The version of a module that a go.mod requires.
fn pinned(text: &str, module: &str) -> Outcome<String> {
    let required = |line: &str| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned)).flatten()
    };
    text.lines()
        .find_map(required)
        .ok_or_else(|| format!("the go.mod that should require {module} does not").into())
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn sources(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> =
        entries.iter().map(fs::DirEntry::path).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// Removes what earlier versions were built to.
fn forget_others(tools: &Path, name: &str, current: &Path) -> io::Result<()> {
    let prefix = format!("{name}-");
    for entry in fs::read_dir(tools)?.flatten() {
        if entry.path() != current && entry.file_name().to_string_lossy().starts_with(&prefix) {
            gone(fs::remove_dir_all(entry.path()))?;
        }
    }
    Ok(())
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    result
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_module_files() {
        let text = "module x\n\nrequire k8s.io/kubernetes v1.35.4\n\nrequire (\n\thelm.sh/helm/v4 v4.3.1 // indirect\n)\n";
        assert_eq!(pinned(text, "k8s.io/kubernetes").unwrap(), "v1.35.4");
        assert_eq!(pinned(text, "helm.sh/helm/v4").unwrap(), "v4.3.1");
        assert!(pinned(text, "k8s.io/api").is_err());
    }

    #[test]
    fn the_modules_of_this_workspace_pin_what_is_built() {
        assert!(kubernetes().unwrap().what.starts_with("Kubernetes v1."));
        assert!(helm().unwrap().what.starts_with("Helm v4."));
    }

    #[test]
    fn the_key_changes_with_the_linker_flags_and_only_with_what_matters() {
        let module = helm().unwrap();
        let other = Module { linker: "-s".to_owned(), ..helm().unwrap() };
        assert_eq!(module.key().unwrap(), helm().unwrap().key().unwrap());
        assert_ne!(module.key().unwrap(), other.key().unwrap());
    }
}
