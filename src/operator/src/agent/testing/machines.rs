//! A machine of many volumes in memory, for as many agents as one likes. Every block list that is read from it is short,
//! and no two in a row are the same.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eratrack_api::{Device, Granularity, Reason};
use eratrack_model::Era;
use eratrack_model::extents::ChangedBlocks;
use eratrack_model::units::DevNo;
use k8s_openapi::jiff::Timestamp;

use crate::agent::discover::{ClaimedVolume, DiscoverError, Node, ReplicaRefusal, ReplicaVolume};
use crate::agent::stacks::{
    Attendant, Boundary, Changes, Found, FoundState, Health, HeldPoint, Insertion, Liveness,
    PointState, ReplicaDone, ReplicaTask, ReplicaTrouble, StackError, Stacks, Tracked, Wanted,
    WantedPoint, WantedReplica,
};

/// The size of each volume: 100 GiB.
const SIZE_BYTES: u64 = 100 << 30;
/// How many separate ranges each list has.
const RANGES: u64 = 20;
const METADATA: (u64, u64) = (1 << 20, 8 << 20);
/// Above that of any snapshot that was there before: chains go on that another process has begun.
const FIRST_ERA: u32 = 100;

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct ManyVolumes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By the PersistentVolume's name.
    numbers: HashMap<String, u32>,
    /// By the PersistentVolume's uid: the stack, and its era.
    stacks: HashMap<String, (Tracked, u32)>,
}

impl ManyVolumes {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn era(&self, uid: &str) -> Result<u32, StackError> {
        let inner = self.inner();
        inner.stacks.get(uid).map(|(_, era)| *era).ok_or_else(|| StackError::no_record(uid))
    }
}

impl Stacks for ManyVolumes {
    fn recover(&self) -> Result<Vec<Found>, StackError> {
        Ok(Vec::new())
    }

    fn recover_again(&self, _: &str) -> Result<FoundState, StackError> {
        Ok(FoundState::Ended(Some(Reason::RecordMismatch)))
    }

    fn attach(&self, wanted: &Wanted) -> Result<(Tracked, Insertion), StackError> {
        let Wanted { volume_uid, device, granularity } = wanted;
        let tracked = Tracked {
            // As good as any: each volume has one chain.
            chain: volume_uid.clone(),
            number: *device,
            device: Device {
                name: Some(format!("data-{}", device.minor)),
                number: Some(device.to_string()),
                uuid: None,
            },
            granularity: *granularity,
            size_bytes: SIZE_BYTES,
        };
        self.inner().stacks.insert(volume_uid.clone(), (tracked.clone(), FIRST_ERA));
        Ok((tracked, Insertion::Fresh))
    }

    fn check_refit(&self, _: &str, _: Granularity) -> Result<(), StackError> {
        Ok(())
    }

    fn liveness(&self, uid: &str) -> Result<Liveness, StackError> {
        self.era(uid).map(|_| Liveness::Intact)
    }

    fn health(&self, uid: &str) -> Result<Health, StackError> {
        let (used_bytes, total_bytes) = METADATA;
        Ok(Health::Good { era: Era(self.era(uid)?), used_bytes, total_bytes })
    }

    fn boundary(&self, uid: &str) -> Result<Boundary, StackError> {
        let mut inner = self.inner();
        let (_, era) = inner.stacks.get_mut(uid).ok_or_else(|| StackError::no_record(uid))?;
        *era += 1;
        Ok(Boundary { era: Era(*era), time: Timestamp::now(), used_percent: 12 })
    }

    fn begin_point(&self, _: &str, _: &WantedPoint) -> Result<(Boundary, HeldPoint), StackError> {
        Err(StackError::unforeseen("this machine holds no points in time".to_owned()))
    }

    fn held_point(&self, _: &str) -> Option<HeldPoint> {
        None
    }

    fn check_point(&self, _: &str) -> Result<PointState, StackError> {
        Ok(PointState::Good)
    }

    fn end_point(&self, _: &str) -> Result<(), StackError> {
        Ok(())
    }

    fn changes(&self, _: &str, since: Era) -> Result<Changes, StackError> {
        let marked: era_metadata::BlockSet =
            (0..RANGES).map(|index| index * 7919 + u64::from(since.0 % 1000) * 3).collect();
        let marked_blocks = marked.count();
        Ok(Changes { runs: ChangedBlocks::new(marked, 0, u64::MAX), marked_blocks })
    }

    fn replicate(
        &self,
        _: &str,
        _: &WantedReplica,
        _: ReplicaTask,
        _: &mut dyn Attendant,
    ) -> Result<ReplicaDone, ReplicaTrouble> {
        let (reason, message) = (Reason::ReplicaFailed, "there are no replicas".to_owned());
        Err(ReplicaTrouble { reason, message, stopped: false })
    }

    fn detach(&self, uid: &str) -> Result<(), StackError> {
        self.inner().stacks.remove(uid);
        Ok(())
    }
}

impl Node for ManyVolumes {
    fn find(&self, volume: &ClaimedVolume) -> Result<DevNo, DiscoverError> {
        let mut inner = self.inner();
        let next = u32::try_from(inner.numbers.len()).unwrap_or(u32::MAX);
        let minor = *inner.numbers.entry(volume.name.clone()).or_insert(next);
        Ok(DevNo { major: 253, minor })
    }

    fn find_replica(&self, volume: &ReplicaVolume) -> Result<DevNo, ReplicaRefusal> {
        Err(ReplicaRefusal::NotLocal(volume.name.clone()))
    }

    fn write_counters(&self, _: DevNo) -> Option<[u64; 4]> {
        None
    }
}
