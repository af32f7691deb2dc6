//! Pure: the conditions of an EraVolume that the controller writes. Ready sums up what the agent says, and whether there
//! is an agent to say it. While no node is known, nobody else can speak of Attached and TrackingIntact, so it does.

use eratrack_api::{Condition, ConditionStatus, ConditionType, EraVolume, Reason, Time, condition};
use jiff::Timestamp;

use crate::controller::place::Place;

/// What is known of a volume's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watcher {
    /// The node's agent is ready.
    Ready(String),
    /// No agent is ready on the node.
    Away(String),
    /// The node is not there.
    NodeGone(String),
    /// There is no node; with why.
    None(Place),
}

struct Word(ConditionStatus, Reason, String);

/// The conditions that are the controller's to write.
pub(crate) fn conditions(volume: &EraVolume, watcher: &Watcher, now: Timestamp) -> Vec<Condition> {
    let Word(status, reason, message) = word(volume, watcher);
    let types: &[ConditionType] = match watcher {
        Watcher::None(_) => {
            &[ConditionType::Ready, ConditionType::Attached, ConditionType::TrackingIntact]
        }
        Watcher::Ready(_) | Watcher::Away(_) | Watcher::NodeGone(_) => &[ConditionType::Ready],
    };
    let of_type = |type_: &ConditionType| {
        let condition = Condition::new(*type_, status, reason, message.clone(), Time(now));
        timed(volume, condition.of_generation(volume.metadata.generation))
    };
    types.iter().map(of_type).collect()
}

/// The condition with the time since when it is so. That no agent is ready is timed by its reason, not only by its
/// status: the finalizer waits for that long.
fn timed(volume: &EraVolume, mut new: Condition) -> Condition {
    let old = said(volume).iter().find(|it| it.type_ == new.type_);
    let same = old.filter(|old| {
        old.status == new.status
            && (old.reason == new.reason || new.known_reason() != Some(Reason::AgentNotReady))
    });
    if let Some(old) = same {
        new.last_transition_time = old.last_transition_time.clone();
    }
    new
}

fn said(volume: &EraVolume) -> &[Condition] {
    volume.status.as_ref().map_or(&[], |status| &status.conditions)
}

fn word(volume: &EraVolume, watcher: &Watcher) -> Word {
    let node = match watcher {
        Watcher::None(Place::Shared(message)) => {
            return Word(ConditionStatus::False, Reason::AccessModeUnsupported, message.clone());
        }
        Watcher::None(Place::Unknown(message)) => {
            return Word(ConditionStatus::Unknown, Reason::NodeUnknown, message.clone());
        }
        Watcher::None(Place::Node(node)) => {
            let message = format!("node {node} is about to be told");
            return Word(ConditionStatus::Unknown, Reason::NodeUnknown, message);
        }
        Watcher::NodeGone(node) => {
            let message = format!("node {node} is not in the cluster");
            return Word(ConditionStatus::Unknown, Reason::NodeGone, message);
        }
        Watcher::Away(node) => {
            let message = format!("no agent is ready on node {node}; its tracking goes on");
            return Word(ConditionStatus::Unknown, Reason::AgentNotReady, message);
        }
        Watcher::Ready(node) => node,
    };
    of_agent(volume, node)
}

fn of_agent(volume: &EraVolume, node: &str) -> Word {
    // NodeUnknown is our own word from before the node was known.
    let attached = condition::find(said(volume), ConditionType::Attached)
        .filter(|it| it.known_reason() != Some(Reason::NodeUnknown));
    let Some(attached) = attached else {
        let message = format!("the agent of node {node} has not reported yet");
        return Word(ConditionStatus::Unknown, Reason::Attaching, message);
    };
    let reason = attached.known_reason();
    if volume.metadata.deletion_timestamp.is_some() && attached.is_true() {
        let message = format!("the agent of node {node} is to put the original table back");
        return Word(ConditionStatus::False, Reason::Detaching, message);
    }
    match (attached.status, reason) {
        (ConditionStatus::True, _) => {
            Word(ConditionStatus::True, Reason::Tracking, tracking(volume))
        }
        (status, Some(reason)) => Word(status, reason, attached.message.clone()),
        // An agent of another version: its own words say more than ours could.
        (status, None) => {
            let message = format!("{}: {}", attached.reason, attached.message);
            Word(status, Reason::OperationFailed, message)
        }
    }
}

