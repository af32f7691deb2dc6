//! A real control plane and a node in a guest.
//!
//! network → certificates → control plane → node → ready. Each part ends when it is dropped, and by the journal of
//! `cleanup` whatever happens.

mod capture;
mod control_plane;
mod helm;
mod images;
mod kubectl;
mod network;
mod node;
mod pki;
mod product;
mod shell;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

#[allow(unused_imports, reason = "what scenarios are written with")]
pub(crate) use self::{
    capture::Output,
    helm::Helm,
    kubectl::{Kubectl, condition},
    node::{LVM_DISK, Node},
    product::{NAMESPACE, Product},
    shell::serve as serve_node_shell,
};
use self::{control_plane::ControlPlane, network::Network, pki::Pki};
use crate::{
    cleanup::{self, Leftover, Ticket},
    failure::Outcome,
    paths, progress,
};

/// A cluster of one node. It ends when this is dropped, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Cluster {
    node: Node,
    _control_plane: ControlPlane,
    network: Network,
    kubectl: Kubectl,
    run: PathBuf,
    _directory: Ticket,
}

impl Cluster {
    /// Starts everything and waits until the node is ready.
    pub(crate) fn start() -> Outcome<Self> {
        let run = paths::cache().join("clusters").join(std::process::id().to_string());
        fs::create_dir_all(&run)?;
        let directory = cleanup::defer(Leftover::Directory(run.clone()));
        let logs = paths::logs();
        fs::create_dir_all(&logs)?;
        let images = run.join("images");
        images::write_pause(&images)?;
        let (network, pki, kubectl, control_plane) =
            progress::step("starting etcd, API server, controller manager, scheduler", || {
                start_control_plane(&run, &logs)
            })?;
        let node =
            progress::step("booting node1: a kernel with dm-era, containerd, kubelet", || {
                let node = Node::start(&network, &pki, &kubectl.kube, &run, &images)?;
                until_ready(&kubectl).map_err(|error| format!("{error}\n{}", node.logs(15)))?;
                Outcome::Ok(node)
            })?;
        Ok(Self {
            node,
            _control_plane: control_plane,
            network,
            kubectl,
            run,
            _directory: directory,
        })
    }

    /// kubectl as the cluster's administrator.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// helm as the cluster's administrator.
    pub(crate) fn helm(&self) -> Helm {
        Helm::new(self.network.namespace().clone(), &self.kubectl.kubeconfig, &self.run)
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// A directory of this run, gone at its end.
    pub(crate) fn directory(&self) -> &Path {
        &self.run
    }

    /// How a user can reach the cluster from a shell of this machine.
    pub(crate) fn how_to_use(&self) -> String {
        let (name, kube) = (self.network.namespace().name(), self.kubectl.kube.display());
        format!(
            "export KUBECONFIG={}\nalias kubectl='ip netns exec {name} {kube} kubectl'\nkubectl get evol -A\n",
            self.kubectl.kubeconfig.display()
        )
    }

    /// What the node and the pods have said lately, for the report of a failure; also kept among the logs.
    pub(crate) fn diagnosis(&self) -> String {
        let kubectl = |arguments: &[&str]| match self.kubectl.kubectl(arguments, None) {
            Ok(output) => format!("--- {}\n{}{}", output.command, output.stdout, output.stderr),
            Err(error) => format!("--- {error}\n"),
        };
        let looks: &[&[&str]] = &[
            &["get", "pods,pvc,pv", "-A", "-o", "wide"],
            &["get", "eratrack", "-A", "-o", "yaml", "--ignore-not-found"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "-n",
                NAMESPACE,
                "-l",
                "app.kubernetes.io/name=eratrack",
                "--tail=40",
                "--prefix",
                "--all-containers",
            ],
        ];
        let mut text: String = looks.iter().map(|arguments| kubectl(arguments)).collect();
        if let Ok(devices) = self
            .node
            .script("dmsetup ls --tree; dmsetup table; dmsetup info -c; losetup -l; lvs -a")
        {
            text += &format!("--- {}\n{}{}", devices.command, devices.stdout, devices.stderr);
        }
        text += &self.node.logs(25);
        self.keep_logs();
        text
    }

    /// The node's own logs beside the others, for after its end.
    fn keep_logs(&self) {
        for name in ["init.log", "containerd.log", "kubelet.log"] {
            let target = paths::logs().join(format!("{}.{name}", node::NAME));
            // A log that cannot be kept must not hide the failure that it is to explain.
            let _ = fs::copy(self.node.share().join(name), target);
        }
    }
}

fn start_control_plane(run: &Path, logs: &Path) -> Outcome<(Network, Pki, Kubectl, ControlPlane)> {
    let network = Network::create()?;
    let pki = Pki::create(run.join("pki"))?;
    let kube = paths::cache().join("bin/kube");
    let kubectl = Kubectl {
        network: network.namespace().clone(),
        kube: kube.clone(),
        kubeconfig: pki.file("admin.kubeconfig"),
        home: run.to_owned(),
        namespace: None,
        identity: Vec::new(),
    };
    let control_plane = ControlPlane::start(network.namespace(), &kube, &pki, run, logs)?;
    Ok((network, pki, kubectl, control_plane))
}

fn until_ready(kubectl: &Kubectl) -> Outcome {
    let node = format!("node/{}", node::NAME);
    kubectl.until_condition(&node, "Ready", "True", Duration::from_secs(120))?;
    // Made by the controller manager; a pod without it is refused.
    kubectl.until("serviceaccount/default", "to exist", Duration::from_secs(30), |_| Ok(()))
}

/// The cluster that the scenarios of one run share, with eratrack installed; started by the first that asks.
pub(crate) fn shared() -> Outcome<&'static Cluster> {
    static SHARED: Mutex<Option<&'static Cluster>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = *shared {
        return Ok(cluster);
    }
    // Leaked, so that every scenario can borrow it: the registry of `cleanup` ends it with the run.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start()?));
    *shared = Some(cluster);
    Ok(cluster)
}
