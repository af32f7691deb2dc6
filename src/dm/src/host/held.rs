//! A metadata snapshot that a person holds, for as many readings as they like.
//!
//! The kernel does not tell who took a snapshot. A note in `/run/eratrack` does, with the block
//! that is held: a snapshot without a note, or at another block, was left by a reader that was
//! killed, and goes.

use std::path::{Path, PathBuf};

use eratrack_model::names::StackId;
use eratrack_model::record::{Keeper, Record};
use serde::{Deserialize, Serialize};

use super::{Host, HostError};
use crate::era_status::EraStatus;
use crate::machine::MachineError;

/// A metadata snapshot that is held until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldByHand {
    /// The block of its superblock.
    pub block: u64,
    /// The era that began when it was taken.
    pub era: u32,
}

/// What became of what was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was held by hand.
    ByHand,
    /// A reader that was killed had left it.
    Stale,
    /// Nothing was held.
    Nothing,
}

impl Host {
    /// Takes the metadata snapshot and leaves it held. Fails if one is held by hand already.
    pub fn hold(&self, record: &Record) -> Result<HeldByHand, HostError> {
        let lock = self.lock_stack(&record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.require_intact(record)?;
        self.is_ours(record)?;
        if self.held_by_hand(record)?.is_some() {
            return Err(HostError::Held { stack: record.stack.clone() });
        }
        // As before a boundary: a discard that begins after this counts as later.
        let discards = self.discards_now(record)?;
        self.take(record)?;
        let EraStatus::Working { era, held: Some(block), .. } = self.working(record)? else {
            return Err(HostError::Unexpected {
                stack: record.stack.clone(),
                what: "the metadata snapshot that was taken is not held".to_owned(),
            });
        };
        let held = HeldByHand { block, era: era.0 };
        let noted = self.note(&record.stack, &held);
        match noted.and_then(|()| self.mark_boundary(&record.stack, era, discards)) {
            Ok(()) => Ok(held),
            Err(error) => {
                self.drop_held(record)?;
                Err(error)
            }
        }
    }

    /// Fails if the stack is somebody else's to change. One without a record is anybody's.
    pub fn require_ours(&self, stack: &StackId) -> Result<(), HostError> {
        let record = self.record_if_readable(stack);
        record.map_or(Ok(()), |record| self.is_ours(&record))
    }

    fn is_ours(&self, record: &Record) -> Result<(), HostError> {
        if record.keeper == self.keeper { Ok(()) } else { Err(kept_by_another(record)) }
    }

    /// Drops whatever is held.
    pub fn release(&self, record: &Record) -> Result<Released, HostError> {
        let _lock = self.lock_stack(&record.stack)?;
        let noted = self.held_by_hand(record)?.is_some();
        let held = matches!(self.status(record)?, EraStatus::Working { held: Some(_), .. });
        if held {
            self.drop_held(record)?;
        }
        self.forget_note(&record.stack)?;
        Ok(match (held, noted) {
            (true, true) => Released::ByHand,
            (true, false) => Released::Stale,
            (false, _) => Released::Nothing,
        })
    }

    /// What a person holds, if it is still the one that they took.
    pub fn held_by_hand(&self, record: &Record) -> Result<Option<HeldByHand>, HostError> {
        let path = self.note_path(&record.stack);
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
        let Ok(noted) = serde_json::from_str::<HeldByHand>(&text) else { return Ok(None) };
        match self.status(record)? {
            EraStatus::Working { held, .. } if held == Some(noted.block) => Ok(Some(noted)),
            _ => Ok(None),
        }
    }

    pub(super) fn forget_note(&self, stack: &StackId) -> Result<(), HostError> {
        let path = self.note_path(stack);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(MachineError { doing: "remove", path, source: e }.into())
            }
            _ => Ok(()),
        }
    }

    fn note(&self, stack: &StackId, held: &HeldByHand) -> Result<(), HostError> {
        let path = self.note_path(stack);
        let text = serde_json::to_string(held).unwrap_or_default();
        std::fs::write(&path, text)
            .map_err(|source| MachineError { doing: "write", path, source }.into())
    }

    fn note_path(&self, stack: &StackId) -> PathBuf {
        self.machine.path(Path::new("/run/eratrack")).join(format!("{stack}.held"))
    }
}

fn kept_by_another(record: &Record) -> HostError {
    let keeper = match record.keeper {
        Keeper::Agent => "the agent of this node",
        Keeper::Administrator => "an administrator",
    };
    HostError::KeptByAnother { stack: record.stack.clone(), keeper }
}