fn tracking(volume: &EraVolume) -> String {
    match condition::find(said(volume), ConditionType::TrackingIntact) {
        Some(intact) if intact.is_true() => "the next snapshot is incremental".to_owned(),
        Some(intact) => format!("the next snapshot is full: {}", intact.reason),
        None => "era is in the data path".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::testing::{CREATED, condition, era_volume};

    const NOW: &str = "2026-11-22T13:00:00Z";

    fn volume(conditions: &[Value]) -> EraVolume {
        era_volume("data", json!({ "status": { "conditions": conditions } }))
    }

    fn ready(volume: &EraVolume, watcher: &Watcher) -> Condition {
        conditions(volume, watcher, NOW.parse().expect("a time")).remove(0)
    }

    fn here() -> Watcher {
        Watcher::Ready("n1".into())
    }

    #[test]
    fn ready_sums_up() {
        let away = Watcher::Away("n1".into());
        let attached = || condition("Attached", "True", "Attached");
        let table = [
            (volume(&[]), here(), "Unknown Attaching"),
            (
                volume(&[condition("Attached", "Unknown", "NodeUnknown")]),
                here(),
                "Unknown Attaching",
            ),
            (volume(&[attached()]), here(), "True Tracking"),
            (
                volume(&[attached(), condition("TrackingIntact", "False", "NodeRebooted")]),
                here(),
                "True Tracking",
            ),
            (volume(&[attached()]), away, "Unknown AgentNotReady"),
            (volume(&[attached()]), Watcher::NodeGone("n1".into()), "Unknown NodeGone"),
            (
                volume(&[condition("Attached", "False", "SharedFilesystem")]),
                here(),
                "False SharedFilesystem",
            ),
            (
                volume(&[condition("Attached", "False", "FromTheFuture")]),
                here(),
                "False OperationFailed",
            ),
            (volume(&[]), Watcher::None(Place::Unknown("no idea".into())), "Unknown NodeUnknown"),
            (
                volume(&[]),
                Watcher::None(Place::Shared("many".into())),
                "False AccessModeUnsupported",
            ),
        ];
        for (volume, watcher, expected) in table {
            let condition = ready(&volume, &watcher);
            assert_eq!(
                format!("{} {}", condition.status.as_str(), condition.reason),
                expected,
                "{watcher:?}"
            );
            assert_eq!(condition.observed_generation, Some(1));
        }
    }

    #[test]
    fn a_deleted_volume_is_detaching_until_its_agent_says_more() {
        let deletion = json!({ "metadata": { "deletionTimestamp": CREATED },
                               "status": { "conditions": [condition("Attached", "True", "Attached")] } });
        assert_eq!(ready(&era_volume("data", deletion), &here()).reason, "Detaching");
    }

    #[test]
    fn without_a_node_all_three_are_ours_to_write() {
        let written = conditions(
            &volume(&[]),
            &Watcher::None(Place::Unknown("x".into())),
            NOW.parse().expect("a time"),
        );
        let types: Vec<_> = written.iter().map(|it| it.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Attached", "TrackingIntact"]);
        assert_eq!(conditions(&volume(&[]), &here(), NOW.parse().expect("a time")).len(), 1);
    }

    #[test]
    fn the_time_an_agent_is_away_counts_from_when_it_went() {
        let away = Watcher::Away("n1".into());
        let before = volume(&[condition("Ready", "Unknown", "NodeUnknown")]);
        assert_eq!(ready(&before, &away).last_transition_time.0.to_string(), NOW);
        let already = volume(&[condition("Ready", "Unknown", "AgentNotReady")]);
        assert_eq!(ready(&already, &away).last_transition_time.0.to_string(), CREATED);
        let gone = volume(&[condition("Ready", "Unknown", "NodeGone")]);
        assert_eq!(
            ready(&gone, &away).last_transition_time.0.to_string(),
            NOW,
            "while there was no node, there was no agent to come back"
        );
        let refused = volume(&[
            condition("Ready", "False", "NotInUse"),
            condition("Attached", "False", "DeviceNotFound"),
        ]);
        assert_eq!(
            ready(&refused, &here()).last_transition_time.0.to_string(),
            CREATED,
            "the status stayed"
        );
    }
}
