//! The agent's part of an `EraVolume`'s status. Pure.

use eratrack_api::condition::{self, Change};
use eratrack_api::{
    Chain, Condition, ConditionType, Device, EraVolumeStatus, Granularity, LastSnapshot,
    MetadataUse, Reason, Time,
};
use k8s_openapi::jiff::Timestamp;

use super::replica_status::ReplicaFacts;
use crate::agent::cluster::Notice;

/// What is true of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    /// The generation of the spec that was acted on.
    pub(crate) generation: Option<i64>,
    /// Whether era is in the data path.
    pub(crate) state: State,
    /// The replica, if one is wished for.
    pub(crate) replica: Option<ReplicaFacts>,
}

/// Whether era is in the data path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// It is.
    Attached(Box<AttachedFacts>),
    /// Nobody knows yet. The chain that was named stays named: it may well go on.
    Unknown {
        /// Why not.
        reason: Reason,
        /// Why not, for a person.
        message: String,
    },
    /// It is not.
    Detached {
        /// Why not.
        reason: Reason,
        /// Why not, for a person.
        message: String,
        /// Why the last chain ended, while there is no new one.
        broken: Option<Reason>,
    },
}

/// What is true of a volume with era in its data path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttachedFacts {
    /// What is in force.
    pub(crate) granularity: Granularity,
    /// The size of the device.
    pub(crate) size_bytes: u64,
    /// The device.
    pub(crate) device: Device,
    /// The chain.
    pub(crate) chain: Chain,
    /// The era at the last boundary.
    pub(crate) era: Option<u32>,
    /// The metadata at the last boundary.
    pub(crate) metadata: Option<MetadataUse>,
    /// The chain's last complete snapshot; none means that the next one is full.
    pub(crate) last_snapshot: Option<LastSnapshot>,
    /// Why the next snapshot is full while there is none to refer to.
    pub(crate) full_reason: Reason,
    /// Why another granularity that is wished for is not in force.
    pub(crate) refused: Option<String>,
}

/// A status to apply, and what to tell.
#[derive(Debug, PartialEq)]
pub(crate) struct Update {
    /// The whole of the agent's part.
    pub(crate) status: EraVolumeStatus,
    /// Transitions that somebody may want to hear of.
    pub(crate) notices: Vec<Notice>,
}

/// The status that says the facts; none if `before` says them already.
pub(crate) fn update(before: &EraVolumeStatus, facts: &Facts, now: Timestamp) -> Option<Update> {
    let mut status = match &facts.state {
        State::Attached(attached) => with_stack(attached),
        State::Unknown { .. } => before.clone(),
        State::Detached { .. } => EraVolumeStatus::default(),
    };
    status.observed_generation = facts.generation.and_then(|it| u64::try_from(it).ok());
    status.conditions.clone_from(&before.conditions);
    status.replica = facts.replica.as_ref().map(|replica| replica.status.clone());
    if facts.replica.is_none() {
        status.conditions.retain(|it| it.type_ != ConditionType::ReplicaCurrent.as_str());
    }
    let mut notices = Vec::new();
    let replica = facts.replica.iter().map(|replica| {
        let (follows, reason, message) = replica.current.clone();
        (ConditionType::ReplicaCurrent, follows, reason, message)
    });
    for (type_, holds, reason, message) in conditions(&facts.state).into_iter().chain(replica) {
        let new = Condition::new(type_, holds, reason, message.clone(), Time(now))
            .of_generation(facts.generation);
        if condition::set(&mut status.conditions, new) == Change::Transition {
            notices.push(Notice {
                warning: !holds && alarming(reason),
                reason,
                message,
                action: "Track",
            });
        }
    }
    // Where both conditions say the same, once is enough.
    notices.dedup_by(|a, b| a.reason == b.reason);
    (gist(&status) != gist(before)).then_some(Update { status, notices })
}

