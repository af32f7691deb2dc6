//! The names that the controller, the agents, the chart and the tests must agree on.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The API group of all kinds.
pub const GROUP: &str = "eratrack.dev";
/// The only version, served and stored.
pub const VERSION: &str = "v1alpha1";

/// On an `EraVolume`: the controller holds it until the device has its original table back.
/// Set and removed by the controller alone.
pub const FINALIZER_DETACH: &str = "eratrack.dev/detach";

/// On an `EraVolume` and a scheduled `EraSnapshot`: the name of the `EraTracking` it was made for.
pub const LABEL_TRACKING: &str = "eratrack.dev/tracking";
/// On an `EraSnapshot` in mode Local, with any value: its reader has finished, and its device may go.
pub const ANNOTATION_RELEASE: &str = "eratrack.dev/release";
/// On a claim: the name of the claim, of the same namespace, that it asks to be a replica of. What is in it may go.
pub const ANNOTATION_REPLICA_OF: &str = "eratrack.dev/replica-of";
/// On an `EraSnapshot` in mode Local, with any value: it is held for the agent, which copies it into the claim's replica, and
/// its device goes when that is done.
pub const ANNOTATION_REPLICATE: &str = "eratrack.dev/replicate";
/// On everything the controller or an agent makes.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "eratrack";
/// Velero leaves an object with this label set to [`EXCLUDE_FROM_BACKUP`] out: restored without its status, an old
/// snapshot would ask for a boundary again.
pub const LABEL_EXCLUDE_FROM_BACKUP: &str = "velero.io/exclude-from-backup";
/// The value of [`LABEL_EXCLUDE_FROM_BACKUP`].
pub const EXCLUDE_FROM_BACKUP: &str = "true";

/// On an `EraTracking`: each new value has one snapshot made of each claim, at once.
pub const ANNOTATION_SNAPSHOT_NOW: &str = "eratrack.dev/snapshot-now";
/// On an `EraSnapshot`: whose wish it was. One with the value [`BY_HAND`] is never pruned, whoever made it.
pub const LABEL_MADE_BY: &str = "eratrack.dev/made-by";
/// The value of [`LABEL_MADE_BY`] of what no schedule made.
pub const BY_HAND: &str = "hand";

/// The controller's field manager for server-side apply.
pub const CONTROLLER: &str = "eratrack-controller";
/// The agents' field manager for server-side apply.
pub const AGENT: &str = "eratrack-agent";
/// The controller's Lease, when the chart names no other.
pub const LEASE: &str = "eratrack-controller";

/// The events that speak of no condition, each with what it says.
pub const EVENTS: [(&str, &str); 4] = [
    (EVENT_VOLUMES_MADE, "On an EraTracking: so many EraVolumes were made for it."),
    (
        EVENT_SNAPSHOTS_ASKED_FOR,
        "On an EraTracking: the snapshots that its annotation `eratrack.dev/snapshot-now` asks for were created.",
    ),
    (
        EVENT_RUNS_MISSED,
        "On an EraTracking: so many scheduled times passed without the snapshot of some claim (`status.missedRuns` counts them).",
    ),
    (EVENT_LET_GO, "On an EraVolume: its tracking is over, and why; the object goes."),
];
/// See [`EVENTS`].
pub const EVENT_VOLUMES_MADE: &str = "EraVolumesMade";
/// See [`EVENTS`].
pub const EVENT_SNAPSHOTS_ASKED_FOR: &str = "SnapshotsAskedFor";
/// See [`EVENTS`].
pub const EVENT_RUNS_MISSED: &str = "RunsMissed";
/// See [`EVENTS`].
pub const EVENT_LET_GO: &str = "LetGo";

/// The longest name of an `EraTracking`: it is used as a label value.
pub const TRACKING_NAME_MAX: usize = 63;
/// The longest name of an `EraSnapshot`: its slices append `-` and their index.
pub const SNAPSHOT_NAME_MAX: usize = 243;
/// The most slices a snapshot may have.
pub const SLICES_MAX: u32 = 16;
/// The most bytes in the `ranges` of one slice.
pub const SLICE_RANGES_MAX: usize = 96 * 1024;
/// The most scheduled snapshots of one volume that are kept.
pub const KEEP_MAX: u32 = 128;

