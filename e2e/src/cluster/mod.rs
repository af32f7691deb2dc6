//! A real control plane and a node in a guest.
//!
//! network → certificates → control plane → node → ready. Each part ends when it is dropped, and by the journal of
//! `cleanup` whatever happens.

mod application;
mod audit;
mod capture;
mod control_plane;
mod file_map;
mod follow;
mod helm;
mod images;
mod kubectl;
mod network;
mod node;
mod pki;
mod product;
mod replica;
mod shell;
mod storage;
mod waiting;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

#[allow(unused_imports, reason = "what scenarios are written with")]
pub(crate) use self::{
    application::{Application, Incarnation},
    audit::{Audit, Request, Requests},
    capture::Output,
    control_plane::{CLIENTS as ETCD, Nodes},
    file_map::device_places,
    helm::Helm,
    images::hex_digest,
    kubectl::Kubectl,
    node::{AT_BOOT, LVM_DISK, Node, SECOND, SHARED_DISK},
    product::{NAMESPACE, Product, install_arguments, static_program},
    replica::{Blocks, Range, Replica},
    shell::serve as serve_node_shell,
    storage::{Volume, create_group, ensure_group, left_on_node},
    waiting::condition,
};
use self::{control_plane::ControlPlane, network::Network, node::Surroundings, pki::Pki};
use crate::{
    cleanup::{self, Leftover, Ticket},
    failure::Outcome,
    paths, progress,
    setup::{self, Tools},
};

/// A control plane without nodes: enough for whatever is a matter of the API server alone. It ends when this is dropped,
/// in the order of the fields.
#[derive(Debug)]
pub(crate) struct Control {
    plane: ControlPlane,
    network: Network,
    pki: Pki,
    kubectl: Kubectl,
    helm: Helm,
    audit: Audit,
    run: PathBuf,
    logs: PathBuf,
    _directory: Ticket,
}

impl Control {
    /// Starts etcd, the API server, the controller manager and the scheduler in a network of their own.
    pub(crate) fn start(tools: &Tools) -> Outcome<Self> {
        Self::start_for(tools, Nodes::Machines)
    }

    /// The same, for nodes of this kind.
    pub(crate) fn start_for(tools: &Tools, nodes: Nodes) -> Outcome<Self> {
        let network = Network::create()?;
        let run = paths::cache().join("clusters").join(network.namespace().name());
        fs::create_dir_all(&run)?;
        let directory = cleanup::defer(Leftover::Directory(run.clone()));
        // Each cluster's own: those that run at the same time would write over each other.
        let logs = paths::logs().join(format!("cluster{}", network.namespace().number()));
        fs::create_dir_all(&logs)?;
        let pki = Pki::create(run.join("pki"))?;
        let kubectl = Kubectl {
            network: network.namespace().clone(),
            program: tools.component("kubectl"),
            kubeconfig: pki.file("admin.kubeconfig"),
            home: run.clone(),
            namespace: None,
            identity: Vec::new(),
        };
        let helm = Helm::new(network.namespace().clone(), tools.helm(), &kubectl.kubeconfig, &run);
        let audit = Audit::prepare(&run, &logs)?;
        let plane =
            ControlPlane::start(network.namespace(), tools, &pki, &audit, (&run, &logs), nodes)?;
        Ok(Self { plane, network, pki, kubectl, helm, audit, run, logs, _directory: directory })
    }

    /// kubectl as the cluster's administrator.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Boots a node and waits until it is ready.
    fn node(&self, index: u8, kubelet: &Path) -> Outcome<Node> {
        let node = Node::start(
            index,
            Surroundings {
                network: &self.network,
                pki: &self.pki,
                kubelet,
                run: &self.run,
                images: &self.run.join("images"),
            },
        )?;
        until_ready(&self.kubectl, node.name)
            .map_err(|error| format!("{error}\n{}", node.logs(15)))?;
        Ok(node)
    }

    /// helm as the cluster's administrator.
    pub(crate) fn helm(&self) -> &Helm {
        &self.helm
    }

    /// What eratrack's accounts ask of the API server.
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// A program that runs in the cluster's network.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.network.namespace().command(program)
    }

    /// A kubeconfig for whoever has this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        self.pki.kubeconfig_with_token(token)
    }

    /// A directory that ends with the cluster.
    pub(crate) fn directory(&self) -> &Path {
        &self.run
    }

    /// Where the logs of the cluster's programs are.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }
}

/// A cluster of one node, or two once somebody has asked for the second. It ends when this is dropped, in the order of the
/// fields.
#[derive(Debug)]
pub(crate) struct Cluster {
    node: Node,
    second: OnceLock<Node>,
    tools: Tools,
    control: Control,
}

