//! What is to be done with a target.

use std::fmt;
use std::path::PathBuf;

use eratrack_model::Era;
use eratrack_model::record::Record;
use eratrack_model::units::Bytes;

use crate::checkpoint::{Checkpoint, State, TargetId};
use crate::target_error::TargetError;

/// How a replica begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// All of the source is copied.
    Full(Why),
    /// A full copy that was cut short goes on.
    Resume {
        /// Its boundary.
        since: Era,
        /// Where it was.
        cursor: Bytes,
    },
    /// What changed is copied.
    Changed {
        /// The boundary that all before it was copied up to.
        since: Era,
    },
}

/// Why all is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no copy yet.
    First,
    /// What was in the target may go.
    Overwritten,
    /// The chain that the copy was of has ended.
    ChainEnded,
    /// The source has another length, or other blocks.
    Resized,
    /// A comparison found that the target is not what was copied.
    Differed,
    /// Somebody else has written to the target.
    Written,
    /// Whether somebody else has written to the target cannot be told.
    Unproven,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "there is no copy yet",
            Self::Overwritten => "what is in the target may be overwritten",
            Self::ChainEnded => "the chain that the copy is of has ended",
            Self::Resized => "the source was resized, or is tracked in other blocks",
            Self::Differed => "the copy was found to differ",
            Self::Written => "somebody else has written to the target",
            Self::Unproven => {
                "whether somebody else has written to the target cannot be told: the machine was restarted, or the target's device is another or has another table"
            }
        })
    }
}

/// What is known of a target.
pub(crate) struct Found {
    /// Which it is.
    pub(crate) id: TargetId,
    /// It holds nothing.
    pub(crate) blank: bool,
    /// Its checkpoint; or why there is none that counts.
    pub(crate) checkpoint: Result<Option<Checkpoint>, String>,
    /// Why it may not hold what its checkpoint says, if that is looked for.
    pub(crate) doubt: Option<Why>,
}

/// Decides; refuses a target that may hold what somebody wants to keep.
pub(crate) fn decide(record: &Record, found: Found, overwrite: bool) -> Result<Start, TargetError> {
    let Found { id, blank, checkpoint, doubt } = found;
    let foreign = |because: String| new(&id.path, blank, overwrite, because);
    let checkpoint = match checkpoint {
        Ok(Some(checkpoint)) => checkpoint,
        Ok(None) => return foreign("there is no checkpoint of it here".to_owned()),
        Err(why) => return foreign(why),
    };
    if !checkpoint.target.is(&id) {
        return foreign("it is not the one that its checkpoint is of".to_owned());
    }
    if checkpoint.stack != record.stack {
        return foreign(format!("it is a replica of {}", checkpoint.stack));
    }
    let Checkpoint { era, cursor, .. } = checkpoint;
    let since = Era(era);
    Ok(if checkpoint.chain != record.chain {
        Start::Full(Why::ChainEnded)
    } else if (checkpoint.sectors, checkpoint.granularity) != (record.sectors, record.granularity) {
        Start::Full(Why::Resized)
    } else if let Some(why) = doubt {
        Start::Full(why)
    } else {
        match checkpoint.state {
            State::Differs => Start::Full(Why::Differed),
            State::Seeding => Start::Resume { since, cursor },
            State::Copying | State::Consistent => Start::Changed { since },
        }
    })
}

