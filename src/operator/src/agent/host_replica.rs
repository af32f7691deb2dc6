//! Tasks of a replica on the machine: open the target → how does it stand? → copy → how does it stand?
//!
//! The target is opened for each task and closed after it. What a target equals, and by what it is seen that nobody else
//! has written to it since, is in its checkpoint (`eratrack_replica`), below the metadata directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use eratrack_api::Reason;
use eratrack_dm::Host;
use eratrack_model::Era;
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;
use eratrack_replica::{
    Follower, Label, Manner, Point, Progress, ReplicaError, Start, TargetError, Watch,
};
use k8s_openapi::jiff::Timestamp;

use super::stacks::{
    Attendant, Equal, ReplicaDone, ReplicaPoint, ReplicaTask, ReplicaTrouble, StackError, Standing,
    WantedReplica,
};

/// One volume's.
pub(super) struct Work<'a> {
    pub(super) host: &'a Host,
    pub(super) state_dir: &'a Path,
    pub(super) record: Record,
}

/// Tells the attendant, and asks it.
struct Attended<'a>(&'a mut dyn Attendant);

impl Watch for Attended<'_> {
    fn progress(&mut self, Progress { done, total, .. }: Progress) {
        self.0.progress(done, total);
    }

    fn check(&mut self) -> Result<(), ReplicaError> {
        self.0.lost().map_or(Ok(()), |why| Err(ReplicaError::Source(why)))
    }
}

/// The source is read through era, whose chain is in the checkpoint: whatever ends the chain has all copied again.
struct Unattended<'a>(&'a mut dyn Attendant);

impl Watch for Unattended<'_> {
    fn progress(&mut self, Progress { done, total, .. }: Progress) {
        self.0.progress(done, total);
    }

    fn check(&mut self) -> Result<(), ReplicaError> {
        Ok(())
    }
}

impl Work<'_> {
    /// Does it, if the replica stands as the task expects. `point` is the point in time that is to be copied.
    pub(super) fn run(
        &self,
        wanted: &WantedReplica,
        task: ReplicaTask,
        point: Option<&File>,
        attendant: &mut dyn Attendant,
    ) -> Result<ReplicaDone, ReplicaTrouble> {
        let mut follower = self.open(wanted)?;
        let result = match (task, point) {
            (ReplicaTask::Look, _) => Ok((true, 0, false)),
            (ReplicaTask::Seed(begin), _) => self.seed(&mut follower, begin, wanted, attendant),
            (ReplicaTask::Copy(what), Some(device)) => {
                copy(&mut follower, &what, device, wanted, attendant)
            }
            (ReplicaTask::Copy(_), None) => return Err(not_held()),
        };
        let (done, bytes, verified) = result.map_err(|error| trouble(&error, wanted))?;
        Ok(ReplicaDone { standing: standing(&follower), done, bytes, verified })
    }

    fn open(&self, wanted: &WantedReplica) -> Result<Follower, ReplicaTrouble> {
        let device = wanted.device;
        let open = || -> Result<Option<Follower>, ReplicaError> {
            let mapped = self.host.machine().is_device_mapper(device);
            let table = if mapped { self.host.live_table(device)? } else { None };
            let Some(file) = self.host.open_target(device)? else { return Ok(None) };
            // In a name of its own, so that it is the same whatever the device is called in this boot.
            let name = PathBuf::from(format!("persistentvolume/{}", wanted.uid));
            let table = table.map(|table| table.to_string());
            let target = (name.as_path(), device, file);
            let machine = self.host.machine();
            Follower::of_device(machine, self.state_dir, self.record.clone(), target, table)
                .map(Some)
        };
        match open() {
            Ok(Some(follower)) => Ok(follower),
            Ok(None) => Err(in_use(wanted)),
            Err(error) => Err(trouble(&error, wanted)),
        }
    }

    fn seed(
        &self,
        follower: &mut Follower,
        begin: Option<Era>,
        wanted: &WantedReplica,
        attendant: &mut dyn Attendant,
    ) -> Result<(bool, u64, bool), ReplicaError> {
        match (follower.start(), begin) {
            (Start::Full(_), Some(era)) => follower.begin(era)?,
            (Start::Full(_), None) | (Start::Changed { .. }, _) => return Ok((false, 0, false)),
            (Start::Resume { .. }, _) => {}
        }
        if follower.is_seeded() {
            return Ok((true, 0, false));
        }
        let source = self.host.open_tracked(&self.record)?;
        let stop = attendant.stop();
        let max_rate = wanted.max_rate.map(Bytes);
        let manner = Manner { stop: &stop, max_rate, verify: false };
        let seeded = follower.seed(&source, manner, &mut Unattended(attendant))?;
        Ok((true, seeded.bytes, false))
    }
}