impl Cluster {
    /// Starts everything and waits until the node is ready.
    pub(crate) fn start(tools: &Tools) -> Outcome<Self> {
        let control =
            progress::step("starting etcd, API server, controller manager, scheduler", || {
                Control::start(tools)
            })?;
        let what = "booting node1: a kernel with dm-era, containerd, kubelet";
        let node = progress::step(what, || {
            images::write_pause(&control.run.join("images"))?;
            control.node(1, &tools.component("kubelet"))
        })?;
        Ok(Self { node, second: OnceLock::new(), tools: tools.clone(), control })
    }

    /// kubectl as the cluster's administrator.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.control.kubectl()
    }

    /// helm as the cluster's administrator.
    pub(crate) fn helm(&self) -> &Helm {
        self.control.helm()
    }

    /// What eratrack's accounts ask of the API server.
    pub(crate) fn audit(&self) -> &Audit {
        &self.control.audit
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The second node, booted by the first that asks.
    pub(crate) fn second(&self, product: &Product) -> Outcome<&Node> {
        static BOOTING: Mutex<()> = Mutex::new(());
        let _booting = BOOTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = self.second.get() {
            return Ok(node);
        }
        let node = self.control.node(2, &self.tools.component("kubelet"))?;
        product.import(&node)?;
        Ok(self.second.get_or_init(|| node))
    }

    /// Does `meanwhile` while the API server is away.
    pub(crate) fn without_api_server<T>(
        &self,
        meanwhile: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        let Control { plane, network, pki, audit, logs, .. } = &self.control;
        plane.without_api_server(network.namespace(), &self.tools, pki, audit, logs, meanwhile)
    }

    /// The nodes that there are.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.node).chain(self.second.get())
    }

    /// Has `install` run helm with these arguments, unless eratrack is installed; one asker at a time.
    pub(crate) fn ensure_installed(&self, install: impl FnOnce(&[&str]) -> Outcome) -> Outcome {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if self.helm().helm(&["status", "eratrack", "--namespace", NAMESPACE])?.success {
            return Ok(());
        }
        let arguments = install_arguments();
        install(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// How a user can reach the cluster from a shell of this machine.
    pub(crate) fn how_to_use(&self) -> String {
        let Control { kubectl, helm, network, .. } = &self.control;
        let kubeconfig = kubectl.kubeconfig.display();
        let inside = format!("ip netns exec {}", network.namespace().name());
        let (kubectl, helm) = (kubectl.program.display(), helm.program().display());
        format!(
            "export KUBECONFIG={kubeconfig}\nalias kubectl='{inside} {kubectl}'\nalias helm='{inside} {helm}'\nkubectl get eratrack -A"
        )
    }

    /// What the node and the pods have said lately, for the report of a failure; also kept among the logs.
    pub(crate) fn diagnosis(&self) -> String {
        let kubectl = |arguments: &[&str]| match self.kubectl().kubectl(arguments, None) {
            Ok(output) => output.report(),
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
        for node in self.nodes() {
            let devices = node
                .script("dmsetup ls --tree; dmsetup table; dmsetup info -c; losetup -l; lvs -a");
            if let Ok(devices) = devices {
                text += &devices.report();
            }
            text += &node.logs(25);
            node.keep_logs();
        }
        text
    }
}

fn until_ready(kubectl: &Kubectl, node: &str) -> Outcome {
    let node = format!("node/{node}");
    kubectl.until_condition(&node, "Ready", "True", Duration::from_secs(120))?;
    // Made by the controller manager; a pod without it is refused.
    kubectl.until("serviceaccount/default", "to exist", Duration::from_secs(30), |_| Ok(()))
}

/// What the scenarios of one run share: one cluster with eratrack installed.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// What was installed.
    pub(crate) product: Product,
}

impl Shared {
    fn start() -> Outcome<Self> {
        let product = Product::build()?;
        let cluster = Cluster::start(&setup::tools()?)?;
        product.import(cluster.node())?;
        Ok(Self { cluster, product })
    }

    /// Installs eratrack if it is not.
    pub(crate) fn ensure_installed(&self) -> Outcome {
        self.cluster.ensure_installed(|arguments| self.cluster.helm().run(arguments).map(drop))
    }
}

static SHARED: Mutex<Option<Result<&'static Shared, String>>> = Mutex::new(None);

/// Writes what the shared cluster says of itself, if there is one, into the logs, named after the scenario that failed;
/// where that is.
pub(crate) fn keep_diagnosis(scenario: &str) -> Option<PathBuf> {
    let started = SHARED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let shared = started?.ok()?;
    let path = paths::logs().join(format!("{scenario}.diagnosis.log"));
    fs::write(&path, shared.cluster.diagnosis()).ok().map(|()| path)
}

/// The shared cluster; started by the first that asks. What failed to start is not started again.
pub(crate) fn shared() -> Outcome<&'static Shared> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let started = shared.get_or_insert_with(|| {
        // Leaked, so that every scenario can borrow it: the registry of `cleanup` ends it with the run.
        let started = Shared::start().map(|it| &*Box::leak(Box::new(it)));
        started.map_err(|error| format!("the cluster did not start: {error}"))
    });
    started.clone().map_err(Into::into)
}
