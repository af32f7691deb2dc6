//! A replica in memory: which blocks were copied into it, and what was said of it meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eratrack_api::Reason;
use eratrack_model::Era;

use super::Memory;
use crate::agent::stacks::{
    Attendant, Equal, ReplicaDone, ReplicaPoint, ReplicaTask, ReplicaTrouble, Standing,
};

/// The only replica.
#[derive(Debug, Default)]
pub(super) struct FakeReplica {
    standing: Option<Standing>,
    trouble: Option<ReplicaTrouble>,
    /// A copy goes on until it is told to end.
    hangs: bool,
    /// Eras since which, up to which, and the blocks that were copied.
    copied: Vec<(u32, u32, Vec<u64>)>,
    seeds: usize,
    stopped: usize,
    /// A status said that it equalled something while it was written.
    lied: bool,
}

impl Memory {
    /// From now on its device cannot be used.
    pub(crate) fn refuse_replica(&self, reason: Option<Reason>) {
        let refused = |reason| ReplicaTrouble { reason, message: "no".into(), stopped: false };
        self.inner().replica.trouble = reason.map(refused);
    }

    /// From now on a copy does not come to its end.
    pub(crate) fn hang_copies(&self, hang: bool) {
        self.inner().replica.hangs = hang;
    }

    /// Somebody else writes to it.
    pub(crate) fn spoil_replica(&self) {
        self.inner().replica.standing = Some(Standing::Unseeded("somebody wrote".into()));
    }

    /// How often everything was copied, how often a copy was told to end, and whether anything that is not true was said.
    pub(crate) fn replica_seeds(&self) -> (usize, usize, bool) {
        let inner = self.inner();
        (inner.replica.seeds, inner.replica.stopped, inner.replica.lied)
    }

    /// What was copied, by eras.
    pub(crate) fn replica_copies(&self) -> Vec<(u32, u32, Vec<u64>)> {
        self.inner().replica.copied.clone()
    }

    pub(super) fn replicate_in_memory(
        &self,
        task: ReplicaTask,
        attendant: &mut dyn Attendant,
    ) -> Result<ReplicaDone, ReplicaTrouble> {
        if let Some(trouble) = self.inner().replica.trouble.clone() {
            return Err(trouble);
        }
        let there = self.inner().replica.standing.clone();
        let there = there.unwrap_or(Standing::Unseeded("there is no copy yet".into()));
        let (standing, done) = match (task, there) {
            (ReplicaTask::Seed(Some(era)), Standing::Unseeded(_)) => {
                self.write_replica(Standing::Seeding(era), attendant)?;
                self.inner().replica.seeds += 1;
                (Standing::Seeded(era), true)
            }
            (ReplicaTask::Seed(_), Standing::Seeding(era)) => {
                self.write_replica(Standing::Seeding(era), attendant)?;
                (Standing::Seeded(era), true)
            }
            (ReplicaTask::Copy(point), Standing::Seeded(since) | Standing::Following(since, _))
                if since == point.since =>
            {
                (self.copy(*point, since, attendant)?, true)
            }
            (ReplicaTask::Look, there) => (there, true),
            (_, there) => (there, false),
        };
        self.inner().replica.standing = Some(standing.clone());
        Ok(ReplicaDone { standing, done, bytes: 4096, verified: false })
    }

    fn copy(
        &self,
        point: ReplicaPoint,
        since: Era,
        attendant: &mut dyn Attendant,
    ) -> Result<Standing, ReplicaTrouble> {
        self.write_replica(Standing::Following(since, None), attendant)?;
        if let Some(message) = attendant.lost() {
            let reason = Reason::ReplicaFailed;
            return Err(ReplicaTrouble { reason, message, stopped: false });
        }
        let ReplicaPoint { name, uid, era, time, since, changes } = point;
        let blocks = changes.iter().flat_map(|run| run.first..=run.last).collect();
        self.inner().replica.copied.push((since.0, era.0, blocks));
        Ok(Standing::Following(era, Some(Equal { name, uid, time })))
    }

    /// Writes until that is enough, or until it is told to end.
    fn write_replica(
        &self,
        standing: Standing,
        attendant: &mut dyn Attendant,
    ) -> Result<(), ReplicaTrouble> {
        let mut inner = self.inner();
        let status = inner.volume.as_ref().and_then(|it| it.status.as_ref()?.replica.as_ref());
        let lies = status.is_none_or(|said| said.equals.is_some());
        inner.replica.lied |= lies;
        inner.replica.standing = Some(standing);
        drop(inner);
        attendant.progress(2048, 4096);
        while self.inner().replica.hangs {
            if attendant.stop().load(Ordering::Relaxed) {
                self.inner().replica.stopped += 1;
                let (reason, message) = (Reason::ReplicaFailed, "ended as asked to".to_owned());
                return Err(ReplicaTrouble { reason, message, stopped: true });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        attendant.progress(4096, 4096);
        Ok(())
    }
}
