//! The cluster, as the user's kubectl would reach it.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use eratrack_api::{EraSnapshot, EraTracking, EraVolume};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

use super::claim::Claim;
use super::error::KubectlError;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The flags that kubectl has too.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AccessArgs {
    /// The kubeconfig file; without this $KUBECONFIG, then ~/.kube/config, then the pod's own account
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig file
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The namespace; without this that of the context
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// A cluster, and the namespace that is meant where none is named.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
    chosen: bool,
}

impl AccessArgs {
    /// Reads the kubeconfig; nothing is asked of the cluster yet.
    pub(super) async fn connect(&self) -> Result<Cluster, KubectlError> {
        let config = self.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(KubectlError::Client)?;
        Ok(Cluster { client, namespace, chosen: self.namespace.is_some() })
    }

    async fn config(&self) -> Result<Config, KubectlError> {
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match (&self.kubeconfig, &self.context) {
            (Some(path), _) => {
                let read = Kubeconfig::read_from(path).map_err(KubectlError::Kubeconfig)?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .map_err(KubectlError::Kubeconfig)
            }
            (None, Some(_)) => {
                Config::from_kubeconfig(&options).await.map_err(KubectlError::Kubeconfig)
            }
            (None, None) => Config::infer().await.map_err(KubectlError::NoCluster),
        }
    }
}

impl Cluster {
    /// Its client.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace of a claim: its own, or that of the flag or of the context.
    pub(super) fn namespace_of(&self, claim: &Claim) -> Result<String, KubectlError> {
        match &claim.namespace {
            Some(own) if self.chosen && *own != self.namespace => {
                Err(KubectlError::Namespaces { claim: own.clone(), flag: self.namespace.clone() })
            }
            Some(own) => Ok(own.clone()),
            None => Ok(self.namespace.clone()),
        }
    }

    /// Of one namespace, or of all.
    pub(super) async fn trackings(&self, all: bool) -> Result<Vec<EraTracking>, KubectlError> {
        self.list("list EraTrackings", self.scope(all), &ListParams::default()).await
    }

    /// Of one namespace, or of all.
    pub(super) async fn volumes(&self, all: bool) -> Result<Vec<EraVolume>, KubectlError> {
        self.list("list EraVolumes", self.scope(all), &ListParams::default()).await
    }

    /// Of one namespace, or of all.
    pub(super) async fn snapshots(&self, all: bool) -> Result<Vec<EraSnapshot>, KubectlError> {
        self.list("list EraSnapshots", self.scope(all), &ListParams::default()).await
    }

    /// Of one claim.
    pub(super) async fn snapshots_of(
        &self,
        namespace: &str,
        claim: &str,
    ) -> Result<Vec<EraSnapshot>, KubectlError> {
        let params = ListParams::default().fields(&format!("spec.claimName={claim}"));
        self.list("list EraSnapshots", self.api(namespace), &params).await
    }

    /// The `EraVolume` of a claim, if there is one.
    pub(super) async fn volume(
        &self,
        namespace: &str,
        claim: &str,
    ) -> Result<Option<EraVolume>, KubectlError> {
        let api = self.api::<EraVolume>(namespace);
        in_time("read the EraVolume", api.get_opt(claim)).await
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), namespace)
    }

    fn scope<K>(&self, all: bool) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if all { Api::all(self.client()) } else { self.api(&self.namespace) }
    }

    async fn list<K>(
        &self,
        what: &'static str,
        api: Api<K>,
        params: &ListParams,
    ) -> Result<Vec<K>, KubectlError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        Ok(in_time(what, api.list(params)).await?.items)
    }
}

async fn in_time<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubectlError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => {
            answer.map_err(|source| KubectlError::Request { what, source: Box::new(source) })
        }
        Err(_) => Err(KubectlError::Timeout { what, seconds: REQUEST_TIMEOUT.as_secs() }),
    }
}
