//! Why a chain began. Pure.

use eratrack_api::{
    Chain, Condition, ConditionType, EraSnapshot, EraVolumeStatus, Reason, Time, condition,
};
use k8s_openapi::jiff::Timestamp;

use crate::agent::stacks::Tracked;

/// What the agent knows about how the last chain ended, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The agent saw it end.
    pub(crate) seen: Option<Reason>,
    /// Where the volume's last boundary was made, if there is one.
    pub(crate) last: Option<Whereabouts>,
}

/// Where something of a volume's was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// On this node.
    Here,
    /// On another one.
    Elsewhere,
}

/// The chain that the record names, with its beginning.
pub(crate) fn of(
    tracked: &Tracked,
    before: &EraVolumeStatus,
    evidence: Evidence,
    now: Timestamp,
) -> Chain {
    match &before.chain {
        Some(chain) if chain.id == tracked.chain => chain.clone(),
        last => Chain {
            id: tracked.chain.clone(),
            start_time: Time(now),
            start_reason: start(tracked, before, last.is_some(), evidence).as_str().to_owned(),
        },
    }
}

fn start(tracked: &Tracked, before: &EraVolumeStatus, had_one: bool, evidence: Evidence) -> Reason {
    if let Some(seen) = evidence.seen {
        return seen;
    }
    if evidence.last == Some(Whereabouts::Elsewhere) {
        return Reason::NodeChanged;
    }
    if let Some(said) = broken_for(before) {
        return said;
    }
    // Its object may be a new one, which tells of no chain.
    if !had_one && evidence.last.is_none() {
        return Reason::NoBaseline;
    }
    if before.granularity.is_some_and(|granularity| granularity != tracked.granularity) {
        return Reason::GranularityChanged;
    }
    if before.size_bytes.is_some_and(|size| size != tracked.size_bytes) {
        return Reason::Resized;
    }
    Reason::Reattached
}

/// Why a stack on the machine has another chain than the object names.
pub(crate) fn not_own(
    tracked: &Tracked,
    before: &EraVolumeStatus,
    last: Option<Whereabouts>,
) -> Reason {
    match start(tracked, before, before.chain.is_some(), Evidence { seen: None, last }) {
        Reason::NoBaseline => Reason::Reattached,
        told => told,
    }
}

/// Why the next snapshot of the chain is full, if there is none to refer to: for what began the chain, until it had one.
pub(crate) fn full_reason(chain: &Chain, before: &EraVolumeStatus) -> Reason {
    let same = before.chain.as_ref().is_some_and(|last| last.id == chain.id);
    let intact = condition::find(&before.conditions, ConditionType::TrackingIntact);
    let had_one = before.last_snapshot.is_some()
        || intact.and_then(Condition::known_reason) == Some(Reason::NoBaseline);
    match Reason::parse(&chain.start_reason) {
        Some(began) if !(same && had_one) => began,
        _ => Reason::NoBaseline,
    }
}

/// The node that made the volume's last boundary.
pub(crate) fn last_node<'a>(snapshots: &'a [EraSnapshot], volume_uid: &str) -> Option<&'a str> {
    let made = snapshots.iter().filter_map(|snapshot| {
        let status = snapshot.status.as_ref()?;
        let of_volume = status.volume_uid.as_deref() == Some(volume_uid);
        of_volume.then_some((status.boundary_time.as_ref()?.0, status.node_name.as_deref()?))
    });
    made.max_by_key(|(time, _)| *time).map(|(_, node)| node)
}

/// Why the last chain ended, if an earlier process wrote it down before it could begin the next.
pub(crate) fn broken_for(status: &EraVolumeStatus) -> Option<Reason> {
    if status.chain.is_some() {
        return None;
    }
    condition::find(&status.conditions, ConditionType::TrackingIntact)
        .filter(|intact| !intact.is_true())
        .and_then(Condition::known_reason)
        .filter(|reason| ends_chain(*reason))
}