fn copy(
    follower: &mut Follower,
    what: &ReplicaPoint,
    device: &File,
    wanted: &WantedReplica,
    attendant: &mut dyn Attendant,
) -> Result<(bool, u64, bool), ReplicaError> {
    let since = match *follower.start() {
        Start::Full(_) => return Ok((false, 0, false)),
        Start::Resume { since, .. } | Start::Changed { since } => since,
    };
    if since != what.since || !follower.is_seeded() {
        return Ok((false, 0, false));
    }
    let ReplicaPoint { name, uid, era, time, since: _, changes } = what;
    let time = u64::try_from(time.as_millisecond()).unwrap_or_default();
    let label = Some(Label { name: name.clone(), uid: uid.clone() });
    let point = Point { device, era: *era, time, label, changes };
    let stop = attendant.stop();
    let max_rate = wanted.max_rate.map(Bytes);
    let manner = Manner { stop: &stop, max_rate, verify: wanted.verify };
    let copied = follower.copy(&point, manner, &mut Attended(attendant))?;
    Ok((true, copied.bytes, copied.verified_in.is_some()))
}

fn standing(follower: &Follower) -> Standing {
    match follower.start() {
        Start::Full(why) => Standing::Unseeded(why.to_string()),
        Start::Resume { since, .. } if follower.is_seeded() => Standing::Seeded(*since),
        Start::Resume { since, .. } => Standing::Seeding(*since),
        Start::Changed { since } => Standing::Following(*since, equal(follower)),
    }
}

fn equal(follower: &Follower) -> Option<Equal> {
    let (time, Label { name, uid }) = follower.equals()?;
    let time = Timestamp::from_millisecond(i64::try_from(time).ok()?).ok()?;
    Some(Equal { name: name.clone(), uid: uid.clone(), time })
}

/// One exhaustive mapping to what is said of it.
fn trouble(error: &ReplicaError, wanted: &WantedReplica) -> ReplicaTrouble {
    let claim = &wanted.claim;
    let (reason, message) = match error {
        ReplicaError::Target(TargetError::InUse { .. }) => return in_use(wanted),
        ReplicaError::Target(TargetError::TooSmall { found, needed, .. }) => (
            Reason::ReplicaTooSmall,
            format!(
                "claim {claim} has {found}, less than the {needed} of the volume; use a larger one"
            ),
        ),
        ReplicaError::Target(TargetError::NotEmpty { because, .. }) => (
            Reason::ReplicaNotBlank,
            format!(
                "claim {claim} is not empty, and {because}: clear the first and the last MiB of its device ({}), if what is in it may go",
                wanted.device
            ),
        ),
        ReplicaError::Target(
            TargetError::IsSource { .. }
            | TargetError::OnSource { .. }
            | TargetError::PartOfStack { .. },
        ) => (
            Reason::ReplicaIsSource,
            format!(
                "the device of claim {claim} ({}) is the volume itself, or lies on it or beneath it",
                wanted.device
            ),
        ),
        ReplicaError::Differs { .. } | ReplicaError::Written { .. } => {
            (Reason::ReplicaDiffers, crate::exit::chain(error))
        }
        ReplicaError::Target(
            TargetError::Kind { .. } | TargetError::NoDevice { .. } | TargetError::Io { .. },
        )
        | ReplicaError::Host(_)
        | ReplicaError::Machine(_)
        | ReplicaError::Checkpoint(_)
        | ReplicaError::Read { .. }
        | ReplicaError::Write { .. }
        | ReplicaError::Source(_)
        | ReplicaError::Stopped(_) => (Reason::ReplicaFailed, crate::exit::chain(error)),
    };
    ReplicaTrouble { reason, message, stopped: matches!(error, ReplicaError::Stopped(_)) }
}

fn in_use(wanted: &WantedReplica) -> ReplicaTrouble {
    let message = format!(
        "the device of claim {} ({}) is mounted, mapped or open on its node; end what uses it",
        wanted.claim, wanted.device
    );
    ReplicaTrouble { reason: Reason::ReplicaInUse, message, stopped: false }
}

pub(super) fn not_held() -> ReplicaTrouble {
    failed("the point in time is not held any more".to_owned())
}

pub(super) fn stack(error: &StackError) -> ReplicaTrouble {
    failed(error.to_string())
}

pub(super) fn host(error: &eratrack_dm::HostError) -> ReplicaTrouble {
    failed(crate::exit::chain(error))
}

fn failed(message: String) -> ReplicaTrouble {
    ReplicaTrouble { reason: Reason::ReplicaFailed, message, stopped: false }
}
