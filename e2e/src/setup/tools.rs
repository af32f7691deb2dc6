//! Kubernetes and Helm, built from Go modules at the versions that `e2e/go` pins, and kept until those change.

use std::{
    fs::{self, File},
    io,
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

/// Builds what is not built yet. One at a time: others who need it wait, and then find it.
pub(crate) fn ensure() -> Outcome<Tools> {
    let tools = paths::cache().join("tools");
    fs::create_dir_all(&tools)?;
    let lock = File::create(tools.join("lock"))?;
    lock.lock()?;
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

/// Go as new as all of our modules ask for, so that not the second build fails after the first.
fn go_is_there() -> Outcome {
    let modules = ["kubernetes", "helm"].map(|it| paths::workspace().join("e2e/go").join(it));
    let needed = modules.iter().map(|it| asked_for(&read(&it.join("go.mod"))?));
    let needed = needed.collect::<Outcome<Vec<_>>>()?.into_iter().max().unwrap_or_default();
    let wanted =
        format!("{}.{} or newer is needed to build Kubernetes and Helm", needed.0, needed.1);
    let version = process::output(Command::new("go").args(["env", "GOVERSION"]))
        .map_err(|_| format!("Go is not on the PATH: {wanted}"))?;
    // A toolchain that cannot tell its version, such as one built from source, is taken as it is.
    match go_version(version.trim().trim_start_matches("go")) {
        Some(found) if found < needed => {
            Err(format!("Go is {}.{}: {wanted}", found.0, found.1).into())
        }
        _ => Ok(()),
    }
}

/// The version of Go that a go.mod asks for.
fn asked_for(text: &str) -> Outcome<(u32, u32)> {
    let line = text.lines().find_map(|line| line.strip_prefix("go "));
    line.and_then(go_version).ok_or_else(|| "a go.mod without a line `go 1.x`".into())
}

fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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
    fn go_must_be_as_new_as_the_newest_module_asks_for() {
        assert_eq!(asked_for("module x\n\ngo 1.26.0\n").unwrap(), (1, 26));
        assert_eq!(go_version("1.26.8"), Some((1, 26)));
        assert_eq!(go_version("devel"), None);
        assert!(asked_for("module x\n").is_err());
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
