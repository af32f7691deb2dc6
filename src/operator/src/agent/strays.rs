//! Stacks on the machine whose volume is none of this node's.
//!
//! The controller may have given an `EraVolume` up while no agent was here. Then the record is all that is left, and it
//! knows no name: so the stack is taken out only when the API server's whole list has no volume with its uid.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use super::cluster::Cluster;
use super::discover::Node;
use super::operations::{Operation, Operations};
use super::stacks::{Liveness, Stacks};
use super::volume::Context;

/// In every how many looks the API server is asked whose it is.
const LOOKS_A_QUESTION: usize = 20;
/// How often a stray is looked at: a device that is gone leaves remains that must not stay.
const INTERVAL: Duration = Duration::from_secs(30);

/// Goes on until the stray is out, or a volume of this node claims it.
pub(crate) async fn look_after<C: Cluster, S: Stacks, N: Node>(
    context: Arc<Context<C, S, N>>,
    volume_uid: String,
) {
    let span = tracing::info_span!("stray", volume_uid);
    async {
        let operations = Operations::new(context.stacks.clone(), &volume_uid);
        for look in (0..LOOKS_A_QUESTION).cycle() {
            if settled(&context, &operations, look == 0).await {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
    .instrument(span)
    .await;
}

async fn settled<C: Cluster, S: Stacks, N: Node>(
    context: &Context<C, S, N>,
    operations: &Operations<S>,
    ask: bool,
) -> bool {
    let uid = operations.volume_uid();
    if context.volumes.state().iter().any(|volume| volume.spec.volume.uid == uid) {
        return true;
    }
    let live = operations.run(Operation::Liveness, S::liveness).await;
    let in_use = matches!(live, Ok(Liveness::Intact) | Err(_));
    if in_use && !(ask && is_unknown(context, uid).await) {
        return false;
    }
    match operations.run(Operation::Detach, S::detach).await {
        Ok(()) => {
            tracing::info!("nobody wants it any more; taken out");
            true
        }
        Err(error) => {
            tracing::warn!(error = crate::exit::chain(&error), "cannot take it out yet");
            false
        }
    }
}

/// Whether no `EraVolume` anywhere has it. An answer that did not come says nothing.
async fn is_unknown<C: Cluster, S: Stacks, N: Node>(context: &Context<C, S, N>, uid: &str) -> bool {
    match context.cluster.volumes().await {
        Ok(volumes) => volumes.iter().all(|volume| volume.spec.volume.uid != uid),
        Err(error) => {
            tracing::warn!(error = crate::exit::chain(&error), "who it belongs to is not known");
            false
        }
    }
}
