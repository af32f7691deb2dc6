//! etcd, the API server, the controller manager and the scheduler, as processes in the run's network namespace.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    audit::Audit,
    network::{CONTROL_PLANE, Namespace, SERVICES},
    pki::Pki,
};
use crate::{
    failure::Outcome,
    process::{self, Background},
    setup::Tools,
    wait,
};

/// The running control plane; it ends when this is dropped, in the order of the fields.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    _scheduler: Background,
    _controller_manager: Background,
    /// None while it is away.
    api_server: Mutex<Option<Background>>,
    _etcd: Background,
}

/// Whether the nodes are machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// They are, each with a kubelet.
    Machines,
    /// They are objects alone, and so are claims and volumes: whoever makes them says what has become of them.
    Objects,
}

/// Where etcd is, in the cluster's network.
pub(crate) const CLIENTS: &str = "http://127.0.0.1:2379";
const PEERS: &str = "http://127.0.0.1:2380";

impl ControlPlane {
    /// Starts all four; the API server is ready when this returns.
    pub(super) fn start(
        network: &Namespace,
        tools: &Tools,
        pki: &Pki,
        audit: &Audit,
        (directory, logs): (&Path, &Path),
        nodes: Nodes,
    ) -> Outcome<Self> {
        let mut etcd = etcd(network, directory, logs)?;
        let start = |component: &str, arguments: Vec<String>| {
            let mut command = network.command(tools.component(component));
            command.args(arguments);
            Background::start(&mut command, &logs.join(format!("{component}.log")))
        };
        let mut api_server = start("kube-apiserver", api_server(pki, audit))?;
        until_ready(network, pki, &mut [("etcd", &mut etcd), ("kube-apiserver", &mut api_server)])
            .map_err(|error| format!("{error}\n{}", last_words(logs)))?;
        let controller_manager = start("kube-controller-manager", controller_manager(pki, nodes))?;
        let scheduler = start("kube-scheduler", scheduler(pki))?;
        Ok(Self {
            _scheduler: scheduler,
            _controller_manager: controller_manager,
            api_server: Mutex::new(Some(api_server)),
            _etcd: etcd,
        })
    }

    /// Ends the API server, does `meanwhile`, and starts it again; it is ready when this returns.
    pub(super) fn without_api_server<T>(
        &self,
        network: &Namespace,
        tools: &Tools,
        pki: &Pki,
        audit: &Audit,
        logs: &Path,
        meanwhile: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        let mut server = self.api_server.lock().unwrap_or_else(PoisonError::into_inner);
        server.take();
        let done = meanwhile();
        let mut command = network.command(tools.component("kube-apiserver"));
        command.args(api_server(pki, audit));
        let again = Background::start(&mut command, &logs.join("kube-apiserver.again.log"))?;
        until_ready(network, pki, &mut [("kube-apiserver", server.insert(again))])?;
        done
    }
}

fn etcd(network: &Namespace, directory: &Path, logs: &Path) -> Outcome<Background> {
    let mut command = network.command("etcd");
    command.arg("--data-dir").arg(directory.join("etcd"));
    command.args(["--listen-client-urls", CLIENTS, "--advertise-client-urls", CLIENTS]);
    command.args(["--listen-peer-urls", PEERS, "--initial-advertise-peer-urls", PEERS]);
    command.arg("--initial-cluster").arg(format!("default={PEERS}"));
    // The cluster lives no longer than the machine is up.
    command.arg("--unsafe-no-fsync");
    Ok(Background::start(&mut command, &logs.join("etcd.log"))?)
}

fn flag(name: &str, value: impl AsRef<Path>) -> String {
    format!("--{name}={}", value.as_ref().display())
}

fn api_server(pki: &Pki, audit: &Audit) -> Vec<String> {
    vec![
        flag("etcd-servers", CLIENTS),
        flag("bind-address", "0.0.0.0"),
        flag("advertise-address", CONTROL_PLANE),
        flag("secure-port", "443"),
        // The nodes' names are in no name server.
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("tls-cert-file", pki.file("apiserver.crt")),
        flag("tls-private-key-file", pki.file("apiserver.key")),
        flag("client-ca-file", pki.file("ca.crt")),
        flag("service-account-key-file", pki.file("service-accounts.pub")),
        flag("service-account-signing-key-file", pki.file("service-accounts.key")),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        flag("service-cluster-ip-range", SERVICES),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("kubelet-client-certificate", pki.file("admin.crt")),
        flag("kubelet-client-key", pki.file("admin.key")),
        flag("kubelet-certificate-authority", pki.file("ca.crt")),
        flag("allow-privileged", "true"),
        flag("audit-policy-file", audit.policy()),
        flag("audit-log-path", audit.log()),
    ]
}

fn controller_manager(pki: &Pki, nodes: Nodes) -> Vec<String> {
    // These would mind that nothing stands behind the objects.
    let minding = ["node-lifecycle-controller", "persistentvolume-binder-controller"];
    let controllers = match nodes {
        Nodes::Machines => "*".to_owned(),
        Nodes::Objects => format!("*,-{}", minding.join(",-")),
    };
    vec![
        flag("controllers", controllers),
        flag("kubeconfig", pki.file("controller-manager.kubeconfig")),
        flag("service-account-private-key-file", pki.file("service-accounts.key")),
        flag("root-ca-file", pki.file("ca.crt")),
        "--use-service-account-credentials".to_owned(),
        flag("leader-elect", "false"),
        flag("cluster-signing-cert-file", pki.file("ca.crt")),
        flag("cluster-signing-key-file", pki.file("ca.key")),
    ]
}

fn scheduler(pki: &Pki) -> Vec<String> {
    vec![flag("kubeconfig", pki.file("scheduler.kubeconfig")), flag("leader-elect", "false")]
}

/// Asks with curl, which starts fifty times as fast as kubectl.
fn until_ready(network: &Namespace, pki: &Pki, parts: &mut [(&str, &mut Background)]) -> Outcome {
    let ended = wait::until_ok("the API server to be ready", Duration::from_secs(60), || {
        for (name, part) in parts.iter_mut() {
            if let Some(status) = part.ended()? {
                // Nothing to wait for: told by the error below.
                return Ok(Some(format!("{name} ended with {status}")));
            }
        }
        let mut command = network.command("curl");
        command.args(["--silent", "--fail", "--max-time", "5"]);
        command.arg("--cacert").arg(pki.file("ca.crt"));
        command.arg("--cert").arg(pki.file("admin.crt")).arg("--key").arg(pki.file("admin.key"));
        process::run(command.arg(format!("https://{CONTROL_PLANE}/readyz"))).map(|()| None)
    })?;
    ended.map_or(Ok(()), |why| Err(why.into()))
}

/// What etcd and the API server said last.
fn last_words(logs: &Path) -> String {
    let of = |name: &str| {
        let text = fs::read(logs.join(name)).unwrap_or_default();
        format!("--- {name}\n{}\n", process::tail(&String::from_utf8_lossy(&text), 30))
    };
    ["etcd.log", "kube-apiserver.log"].map(of).concat()
}
