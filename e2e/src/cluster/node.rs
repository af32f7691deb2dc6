//! A node: a guest with a network card, a container runtime and a kubelet.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::statvfs;

use super::{
    capture::Output,
    images,
    network::{CONTROL_PLANE, NAME_SERVICE, Network, NodeAddress},
    pki::Pki,
    shell::Shell,
};
use crate::{
    cleanup::{self, Leftover, Ticket},
    failure::Outcome,
    guest::{Config, Guest},
    paths, process,
};

/// The name of the first node.
pub(crate) const NAME: &str = "node1";
/// The name of the second node, which is there once a scenario has asked for it. Only pods of volumes that are there run on it.
pub(crate) const SECOND: &str = "node2";
/// The disk that the volume group lies on.
pub(crate) const LVM_DISK: &str = "/dev/ubdb";
/// A disk that all nodes of a cluster have, as those of a storage network are.
pub(crate) const SHARED_DISK: &str = "/dev/ubdc";
/// What a node runs at each boot before its kubelet, if it is there.
pub(crate) const AT_BOOT: &str = "/disk/at-boot";

/// Longer than any script here takes.
const DEADLINE: Duration = Duration::from_secs(120);
const MEMORY_MIB: u32 = 3072;
/// The second node has few pods.
const SECOND_MEMORY_MIB: u32 = 1536;
/// Sparse: what is not written takes no room.
const DISK_BYTES: u64 = 8 << 30;
const SHARED_DISK_BYTES: u64 = 1 << 30;
/// The guest's memory, what the scenarios write to its disks, and room for the rest of the machine.
const PLENTY_KIB: u64 = 12 << 20;

/// A node that runs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name in the cluster.
    pub(crate) name: &'static str,
    /// None while it is off.
    guest: Mutex<Option<Guest>>,
    config: Config,
    shell: Shell,
    _disks: Option<Ticket>,
}

/// What every node of a cluster is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) network: &'a Network,
    pub(super) pki: &'a Pki,
    pub(super) kubelet: &'a Path,
    /// The run's directory.
    pub(super) run: &'a Path,
    /// The images that a node has from the start.
    pub(super) images: &'a Path,
}

impl Node {
    /// Boots the node with that number, 1 or 2; its shell answers and its kubelet is on its way when this returns.
    pub(super) fn start(index: u8, around: Surroundings<'_>) -> Outcome<Self> {
        let (name, memory_mib) =
            if index == 1 { (NAME, MEMORY_MIB) } else { (SECOND, SECOND_MEMORY_MIB) };
        let place = NodeAddress { index };
        around.network.plug(place)?;
        around.pki.node(name, &place.address())?;
        let (directory, ticket) = place_for_disks(around.run)?;
        let disks = vec![disk(&directory, name, "files")?, disk(&directory, name, "lvm")?];
        let card = format!(
            "vec0:transport=tap,ifname={},depth=64,mac={},gro=1",
            place.tap(),
            place.hardware()
        );
        // Without the lock that keeps a second guest from it.
        let shared = format!("ubd2s={}", shared_disk(around.run)?.display());
        let config = Config {
            name: name.to_owned(),
            memory_mib,
            disks,
            kernel: vec![card, shared, "quiet".to_owned()],
            netns: Some(around.network.namespace().name().to_owned()),
            script: settings(name, place, around)? + include_str!("node.sh"),
        };
        let address: Ipv4Addr = place.address().parse()?;
        let shell = Shell::new(around.network.namespace().clone(), address, name);
        let node = Self { name, guest: Mutex::default(), config, shell, _disks: ticket };
        node.power_on()?;
        Ok(node)
    }

    /// Takes its power away: what its kernel had not written is lost.
    pub(crate) fn power_off(&self) {
        self.guest().take();
    }

    /// Boots it, with the disks that it had.
    pub(crate) fn power_on(&self) -> Outcome {
        let mut guest = Guest::boot(&self.config)?;
        until_answers(&mut guest, &self.shell)?;
        *self.guest() = Some(guest);
        Ok(())
    }

    fn guest(&self) -> MutexGuard<'_, Option<Guest>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a script as root on the node and expects success; its standard output.
    pub(crate) fn run(&self, script: &str) -> Outcome<String> {
        self.script(script)?.ok()
    }

    /// A script as it would be typed on the node.
    pub(crate) fn shown(&self, script: &str) -> String {
        self.shell.shown(script)
    }

    /// Runs a script as root on the node, whatever its end.
    pub(crate) fn script(&self, script: &str) -> Outcome<Output> {
        self.shell.script(script, "", DEADLINE)
    }

