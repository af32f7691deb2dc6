//! The worker's step that puts era in: claim → device → stack.

use std::time::Duration;

use eratrack_api::{EraVolume, Reason};
use eratrack_model::units::DevNo;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::chain;
use super::retry;
use super::stack::{Absent, Present, Stack};
use super::status::AttachedFacts;
use super::worker::Worker;
use crate::agent::cluster::{Cluster, ClusterError, Key};
use crate::agent::discover::{ClaimedVolume, DiscoverError, Node, Refusal};
use crate::agent::lane::Late;
use crate::agent::operations::Operation;
use crate::agent::stacks::{Insertion, StackError, Stacks, Tracked, Wanted};

/// How long a PersistentVolume that was read is taken for what it is.
const PERSISTENT_VOLUME_TTL: Duration = Duration::from_secs(300);
/// How long looking for the device may take: it reads the kernel's tables, but a path may cross a hung mount.
const FIND_LIMIT: Duration = Duration::from_secs(30);

/// Why era did not get in.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "the PersistentVolume is still tracked for EraVolume {0}; tracking starts when that one is let go"
    )]
    Held(Key),
    #[error("looking for the device: {0}")]
    Late(#[from] Late),
}

impl AttachError {
    fn absent(&self, attempts: u32) -> Absent {
        let (reason, wait, at_mounts) = match self {
            // What a pod uses changes with the mounts.
            Self::Discover(DiscoverError::Refused(refusal)) => {
                (refusal.reason(), retry::after_refusal(refusal), true)
            }
            Self::Stack(error) => (error.reason, Some(retry::after_stack(error, attempts)), false),
            Self::Held(_) => (Reason::DeviceClaimed, Some(retry::soon(attempts)), false),
            Self::Discover(DiscoverError::Machine(_)) | Self::Cluster(_) | Self::Late(_) => {
                (Reason::OperationFailed, Some(retry::soon(attempts)), false)
            }
        };
        Absent {
            reason,
            message: crate::exit::chain(self),
            attempts: attempts + 1,
            retry: wait.map(|wait| Instant::now() + wait),
            at_mounts,
        }
    }
}

impl<C: Cluster, S: Stacks, N: Node> Worker<C, S, N> {
    /// Tries when it is time, or when the machine's mounts have changed.
    pub(super) async fn attach_if_due(&mut self, volume: &EraVolume) {
        let Stack::Absent(absent) = &self.stack else { return };
        let attempts = absent.attempts;
        // Where nobody tells of mounts any more, they may have changed whenever there is a turn.
        let moved = absent.at_mounts && self.mounts.has_changed().unwrap_or(true);
        let retry = absent.retry;
        if !moved && retry.is_none_or(|retry| Instant::now() < retry) {
            self.by(retry.unwrap_or_else(|| Instant::now() + Duration::from_secs(600)));
            return;
        }
        self.mounts.mark_unchanged();
        match self.attach(volume).await {
            Ok(stack) => {
                self.stack = stack;
                self.take_over().await;
                self.ask_health().await;
            }
            Err(error) => {
                let absent = error.absent(attempts);
                tracing::info!(reason = %absent.reason, message = absent.message, "not attached");
                if let Some(retry) = absent.retry {
                    self.by(retry);
                }
                self.stack = Stack::Absent(absent);
            }
        }
        self.snapshots_due = Some(Instant::now());
    }

    async fn attach(&mut self, volume: &EraVolume) -> Result<Stack, AttachError> {
        self.hold()?;
        let claimed = self.claimed(volume).await?;
        let device = self.find(claimed).await?;
        self.claim_device(device)?;
        let wanted = Wanted {
            volume_uid: self.operations.volume_uid().to_owned(),
            device,
            granularity: volume.spec.granularity,
        };
        let attached =
            self.operations.run(Operation::Attach, move |stacks, _| stacks.attach(&wanted)).await;
        let (tracked, insertion) = attached.inspect_err(|_| self.free_device())?;
        tracing::info!(%device, chain = tracked.chain, ?insertion, "attached");
        if insertion == Insertion::RolledBack {
            self.evidence.seen = Some(Reason::RolledBack);
        }
        // What an attach that took too long has put in is this worker's own.
        if insertion == Insertion::Found && !self.cleared {
            return Ok(Stack::Found(tracked));
        }
        self.context.metrics.started();
        self.pace.inserted(Instant::now());
        self.evidence.last = self.last_seen().await;
        Ok(Stack::Present(Box::new(self.present(tracked))))
    }

