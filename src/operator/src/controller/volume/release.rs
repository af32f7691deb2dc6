//! Pure: whether the finalizer of an EraVolume may go. It must not while a table of ours may be in a device that
//! somebody will use, and it must not wedge when nobody is left who could take the table out.

use eratrack_api::{ConditionType, EraVolume, Reason, condition};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

/// How long no agent must have been ready on a node before its volumes are let go. An agent that comes back cleans up by
/// its own record.
pub(crate) const AGENT_AWAY: SignedDuration = SignedDuration::from_mins(10);

/// A node that will not run its pods any more, as whoever set the taint vouches.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is made of an agent that stays away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// After [`AGENT_AWAY`] its volumes are let go: it comes back one day.
    Bounded,
    /// It is waited for: after an uninstallation it never comes back.
    Unbounded,
}

/// What becomes of the finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// Nobody deleted the object.
    NotAsked,
    /// It stays, at least until then; with what is waited for.
    Hold(Option<Timestamp>, String),
    /// It goes.
    Free(Cause),
}

/// Why a finalizer may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No agent was ever told of the volume.
    NeverAssigned,
    /// The agent says that the original table is back.
    Detached,
    /// The node is not there any more. To be confirmed by asking for it.
    NodeGone(String),
    /// The node is out of service.
    OutOfService(String),
    /// No agent was ready on the node for long enough.
    AgentAway(String),
}

impl Cause {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NeverAssigned => "NeverAssigned",
            Self::Detached => "Detached",
            Self::NodeGone(_) => "NodeGone",
            Self::OutOfService(_) => "OutOfService",
            Self::AgentAway(_) => "AgentAway",
        }
    }

    /// For an event and the log.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::NeverAssigned => "no agent was ever told of the volume".to_owned(),
            Self::Detached => "the volume has its original table".to_owned(),
            Self::NodeGone(node) => format!("node {node} is gone"),
            Self::OutOfService(node) => format!("node {node} is out of service"),
            Self::AgentAway(node) => format!(
                "no agent was ready on node {node} for {} minutes; one that comes back puts the original table back \
                 by its own record",
                AGENT_AWAY.as_mins()
            ),
        }
    }
}

/// Decides it. `node` is the Node object of the volume's node.
pub(crate) fn release(
    volume: &EraVolume,
    node: Option<&Node>,
    agent_ready: bool,
    patience: Patience,
    now: Timestamp,
) -> Release {
    if volume.metadata.deletion_timestamp.is_none() {
        return Release::NotAsked;
    }
    let Some(name) = volume.spec.node_name.clone() else {
        return Release::Free(Cause::NeverAssigned);
    };
    if detached(volume) {
        return Release::Free(Cause::Detached);
    }
    let Some(node) = node else { return Release::Free(Cause::NodeGone(name)) };
    if out_of_service(node) {
        return Release::Free(Cause::OutOfService(name));
    }
    if agent_ready {
        let why = format!("the agent of node {name} is to put the original table back");
        return Release::Hold(None, why);
    }
    let why = format!("no agent is ready on node {name}; start its pod");
    match (patience, away_since(volume).and_then(|since| since.checked_add(AGENT_AWAY).ok())) {
        (Patience::Unbounded, _) => Release::Hold(None, why),
        (Patience::Bounded, Some(end)) if end <= now => Release::Free(Cause::AgentAway(name)),
        (Patience::Bounded, end) => Release::Hold(end, why),
    }
}

/// The agent's word counts only for the deletion: era may have been out of the data path before, and put in again.
fn detached(volume: &EraVolume) -> bool {
    let Some(status) = &volume.status else { return false };
    condition::find(&status.conditions, ConditionType::Attached)
        .is_some_and(|it| !it.is_true() && it.known_reason() == Some(Reason::Detached))
}

fn out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Since when the controller has been saying that no agent is ready: written down, so that it outlives the controller.
fn away_since(volume: &EraVolume) -> Option<Timestamp> {
    let ready = condition::find(&volume.status.as_ref()?.conditions, ConditionType::Ready)?;
    let away = ready.known_reason() == Some(Reason::AgentNotReady);
    away.then_some(ready.last_transition_time.0)
}

