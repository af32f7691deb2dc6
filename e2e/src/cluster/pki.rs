//! The cluster's certificates and the kubeconfigs made of them, by the openssl command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::network::{CONTROL_PLANE, KUBERNETES_SERVICE};
use crate::{failure::Outcome, process};

/// A directory of keys, certificates and kubeconfigs.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// Makes the authority, the API server's certificate, the service accounts' keys and the administrator.
    pub(super) fn create(directory: PathBuf) -> Outcome<Self> {
        fs::create_dir_all(&directory)?;
        let pki = Self { directory };
        pki.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=eratrack-e2e -keyout ca.key -out ca.crt")?;
        let names = format!(
            "IP:{CONTROL_PLANE},IP:127.0.0.1,IP:{KUBERNETES_SERVICE},\
             DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
        );
        pki.certificate("apiserver", "/CN=kube-apiserver", &names)?;
        pki.openssl(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out service-accounts.key",
        )?;
        pki.openssl("pkey -in service-accounts.key -pubout -out service-accounts.pub")?;
        pki.user("admin", "/O=system:masters/CN=admin")?;
        pki.user("controller-manager", "/CN=system:kube-controller-manager")?;
        pki.user("scheduler", "/CN=system:kube-scheduler")?;
        Ok(pki)
    }

    /// A user of the API server: a certificate and a kubeconfig; the kubeconfig's path.
    pub(super) fn user(&self, name: &str, subject: &str) -> Outcome<PathBuf> {
        self.certificate(name, subject, &format!("DNS:{name}"))?;
        self.kubeconfig(name)
    }

    /// A node: a user, whose certificate is also its kubelet's.
    pub(super) fn node(&self, name: &str, address: &str) -> Outcome {
        let subject = format!("/O=system:nodes/CN=system:node:{name}");
        self.certificate(name, &subject, &format!("DNS:{name},IP:{address}"))?;
        self.kubeconfig(name).map(drop)
    }

    /// The text of a kubeconfig for whoever has this token.
    pub(super) fn kubeconfig_with_token(&self, token: &str) -> String {
        kubeconfig_of(&self.directory, "bearer", &format!("token: '{token}'"))
    }

    /// A file of the directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn certificate(&self, name: &str, subject: &str, names: &str) -> Outcome {
        let extensions =
            format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(self.file(&format!("{name}.ext")), extensions)?;
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"))?;
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile {name}.ext -out {name}.crt"))
    }

    fn kubeconfig(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.file(&format!("{name}.kubeconfig"));
        fs::write(&path, kubeconfig(&self.directory, name))?;
        Ok(path)
    }

    fn openssl(&self, arguments: &str) -> Outcome {
        let mut command = Command::new("openssl");
        process::run(command.current_dir(&self.directory).args(arguments.split(' ')))?;
        Ok(())
    }
}

fn kubeconfig(directory: &Path, user: &str) -> String {
    let pki = directory.display();
    let credentials =
        format!("client-certificate: '{pki}/{user}.crt', client-key: '{pki}/{user}.key'");
    kubeconfig_of(directory, user, &credentials)
}

fn kubeconfig_of(directory: &Path, user: &str, credentials: &str) -> String {
    let pki = directory.display();
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: e2e, cluster: {{server: 'https://{CONTROL_PLANE}:443', certificate-authority: '{pki}/ca.crt'}}}}]
users: [{{name: {user}, user: {{{credentials}}}}}]
contexts: [{{name: e2e, context: {{cluster: e2e, user: {user}}}}}]
current-context: e2e
"
    )
}
