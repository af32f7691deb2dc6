//! The machine's stacks as the agent needs them: a narrow trait over `eratrack_dm::Host`, in the words of the API.
//!
//! Everything here blocks; it is called from blocking tasks only, one operation of a volume at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use eratrack_api::{Device, Granularity, Reason};
use eratrack_model::Era;
use eratrack_model::extents::ChangedBlocks;
use eratrack_model::units::DevNo;

use k8s_openapi::jiff::Timestamp;

/// A volume with era in its data path, by its durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// The chain, a uuid.
    pub(crate) chain: String,
    /// The volume's own device.
    pub(crate) number: DevNo,
    /// The same, for people.
    pub(crate) device: Device,
    /// What is in force.
    pub(crate) granularity: Granularity,
    /// The size of the device.
    pub(crate) size_bytes: u64,
}

/// What is wanted on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The PersistentVolume's uid, which names the stack.
    pub(crate) volume_uid: String,
    /// The device beneath the mounts.
    pub(crate) device: DevNo,
    /// The size of a block.
    pub(crate) granularity: Granularity,
}

/// Whether the device's live table is still ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It is.
    Intact,
    /// Somebody loaded another one; writes since then are unseen.
    Reloaded {
        /// The size that the device has now.
        size_bytes: Option<u64>,
    },
    /// The volume was put back to an earlier snapshot.
    RolledBack,
    /// The device is not there any more.
    Gone,
    /// The record is of an earlier boot.
    Rebooted,
}

/// How era came to be in a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// It was in already.
    Found,
    /// It was put in, and a new chain began.
    Fresh,
    /// The same, in a volume that was put back to an earlier snapshot since it was last in.
    RolledBack,
}

/// What era says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It records.
    Good {
        /// The current era.
        era: Era,
        /// Metadata in use.
        used_bytes: u64,
        /// Size of the metadata.
        total_bytes: u64,
    },
    /// Its metadata failed: writes fail with it, so it must come out at once.
    Failed,
}

/// A boundary that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The first era after it.
    pub(crate) era: Era,
    /// Everything acknowledged before this time was written in an earlier era.
    pub(crate) time: Timestamp,
    /// How much of the metadata is in use, in percent.
    pub(crate) used_percent: u32,
}

/// Which point in time is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedPoint {
    /// The uid of the `EraSnapshot` that it is of.
    pub(crate) snapshot_uid: String,
    /// How long it is held at most.
    pub(crate) hold: Duration,
}

/// A point in time that this process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldPoint {
    /// The uid of the `EraSnapshot` that it is of.
    pub(crate) snapshot_uid: String,
    /// Its device, as the machine sees it.
    pub(crate) device: String,
    /// When it is to end at the latest.
    pub(crate) until: Timestamp,
}

/// How a point in time is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PointState {
    /// All that was read from it up to now is the volume as it was then.
    Good,
    /// What was read from it does not count, and why.
    Lost(Reason, String),
}

/// What was written since an era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The blocks, as runs that ascend with gaps between them.
    pub(crate) runs: ChangedBlocks,
    /// How many blocks the kernel marked; `runs` may hold more, never fewer.
    pub(crate) marked_blocks: u64,
}

/// What a volume is copied into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedReplica {
    /// The uid of its PersistentVolume.
    pub(crate) uid: String,
    /// The claim, for people.
    pub(crate) claim: String,
    /// Its device.
    pub(crate) device: DevNo,
    /// Not more than so many bytes a second.
    pub(crate) max_rate: Option<u64>,
    /// Compare everything after each copy.
    pub(crate) verify: bool,
}

/// What is to be done with a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaTask {
    /// See how it stands.
    Look,
    /// Copy everything: from the beginning, if an era is given that began after all that is not fetched later; else from
    /// where it was.
    Seed(Option<Era>),
    /// Make it equal to the point in time that is held.
    Copy(Box<ReplicaPoint>),
}

/// A point in time that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaPoint {
    /// The `EraSnapshot`'s name.
    pub(crate) name: String,
    /// The `EraSnapshot`'s uid.
    pub(crate) uid: String,
    /// The first era after its boundary.
    pub(crate) era: Era,
    /// When its boundary was.
    pub(crate) time: Timestamp,
    /// The era that the changes are of.
    pub(crate) since: Era,
    /// What was written in that era or later.
    pub(crate) changes: ChangedBlocks,
}

/// How a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everything is to be copied, and why.
    Unseeded(String),
    /// Everything is being copied; what was written in that era or later is fetched afterwards.
    Seeding(Era),
    /// The same, and there is nothing left but what is fetched.
    Seeded(Era),
    /// It equals a point in time, or is a mix of two: what was written in that era or later is to be fetched.
    Following(Era, Option<Equal>),
}

/// A point in time that a replica equals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Equal {
    /// The `EraSnapshot`'s name.
    pub(crate) name: String,
    /// The `EraSnapshot`'s uid.
    pub(crate) uid: String,
    /// When its boundary was.
    pub(crate) time: Timestamp,
}

