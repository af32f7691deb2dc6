//! Why a condition is as it is: one enum for all kinds, and the table that explains it.
//!
//! A reason is part of the interface: alerts and scripts match on it. It is never renamed; a new one is added here, and
//! `docs/reasons.md` is generated from this file.

use std::fmt;

use crate::condition::ConditionType;

/// The kinds that have conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What a user wants tracked.
    EraTracking,
    /// One tracked volume.
    EraVolume,
    /// One boundary of one volume.
    EraSnapshot,
}

impl Subject {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EraTracking => "EraTracking",
            Self::EraVolume => "EraVolume",
            Self::EraSnapshot => "EraSnapshot",
        }
    }
}

/// A condition of a kind, where a reason can stand.
pub type Place = (Subject, ConditionType);

use ConditionType::{
    Attached, Failed, Readable, Ready, ReplicaCurrent, SnapshotCurrent, TrackingIntact,
};
use Subject::{EraSnapshot, EraTracking, EraVolume};

/// What keeps era out of the data path is also why the chain is not intact and the volume not ready.
const VOLUME: &[Place] = &[(EraVolume, Attached), (EraVolume, TrackingIntact), (EraVolume, Ready)];
const CHAIN: &[Place] = &[(EraVolume, TrackingIntact), (EraVolume, Ready)];
const TRACKING: &[Place] = &[(EraTracking, Ready)];
const SCHEDULE: &[Place] = &[(EraTracking, SnapshotCurrent), (EraTracking, Ready)];
const SNAPSHOT: &[Place] = &[(EraSnapshot, Ready)];
/// A snapshot that failed is also not ready, for the same reason: that is what its `Phase` column prints.
const FAILURE: &[Place] = &[(EraSnapshot, Failed), (EraSnapshot, Ready)];

/// A point in time that is lost before its list is complete has failed; later on only its device is of no use.
const LOST: &[Place] = &[(EraSnapshot, Readable), (EraSnapshot, Failed), (EraSnapshot, Ready)];
const READABLE: &[Place] = &[(EraSnapshot, Readable)];

/// What the agent says of a replica, the controller repeats.
const REPLICA: &[Place] =
    &[(EraVolume, ReplicaCurrent), (EraTracking, ReplicaCurrent), (EraTracking, Ready)];
/// What nobody need ask the node about.
const REPLICA_REFUSED: &[Place] = &[(EraTracking, ReplicaCurrent), (EraTracking, Ready)];
const REPLICA_WELL: &[Place] = &[(EraVolume, ReplicaCurrent), (EraTracking, ReplicaCurrent)];

macro_rules! reasons {
    ($($name:ident: $places:expr, $means:literal, $remedy:literal;)*) => {
        /// Why a condition is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $means] $name,)*
        }

        impl Reason {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it stands in a manifest.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The conditions it can stand in, the one it is made for first.
            pub fn places(self) -> &'static [Place] {
                match self { $(Self::$name => $places,)* }
            }

            /// What it means.
            pub fn means(self) -> &'static str {
                match self { $(Self::$name => $means,)* }
            }

            /// What a user or an administrator can do about it; `Nothing` where there is nothing to do.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

