//! [`Stacks`] over `eratrack_dm::Host`: its records are kept by volume, its errors become reasons.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eratrack_api::{Device, Granularity, Reason};
use eratrack_dm::linux::Kernel;
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{
    AttachRequest, Detached, DmError, EraStatus, Host, HostConfig, HostError, Liveness as Live,
    PointInTime, Recovered, Recovery,
};
use eratrack_model::names::StackId;
use eratrack_model::record::{Keeper, Record};
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, SECTOR_BYTES, Sectors};
use eratrack_model::{Era, units};
use k8s_openapi::jiff::Timestamp;

use super::host_replica;
use super::rollbacks::Rollbacks;
use super::stacks::{
    Attendant, Boundary, Changes, Found, FoundState, Health, HeldPoint, Hope, Insertion, Liveness,
    PointState, ReplicaDone, ReplicaTask, ReplicaTrouble, StackError, Stacks, Tracked, Wanted,
    WantedPoint, WantedReplica,
};
use super::volume::trouble;
use crate::cli::AgentArgs;

/// How long to wait for LVM to give a lock back.
const LVM_DEADLINE: Duration = Duration::from_secs(10);
/// The size of a block of dm-era's metadata.
const METADATA_BLOCK: u64 = 4096;

/// The stacks of this machine.
pub(crate) struct HostStacks {
    host: Host,
    records: Mutex<HashMap<String, Record>>,
    rollbacks: Rollbacks,
    /// The points in time that this process holds, by volume.
    points: Mutex<HashMap<String, (HeldPoint, Arc<PointInTime>)>>,
    /// How large the room for the copies of one is, if the administrator says so.
    copies: Option<Bytes>,
    /// Where what is known of replicas is kept, on the machine.
    state_dir: PathBuf,
}

impl HostStacks {
    /// As the administrator says.
    pub(crate) fn new(args: &AgentArgs) -> Result<Self, DmError> {
        let store = StoreConfig {
            per_volume: args.metadata_max_per_volume,
            per_node: args.metadata_max_per_node,
            per_node_percent: args.metadata_max_percent,
            keep_free_percent: args.metadata_free_percent,
            ..StoreConfig::new(&args.metadata_dir)
        };
        let host = Host::new(HostConfig {
            root: args.host_root.clone(),
            dm: Arc::new(Kernel::open()?),
            store,
            nodes: PathBuf::from("/dev"),
            lock_deadline: LVM_DEADLINE,
            keeper: Keeper::Agent,
        });
        let (records, points) = (Mutex::default(), Mutex::default());
        let rollbacks = Rollbacks::default();
        let (copies, state_dir) = (args.copies_per_volume, args.metadata_dir.clone());
        Ok(Self { host, records, rollbacks, points, copies, state_dir })
    }

    fn points(&self) -> MutexGuard<'_, HashMap<String, (HeldPoint, Arc<PointInTime>)>> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readers are shown the device no more, and it is held no more.
    fn give_up_point(&self, volume_uid: &str) -> Result<Option<Arc<PointInTime>>, StackError> {
        let Some((held, point)) = self.points().remove(volume_uid) else { return Ok(None) };
        let hidden = self.host.hide_point_in_time(&held.snapshot_uid);
        hidden.map(|()| Some(point)).map_err(|error| stack_error(&error))
    }

    fn begin(
        &self,
        record: &Record,
        wanted: &WantedPoint,
    ) -> Result<(Boundary, HeldPoint, PointInTime), StackError> {
        let point = self.host.point_in_time(record, self.copies);
        let point = point.map_err(|error| stack_error(&error))?;
        let made = made(&point.boundary).and_then(|boundary| {
            let shown = self.host.show_point_in_time(&point, &wanted.snapshot_uid);
            let path = shown.map_err(|error| stack_error(&error))?;
            let late = |_| StackError::unforeseen("the machine's clock is at its end".to_owned());
            let until = boundary.time.checked_add(wanted.hold).map_err(late)?;
            let (snapshot_uid, device) = (wanted.snapshot_uid.clone(), path.display().to_string());
            Ok((boundary, HeldPoint { snapshot_uid, device, until }))
        });
        match made {
            Ok((boundary, held)) => Ok((boundary, held, point)),
            Err(error) => {
                if let Err(left) = self.host.end_point_in_time(point) {
                    tracing::warn!(%left, "a point in time is left for the next attempt");
                }
                Err(error)
            }
        }
    }

    /// The device of the point in time that is held for that snapshot.
    fn open_point(&self, volume_uid: &str, snapshot_uid: &str) -> Result<File, ReplicaTrouble> {
        let points = self.points();
        let held = points.get(volume_uid).filter(|(held, _)| held.snapshot_uid == snapshot_uid);
        let Some((_, point)) = held else { return Err(host_replica::not_held()) };
        self.host.open_point_in_time(point).map_err(|error| host_replica::host(&error))
    }