/// The status as the API server has it, where times are whole seconds, and without the figures in its messages: how much
/// room is missing is no news every minute.
fn gist(status: &EraVolumeStatus) -> Option<serde_json::Value> {
    let mut gist = status.clone();
    for condition in &mut gist.conditions {
        condition.message.retain(|c| !c.is_ascii_digit());
    }
    serde_json::to_value(gist).ok()
}

fn with_stack(attached: &AttachedFacts) -> EraVolumeStatus {
    let AttachedFacts {
        granularity,
        size_bytes,
        device,
        chain,
        era,
        metadata,
        last_snapshot,
        full_reason: _,
        refused: _,
    } = attached.clone();
    EraVolumeStatus {
        granularity: Some(granularity),
        size_bytes: Some(size_bytes),
        device: Some(device),
        chain: Some(chain),
        era,
        metadata,
        last_snapshot,
        ..EraVolumeStatus::default()
    }
}

fn conditions(state: &State) -> [(ConditionType, bool, Reason, String); 2] {
    match state {
        State::Attached(attached) => {
            let (intact, reason, message) = intact(attached);
            [
                (ConditionType::Attached, true, Reason::Attached, in_path(attached)),
                (ConditionType::TrackingIntact, intact, reason, message),
            ]
        }
        State::Unknown { reason, message } => [
            (ConditionType::Attached, false, *reason, message.clone()),
            (ConditionType::TrackingIntact, false, *reason, message.clone()),
        ],
        State::Detached { reason, message, broken } => [
            (ConditionType::Attached, false, *reason, message.clone()),
            (ConditionType::TrackingIntact, false, broken.unwrap_or(*reason), message.clone()),
        ],
    }
}

fn in_path(attached: &AttachedFacts) -> String {
    let Device { name, number, uuid: _ } = &attached.device;
    let refused = attached.refused.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    format!(
        "era is in the data path of {} ({}){refused}",
        number.as_deref().unwrap_or_default(),
        name.as_deref().unwrap_or_default()
    )
}

fn intact(attached: &AttachedFacts) -> (bool, Reason, String) {
    if let Some(last) = &attached.last_snapshot {
        let message = format!("the next snapshot lists what changed since {}", last.name);
        return (true, Reason::ChainIntact, message);
    }
    let reason = attached.full_reason;
    (false, reason, reason.means().to_owned())
}

