//! Events: one for each transition of a condition, on the object that a user looks at.

use eratrack_api::{Condition, ConditionStatus, Reason, names};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::event_note::shortened;

/// Sends events. One that cannot be sent is logged and forgotten: conditions carry the state.
#[derive(Clone)]
pub(crate) struct Events(Recorder);

impl Events {
    /// Sends them in the controller's name.
    pub(crate) fn new(client: Client, instance: String) -> Self {
        let reporter =
            Reporter { controller: names::CONTROLLER.to_owned(), instance: Some(instance) };
        Self(Recorder::new(client, reporter))
    }

    /// Sends one for each condition whose status or reason is another than before.
    pub(crate) async fn transitions(
        &self,
        on: &ObjectReference,
        old: &[Condition],
        new: &[Condition],
    ) {
        for condition in transitions(old, new) {
            self.send(on, &event(condition)).await;
        }
    }

    /// Sends one that belongs to no condition.
    pub(crate) async fn note(&self, on: &ObjectReference, reason: &str, note: String) {
        let event = Event {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note: Some(shortened(note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        self.send(on, &event).await;
    }

    async fn send(&self, on: &ObjectReference, event: &Event) {
        if let Err(error) = self.0.publish(event, on).await {
            tracing::warn!(
                object = on.name,
                error = crate::exit::chain(&error),
                "an event was not sent"
            );
        }
    }
}

/// The new conditions whose status or reason is another than before. One that says for the first time that nothing can
/// be told yet is no news.
fn transitions<'a>(old: &[Condition], new: &'a [Condition]) -> Vec<&'a Condition> {
    let changed = new.iter().filter(|condition| {
        match old.iter().find(|before| before.type_ == condition.type_) {
            Some(before) => before.status != condition.status || before.reason != condition.reason,
            None => condition.status != ConditionStatus::Unknown,
        }
    });
    changed.collect()
}

fn event(condition: &Condition) -> Event {
    let on_its_way = matches!(
        condition.known_reason(),
        Some(
            Reason::Attaching
                | Reason::Detaching
                | Reason::Detached
                | Reason::NotInUse
                | Reason::Pending
                | Reason::RateLimited
                | Reason::ReplicaSeeding
                | Reason::ReplicaWaiting
        )
    );
    let type_ = match condition.status {
        ConditionStatus::False if !on_its_way => EventType::Warning,
        ConditionStatus::True | ConditionStatus::Unknown | ConditionStatus::False => {
            EventType::Normal
        }
    };
    let note = format!("{}={}: {}", condition.type_, condition.status.as_str(), condition.message);
    Event {
        type_,
        reason: condition.reason.clone(),
        note: Some(shortened(note)),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::{condition, object};
    use crate::event_note::NOTE_MAX;

    fn conditions(list: &[(&str, &str, &str)]) -> Vec<Condition> {
        list.iter()
            .map(|(type_, status, reason)| object(condition(type_, status, reason)))
            .collect()
    }

    #[test]
    fn only_a_transition_is_an_event() {
        let old = conditions(&[
            ("Ready", "False", "ClaimNotBound"),
            ("TrackingIntact", "True", "ChainIntact"),
        ]);
        let new = conditions(&[
            ("Ready", "False", "VolumeNotReady"),
            ("TrackingIntact", "True", "ChainIntact"),
            ("SnapshotCurrent", "Unknown", "NoSchedule"),
        ]);
        let sent: Vec<_> = transitions(&old, &new).iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(sent, ["VolumeNotReady"]);
        assert!(transitions(&new, &new).is_empty());
    }

    #[test]
    fn what_is_false_warns_and_fits() {
        let mut bad = conditions(&[("Ready", "False", "ClaimTaken")]).remove(0);
        bad.message = "ä".repeat(NOTE_MAX);
        let event = event(&bad);
        assert_eq!(event.type_, EventType::Warning);
        assert!(
            event
                .note
                .is_some_and(|note| note.len() <= NOTE_MAX && note.starts_with("Ready=False: ä"))
        );
    }
}