fn new(
    path: &std::path::Path,
    blank: bool,
    overwrite: bool,
    because: String,
) -> Result<Start, TargetError> {
    let path = PathBuf::from(path);
    match (blank, overwrite) {
        (true, _) => Ok(Start::Full(Why::First)),
        (false, true) => Ok(Start::Full(Why::Overwritten)),
        (false, false) => Err(TargetError::NotEmpty { path, because }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::checkpoint;
    use serde_json::json;

    fn record() -> Record {
        let record = json!({
            "version": 2, "stack": "data", "chain": "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11",
            "boot": "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10", "x": "253:3", "name": "vg-lv",
            "uuid": null, "original": "0 65536 linear 8:0 2048", "sectors": 65536,
            "granularity": "64Ki", "discards": "Limit",
            "metadata": "/var/lib/eratrack/data/metadata", "metadata_size": 4_194_304,
            "phase": "Attached"
        });
        serde_json::from_value(record).unwrap()
    }

    fn start(change: impl FnOnce(&mut Found), overwrite: bool) -> Result<Start, String> {
        let known = checkpoint();
        let mut found = Found {
            id: known.target.clone(),
            blank: false,
            checkpoint: Ok(Some(known)),
            doubt: None,
        };
        change(&mut found);
        decide(&record(), found, overwrite).map_err(|e| e.to_string())
    }

    type Change = fn(&mut Found);

    fn with(change: impl FnOnce(&mut Checkpoint)) -> impl FnOnce(&mut Found) {
        |found| change(found.checkpoint.as_mut().unwrap().as_mut().unwrap())
    }

    #[test]
    fn a_checkpoint_says_how_it_goes_on() {
        let since = Era(7);
        let seeding = with(|c| c.cursor = Bytes(4096));
        assert_eq!(start(seeding, false), Ok(Start::Resume { since, cursor: Bytes(4096) }));
        for state in [State::Copying, State::Consistent] {
            assert_eq!(start(with(|c| c.state = state), false), Ok(Start::Changed { since }));
        }
    }

    #[test]
    fn whatever_ends_a_chain_has_all_copied_again() {
        let full = |why| Ok(Start::Full(why));
        let other = "3c1f6a1c-4d0f-4f9e-8f43-0f5f2a3f0c99".parse().unwrap();
        assert_eq!(start(with(|c| c.chain = other), false), full(Why::ChainEnded));
        let longer = with(|c| c.sectors.0 *= 2);
        assert_eq!(start(longer, false), full(Why::Resized));
        let finer = with(|c| c.granularity = "4Ki".parse().unwrap());
        assert_eq!(start(finer, false), full(Why::Resized));
        assert_eq!(start(with(|c| c.state = State::Differs), false), full(Why::Differed));
    }

    #[test]
    fn a_device_that_has_grown_is_the_same_one() {
        let device = |id: &mut TargetId| id.identity = Some("LVM-abc".to_owned());
        let grown = |found: &mut Found| {
            device(&mut found.id);
            with(|c| device(&mut c.target))(found);
            found.id.size.0 *= 2;
        };
        assert_eq!(start(grown, false), Ok(Start::Resume { since: Era(7), cursor: Bytes(0) }));
    }

    #[test]
    fn in_doubt_all_is_copied_again_wherever_it_was() {
        for state in [State::Seeding, State::Copying, State::Consistent] {
            for why in [Why::Written, Why::Unproven] {
                let doubtful = |found: &mut Found| {
                    with(|c| c.state = state)(found);
                    found.doubt = Some(why);
                };
                assert_eq!(start(doubtful, false), Ok(Start::Full(why)));
            }
        }
        let strange = |found: &mut Found| {
            (found.checkpoint, found.doubt) = (Ok(None), Some(Why::Unproven));
        };
        assert!(start(strange, false).is_err(), "no doubt makes somebody else's target ours");
    }

    #[test]
    fn what_may_be_somebody_elses_is_kept_unless_it_may_go() {
        let strange: [(Change, &str); 5] = [
            (|found| found.id.size.0 *= 2, "not the one that its checkpoint is of"),
            (|found| found.checkpoint = Ok(None), "no checkpoint"),
            (|found| found.checkpoint = Err("its checkpoint is torn".into()), "is torn"),
            (|found| found.id.inode = Some(13), "not the one that its checkpoint is of"),
            (
                |found| with(|c| c.stack = "other".parse().unwrap())(found),
                "it is a replica of other",
            ),
        ];
        for (change, because) in strange {
            let refused = start(change, false).unwrap_err();
            assert!(refused.contains(because) && refused.contains("--overwrite"), "{refused}");
            assert_eq!(start(change, true), Ok(Start::Full(Why::Overwritten)));
            let blank = |found: &mut Found| {
                change(found);
                found.blank = true;
            };
            assert_eq!(start(blank, false), Ok(Start::Full(Why::First)));
        }
    }
}
