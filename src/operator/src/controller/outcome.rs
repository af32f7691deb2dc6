//! What has become of an EraSnapshot, by its conditions.

use eratrack_api::{ConditionType, EraSnapshot, EraTracking, condition, names};
use kube::{Resource, ResourceExt};

use super::budget::list_bytes;
use super::retention::{Item, Outcome};

/// What has become of a snapshot.
pub(crate) fn outcome(snapshot: &EraSnapshot) -> Outcome {
    let Some(status) = &snapshot.status else { return Outcome::Pending };
    let ready = condition::find(&status.conditions, ConditionType::Ready);
    if condition::is_true(&status.conditions, ConditionType::Failed) {
        return Outcome::Failed;
    }
    if !ready.is_some_and(condition::Condition::is_true) {
        return Outcome::Pending;
    }
    let boundary = status.boundary_time.as_ref().map(|time| time.0);
    Outcome::Complete(boundary.unwrap_or_else(|| created(snapshot)))
}

/// Whether the schedule must wait for a snapshot of the claim: one that an agent is at, or that the schedule made. One
/// made by hand that waits for its turn lets those of the schedule pass.
pub(crate) fn is_in_the_way(snapshot: &EraSnapshot) -> bool {
    let given = snapshot.status.as_ref().is_some_and(|status| status.node_name.is_some());
    is_pending(snapshot) && (given || is_scheduled(snapshot))
}

/// Whether a snapshot is under way or waits.
pub(crate) fn is_pending(snapshot: &EraSnapshot) -> bool {
    snapshot.metadata.deletion_timestamp.is_none() && outcome(snapshot) == Outcome::Pending
}

/// Whether a schedule made it, and no hand; one that is labelled as made by hand counts as that.
pub(crate) fn is_scheduled(snapshot: &EraSnapshot) -> bool {
    let by_hand =
        snapshot.labels().get(names::LABEL_MADE_BY).is_some_and(|it| it == names::BY_HAND);
    is_made_for_a_tracking(snapshot) && !by_hand
}

/// Whether it was made for an EraTracking.
pub(crate) fn is_made_for_a_tracking(object: &impl ResourceExt) -> bool {
    let kind = EraTracking::kind(&());
    object
        .owner_references()
        .iter()
        .any(|owner| owner.kind == kind && owner.controller == Some(true))
}

/// A snapshot as retention sees it. `name` is the snapshot's.
pub(crate) fn item(snapshot: &EraSnapshot) -> Item<'_> {
    Item {
        name: snapshot.metadata.name.as_deref().unwrap_or_default(),
        created: created(snapshot),
        outcome: outcome(snapshot),
        chain: chain(snapshot),
        bytes: list_bytes(snapshot),
    }
}

/// A snapshot's chain, and its era there.
fn chain(snapshot: &EraSnapshot) -> Option<(&str, u32)> {
    let status = snapshot.status.as_ref()?;
    Some((status.chain_id.as_deref()?, status.era?))
}

/// When a snapshot was created; the API server always says.
pub(crate) fn created(snapshot: &EraSnapshot) -> jiff::Timestamp {
    snapshot.creation_timestamp().map_or(jiff::Timestamp::MIN, |time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::{CREATED, condition, snapshot};

    #[test]
    fn conditions_tell() {
        let complete = Outcome::Complete("2026-11-22T12:00:05Z".parse().expect("a time"));
        let by_creation = Outcome::Complete(CREATED.parse().expect("a time"));
        let ready = condition("Ready", "True", "Complete");
        let table = [
            (json!({}), Outcome::Pending),
            (json!({ "conditions": [condition("Ready", "False", "Reading")] }), Outcome::Pending),
            (json!({ "conditions": [ready], "boundaryTime": "2026-11-22T12:00:05Z" }), complete),
            (json!({ "conditions": [ready] }), by_creation),
            (json!({ "conditions": [condition("Failed", "True", "NodeGone")] }), Outcome::Failed),
        ];
        for (status, expected) in table {
            let snapshot = snapshot("s", "data", json!({ "status": status }));
            assert_eq!(outcome(&snapshot), expected, "{:?}", snapshot.status);
        }
        assert_eq!(outcome(&snapshot("s", "data", json!({}))), Outcome::Pending);
    }
}