/// What was done with a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaDone {
    /// How it stands now.
    pub(crate) standing: Standing,
    /// Whether the task was done; if not, the replica stood otherwise than it was for.
    pub(crate) done: bool,
    /// How much was copied.
    pub(crate) bytes: u64,
    /// Whether everything was compared.
    pub(crate) verified: bool,
}

/// Why a task of a replica's was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ReplicaTrouble {
    /// The reason of the condition.
    pub(crate) reason: Reason,
    /// What, and what helps.
    pub(crate) message: String,
    /// It ended because it was told to.
    pub(crate) stopped: bool,
}

/// Who attends a task of a replica's.
pub(crate) trait Attendant {
    /// So many bytes of so many are copied.
    fn progress(&mut self, done: u64, total: u64);

    /// Why what was read of the point in time does not count, if it does not. May block.
    fn lost(&mut self) -> Option<String>;

    /// Becomes true when it is to end.
    fn stop(&self) -> Arc<AtomicBool>;
}

/// A stack that was on the machine when the agent came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The PersistentVolume's uid.
    pub(crate) volume_uid: String,
    /// What became of it.
    pub(crate) state: FoundState,
}

/// What became of a stack that was on the machine when the agent came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundState {
    /// It is in place, and its chain goes on.
    Present(Tracked),
    /// It is gone, and why its chain ended, if it had begun and its end was not wished for.
    Ended(Option<Reason>),
    /// It could not be cleared up yet.
    Stuck(String),
}

/// What can be hoped for after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hope {
    /// It may pass within moments.
    Soon,
    /// Something about the machine must change first.
    Later,
    /// The chain is broken: era must come out and be put in again.
    Broken,
}

/// A step that the machine refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StackError {
    /// What can be hoped for.
    pub(crate) hope: Hope,
    /// The reason of the conditions.
    pub(crate) reason: Reason,
    /// What, of which device, and what helps.
    pub(crate) message: String,
}

/// The stacks of one machine. A stack is named by its PersistentVolume's uid.
pub(crate) trait Stacks: Send + Sync + 'static {
    /// Finishes, undoes or adopts what is there. Once, before anything else.
    fn recover(&self) -> Result<Vec<Found>, StackError>;

    /// The same for one stack that could not be cleared up.
    fn recover_again(&self, volume_uid: &str) -> Result<FoundState, StackError>;

    /// Puts era in, or finds it in.
    fn attach(&self, wanted: &Wanted) -> Result<(Tracked, Insertion), StackError>;

    /// Whether the volume could be tracked at another granularity, if it were no longer tracked as it is.
    fn check_refit(&self, volume_uid: &str, granularity: Granularity) -> Result<(), StackError>;

    /// One cheap look at the device's live table.
    fn liveness(&self, volume_uid: &str) -> Result<Liveness, StackError>;

    /// Asks era; costs a commit of its metadata.
    fn health(&self, volume_uid: &str) -> Result<Health, StackError>;

    /// Ends the era and waits for what is in flight.
    fn boundary(&self, volume_uid: &str) -> Result<Boundary, StackError>;

    /// The same, and keeps the volume as it was then in a device of its own. It ends with this process, with the stack,
    /// or when it is ended; one of the same snapshot that is held already ends before.
    fn begin_point(
        &self,
        volume_uid: &str,
        wanted: &WantedPoint,
    ) -> Result<(Boundary, HeldPoint), StackError>;

    /// The point in time that this process holds of the volume. Does not block.
    fn held_point(&self, volume_uid: &str) -> Option<HeldPoint>;

    /// Whether all that was read up to now from the one that is held counts.
    fn check_point(&self, volume_uid: &str) -> Result<PointState, StackError>;

    /// Ends the one that is held, and whatever is left of earlier ones. After an error it is held no more, and what
    /// is left of it is ended by the next call.
    fn end_point(&self, volume_uid: &str) -> Result<(), StackError>;

    /// Reads what was written in `since` or later.
    fn changes(&self, volume_uid: &str, since: Era) -> Result<Changes, StackError>;

    /// Does a task of the volume's replica, which may take hours. The only one that is called beside the others: it
    /// reads what is held or tracked, writes to the replica, and touches nothing else.
    fn replicate(
        &self,
        volume_uid: &str,
        wanted: &WantedReplica,
        task: ReplicaTask,
        attendant: &mut dyn Attendant,
    ) -> Result<ReplicaDone, ReplicaTrouble>;

    /// Gives the device its own table back, and removes what is ours. Where the device went on without us or is gone,
    /// only our remains are removed and nothing is written. No stack is as good.
    fn detach(&self, volume_uid: &str) -> Result<(), StackError>;
}

impl StackError {
    /// What is in the data path cannot be vouched for without its record.
    pub(crate) fn no_record(volume_uid: &str) -> Self {
        Self {
            hope: Hope::Broken,
            reason: Reason::RecordMismatch,
            message: format!("there is no record of a stack for volume {volume_uid}"),
        }
    }

    /// Something that no step accounts for.
    pub(crate) fn unforeseen(message: String) -> Self {
        Self { hope: Hope::Soon, reason: Reason::OperationFailed, message }
    }
}