/// Whether somebody should have a look: not for what is usual in a volume's life.
fn alarming(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::NotInUse
            | Reason::NoBaseline
            | Reason::Attaching
            | Reason::Detaching
            | Reason::Detached
            | Reason::ReplicaSeeding
            | Reason::ReplicaWaiting
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{CHAIN, at, tracked};

    fn attached(last_snapshot: Option<LastSnapshot>) -> Facts {
        let tracked = tracked();
        let facts = AttachedFacts {
            granularity: tracked.granularity,
            size_bytes: tracked.size_bytes,
            device: tracked.device,
            chain: Chain {
                id: CHAIN.into(),
                start_time: Time(at(0)),
                start_reason: "NodeRebooted".into(),
            },
            era: Some(3),
            metadata: None,
            last_snapshot,
            full_reason: Reason::NodeRebooted,
            refused: None,
        };
        Facts { generation: Some(2), state: State::Attached(Box::new(facts)), replica: None }
    }

    fn detached(reason: Reason, broken: Option<Reason>) -> Facts {
        let state = State::Detached { reason, message: "because".into(), broken };
        Facts { generation: Some(2), state, replica: None }
    }

    fn last() -> LastSnapshot {
        LastSnapshot {
            name: "s".into(),
            uid: "u".into(),
            era: 3,
            time: Time(at(5)),
            changed: None,
            changed_bytes: None,
        }
    }

    fn said(update: &Update) -> Vec<(&str, bool, &str)> {
        let conditions = update.status.conditions.iter();
        conditions.map(|it| (it.type_.as_str(), it.is_true(), it.reason.as_str())).collect()
    }

    #[test]
    fn from_unused_to_intact() {
        let first = update(&EraVolumeStatus::default(), &detached(Reason::NotInUse, None), at(1))
            .expect("new");
        assert_eq!(
            said(&first),
            [("Attached", false, "NotInUse"), ("TrackingIntact", false, "NotInUse")]
        );
        assert_eq!(first.notices.len(), 1, "one event, not two of the same");
        assert!(!first.notices[0].warning);
        assert_eq!(update(&first.status, &detached(Reason::NotInUse, None), at(2)), None);

        let second = update(&first.status, &attached(None), at(3)).expect("new");
        assert_eq!(
            said(&second),
            [("Attached", true, "Attached"), ("TrackingIntact", false, "NodeRebooted")]
        );
        assert_eq!(second.status.observed_generation, Some(2));

        let third = update(&second.status, &attached(Some(last())), at(4)).expect("new");
        assert_eq!(said(&third)[1], ("TrackingIntact", true, "ChainIntact"));
        assert_eq!(third.notices.len(), 1);
    }

    #[test]
    fn a_broken_chain_is_remembered_until_the_next_begins() {
        let before = update(&EraVolumeStatus::default(), &attached(Some(last())), at(1))
            .expect("new")
            .status;
        let facts = detached(Reason::NotInUse, Some(Reason::TableReloaded));
        let broken = update(&before, &facts, at(2)).expect("new");
        assert_eq!(said(&broken)[1], ("TrackingIntact", false, "TableReloaded"));
        assert_eq!((broken.status.chain.as_ref(), broken.status.era), (None, None));
        assert!(
            broken
                .notices
                .iter()
                .any(|notice| notice.warning && notice.reason == Reason::TableReloaded)
        );
        assert_eq!(super::super::chain::broken_for(&broken.status), Some(Reason::TableReloaded));
    }

    #[test]
    fn while_nobody_knows_the_chain_stays_named() {
        let before = update(&EraVolumeStatus::default(), &attached(Some(last())), at(1))
            .expect("new")
            .status;
        let state = State::Unknown { reason: Reason::OperationFailed, message: "stuck".into() };
        let unknown = update(&before, &Facts { generation: Some(2), state, replica: None }, at(2))
            .expect("new");
        assert_eq!(said(&unknown)[1], ("TrackingIntact", false, "OperationFailed"));
        assert_eq!(unknown.status.chain, before.chain);
        assert_eq!(unknown.status.last_snapshot, before.last_snapshot);
    }

    #[test]
    fn other_figures_in_a_message_are_no_news() {
        let facts = |message: &str| Facts {
            generation: None,
            state: State::Detached {
                reason: Reason::MetadataNoSpace,
                message: message.into(),
                broken: None,
            },
            replica: None,
        };
        let before = EraVolumeStatus::default();
        let before = update(&before, &facts("12Mi of 40Mi are free"), at(1)).expect("new").status;
        assert_eq!(update(&before, &facts("11Mi of 40Mi are free"), at(2)), None);
        assert!(update(&before, &facts("the disk is gone"), at(2)).is_some());
    }

    #[test]
    fn a_moment_within_a_second_is_no_news() {
        let mut facts = attached(None);
        let State::Attached(ref mut it) = facts.state else { unreachable!() };
        it.chain.start_time = Time(Timestamp::from_millisecond(1_750).expect("a time"));
        let said = update(&EraVolumeStatus::default(), &facts, at(1)).expect("new").status;
        // As the API server has it: times are whole seconds there.
        let text = serde_json::to_string(&said).expect("a status");
        let before = serde_json::from_str(&text).expect("a status");
        assert_eq!(update(&before, &facts, at(2)), None);
    }

    #[test]
    fn conditions_of_others_stay() {
        let ready = Condition::new(ConditionType::Ready, true, Reason::Tracking, "", Time(at(0)));
        let before =
            EraVolumeStatus { conditions: vec![ready.clone()], ..EraVolumeStatus::default() };
        let update = update(&before, &attached(None), at(1)).expect("new");
        assert_eq!(update.status.conditions[0], ready);
    }
}