    /// Makes an image of a file on this machine known to the node's container runtime.
    pub(crate) fn import(&self, image: &Path) -> Outcome {
        self.run(&format!("ctr -n k8s.io images import '{}'", image.display())).map(drop)
    }

    /// The last lines of what kernel, init, container runtime and kubelet have said.
    pub(super) fn logs(&self, lines: usize) -> String {
        let (name, guest) = (self.name, self.guest());
        let Some(guest) = guest.as_ref() else { return format!("--- {name} is off\n") };
        let share = guest.share();
        let part = |file: &str| {
            let text = fs::read(share.join(file)).unwrap_or_default();
            let tail = process::tail(&String::from_utf8_lossy(&text), lines);
            format!("--- {name}: {file}\n{tail}\n")
        };
        let kernel = format!("--- {name}: kernel\n{}\n", guest.console(lines));
        LOGS.map(part).concat() + &kernel
    }

    /// Copies those logs, for after its end.
    pub(super) fn keep_logs(&self) {
        let guest = self.guest();
        let Some(share) = guest.as_ref().map(Guest::share) else { return };
        for file in LOGS {
            let target = paths::logs().join(format!("{}.{file}", self.name));
            // A log that cannot be kept must not hide the failure that it is to explain.
            let _ = fs::copy(share.join(file), target);
        }
    }
}

const LOGS: [&str; 4] = ["init.log", "shell.log", "containerd.log", "kubelet.log"];

/// The lines before node.sh.
fn settings(name: &str, place: NodeAddress, around: Surroundings<'_>) -> Outcome<String> {
    let pki = around.pki.file("").display().to_string();
    let settings = [
        ("NODE", name.to_owned()),
        (
            "TAINTS",
            if name == NAME { "[]" } else { "[{key: e2e/second, effect: NoSchedule}]" }.to_owned(),
        ),
        ("ADDRESS", place.address()),
        ("GATEWAY", CONTROL_PLANE.to_owned()),
        ("PODS", place.pods()),
        ("DNS", NAME_SERVICE.to_owned()),
        ("PAUSE", images::PAUSE.to_owned()),
        ("IMAGES", around.images.display().to_string()),
        ("PKI", pki.trim_end_matches('/').to_owned()),
        ("KUBELET", around.kubelet.display().to_string()),
        ("HARNESS", paths::program()?.display().to_string()),
    ];
    let lines: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
    Ok(lines.concat())
}

fn disk(directory: &Path, node: &str, name: &str) -> Outcome<PathBuf> {
    let path = directory.join(format!("{node}-{name}.img"));
    File::create(&path)?.set_len(DISK_BYTES)?;
    Ok(path)
}

/// The disk that all nodes have; made by the first.
fn shared_disk(run: &Path) -> Outcome<PathBuf> {
    let path = run.join("shared.img");
    if !path.exists() {
        File::create(&path)?.set_len(SHARED_DISK_BYTES)?;
    }
    Ok(path)
}

/// Where the disks are. In memory if there is plenty: every flush of the guest is an fsync of the whole file, which on a
/// real disk makes each application wait for what all the others have written.
fn place_for_disks(run: &Path) -> Outcome<(PathBuf, Option<Ticket>)> {
    let memory = Path::new("/dev/shm");
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if available_kib(&meminfo) < PLENTY_KIB || !has_room(memory) {
        return Ok((run.to_owned(), None));
    }
    let name = run.file_name().ok_or("a run's directory has a name")?;
    let directory = memory.join(name);
    fs::create_dir_all(&directory)?;
    let ticket = cleanup::defer(Leftover::Directory(directory.clone()));
    Ok((directory, Some(ticket)))
}

/// Whether a file system takes what the guest may write to its disks. Containers often have a tiny one there.
fn has_room(directory: &Path) -> bool {
    statvfs(directory).is_ok_and(|it| it.f_bavail * it.f_frsize >= DISK_BYTES)
}

/// `MemAvailable` of /proc/meminfo (proc.5).
fn available_kib(meminfo: &str) -> u64 {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

fn until_answers(guest: &mut Guest, shell: &Shell) -> Outcome {
    let answered = crate::wait::until_ok("the node's shell", Duration::from_secs(180), || {
        match guest.has_ended() {
            // Nothing to wait for: told by the error below.
            Ok(true) => Ok(false),
            _ => shell.script("true", "", Duration::from_secs(5)).map(|_| true),
        }
    })?;
    if answered {
        return Ok(());
    }
    Err(format!("the node's kernel ended; its console says:\n{}", guest.console(40)).into())
}

#[cfg(test)]
mod tests {
    use super::available_kib;

    #[test]
    fn the_available_memory_is_read() {
        let text = "MemTotal:       24683656 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(available_kib(text), 20_000_000);
        assert_eq!(available_kib(""), 0);
    }
}
