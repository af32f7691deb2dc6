//! Conditions: how an object says what is true of it, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::reason::Reason;

/// The longest message of a condition, in characters.
pub const MESSAGE_MAX: usize = 1024;

/// What a condition speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Everything the object is for works. On a snapshot: the list is complete.
    Ready,
    /// On an `EraVolume`: era is in the volume's data path.
    Attached,
    /// The next snapshot is incremental.
    TrackingIntact,
    /// On an `EraTracking`: the latest scheduled time has its snapshots.
    SnapshotCurrent,
    /// On an `EraVolume` and an `EraTracking` with a replica: it follows.
    ReplicaCurrent,
    /// On an `EraSnapshot` in mode Local: its device shows the volume as it was. Once false, it stays so, and the reason
    /// says whether what was read until then counts.
    Readable,
    /// On an `EraSnapshot`, and terminal: it will never be Ready.
    Failed,
}

impl ConditionType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::Attached,
        Self::TrackingIntact,
        Self::SnapshotCurrent,
        Self::ReplicaCurrent,
        Self::Readable,
        Self::Failed,
    ];

    /// As it stands in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Attached => "Attached",
            Self::TrackingIntact => "TrackingIntact",
            Self::SnapshotCurrent => "SnapshotCurrent",
            Self::ReplicaCurrent => "ReplicaCurrent",
            Self::Readable => "Readable",
            Self::Failed => "Failed",
        }
    }
}

/// Whether what a condition speaks about holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

impl ConditionStatus {
    /// As it stands in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

// Type and reason are text here, so that a program of one version can read what another version wrote; they are made
// from `ConditionType` and `Reason` only.
/// One aspect of an object's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition speaks about.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word: see the table of reasons in the documentation.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Why, for a person, with the values involved and what helps.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The generation of the spec that this was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
    /// When the status last changed.
    pub last_transition_time: Time,
}

impl Condition {
    /// A condition that became so at `since`. A message that is too long is cut at a character's end.
    pub fn new(
        type_: ConditionType,
        status: impl Into<ConditionStatus>,
        reason: Reason,
        message: impl Into<String>,
        since: Time,
    ) -> Self {
        let stands = reason.places().iter().any(|(_, place)| *place == type_);
        debug_assert!(stands, "{reason} is not documented for {}", type_.as_str());
        Self {
            type_: type_.as_str().to_owned(),
            status: status.into(),
            reason: reason.as_str().to_owned(),
            message: shortened(message.into()),
            observed_generation: None,
            last_transition_time: since,
        }
    }

    /// The same, said of a generation of the spec (`metadata.generation`).
    #[must_use]
    pub fn of_generation(mut self, generation: Option<i64>) -> Self {
        self.observed_generation = generation.and_then(|it| u64::try_from(it).ok());
        self
    }

    /// Whether the condition holds.
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }

    /// The reason, unless another version wrote one that this version does not know.
    pub fn known_reason(&self) -> Option<Reason> {
        Reason::parse(&self.reason)
    }
}

/// The condition of that type.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// Whether the condition of that type is there and holds.
pub fn is_true(conditions: &[Condition], type_: ConditionType) -> bool {
    find(conditions, type_).is_some_and(Condition::is_true)
}

/// What [`set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Status, reason, message and generation were already so: there is nothing to write.
    None,
    /// Something was worded anew; status and reason stayed. Write it, but send no event.
    Reworded,
    /// Status or reason changed: write it, and send an event.
    Transition,
}

/// Puts a condition in the place of the one of its type. While the status stays the same, so does the time of the last
/// transition.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> Change {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return Change::Transition;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let change = if *old == new {
        Change::None
    } else if old.status == new.status && old.reason == new.reason {
        Change::Reworded
    } else {
        Change::Transition
    };
    *old = new;
    change
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX) {
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn ready(status: bool, reason: Reason, message: &str, second: i64) -> Condition {
        Condition::new(ConditionType::Ready, status, reason, message, at(second))
    }

    #[test]
    fn the_time_moves_with_the_status_only() {
        let mut all = Vec::new();
        assert_eq!(set(&mut all, ready(false, Reason::NotInUse, "a", 1)), Change::Transition);
        assert_eq!(set(&mut all, ready(false, Reason::NotInUse, "a", 2)), Change::None);
        assert_eq!(set(&mut all, ready(false, Reason::NotInUse, "b", 3)), Change::Reworded);
        assert_eq!(set(&mut all, ready(false, Reason::DeviceNotFound, "c", 4)), Change::Transition);
        assert_eq!(all[0].last_transition_time, at(1));
        assert_eq!(set(&mut all, ready(true, Reason::Tracking, "", 5)), Change::Transition);
        assert_eq!(all[0].last_transition_time, at(5));
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long = ready(true, Reason::Tracking, &"ä".repeat(2000), 1);
        assert_eq!(long.message.chars().count(), MESSAGE_MAX);
    }

    #[test]
    fn a_reason_of_another_version_can_be_read() {
        let mut condition = ready(true, Reason::Tracking, "", 1);
        assert_eq!(condition.known_reason(), Some(Reason::Tracking));
        condition.reason = "FromTheFuture".to_owned();
        assert_eq!(condition.known_reason(), None);
    }
}
