//! The Debian packages that the harness and the build need. Only those that are missing are installed, without what
//! they merely recommend, and no daemon that one of them brings is started.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::geteuid;

use crate::{
    cleanup::{self, Leftover, Ticket},
    paths, process, progress,
};

/// A package and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Package {
    name: &'static str,
    purpose: &'static str,
}

const fn package(name: &'static str, purpose: &'static str) -> Package {
    Package { name, purpose }
}

const PACKAGES: &[Package] = &[
    package("busybox-static", "the programs in the test application's image"),
    package("ca-certificates", "fetching Go modules and crates"),
    package("containerd", "runs the pods of a node"),
    package("containernetworking-plugins", "connects the pods of a node"),
    package("curl", "asks the API server whether it is ready"),
    package("dmsetup", "shows device-mapper tables; what our ioctls are compared with"),
    package("e2fsprogs", "ext4 in tests"),
    package("etcd-server", "the cluster's store"),
    package("ethtool", "sets up the bridge between the nodes"),
    package("fio", "load in tests and benchmarks"),
    package("gcc", "links Rust programs"),
    package("iproute2", "network namespaces"),
    package("jq", "the example client of docs/for-backup-vendors.md"),
    package("kmod", "loads modules in a guest"),
    package("libc6-dev", "static linking of the binary that goes into the image"),
    package("libclang-dev", "building the device-mapper bindings"),
    package("libdevmapper-dev", "building the device-mapper bindings"),
    package("lvm2", "volumes in tests, and what must go on working beside us"),
    package("openssl", "the cluster's certificates"),
    package("pkg-config", "building the device-mapper bindings"),
    package("procps", "sysctl, for the cluster's network"),
    package("runc", "starts the containers of a node"),
    package(
        "thin-provisioning-tools",
        "era_dump and era_invalidate, what our reader is compared with; thin pools",
    ),
    package("udev", "the tests that prove our devices hidden from it"),
    package("user-mode-linux", "a real kernel with dm-era, run as a process"),
    package("xfsprogs", "XFS in tests"),
    package("xz-utils", "the compressed fixtures of on-disk metadata"),
];

/// What one benchmark alone needs.
const VALGRIND: &[Package] = &[package("valgrind", "counts instructions in a benchmark")];

/// Services that these packages would have the machine start at its next boot.
const SERVICES: &[(&str, &str)] = &[
    ("containerd", "containerd.service"),
    ("etcd-server", "etcd.service"),
    ("lvm2", "lvm2-monitor.service"),
    ("lvm2", "lvm2-lvmpolld.socket"),
    ("lvm2", "blk-availability.service"),
];

/// Why packages are still missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// They could be installed, but not by us.
    #[error(
        "{why}; what is missing:\n{list}\ninstall it with:\n  apt-get update && apt-get install --no-install-recommends {names}"
    )]
    NotByUs {
        /// Why not.
        why: &'static str,
        /// Each with its purpose.
        list: String,
        /// For the command line.
        names: String,
    },
    /// `apt-get` failed.
    #[error("`apt-get {action}` ended with {status}:\n{output}")]
    Apt {
        /// What it was to do.
        action: String,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said.
        output: String,
    },
    /// A file or program on the way.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Another program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
}

/// Installs what is missing.
pub(crate) fn ensure() -> Result<(), Error> {
    ensure_all(PACKAGES)
}

/// Installs what counts instructions, if it is missing.
pub(crate) fn ensure_valgrind() -> Result<(), Error> {
    ensure_all(VALGRIND)
}

fn ensure_all(wanted: &[Package]) -> Result<(), Error> {
    let missing = missing(wanted, &installed()?);
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(not_by_us("this machine has no apt", &missing));
    }
    if !geteuid().is_root() {
        return Err(not_by_us("packages are missing, and only root can install them", &missing));
    }
    println!("installing Debian packages that are missing:\n{}", list(&missing));
    let _ticket = forbid_daemons()?;
    let log = log()?;
    progress::step("reading the lists of packages", || apt(&["update".to_owned()], &log))?;
    let mut install: Vec<String> =
        ["install", "--yes", "--no-install-recommends"].map(str::to_owned).to_vec();
    install.extend(missing.iter().map(|it| it.name.to_owned()));
    progress::step(&format!("installing {} packages", missing.len()), || apt(&install, &log))?;
    disable_services(&missing);
    Ok(())
}

fn missing(wanted: &[Package], installed: &BTreeSet<String>) -> Vec<Package> {
    wanted.iter().filter(|it| !installed.contains(it.name)).copied().collect()
}

