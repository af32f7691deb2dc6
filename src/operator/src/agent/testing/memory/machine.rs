//! The machine in memory.

use eratrack_api::{Granularity, Reason};
use eratrack_model::Era;
use eratrack_model::extents::ChangedBlocks;
use eratrack_model::units::DevNo;

use super::super::{at, tracked};
use super::{Held, Memory};
use crate::agent::cluster::ClusterError;
use crate::agent::discover::{
    ClaimedVolume, DiscoverError, Node, Refusal, ReplicaRefusal, ReplicaVolume,
};
use crate::agent::stacks::{
    Attendant, Boundary, Changes, Found, FoundState, Health, HeldPoint, Hope, Insertion, Liveness,
    PointState, ReplicaDone, ReplicaTask, ReplicaTrouble, StackError, Stacks, Tracked, Wanted,
    WantedPoint, WantedReplica,
};

fn machine(_: ClusterError) -> StackError {
    StackError::unforeseen("killed".to_owned())
}

impl Stacks for Memory {
    fn recover(&self) -> Result<Vec<Found>, StackError> {
        Ok(Vec::new())
    }

    fn recover_again(&self, _: &str) -> Result<FoundState, StackError> {
        let mut inner = self.inner();
        if inner.stuck > 0 {
            inner.stuck -= 1;
            return Ok(FoundState::Stuck("the disk is busy".to_owned()));
        }
        let there = inner.stack.clone().map(FoundState::Present);
        Ok(there.unwrap_or(FoundState::Ended(Some(Reason::RecordMismatch))))
    }

    fn attach(&self, wanted: &Wanted) -> Result<(Tracked, Insertion), StackError> {
        self.inner().tried += 1;
        if self.inner().held.contains(&Held::Attaches) {
            return Err(StackError::unforeseen("no loop device could be had".to_owned()));
        }
        self.effect("attach", |inner| {
            if let Some(stack) = &inner.stack {
                return (stack.clone(), Insertion::Found);
            }
            let chain = tracked().chain.replacen("4444", &format!("444{}", 4 + inner.chains), 1);
            let (granularity, number) = (wanted.granularity, wanted.device);
            let stack = Tracked { chain, number, granularity, ..tracked() };
            inner.chains += 1;
            inner.era = 1;
            inner.stack = Some(stack.clone());
            (stack, inner.insertion.take().unwrap_or(Insertion::Fresh))
        })
        .map_err(machine)
    }

    fn check_refit(&self, uid: &str, _: Granularity) -> Result<(), StackError> {
        self.inner().record(uid)?;
        if self.inner().held.contains(&Held::Refits) {
            let message =
                "the metadata would need 3Gi, more than the limit of 1Gi a volume".to_owned();
            return Err(StackError { hope: Hope::Later, reason: Reason::LimitExceeded, message });
        }
        Ok(())
    }

    fn liveness(&self, uid: &str) -> Result<Liveness, StackError> {
        let inner = self.inner();
        inner.record(uid)?;
        Ok(inner.live.unwrap_or(Liveness::Intact))
    }

    fn health(&self, uid: &str) -> Result<Health, StackError> {
        let mut inner = self.inner();
        inner.asked += 1;
        inner.record(uid)?;
        let used_bytes = 4096 + inner.used_percent * 10_000;
        let well = Health::Good { era: Era(inner.era), used_bytes, total_bytes: 1_000_000 };
        Ok(inner.health.unwrap_or(well))
    }

    fn boundary(&self, _: &str) -> Result<Boundary, StackError> {
        if self.inner().health == Some(Health::Failed) {
            let message = "the era device has failed".to_owned();
            return Err(StackError { hope: Hope::Broken, reason: Reason::MetadataError, message });
        }
        if self.inner().live.is_some() {
            let message = "253:3 no longer goes through era".to_owned();
            return Err(StackError { hope: Hope::Broken, reason: Reason::TableReloaded, message });
        }
        self.effect("boundary", |inner| {
            inner.era += 1;
            let (era, length) = (inner.era, inner.log.len());
            let used_percent = u32::try_from(inner.used_percent).unwrap_or(100);
            inner.began.insert(era, length);
            Boundary { era: Era(era), time: at(25), used_percent }
        })
        .map_err(machine)
    }

    fn begin_point(
        &self,
        uid: &str,
        wanted: &WantedPoint,
    ) -> Result<(Boundary, HeldPoint), StackError> {
        let WantedPoint { snapshot_uid, hold } = wanted;
        let by_another = |held: HeldPoint| held.snapshot_uid != *snapshot_uid;
        assert!(!self.held_point(uid).is_some_and(by_another), "one at a time");
        let boundary = self.boundary(uid)?;
        let until = boundary.time + *hold;
        let device = format!("/dev/eratrack/{snapshot_uid}");
        let held = HeldPoint { snapshot_uid: snapshot_uid.clone(), device, until };
        self.effect("point", |inner| {
            (inner.point, inner.lost) = (Some(held.clone()), None);
            (boundary, held)
        })
        .map_err(machine)
    }

    fn held_point(&self, _: &str) -> Option<HeldPoint> {
        self.inner().point.clone()
    }

    fn check_point(&self, _: &str) -> Result<PointState, StackError> {
        Ok(self.inner().lost.clone().unwrap_or(PointState::Good))
    }

    fn end_point(&self, _: &str) -> Result<(), StackError> {
        self.effect("end of the point", |inner| inner.point = None).map_err(machine)?;
        let mut inner = self.inner();
        if let Some(attempts @ 1..) = inner.reader {
            inner.reader = Some(attempts - 1);
            let message = "the device is open".to_owned();
            return Err(StackError { hope: Hope::Soon, reason: Reason::DeviceBusy, message });
        }
        inner.reader = None;
        Ok(())
    }

    fn changes(&self, _: &str, since: Era) -> Result<Changes, StackError> {
        self.effect("changes", |inner| {
            inner.reads += 1;
            let changed = inner.blocks.iter().filter(|(_, era)| **era >= since.0);
            let marked: era_metadata::BlockSet = changed.map(|(&block, _)| block).collect();
            let marked_blocks = marked.count();
            Changes { runs: ChangedBlocks::new(marked, 0, u64::MAX), marked_blocks }
        })
        .map_err(machine)
    }

    fn replicate(
        &self,
        _: &str,
        _: &WantedReplica,
        task: ReplicaTask,
        attendant: &mut dyn Attendant,
    ) -> Result<ReplicaDone, ReplicaTrouble> {
        self.replicate_in_memory(task, attendant)
    }

    fn detach(&self, _: &str) -> Result<(), StackError> {
        self.effect("detach", |inner| {
            inner.detached += 1;
            (inner.stack, inner.live, inner.health, inner.point) = (None, None, None, None);
        })
        .map_err(machine)
    }
}

impl Node for Memory {
    fn find(&self, _: &ClaimedVolume) -> Result<DevNo, DiscoverError> {
        self.inner().device.ok_or_else(|| Refusal::NotInUse.into())
    }

    fn find_replica(&self, _: &ReplicaVolume) -> Result<DevNo, ReplicaRefusal> {
        Ok(DevNo { major: 253, minor: 9 })
    }

    fn write_counters(&self, _: DevNo) -> Option<[u64; 4]> {
        self.inner().counters
    }
}