    fn records(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        // Nothing can panic while it is held, so it cannot be poisoned.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, volume_uid: &str) -> Result<Record, StackError> {
        self.records().get(volume_uid).cloned().ok_or_else(|| StackError::no_record(volume_uid))
    }

    /// What is there when it comes back tells whether it is what it was.
    fn note_gone(&self, record: &Record, found: &Live) {
        if matches!(found, Live::Gone) {
            self.rollbacks.gone(record.stack.as_str(), &record.original);
        }
    }

    fn take_in(&self, Recovered { stack, outcome }: Recovered) -> Found {
        let volume_uid = stack.as_str().to_owned();
        let state = match outcome {
            Recovery::Adopted(record) => match tracked(&record) {
                Ok(tracked) => {
                    self.records().insert(volume_uid.clone(), record);
                    FoundState::Present(tracked)
                }
                Err(error) => FoundState::Stuck(error.message),
            },
            // No chain had begun, or its end was wished for.
            Recovery::Undone | Recovery::Finished => FoundState::Ended(None),
            Recovery::Broken { record, found, era_failed } => {
                self.note_gone(&record, &found);
                FoundState::Ended(Some(ended(&record, &found, era_failed)))
            }
            Recovery::OrphansRemoved => FoundState::Ended(Some(Reason::RecordMismatch)),
            Recovery::Failed(message) => FoundState::Stuck(message),
        };
        Found { volume_uid, state }
    }
}

impl Stacks for HostStacks {
    fn recover(&self) -> Result<Vec<Found>, StackError> {
        // What an earlier process showed goes first: the recovery frees the devices' numbers.
        self.host.hide_points_in_time().map_err(|error| stack_error(&error))?;
        let recovered = self.host.recover().map_err(|error| stack_error(&error))?;
        Ok(recovered.into_iter().map(|it| self.take_in(it)).collect())
    }

    fn recover_again(&self, volume_uid: &str) -> Result<FoundState, StackError> {
        let stack = stack_id(volume_uid)?;
        let outcome = self.host.recover_stack(&stack);
        Ok(self.take_in(Recovered { stack, outcome }).state)
    }

    fn attach(&self, wanted: &Wanted) -> Result<(Tracked, Insertion), StackError> {
        let (stack, granularity) = (stack_id(&wanted.volume_uid)?, in_units(wanted.granularity)?);
        let request = AttachRequest::new(stack, wanted.device, granularity);
        let attached = self.host.attach(&request).map_err(|error| {
            self.rollbacks.refused(&wanted.volume_uid, &error);
            stack_error(&error)
        })?;
        let tracked = tracked(&attached.record)?;
        let back = self.rollbacks.seen(&wanted.volume_uid, &attached.record.original);
        self.records().insert(wanted.volume_uid.clone(), attached.record);
        let insertion = match (attached.created, back) {
            (false, _) => Insertion::Found,
            (true, false) => Insertion::Fresh,
            (true, true) => Insertion::RolledBack,
        };
        Ok((tracked, insertion))
    }

    fn check_refit(&self, volume_uid: &str, granularity: Granularity) -> Result<(), StackError> {
        let record = self.record(volume_uid)?;
        let checked = self.host.check_refit(&record, in_units(granularity)?);
        checked.map_err(|error| stack_error(&error))
    }

    fn liveness(&self, volume_uid: &str) -> Result<Liveness, StackError> {
        let record = self.record(volume_uid)?;
        let live = self.host.liveness(&record).map_err(|error| stack_error(&error))?;
        Ok(match live {
            Live::Intact => Liveness::Intact,
            Live::Reloaded { live } if is_rolled_back(live.as_ref(), &record) => {
                Liveness::RolledBack
            }
            Live::Reloaded { live } => {
                Liveness::Reloaded { size_bytes: live.map(|table| bytes(table.length())) }
            }
            Live::Gone => Liveness::Gone,
            Live::Rebooted => Liveness::Rebooted,
        })
    }

    fn health(&self, volume_uid: &str) -> Result<Health, StackError> {
        let record = self.record(volume_uid)?;
        let status = self.host.status(&record).map_err(|error| stack_error(&error))?;
        Ok(match status {
            EraStatus::Working { era, used, total, held: _ } => Health::Good {
                era,
                used_bytes: used.saturating_mul(METADATA_BLOCK),
                total_bytes: total.saturating_mul(METADATA_BLOCK),
            },
            EraStatus::Error => Health::Failed,
        })
    }

    fn boundary(&self, volume_uid: &str) -> Result<Boundary, StackError> {
        let record = self.record(volume_uid)?;
        let boundary = self.host.boundary(&record).map_err(|error| stack_error(&error))?;
        made(&boundary)
    }