/// The names of the installed packages; none where there is no dpkg.
fn installed() -> Result<BTreeSet<String>, Error> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        return Ok(BTreeSet::new());
    }
    let text = process::output(Command::new("dpkg-query").args([
        "-W",
        "-f",
        "${Package} ${db:Status-Status}\\n",
    ]))?;
    Ok(parse_installed(&text))
}

fn parse_installed(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

fn not_by_us(why: &'static str, missing: &[Package]) -> Error {
    let names = missing.iter().map(|it| it.name).collect::<Vec<_>>().join(" ");
    Error::NotByUs { why, list: list(missing), names }
}

fn list(packages: &[Package]) -> String {
    packages
        .iter()
        .map(|it| format!("  {:28} {}", it.name, it.purpose))
        .collect::<Vec<_>>()
        .join("\n")
}

/// For as long as the ticket lives, packages may not start services: Debian's own way to say so.
fn forbid_daemons() -> Result<Option<Ticket>, Error> {
    let policy = PathBuf::from("/usr/sbin/policy-rc.d");
    let made = File::options().write(true).create_new(true).mode(0o755).open(&policy);
    match made {
        // The machine has its own policy.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(source) => Err(Error::Io { action: format!("write {}", policy.display()), source }),
        Ok(mut file) => {
            let ticket = cleanup::defer(Leftover::File(policy.clone()));
            let written = file.write_all(b"#!/bin/sh\nexit 101\n");
            written.map_err(|source| Error::Io {
                action: format!("write {}", policy.display()),
                source,
            })?;
            Ok(Some(ticket))
        }
    }
}

fn log() -> Result<PathBuf, Error> {
    let made = fs::create_dir_all(paths::logs());
    made.map_err(|source| Error::Io {
        action: format!("create {}", paths::logs().display()),
        source,
    })?;
    Ok(paths::logs().join("apt.log"))
}

/// Not to be interrupted: a package left half configured is worse than a wait.
fn apt(arguments: &[String], log: &Path) -> Result<(), Error> {
    let action = arguments.join(" ");
    let failed = |source| Error::Io { action: format!("run apt-get {action}"), source };
    let file = File::create(log).map_err(failed)?;
    let errors = file.try_clone().map_err(failed)?;
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0", "--quiet"])
        .args(arguments);
    command.envs([
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("NEEDRESTART_SUSPEND", "1"),
        ("LC_ALL", "C.UTF-8"),
    ]);
    command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
    let status = cleanup::undisturbed(|| command.status()).map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let output = process::tail(&fs::read_to_string(log).unwrap_or_default(), 30);
    Err(Error::Apt { action, status, output })
}

/// We need the programs, not the services. Where no systemd runs there is nothing to do.
fn disable_services(packages: &[Package]) {
    // Also where systemd is not running now, as when an image is built: it may be at the next boot.
    if !Path::new("/usr/bin/systemctl").exists() {
        return;
    }
    let brought = |package: &str| packages.iter().any(|it| it.name == package);
    for (_, service) in SERVICES.iter().filter(|(package, _)| brought(package)) {
        if let Err(error) = process::run(
            Command::new("systemctl").args(["--root=/", "disable", "--quiet", service]),
        ) {
            eprintln!("warning: {service} will start at the next boot: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wholly_installed_counts() {
        let text = "fio installed\nlvm2 config-files\nrunc not-installed\nkmod half-configured\n";
        assert_eq!(parse_installed(text), BTreeSet::from(["fio".to_owned()]));
    }

    #[test]
    fn what_is_missing_is_what_is_not_installed() {
        let all_but_fio =
            PACKAGES.iter().map(|it| it.name.to_owned()).filter(|name| name != "fio").collect();
        assert_eq!(
            missing(PACKAGES, &all_but_fio).iter().map(|it| it.name).collect::<Vec<_>>(),
            ["fio"]
        );
        assert_eq!(missing(PACKAGES, &BTreeSet::new()).len(), PACKAGES.len());
    }

    #[test]
    fn packages_are_sorted_and_named_once() {
        assert!(PACKAGES.is_sorted_by(|a, b| a.name < b.name));
        assert!(SERVICES.iter().all(|(name, _)| PACKAGES.iter().any(|it| it.name == *name)));
    }

    #[test]
    fn who_cannot_install_is_told_the_exact_command() {
        let text = not_by_us("no apt", &PACKAGES[..2]).to_string();
        assert!(
            text.ends_with(
                "apt-get install --no-install-recommends busybox-static ca-certificates"
            ),
            "{text}"
        );
        assert!(text.contains("busybox-static               the programs"), "{text}");
    }
}