reasons! {
    // Is era in the volume's data path?
    Attached: VOLUME,
        "Era is in the data path of the volume, and every write is recorded.",
        "Nothing.";
    Attaching: VOLUME,
        "The agent is putting era into the data path.",
        "Nothing: it takes seconds.";
    NodeUnknown: VOLUME,
        "No single node can be told to which the volume belongs: the PersistentVolume's node affinity matches none or several, and no VolumeAttachment names one.",
        "Nothing, if no pod uses the claim yet; otherwise check the PersistentVolume's nodeAffinity and the nodes' labels.";
    AgentNotReady: VOLUME,
        "No agent is ready on the volume's node, so nobody can tell how the volume is. Era itself goes on recording without an agent.",
        "Look at the agent's pod on that node, and at its tolerations and node selector in the chart's values.";
    NotInUse: VOLUME,
        "The volume is neither mounted nor mapped on its node. Era is put in when a pod first uses it.",
        "Start a pod that uses the claim.";
    DeviceNotFound: VOLUME,
        "The PersistentVolume is gone, was made again, or belongs to another claim; or its block device is not on the node any more.",
        "Compare the PersistentVolume's uid and claimRef with the EraVolume's spec; check that the device still exists on the node.";
    DeviceAmbiguous: VOLUME,
        "More than one device could be the volume's; none is touched.",
        "The message names them: unmount what should not be there.";
    DeviceClaimed: VOLUME,
        "The device is already tracked for another PersistentVolume.",
        "Have only one PersistentVolume point at the device.";
    DeviceBusy: VOLUME,
        "Somebody else is changing the device: it is suspended, a table that is not ours waits in it, or LVM holds its lock.",
        "Nothing: it is tried again. If it stays, see which command on the node holds the device.";
    DeviceReadOnly: VOLUME,
        "The device is read-only, and putting era in would make it writable.",
        "Nothing: what cannot be written needs no tracking.";
    NotBlockBacked: VOLUME,
        "The volume is a network file system or a temporary one, with no block device behind it.",
        "Use a claim whose storage class makes block volumes.";
    SharedFilesystem: VOLUME,
        "The volume is a directory of a file system that holds other things too; tracking it would track all of that.",
        "Give the PersistentVolume a device or a whole file system of its own.";
    NotDeviceMapper: VOLUME,
        "The device is not managed by device mapper, so era cannot be put in while it is in use.",
        "Use logical volumes (LVM, thick or thin) for volumes that are to be tracked.";
    AccessModeUnsupported: VOLUME,
        "The claim can be written from several nodes, and writes of other nodes would go unseen.",
        "Use ReadWriteOnce or ReadWriteOncePod.";
    FilesystemUnsupported: VOLUME,
        "The file system writes to its devices in a way that is not seen on this one: DAX, a realtime device of XFS, or btrfs and zfs, which span devices on their own.",
        "Mount it without the dax option, or use ext4 or XFS on a device of its own.";
    TableUnsupported: VOLUME,
        "The device's table is not of linear, striped or thin targets alone: crypt, cache, raid, mirror and multipath, among others, cannot be moved beneath era.",
        "The message names the target, and what can be tracked instead, if anything.";
    VolumeHasSnapshots: VOLUME,
        "The logical volume has LVM snapshots, which LVM could no longer remove with era in place.",
        "Remove the volume's LVM snapshots; then it is attached.";
    DeviceTooSmall: VOLUME,
        "The device is smaller than 8 MiB, or than one block of the granularity.",
        "Use a larger volume, or choose a finer granularity in the EraTracking.";
    KernelUnsupported: VOLUME,
        "The node's kernel has no dm-era, or one that can lose changes in a crash.",
        "Use a kernel of 5.15.51 or later of the 5.15 series, or 6.1 and later, with the module dm-era.";
    MetadataNoSpace: VOLUME,
        "The file system of the metadata directory has not the room that the tracking needs and must leave free.",
        "Make room, choose another metadata directory in the chart's values, or a coarser granularity.";
    MetadataOnTrackedVolume: VOLUME,
        "The metadata directory lies on a tracked volume or on a device beneath one, which would wait for itself.",
        "Choose a metadata directory on the node's own disk in the chart's values.";
    LimitExceeded: &[(EraVolume, Attached), (EraVolume, TrackingIntact), (EraVolume, Ready), (EraTracking, Ready)],
        "A limit would be exceeded: the finest granularity that the administrator or the device admits, or the metadata of a volume or of a node.",
        "Choose a coarser granularity, or have the administrator raise the limit that the message names.";
    OperationFailed: &[(EraVolume, Attached), (EraVolume, TrackingIntact), (EraVolume, Ready), (EraSnapshot, Ready), (EraTracking, Ready), (EraTracking, SnapshotCurrent)],
        "The kernel, the node or the API server refused a step; the volume was left, or put back, as it was.",
        "The message says which step and why. It is tried again; look at the log of the agent, or of the controller, if it stays.";
    Detaching: VOLUME,
        "The volume's original table is being put back.",
        "Nothing: it takes seconds.";
    Detached: VOLUME,
        "The volume has its original table, and nothing of ours is left on the node.",
        "Nothing.";

    // Is the next snapshot incremental?
    ChainIntact: &[(EraVolume, TrackingIntact), (EraTracking, TrackingIntact)],
        "Every write since the last snapshot is known; the next one is incremental.",
        "Nothing.";
    NoBaseline: CHAIN,
        "There is no snapshot of this chain yet to which changes could refer; the next one is full.",
        "Make a snapshot, or wait for the schedule.";
    NodeRebooted: CHAIN,
        "The node was restarted, and the volume may have been written before era was back; the next snapshot is full.",
        "Nothing.";
    NodeChanged: CHAIN,
        "The volume moved to another node, which knows nothing of earlier writes; the next snapshot is full.",
        "Nothing.";
    TableReloaded: CHAIN,
        "Another program, usually LVM, loaded its own table into the device and so took era out; the next snapshot is full.",
        "Nothing: era is put in again. To keep chains whole, avoid lvextend, pvmove, lvcreate -s and lvchange --refresh on tracked volumes.";
    RolledBack: CHAIN,
        "The volume was put back to an earlier snapshot beneath era, as lvconvert --merge does; the next snapshot is full.",
        "Nothing. Copies that were brought up to date since that snapshot hold what was undone, until the full one is copied.";
    Resized: CHAIN,
        "The volume has another size than at the last snapshot; the next one is full.",
        "Nothing.";
    GranularityChanged: CHAIN,
        "The granularity was changed, and with it what was recorded; the next snapshot is full.",
        "Nothing.";
    Reattached: CHAIN,
        "Era was taken out and put in again; the next snapshot is full.",
        "Nothing.";
    MetadataLost: CHAIN,
        "The recorded changes are gone or cannot be read; the next snapshot is full.",
        "Check the file system of the metadata directory if it happens again.";
    MetadataFull: CHAIN,
        "The metadata ran full, or nearly so; era was taken out at once, so that the application could go on writing. The next snapshot is full.",
        "Please report it, with the volume's size and granularity: the metadata is sized so that this cannot happen.";
    MetadataError: CHAIN,
        "The metadata could not be written; era was taken out at once, so that the application could go on writing. The next snapshot is full.",
        "Check the disk of the metadata directory.";
    RecordMismatch: CHAIN,
        "What the agent wrote down about the volume does not agree with the device; the next snapshot is full.",
        "Nothing, unless it happens again without a change to the device.";

    SlicesLost: &[(EraVolume, TrackingIntact), (EraSnapshot, Failed), (EraSnapshot, Ready)],
        "A slice of the last snapshot's list is gone, or is not what was written; nobody gets past that snapshot by lists; the next snapshot is full.",
        "Copy in full, once, and go on from the next snapshot. See who can delete or write changedblockslices, and the API server's audit log.";

    // How is the volume altogether?
    Tracking: &[(EraVolume, Ready)],
        "Era is in the data path, the chain is intact or waits for its first snapshot, and the node's agent is ready.",
        "Nothing.";

    // How is everything an EraTracking names?
    AllTracked: TRACKING,
        "Every claim it names is tracked.",
        "Nothing.";
    NoClaimsMatched: TRACKING,
        "No claim of the namespace matches the selector.",
        "Compare the selector with the labels of the claims: kubectl get pvc --show-labels.";
    ClaimNotFound: TRACKING,
        "A claim that it names does not exist in its namespace.",
        "Create the claim, or correct its name in spec.claims.names.";
    ClaimNotBound: TRACKING,
        "A claim is not bound to a PersistentVolume yet.",
        "Nothing, if its storage class waits for the first consumer: start a pod that uses it.";
    ClaimTaken: TRACKING,
        "A claim is already tracked for an older EraTracking.",
        "Have only one EraTracking name the claim.";
    VolumeNotReady: TRACKING,
        "A volume is not tracked.",
        "See the reason of its EraVolume: kubectl get eravolumes.";
    VolumeNotIntact: &[(EraTracking, TrackingIntact), (EraTracking, Ready)],
        "The next snapshot of a volume will be full.",
        "See the reason of its EraVolume: kubectl get eravolumes. The next snapshot cures it.";

    NotMerged: &[(EraTracking, Ready)],
        "A snapshot whose time is over stays, because its list or that of the next one is not whole: a slice is gone, or is not what was written. They cannot be merged.",
        "Nobody gets past that snapshot by lists: copy in full from a later one on, and delete it by hand. See who can delete or write changedblockslices.";

    // Are the snapshots on time?
    OnSchedule: SCHEDULE,
        "The snapshots of the last scheduled time are complete, or were not due yet.",
        "Nothing.";
    NoSchedule: SCHEDULE,
        "No schedule is set; snapshots are made by hand.",
        "Nothing, or set spec.snapshots.schedule.";
    ScheduleSuspended: SCHEDULE,
        "The schedule is suspended; tracking goes on.",
        "Set spec.snapshots.suspend to false to go on.";
    SnapshotOverdue: SCHEDULE,
        "A scheduled time passed its starting deadline without a snapshot.",
        "See whether the controller was running at that time.";
    SnapshotFailed: SCHEDULE,
        "The latest scheduled snapshot of a volume failed.",
        "See the reason of the EraSnapshot that the message names.";
    ScheduleNeverFires: SCHEDULE,
        "No date satisfies the schedule, such as the 31st of February.",
        "Correct the day of the month or the month in spec.snapshots.schedule.";
    TimeZoneUnknown: SCHEDULE,
        "The time zone is none that is known.",
        "Give an IANA name such as Europe/Berlin in spec.snapshots.timeZone.";
    Throttled: &[(EraTracking, SnapshotCurrent)],
        "More snapshots are due than the cluster's limit per second admits; they follow one by one.",
        "Nothing; or spread the schedules over the hour.";
    StorageBudget: &[(EraTracking, SnapshotCurrent), (EraTracking, Ready), (EraSnapshot, Ready)],
        "The lists of changed blocks have reached the limit of what may be kept in the cluster's store, of the volume, the namespace or the cluster.",
        "Keep fewer snapshots (spec.snapshots.keep), delete EraSnapshots that were made by hand, or choose a coarser granularity.";

    // How far is a snapshot?
    Complete: SNAPSHOT,
        "The list of changed blocks is complete and can be read.",
        "Nothing.";
    Pending: SNAPSHOT,
        "The snapshot waits for the node's agent.",
        "Nothing, unless it lasts: see whether the agent's pod on that node is ready.";
    NotTracked: SNAPSHOT,
        "No EraVolume tracks the claim.",
        "Name the claim in an EraTracking of the same namespace.";
    NotAttached: SNAPSHOT,
        "The claim's volume is not attached.",
        "See the reason of the EraVolume of the claim's name.";
    RateLimited: SNAPSHOT,
        "Another snapshot of the volume is under way or was made less than ten seconds ago, or the node is making as many as it may.",
        "Nothing: it follows by itself.";
    Reading: SNAPSHOT,
        "The boundary is made, and the list is being read and written.",
        "Nothing.";

    PointInTimeHeld: SNAPSHOT,
        "Another point in time of the volume is held for its reader; there is one at a time.",
        "Release it when its reader has finished (annotation eratrack.dev/release, or delete that EraSnapshot), or wait for its status.heldUntil.";
    CopiesNoSpace: SNAPSHOT,
        "The file system of the metadata directory has not the room for the copies that a point in time needs, beside what must stay free.",
        "Make room, or give agent.copiesPerVolume a smaller value in the chart's values.";

    // Can the device of a Local snapshot be read?
    PointInTime: READABLE,
        "The device shows the volume as it was at the boundary.",
        "Read it, then release the snapshot and see that Readable says Released.";
    Released: READABLE,
        "The reader has released it, and the device was good until then: what was read counts.",
        "Nothing.";
    HoldExpired: READABLE,
        "spec.holdSeconds are over, and the device went. It was good until then: what was read before the condition's time counts.",
        "Read faster, or give holdSeconds a larger value.";
    CopiesFull: LOST,
        "More of the volume was overwritten than the room for copies holds. The device is of no use any more, and what was read from it does not count; the volume is as ever.",
        "Give agent.copiesPerVolume a larger value in the chart's values, release snapshots sooner, or make them when less is written.";
    PointInTimeLost: LOST,
        "The point in time ended before its reader had: the device's table was reloaded, tracking ended, or the agent was restarted. What was read from it does not count.",
        "Create another one.";

    // Does the replica follow?
    ReplicaFollowing: REPLICA_WELL,
        "The replica was made equal to a snapshot; the next one is copied when it is made.",
        "Nothing.";
    ReplicaSeeding: REPLICA_WELL,
        "Everything is being copied, or the first snapshot after that is being waited for. The replica equals no snapshot yet.",
        "Nothing: status.replica says how far it is. With spec.replica.maxBytesPerSecond it takes as long as that says.";
    ReplicaWaiting: REPLICA_WELL,
        "The volume is not tracked just now, or the agent has not looked at the replica yet.",
        "Nothing; if it lasts, see the condition Attached of the EraVolume.";
    ReplicaNeedsOneClaim: REPLICA_REFUSED,
        "spec.replica is given, and spec.claims selects no claim or more than one. Nothing is copied.",
        "Have one EraTracking for each claim that is to have a replica.";
    ReplicaClaimNotFound: REPLICA_REFUSED,
        "The claim in spec.replica does not exist in the namespace. Nothing is copied.",
        "Create the claim, or correct spec.replica.claimName.";
    ReplicaClaimNotBound: REPLICA_REFUSED,
        "The claim in spec.replica is not bound to a PersistentVolume. Nothing is copied.",
        "Have it bound without a pod: a storage class with volumeBindingMode Immediate, or spec.volumeName.";
    ReplicaIsSource: REPLICA,
        "The replica is the claim itself, or its device is the one that is tracked, lies on it or beneath it. Nothing is copied.",
        "Name a claim on another disk in spec.replica.claimName.";
    ReplicaNotAskedFor: REPLICA_REFUSED,
        "The claim in spec.replica does not ask to be overwritten. Nothing is copied.",
        "Set its annotation eratrack.dev/replica-of to the name of the claim that is to be copied into it.";
    ReplicaNotBlock: REPLICA_REFUSED,
        "The claim in spec.replica has volumeMode Filesystem. Nothing is copied.",
        "Use a claim with volumeMode Block: what is copied into it holds the filesystem already.";
    ReplicaElsewhere: REPLICA_REFUSED,
        "The volume of the claim in spec.replica is not on the node of the claim that is to be copied, or on no single node. Nothing is copied.",
        "Use a claim whose volume is on the same node.";
    ReplicaDeviceNotFound: REPLICA,
        "The device of the replica's PersistentVolume is not on the node, or is not found there: only those of the kind `local` are looked for.",
        "Use a PersistentVolume with spec.local.path that leads to a block device; check that it is there.";
    ReplicaInUse: REPLICA,
        "A pod has the replica, or it is mounted, mapped or open on its node. Nothing is copied while it is.",
        "Delete the pods that use the claim; unmount it.";
    ReplicaTooSmall: REPLICA,
        "The replica is smaller than the volume. Nothing is copied.",
        "Use a larger claim, or have it expanded.";
    ReplicaNotBlank: REPLICA,
        "The replica holds something, and this node does not know it as a replica of this volume. It is left as it is.",
        "Use a blank volume; or clear the first and the last MiB of this one, if what is in it may go.";
    ReplicaFailed: REPLICA,
        "A step failed: a device could not be read or written, or the point in time was lost. The replica equals no snapshot until the next one is copied.",
        "The message says which. It is tried again with the next snapshot; check the disks if it stays.";
    ReplicaDiffers: REPLICA,
        "Compared in full, the replica was not what had been copied, or somebody else has written to it. Everything is copied again.",
        "See that nobody else writes to the claim, and check its disk.";

    // Why will a snapshot never be ready?
    DeadlineExceeded: FAILURE,
        "The snapshot was not complete within spec.deadlineSeconds.",
        "See the message for what it waited for; create another one.";
    NodeGone: &[(EraSnapshot, Failed), (EraSnapshot, Ready), (EraVolume, Ready)],
        "The node of the volume is not in the cluster any more.",
        "Create another snapshot when the volume is in use on another node.";
    BoundaryTimeout: FAILURE,
        "The writes in flight at the boundary did not come to an end in time.",
        "Check the volume's disk for slow or hanging writes; create another one.";
    ChainBroken: FAILURE,
        "The chain broke between the boundary and the end of the list, so the list cannot be vouched for.",
        "Create another one: it will be full.";
    ListUnreadable: FAILURE,
        "The recorded changes could not be read, or failed their checksums.",
        "Create another one; check the disk of the metadata directory if it happens again.";
    QuotaExceeded: &[(EraSnapshot, Failed), (EraSnapshot, Ready), (EraTracking, Ready), (EraTracking, SnapshotCurrent)],
        "A ResourceQuota of the namespace does not admit the object that the message names.",
        "Raise the quota on count/eravolumes, count/erasnapshots or count/changedblockslices (.eratrack.dev).";
    VolumeChanged: FAILURE,
        "The claim is now bound to another volume than when the snapshot was asked for.",
        "Create another one.";
}

impl Reason {
    /// The reason of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