    fn begin_point(
        &self,
        volume_uid: &str,
        wanted: &WantedPoint,
    ) -> Result<(Boundary, HeldPoint), StackError> {
        let record = self.record(volume_uid)?;
        // An earlier attempt, of which nobody has heard.
        if self.held_point(volume_uid).is_some_and(|it| it.snapshot_uid == wanted.snapshot_uid) {
            self.end_point(volume_uid)?;
        }
        let (boundary, held, point) = self.begin(&record, wanted)?;
        self.points().insert(volume_uid.to_owned(), (held.clone(), Arc::new(point)));
        Ok((boundary, held))
    }

    fn held_point(&self, volume_uid: &str) -> Option<HeldPoint> {
        self.points().get(volume_uid).map(|(held, _)| held.clone())
    }

    fn check_point(&self, volume_uid: &str) -> Result<PointState, StackError> {
        let lost = |error: &HostError, reason| PointState::Lost(reason, crate::exit::chain(error));
        let held = self.points().get(volume_uid).map(|(_, point)| point.clone());
        let Some(point) = held else {
            let message = "it is not held any more".to_owned();
            return Ok(PointState::Lost(Reason::PointInTimeLost, message));
        };
        match self.host.check_point_in_time(&point) {
            Ok(()) => Ok(PointState::Good),
            Err(error @ HostError::PointInTimeLost { .. }) => Ok(lost(&error, Reason::CopiesFull)),
            Err(error @ HostError::NotIntact { .. }) => Ok(lost(&error, Reason::PointInTimeLost)),
            Err(error) => Err(stack_error(&error)),
        }
    }

    fn end_point(&self, volume_uid: &str) -> Result<(), StackError> {
        // One operation of a volume at a time: nobody else has it.
        let ended = match self.give_up_point(volume_uid)?.and_then(Arc::into_inner) {
            Some(point) => self.host.end_point_in_time(point),
            None => self.host.end_points_in_time_left(&self.record(volume_uid)?),
        };
        ended.map_err(|error| stack_error(&error))
    }

    fn changes(&self, volume_uid: &str, since: Era) -> Result<Changes, StackError> {
        let record = self.record(volume_uid)?;
        let changes = self.host.changes(&record, since).map_err(|error| stack_error(&error))?;
        Ok(Changes { marked_blocks: changes.marked, runs: changes.runs })
    }

    fn replicate(
        &self,
        volume_uid: &str,
        wanted: &WantedReplica,
        task: ReplicaTask,
        attendant: &mut dyn Attendant,
    ) -> Result<ReplicaDone, ReplicaTrouble> {
        let record = self.record(volume_uid).map_err(|error| host_replica::stack(&error))?;
        // Opened while nobody can end it: whoever ends it then leaves what is open until it is closed.
        let point = match &task {
            ReplicaTask::Copy(point) => Some(self.open_point(volume_uid, &point.uid)?),
            ReplicaTask::Look | ReplicaTask::Seed(_) => None,
        };
        // The directory is the machine's, as that of the metadata is.
        let state_dir = &self.host.machine().path(&self.state_dir);
        let work = host_replica::Work { host: &self.host, state_dir, record };
        work.run(wanted, task, point.as_ref(), attendant)
    }

    fn detach(&self, volume_uid: &str) -> Result<(), StackError> {
        // The user's device comes first: whoever reads a point in time of it finds out.
        if let Err(error) = self.give_up_point(volume_uid) {
            tracing::warn!(%error, "taking era out all the same");
        }
        let detached =
            self.host.detach(&stack_id(volume_uid)?).map_err(|error| stack_error(&error))?;
        if let Some(record) = self.records().remove(volume_uid)
            && detached == Detached::RemainsRemoved
        {
            self.note_gone(&record, &Live::Gone);
        }
        tracing::info!(volume_uid, ?detached, "detached");
        Ok(())
    }
}

/// In the words of the API.
fn made(boundary: &eratrack_dm::Boundary) -> Result<Boundary, StackError> {
    tracing::debug!(drained_in = ?boundary.drained_in, "drained");
    let time = Timestamp::try_from(boundary.time)
        .map_err(|error| StackError::unforeseen(format!("the machine's clock: {error}")))?;
    let used_percent = trouble::percent(boundary.metadata_used, boundary.metadata_total);
    Ok(Boundary { era: boundary.era, time, used_percent })
}

fn in_units(granularity: Granularity) -> Result<units::Granularity, StackError> {
    units::Granularity::new(Bytes(granularity.bytes()))
        .map_err(|error| StackError::unforeseen(error.to_string()))
}

fn stack_id(volume_uid: &str) -> Result<StackId, StackError> {
    volume_uid.parse().map_err(|error| StackError {
        hope: Hope::Later,
        reason: Reason::OperationFailed,
        message: format!("the PersistentVolume's uid cannot name a stack: {error}"),
    })
}