    pub(super) fn present(&mut self, tracked: Tracked) -> Present {
        let before = self.before.clone();
        let evidence = std::mem::take(&mut self.evidence);
        let chain = chain::of(&tracked, &before, evidence, (self.context.now)());
        let same = before.chain.as_ref().is_some_and(|last| last.id == chain.id);
        let full_reason = chain::full_reason(&chain, &before);
        let facts = AttachedFacts {
            granularity: tracked.granularity,
            size_bytes: tracked.size_bytes,
            device: tracked.device.clone(),
            chain,
            era: before.era.filter(|_| same),
            metadata: before.metadata.filter(|_| same),
            last_snapshot: before.last_snapshot.filter(|_| same),
            full_reason,
            refused: None,
        };
        let now = Instant::now();
        Present {
            tracked,
            facts,
            next_liveness: now,
            next_health: now,
            counters: None,
            metadata: None,
            refused: None,
        }
    }

    async fn claimed(&mut self, volume: &EraVolume) -> Result<ClaimedVolume, AttachError> {
        let fresh = self.persistent.take_if(|(read, _)| read.elapsed() < PERSISTENT_VOLUME_TTL);
        let persistent = if let Some(fresh) = fresh {
            fresh
        } else {
            let name = &volume.spec.volume.name;
            let found = self.context.cluster.persistent_volume(name).await?;
            let missing = || DiscoverError::from(Refusal::NoVolume { name: name.clone() });
            (Instant::now(), found.ok_or_else(missing)?)
        };
        let claimed = ClaimedVolume::new(volume, &persistent.1).map_err(DiscoverError::from)?;
        self.persistent = Some(persistent);
        Ok(claimed)
    }

    async fn find(&self, claimed: ClaimedVolume) -> Result<DevNo, AttachError> {
        let node = self.context.node.clone();
        let found = self.finding.call(FIND_LIMIT, move || node.find(&claimed)).await;
        Ok(found??)
    }

    /// Whether a device that is in use for this volume now is the one that is tracked; unknown counts as yes.
    pub(super) async fn still_the_device(&mut self, tracked: &Tracked) -> bool {
        let reference = ObjectRef::new(&self.key.name).within(&self.key.namespace);
        let Some(volume) = self.context.volumes.get(&reference) else { return true };
        let Ok(claimed) = self.claimed(&volume).await else { return true };
        match self.find(claimed).await {
            Ok(device) => device == tracked.number,
            Err(error) => {
                tracing::debug!(
                    error = crate::exit::chain(&error),
                    "the device was not looked up again"
                );
                true
            }
        }
    }

    /// What another worker has put in, this one has not.
    fn hold(&mut self) -> Result<(), AttachError> {
        let held = self.context.holders.take(self.operations.volume_uid(), &self.key);
        held.map_err(|holder| {
            self.cleared = false;
            AttachError::Held(holder)
        })
    }

    fn claim_device(&self, device: DevNo) -> Result<(), DiscoverError> {
        let uid = self.operations.volume_uid();
        let mut devices = self.devices();
        match devices.get(&device) {
            Some(other) if other != uid => {
                Err(Refusal::Claimed { device, by: other.clone() }.into())
            }
            _ => {
                devices.insert(device, uid.to_owned());
                Ok(())
            }
        }
    }

    /// The volume has no device any more.
    pub(super) fn free_device(&self) {
        let uid = self.operations.volume_uid();
        self.devices().retain(|_, by| by != uid);
    }

    pub(super) fn devices(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<DevNo, String>> {
        // Nothing can panic while it is held, so it cannot be poisoned.
        self.context.devices.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
