//! What a look at a volume's era says about its chain. Pure.

use eratrack_api::Reason;

use crate::agent::stacks::{Health, Hope, Liveness, StackError, Tracked};

/// From here on metadata counts as full: dm-era grows it by whole writesets, and at the end of it writes fail.
const FULL_PERCENT: u32 = 90;

/// Why the chain ends, after a look at the live table; none if it goes on.
pub(super) fn of_table(looked: &Result<Liveness, StackError>, tracked: &Tracked) -> Option<Reason> {
    match looked {
        Ok(Liveness::Intact) => None,
        Ok(Liveness::Reloaded { size_bytes }) => {
            let resized = size_bytes.is_some_and(|size| size != tracked.size_bytes);
            Some(if resized { Reason::Resized } else { Reason::TableReloaded })
        }
        Ok(Liveness::RolledBack) => Some(Reason::RolledBack),
        Ok(Liveness::Rebooted) => Some(Reason::NodeRebooted),
        Ok(Liveness::Gone) => Some(Reason::Reattached),
        Err(error) => of_error(error, "cannot look at the live table"),
    }
}

/// Why the chain ends, after era was asked; none if it goes on.
pub(super) fn of_health(asked: &Result<Health, StackError>) -> Option<Reason> {
    match asked {
        Ok(Health::Good { era: _, used_bytes, total_bytes }) => {
            is_full(percent(*used_bytes, *total_bytes)).then_some(Reason::MetadataFull)
        }
        Ok(Health::Failed) => Some(Reason::MetadataError),
        Err(error) => of_error(error, "cannot ask era"),
    }
}

/// How much of the metadata is in use, rounded up.
pub(crate) fn percent(used: u64, total: u64) -> u32 {
    u32::try_from(used.saturating_mul(100).div_ceil(total.max(1))).unwrap_or(100).min(100)
}

/// Whether there is no room left that can be relied on.
pub(crate) fn is_full(percent: u32) -> bool {
    percent >= FULL_PERCENT
}

fn of_error(error: &StackError, what: &str) -> Option<Reason> {
    if error.hope == Hope::Broken {
        return Some(error.reason);
    }
    tracing::warn!(error = crate::exit::chain(error), "{what}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::tracked;

    #[test]
    fn only_an_intact_table_and_a_passing_error_let_the_chain_go_on() {
        let (tracked, size) = (tracked(), tracked().size_bytes);
        let table = |looked| of_table(&looked, &tracked);
        assert_eq!(table(Ok(Liveness::Intact)), None);
        assert_eq!(table(Err(StackError::unforeseen("busy".to_owned()))), None);
        assert_eq!(table(Err(StackError::no_record("v"))), Some(Reason::RecordMismatch));
        let same = Liveness::Reloaded { size_bytes: Some(size) };
        assert_eq!(table(Ok(same)), Some(Reason::TableReloaded));
        let longer = Liveness::Reloaded { size_bytes: Some(size + 1) };
        assert_eq!(table(Ok(longer)), Some(Reason::Resized));
        assert_eq!(table(Ok(Liveness::RolledBack)), Some(Reason::RolledBack));
        assert_eq!(table(Ok(Liveness::Gone)), Some(Reason::Reattached));
        assert_eq!(table(Ok(Liveness::Rebooted)), Some(Reason::NodeRebooted));
    }

    #[test]
    fn metadata_is_full_before_it_is() {
        let good = |used_bytes| {
            of_health(&Ok(Health::Good {
                era: eratrack_model::Era(3),
                used_bytes,
                total_bytes: 1000,
            }))
        };
        assert_eq!(good(890), None);
        assert_eq!(good(891), Some(Reason::MetadataFull), "rounded up");
        assert_eq!(of_health(&Ok(Health::Failed)), Some(Reason::MetadataError));
        assert_eq!(percent(1, 0), 100);
    }
}