/// `-` and a UTC minute as `YYYYMMDDhhmm`.
const MINUTE_SUFFIX: usize = 13;
/// The digits that tell apart what was asked for.
const NOW_DIGITS: usize = 16;
/// `-now-` and these digits.
const NOW_SUFFIX: usize = 5 + NOW_DIGITS;
/// `-` and ten hexadecimal digits, which stand for the part of a claim's name that was cut off.
const CUT_SUFFIX: usize = 11;

/// The name of slice `index` of a snapshot.
pub fn slice_name(snapshot: &str, index: u32) -> String {
    format!("{snapshot}-{index}")
}

/// The name of the snapshot that a schedule makes of a claim in one UTC minute, given as `YYYYMMDDhhmm`.
///
/// It depends on nothing else, so that two leaders in a row create one object, not two. A claim's name may be longer
/// than a snapshot's: its end is then replaced by a digest of the whole.
pub fn scheduled_snapshot_name(claim: &str, utc_minute: &str) -> String {
    with_suffix(claim, utc_minute, MINUTE_SUFFIX)
}

/// The name of the snapshot of a claim that a value of [`ANNOTATION_SNAPSHOT_NOW`] asks for, on the EraTracking of that
/// uid. It depends on nothing else, so that each value has one made, whoever leads.
pub fn asked_snapshot_name(claim: &str, tracking_uid: &str, value: &str) -> String {
    let digest = hex(&Sha256::digest(format!("{tracking_uid}\n{value}").as_bytes()));
    with_suffix(claim, &format!("now-{}", &digest[..NOW_DIGITS]), NOW_SUFFIX)
}

/// The name of the snapshot that brings a replica, once all was copied, to a point in time. The full copy began in an era
/// of a chain; each has one, whoever leads.
pub fn seeded_snapshot_name(claim: &str, chain: &str, era: u32) -> String {
    let digest = hex(&Sha256::digest(format!("{chain}\n{era}").as_bytes()));
    with_suffix(claim, &format!("rep-{}", &digest[..NOW_DIGITS]), NOW_SUFFIX)
}

/// A claim's name, `-` and a suffix, which take so many characters together; a name too long for that is cut.
fn with_suffix(claim: &str, suffix: &str, length: usize) -> String {
    let room = SNAPSHOT_NAME_MAX - length;
    if claim.len() <= room {
        return format!("{claim}-{suffix}");
    }
    let digest = hex(&Sha256::digest(claim.as_bytes()));
    let kept: String = claim.chars().take(room - CUT_SUFFIX).collect();
    format!("{}-{}-{suffix}", kept.trim_end_matches(['-', '.']), &digest[..CUT_SUFFIX - 1])
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduled_names_say_claim_and_minute() {
        assert_eq!(scheduled_snapshot_name("data-pg-0", "202611222115"), "data-pg-0-202611222115");
    }

    #[test]
    fn long_claims_stay_apart_and_within_the_limit() {
        let [a, b] = ["a", "b"].map(|end| format!("{}{end}", "x".repeat(252)));
        let [a, b] = [a, b].map(|claim| scheduled_snapshot_name(&claim, "202611222115"));
        assert_ne!(a, b);
        assert_eq!(a.len(), SNAPSHOT_NAME_MAX);
        assert!(slice_name(&a, SLICES_MAX - 1).len() <= 253);
    }

    #[test]
    fn what_is_asked_for_is_named_by_claim_and_value() {
        let name = asked_snapshot_name("data", "uid-1", "before the upgrade");
        assert!(name.starts_with("data-now-") && name.len() == "data".len() + NOW_SUFFIX, "{name}");
        assert_eq!(name, asked_snapshot_name("data", "uid-1", "before the upgrade"));
        for (claim, uid, value) in [
            ("log", "uid-1", "before the upgrade"),
            ("data", "uid-2", "before the upgrade"),
            ("data", "uid-1", "2"),
        ] {
            assert_ne!(name, asked_snapshot_name(claim, uid, value));
        }
        assert_eq!(asked_snapshot_name(&"x".repeat(253), "u", "1").len(), SNAPSHOT_NAME_MAX);
    }

    #[test]
    fn a_cut_never_ends_in_a_separator() {
        let claim = format!("{}{}", "x.".repeat(120), "y".repeat(13));
        let name = scheduled_snapshot_name(&claim, "202611222115");
        assert!(!name.contains(".-"), "{name} is no DNS subdomain");
    }
}