/// Whether the object still carries the finalizer.
pub(crate) fn is_held(volume: &EraVolume) -> bool {
    volume.finalizers().iter().any(|it| it == eratrack_api::names::FINALIZER_DETACH)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // a json! literal is handed over, not kept
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::testing::{condition, era_volume, node, object};

    /// Name, volume, node, whether the agent is ready, the time, and what is decided.
    type Row<'a> = (&'a str, EraVolume, Option<&'a Node>, bool, &'a str, Release);

    fn deleted(over: Value) -> EraVolume {
        let gone = json!({ "metadata": { "deletionTimestamp": "2026-11-22T12:00:00Z" } });
        era_volume("data", crate::controller::testing::merged(gone, over))
    }

    fn status(conditions: &[Value]) -> Value {
        json!({ "status": { "conditions": conditions } })
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn the_finalizer_goes_only_for_a_cause() {
        let here = node("n1", &[]);
        let dead: Node = object(json!({
            "metadata": { "name": "n1" },
            "spec": { "taints": [{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute", "value": "nodeshutdown" }] },
        }));
        let attached = status(&[condition("Attached", "True", "Attached")]);
        let detached = status(&[condition("Attached", "False", "Detached")]);
        let away = status(&[
            condition("Ready", "Unknown", "AgentNotReady"),
            condition("Attached", "True", "Attached"),
        ]);
        let free = |cause| Release::Free(cause);
        let n1 = || "n1".to_owned();
        let table: Vec<Row<'_>> = vec![
            (
                "not deleted",
                era_volume("data", detached.clone()),
                None,
                false,
                "12:30",
                Release::NotAsked,
            ),
            (
                "no node",
                deleted(json!({ "spec": { "nodeName": null } })),
                None,
                false,
                "12:00",
                free(Cause::NeverAssigned),
            ),
            (
                "detached",
                deleted(detached.clone()),
                Some(&here),
                true,
                "12:00",
                free(Cause::Detached),
            ),
            (
                "detached, agent gone",
                deleted(detached),
                Some(&here),
                false,
                "12:00",
                free(Cause::Detached),
            ),
            (
                "node gone",
                deleted(attached.clone()),
                None,
                false,
                "12:00",
                free(Cause::NodeGone(n1())),
            ),
            (
                "out of service",
                deleted(attached.clone()),
                Some(&dead),
                true,
                "12:00",
                free(Cause::OutOfService(n1())),
            ),
            (
                "agent away 9:59",
                deleted(away.clone()),
                Some(&here),
                false,
                "12:09:59",
                Release::Hold(
                    Some(at("2026-11-22T12:10:00Z")),
                    "no agent is ready on node n1; start its pod".into(),
                ),
            ),
            (
                "agent away 10:00",
                deleted(away.clone()),
                Some(&here),
                false,
                "12:10",
                free(Cause::AgentAway(n1())),
            ),
        ];
        for (name, volume, node, agent_ready, time, expected) in table {
            let seconds = if time.len() == 5 { ":00" } else { "" };
            let now = at(&format!("2026-11-22T{time}{seconds}Z"));
            let decided = release(&volume, node, agent_ready, Patience::Bounded, now);
            assert_eq!(decided, expected, "{name}");
        }
        let later = at("2026-11-22T13:00:00Z");
        let back = release(&deleted(away), Some(&here), true, Patience::Bounded, later);
        assert!(
            matches!(back, Release::Hold(None, _)),
            "an agent that is back does it itself: {back:?}"
        );
        let unsaid = release(&deleted(attached), Some(&here), false, Patience::Bounded, later);
        assert!(
            matches!(unsaid, Release::Hold(None, _)),
            "since when is not written down yet: {unsaid:?}"
        );
    }

    #[test]
    fn a_volume_that_was_refused_still_waits_for_its_agent() {
        let refused = deleted(status(&[condition("Attached", "False", "SharedFilesystem")]));
        let later = at("2026-11-22T13:00:00Z");
        let release = release(&refused, Some(&node("n1", &[])), true, Patience::Bounded, later);
        assert!(matches!(release, Release::Hold(None, _)), "{release:?}");
    }

    #[test]
    fn an_uninstallation_lets_no_volume_go_because_its_agent_is_away() {
        let away = deleted(status(&[
            condition("Ready", "Unknown", "AgentNotReady"),
            condition("Attached", "True", "Attached"),
        ]));
        let later = at("2026-11-23T13:00:00Z");
        let here = node("n1", &[]);
        let held = release(&away, Some(&here), false, Patience::Unbounded, later);
        assert!(
            matches!(&held, Release::Hold(None, why) if why.contains("start its pod")),
            "{held:?}"
        );
        let gone = release(&away, None, false, Patience::Unbounded, later);
        assert_eq!(gone, Release::Free(Cause::NodeGone("n1".into())));
    }
}
