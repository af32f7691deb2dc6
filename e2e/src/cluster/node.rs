//! A node: a guest with a network card, a container runtime and a kubelet.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
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
/// The disk that the volume group lies on.
pub(crate) const LVM_DISK: &str = "/dev/ubdb";

/// Longer than any script here takes.
const DEADLINE: Duration = Duration::from_secs(120);
const MEMORY_MIB: u32 = 3072;
/// Sparse: what is not written takes no room.
const DISK_BYTES: u64 = 8 << 30;
/// The guest's memory, what the scenarios write to its disks, and room for the rest of the machine.
const PLENTY_KIB: u64 = 12 << 20;

/// A node that runs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    guest: Guest,
    shell: Shell,
    _disks: Option<Ticket>,
}

impl Node {
    /// Boots the node; its shell answers and its kubelet is on its way when this returns.
    pub(super) fn start(
        network: &Network,
        pki: &Pki,
        kubelet: &Path,
        run: &Path,
        images: &Path,
    ) -> Outcome<Self> {
        let place = NodeAddress { index: 1 };
        network.plug(place)?;
        pki.node(NAME, &place.address())?;
        let (directory, ticket) = place_for_disks(run)?;
        let disks = vec![disk(&directory, "files")?, disk(&directory, "lvm")?];
        let settings = [
            ("NODE", NAME.to_owned()),
            ("ADDRESS", place.address()),
            ("GATEWAY", CONTROL_PLANE.to_owned()),
            ("PODS", place.pods()),
            ("DNS", NAME_SERVICE.to_owned()),
            ("PAUSE", images::PAUSE.to_owned()),
            ("IMAGES", images.display().to_string()),
            ("PKI", pki.file("").display().to_string().trim_end_matches('/').to_owned()),
            ("KUBELET", kubelet.display().to_string()),
            ("HARNESS", paths::program()?.display().to_string()),
        ];
        let settings: Vec<String> =
            settings.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        let card = format!(
            "vec0:transport=tap,ifname={},depth=64,mac={},gro=1",
            place.tap(),
            place.hardware()
        );
        let mut guest = Guest::boot(&Config {
            name: NAME.to_owned(),
            memory_mib: MEMORY_MIB,
            disks,
            kernel: vec![card, "quiet".to_owned()],
            netns: Some(network.namespace().name().to_owned()),
            script: settings.concat() + include_str!("node.sh"),
        })?;
        let address: Ipv4Addr = place.address().parse()?;
        let shell = Shell::new(network.namespace().clone(), address, NAME);
        until_answers(&mut guest, &shell)?;
        Ok(Self { guest, shell, _disks: ticket })
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
        let share = self.guest.share();
        let part = |name: &str| {
            let text = fs::read(share.join(name)).unwrap_or_default();
            let tail = process::tail(&String::from_utf8_lossy(&text), lines);
            format!("--- {NAME}: {name}\n{tail}\n")
        };
        let files = ["init.log", "shell.log", "containerd.log", "kubelet.log"];
        let kernel = format!("--- {NAME}: kernel\n{}\n", self.guest.console(lines));
        files.map(part).concat() + &kernel
    }

    /// Where those logs are while the node runs.
    pub(super) fn share(&self) -> PathBuf {
        self.guest.share()
    }
}

fn disk(directory: &Path, name: &str) -> Outcome<PathBuf> {
    let path = directory.join(format!("{NAME}-{name}.img"));
    File::create(&path)?.set_len(DISK_BYTES)?;
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
