//! The agent: attaches, watches and reads the volumes of one node.

use crate::cli::AgentArgs;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The API server's address or credentials cannot be had.
    #[error("cannot find the API server: no kubeconfig and not in a pod")]
    NoCluster(#[source] Box<kube::Error>),
}

/// Runs until asked to end.
pub(crate) async fn run(args: AgentArgs) -> Result<(), AgentError> {
    let client = kube::Client::try_default().await.map_err(|e| AgentError::NoCluster(Box::new(e)))?;
    tracing::info!(node = args.node_name, namespace = client.default_namespace(), "agent");
    Ok(())
}
