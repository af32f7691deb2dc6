//! The controller.

use crate::cli::{ControllerArgs, UninstallArgs};
use crate::exit::Failure;

/// Runs until asked to end, or until the Lease is lost.
pub(crate) async fn run(args: ControllerArgs) -> Result<(), Failure> {
    let client = kube::Client::try_default().await.map_err(Failure::other)?;
    tracing::info!(args.namespace, server = client.default_namespace(), "controller");
    Ok(())
}

/// Takes every stack out.
pub(crate) async fn uninstall(args: UninstallArgs) -> Result<(), Failure> {
    let client = kube::Client::try_default().await.map_err(Failure::other)?;
    tracing::info!(args.namespace, server = client.default_namespace(), "uninstall");
    Ok(())
}