/// Whether the reason is one for which a chain ends.
fn ends_chain(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NodeRebooted
            | Reason::NodeChanged
            | Reason::TableReloaded
            | Reason::RolledBack
            | Reason::Resized
            | Reason::GranularityChanged
            | Reason::Reattached
            | Reason::MetadataLost
            | Reason::MetadataFull
            | Reason::MetadataError
            | Reason::RecordMismatch
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{CHAIN, VOLUME_UID, at, snapshot, tracked};
    use eratrack_api::Granularity;
    use serde_json::json;

    fn chain(id: &str) -> Chain {
        Chain { id: id.into(), start_time: Time(at(1)), start_reason: "NodeRebooted".into() }
    }

    fn begun(before: &EraVolumeStatus, evidence: Evidence) -> String {
        of(&tracked(), before, evidence, at(9)).start_reason
    }

    #[test]
    fn an_adopted_chain_keeps_its_beginning() {
        let before = EraVolumeStatus { chain: Some(chain(CHAIN)), ..EraVolumeStatus::default() };
        let last = Some(Whereabouts::Elsewhere);
        let evidence = Evidence { seen: Some(Reason::TableReloaded), last };
        assert_eq!(of(&tracked(), &before, evidence, at(9)), chain(CHAIN));
    }

    #[test]
    fn what_was_seen_counts_most() {
        let before = EraVolumeStatus { chain: Some(chain("x")), ..EraVolumeStatus::default() };
        let seen = Evidence { seen: Some(Reason::MetadataFull), last: None };
        assert_eq!(begun(&before, seen), "MetadataFull");
        let moved = Evidence { seen: None, last: Some(Whereabouts::Elsewhere) };
        assert_eq!(begun(&before, moved), "NodeChanged");
    }

    #[test]
    fn an_object_made_anew_for_a_volume_that_had_boundaries_is_attached_again() {
        let here = Evidence { seen: None, last: Some(Whereabouts::Here) };
        assert_eq!(begun(&EraVolumeStatus::default(), here), "Reattached");
    }

    #[test]
    fn the_last_boundary_tells_where_the_volume_was() {
        let made = |name: &str, node: &str, second: i64| {
            let status = json!({"nodeName": node, "volumeUID": VOLUME_UID, "boundaryTime": at(second).to_string()});
            snapshot(name, &status)
        };
        let all = [made("a", "node1", 5), made("b", "node2", 9), made("c", "node1", 7)];
        assert_eq!(last_node(&all, VOLUME_UID), Some("node2"));
        assert_eq!(last_node(&all, CHAIN), None, "another volume's");
        assert_eq!(last_node(&[snapshot("new", &json!({"nodeName": "node2"}))], VOLUME_UID), None);
    }

    #[test]
    fn what_was_written_counts_next() {
        let said = |reason| EraVolumeStatus {
            conditions: vec![Condition::new(
                ConditionType::TrackingIntact,
                false,
                reason,
                "",
                Time(at(1)),
            )],
            ..EraVolumeStatus::default()
        };
        assert_eq!(begun(&said(Reason::TableReloaded), Evidence::default()), "TableReloaded");
        assert_eq!(begun(&said(Reason::NotInUse), Evidence::default()), "NoBaseline");
        assert_eq!(begun(&EraVolumeStatus::default(), Evidence::default()), "NoBaseline");
    }

    #[test]
    fn else_it_is_told_from_what_differs() {
        let before = EraVolumeStatus {
            chain: Some(chain("x")),
            granularity: Some(tracked().granularity),
            size_bytes: Some(tracked().size_bytes),
            ..EraVolumeStatus::default()
        };
        assert_eq!(begun(&before, Evidence::default()), "Reattached");
        let finer =
            EraVolumeStatus { granularity: Granularity::from_bytes(4096), ..before.clone() };
        assert_eq!(begun(&finer, Evidence::default()), "GranularityChanged");
        let smaller = EraVolumeStatus { size_bytes: Some(4096), ..before };
        assert_eq!(begun(&smaller, Evidence::default()), "Resized");
    }
}
