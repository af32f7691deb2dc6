//! When to try again what did not succeed. Pure: one exhaustive mapping a step.

use std::time::Duration;

use crate::agent::discover::Refusal;
use crate::agent::stacks::{Hope, StackError};

/// The shortest wait.
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest wait while hope is soon.
const LONGEST: Duration = Duration::from_secs(60);
/// The wait where something about the machine or the volume must change first.
pub(super) const LATER: Duration = Duration::from_secs(300);

/// When to look for the device again; none means: when the machine's mounts change.
pub(crate) fn after_refusal(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::NotInUse
        | Refusal::Ambiguous { .. }
        | Refusal::SharedFilesystem { .. }
        | Refusal::Directory { .. }
        | Refusal::Filesystem { .. }
        | Refusal::NotDeviceMapper { .. } => None,
        Refusal::OtherVolume { .. }
        | Refusal::NoVolume { .. }
        | Refusal::OtherClaim { .. }
        | Refusal::AccessMode { .. }
        | Refusal::NotBlockBacked { .. }
        | Refusal::Kind { .. }
        | Refusal::Claimed { .. } => Some(LATER),
    }
}

/// When to try an operation on the stack again.
pub(crate) fn after_stack(error: &StackError, attempt: u32) -> Duration {
    match error.hope {
        Hope::Soon | Hope::Broken => soon(attempt),
        Hope::Later => LONGEST,
    }
}

/// Doubling, from two seconds to a minute.
pub(crate) fn soon(attempt: u32) -> Duration {
    SHORTEST.saturating_mul(1 << attempt.min(5)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits = [0, 1, 2, 3, 4, 5, 40].map(|attempt| soon(attempt).as_secs());
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn an_unused_volume_is_not_polled() {
        assert_eq!(after_refusal(&Refusal::NotInUse), None);
        let missing = Refusal::NoVolume { name: "pv".into() };
        assert_eq!(after_refusal(&missing), Some(LATER));
    }
}
