//! What a new boundary's list refers to: the last complete snapshot of the chain, as the API server has it. Pure.

use eratrack_api::{EraSnapshot, ObjectRef, Reason};
use eratrack_model::Era;
use kube::ResourceExt;

use super::step::is_ready;

/// The snapshot that changes refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// The object.
    pub(crate) snapshot: ObjectRef,
    /// The first era after its boundary.
    pub(crate) era: Era,
}

/// What a new list refers to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// The changes since this one.
    Base(Base),
    /// Nothing, for this reason: it is full.
    Nothing(Reason),
    /// Nothing, because the list of what would be the base is lost: it is full.
    Lost {
        /// What would be the base.
        snapshot: Box<EraSnapshot>,
        /// What was found.
        why: String,
    },
}

/// The newest complete snapshot of this chain of this volume. One that is being deleted counts: its era is known.
pub(crate) fn base_of<'a>(
    snapshots: impl IntoIterator<Item = &'a EraSnapshot>,
    volume_uid: &str,
    chain: &str,
) -> Option<Base> {
    snapshots
        .into_iter()
        .filter(|snapshot| is_ready(snapshot))
        .filter_map(|snapshot| {
            let status = snapshot.status.as_ref()?;
            let of_chain = status.chain_id.as_deref() == Some(chain);
            let of_volume = status.volume_uid.as_deref() == Some(volume_uid);
            (of_chain && of_volume).then_some(())?;
            Some(Base {
                snapshot: ObjectRef { name: snapshot.name_any(), uid: snapshot.uid()? },
                era: Era(status.era?),
            })
        })
        .max_by_key(|base| base.era)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{CHAIN, VOLUME_UID, snapshot};
    use serde_json::{Value, json};

    fn status(era: u32, chain: &str, volume: &str, ready: &str) -> Value {
        json!({"era": era, "chainID": chain, "volumeUID": volume, "type": "Full",
            "conditions": [{"type": "Ready", "status": ready, "reason": "Complete", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    #[test]
    fn the_newest_complete_one_of_chain_and_volume() {
        let other = "99999999-9999-4999-8999-999999999999";
        let all = [
            snapshot("old", &status(3, CHAIN, VOLUME_UID, "True")),
            snapshot("base", &status(5, CHAIN, VOLUME_UID, "True")),
            snapshot("reading", &status(9, CHAIN, VOLUME_UID, "False")),
            snapshot("chain", &status(10, other, VOLUME_UID, "True")),
            snapshot("volume", &status(11, CHAIN, other, "True")),
            snapshot("new", &json!({})),
        ];
        let base = base_of(&all, VOLUME_UID, CHAIN).expect("a base");
        assert_eq!((base.snapshot.name.as_str(), base.era), ("base", Era(5)));
        assert_eq!(base_of(&all[2..], VOLUME_UID, CHAIN), None);
    }
}
