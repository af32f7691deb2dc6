//! The network of one run: a namespace of its own, with a bridge for the nodes and addresses from the ranges that are
//! reserved for documentation and for benchmarks, so that nothing of the machine can be meant or reached.

use std::{
    ffi::OsStr,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    cleanup::{self, Leftover, Ticket},
    failure::Outcome,
    process,
};

/// The control plane, seen from nodes and pods.
pub(crate) const CONTROL_PLANE: &str = "198.51.100.1";
/// The services' range; without a service proxy only its first address answers.
pub(crate) const SERVICES: &str = "198.51.101.0/24";
/// The service `kubernetes.default`: an address of the bridge itself, so that no proxy is needed.
pub(crate) const KUBERNETES_SERVICE: &str = "198.51.101.1";
/// Where a cluster's name service would be; there is none here.
pub(crate) const NAME_SERVICE: &str = "198.51.101.10";

const NAMESPACES: &str = "/run/netns";

/// A network namespace by its name.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
    number: u32,
}

impl Namespace {
    /// Its name, as `ip netns` knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Which of this run's it is, from 0.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// The file through which a thread can enter it.
    pub(crate) fn file(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(&self.name)
    }

    fn ip(&self, arguments: &[&str]) -> Outcome {
        process::run(Command::new("ip").args(["-n", &self.name]).args(arguments))?;
        Ok(())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        process::run(self.command(program).args(arguments))?;
        Ok(())
    }
}

/// Where a node is in the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeAddress {
    /// 1 for the first node.
    pub(crate) index: u8,
}

impl NodeAddress {
    /// The node's own address.
    pub(crate) fn address(self) -> String {
        format!("198.51.100.{}", 10 + self.index)
    }

    /// The range of the node's pods.
    pub(crate) fn pods(self) -> String {
        format!("198.18.{}.0/24", self.index)
    }

    /// The tap device that the node's network card is.
    pub(crate) fn tap(self) -> String {
        format!("tap{}", self.index)
    }

    /// Its hardware address, from the range that is locally administered.
    pub(crate) fn hardware(self) -> String {
        format!("52:54:00:00:00:{:02x}", 0x10 + self.index)
    }
}

/// The network while it is there; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    namespace: Namespace,
    /// Ended in this order.
    _tickets: (Ticket, Option<Ticket>),
}

impl Network {
    /// Makes the namespace, named after this process so that runs do not meet, and the bridge in it.
    pub(crate) fn create() -> Outcome<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace =
            Namespace { name: format!("eratrack-{}-{number}", std::process::id()), number };
        let mount = mount_of_all()?;
        process::run(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        let ticket = cleanup::defer(Leftover::Netns(namespace.name.clone()));
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.ip(&["link", "add", "br0", "type", "bridge"])?;
        for address in [format!("{CONTROL_PLANE}/24"), format!("{KUBERNETES_SERVICE}/32")] {
            namespace.ip(&["address", "add", &address, "dev", "br0"])?;
        }
        namespace.ip(&["link", "set", "br0", "up"])?;
        without_offloads(&namespace, "br0")?;
        namespace.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
        Ok(Self { namespace, _tickets: (ticket, mount) })
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs a node in: its tap device, and the way to its pods.
    pub(crate) fn plug(&self, node: NodeAddress) -> Outcome {
        let tap = node.tap();
        self.namespace.ip(&["tuntap", "add", &tap, "mode", "tap"])?;
        self.namespace.ip(&["link", "set", &tap, "master", "br0", "up"])?;
        without_offloads(&self.namespace, &tap)?;
        self.namespace.ip(&["route", "add", &node.pods(), "via", &node.address()])
    }
}

/// Where `ip netns` keeps its namespaces. It makes that a mount; where none was before, none shall be afterwards.
fn mount_of_all() -> Outcome<Option<Ticket>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let is_mounted = mounts.lines().any(|line| line.split(' ').nth(4) == Some(NAMESPACES));
    Ok((!is_mounted).then(|| cleanup::defer(Leftover::EmptyMount(NAMESPACES.into()))))
}

/// A User-Mode Linux card knows no large or unsummed packets: it warns without end.
fn without_offloads(namespace: &Namespace, device: &str) -> Outcome {
    namespace.run("ethtool", &["-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_addresses_of_their_own() {
        let (one, two) = (NodeAddress { index: 1 }, NodeAddress { index: 2 });
        assert_eq!(one.address(), "198.51.100.11");
        assert_eq!(two.pods(), "198.18.2.0/24");
        assert_ne!(one.hardware(), two.hardware());
    }
}