fn tracked(record: &Record) -> Result<Tracked, StackError> {
    let bytes_a_block = record.granularity.bytes().0;
    let granularity = Granularity::from_bytes(bytes_a_block).ok_or_else(|| {
        StackError::unforeseen(format!(
            "granularity {bytes_a_block} of the record is none of the API's"
        ))
    })?;
    Ok(Tracked {
        chain: record.chain.to_string(),
        number: record.x,
        device: Device {
            name: Some(record.name.to_string()),
            number: Some(record.x.to_string()),
            uuid: record.uuid.as_ref().map(ToString::to_string),
        },
        granularity,
        size_bytes: bytes(record.sectors),
    })
}

fn bytes(sectors: Sectors) -> u64 {
    sectors.0.saturating_mul(SECTOR_BYTES)
}

fn is_rolled_back(live: Option<&Table>, record: &Record) -> bool {
    live.is_some_and(|table| table.is_rolled_back_from(&record.original))
}

fn ended(record: &Record, found: &Live, era_failed: bool) -> Reason {
    match found {
        Live::Rebooted => Reason::NodeRebooted,
        Live::Reloaded { live } if is_rolled_back(live.as_ref(), record) => Reason::RolledBack,
        Live::Reloaded { live: Some(table) } if table.length() != record.sectors => Reason::Resized,
        Live::Reloaded { .. } => Reason::TableReloaded,
        Live::Gone => Reason::Reattached,
        Live::Intact if era_failed => Reason::MetadataError,
        Live::Intact => Reason::RecordMismatch,
    }
}

fn stack_error(error: &HostError) -> StackError {
    let hope = match error {
        HostError::NotIntact { .. }
        | HostError::OtherRecord { .. }
        | HostError::EraFailed { .. }
        | HostError::Metadata { .. } => Hope::Broken,
        _ if error.is_transient() => Hope::Soon,
        HostError::Refused(_)
        | HostError::Store(_)
        | HostError::Sizing(_)
        | HostError::KeptByAnother { .. }
        | HostError::Stage(_)
        | HostError::Pool(_)
        | HostError::Lvm(_)
        | HostError::GroupSize { .. }
        | HostError::GroupNested { .. }
        | HostError::Plan { .. } => Hope::Later,
        HostError::Step(_)
        | HostError::Hold(_)
        | HostError::Lock(_)
        | HostError::DeviceMapper(_)
        | HostError::NewEra(_)
        | HostError::Loop(_)
        | HostError::Machine(_)
        | HostError::Held { .. }
        | HostError::InUse { .. }
        | HostError::PointInTimeLost { .. }
        | HostError::Shown { .. }
        | HostError::Open { .. }
        | HostError::Unexpected { .. } => Hope::Soon,
    };
    StackError {
        hope,
        reason: Reason::parse(error.reason()).unwrap_or(Reason::OperationFailed),
        message: crate::exit::chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eratrack_model::units::DevNo;

    fn not_intact() -> HostError {
        HostError::NotIntact {
            x: DevNo { major: 253, minor: 3 },
            stack: "a".parse().expect("a stack's name"),
            found: "it is gone".to_owned(),
        }
    }

    #[test]
    fn a_stack_that_is_not_intact_ends_the_chain() {
        let error = stack_error(&not_intact());
        assert_eq!((error.hope, error.reason), (Hope::Broken, Reason::TableReloaded));
        assert!(error.message.contains("253:3"), "{error}");
    }

    /// A word of theirs that is none of the API's would silently become `OperationFailed`.
    #[test]
    fn every_reason_of_the_machine_is_one_of_the_apis() {
        let sources = [
            include_str!("../../../dm/src/host/error.rs"),
            include_str!("../../../dm/src/lvm_tool/error.rs"),
            include_str!("../../../dm/src/pool/error.rs"),
            include_str!("../../../model/src/refusal.rs"),
        ];
        let said: Vec<&str> = sources.iter().flat_map(|source| reasons(source)).collect();
        assert!(said.contains(&"MetadataNoSpace") && said.contains(&"VolumeHasSnapshots"));
        for reason in said {
            assert!(Reason::parse(reason).is_some(), "{reason}");
        }
    }

    /// What stands in quotes after an arrow.
    fn reasons(source: &str) -> impl Iterator<Item = &str> {
        let said =
            source.split("=> ").skip(1).map(|rest| rest.trim_start_matches(['{', ' ', '\n']));
        said.filter_map(|rest| rest.strip_prefix('"')?.split('"').next())
    }

    #[test]
    fn a_uid_is_a_stacks_name() {
        assert!(stack_id(crate::agent::testing::VOLUME_UID).is_ok());
        assert!(stack_id("../x").is_err());
    }
}
