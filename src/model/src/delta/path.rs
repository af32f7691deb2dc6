//! Which lists to read to learn what changed between two snapshots.

use super::{DeltaError, Head, Reach};
use crate::Era;

/// The lists that together hold what was written between two snapshots, the earliest first: as few as there can be.
/// Of `heads`, those of other volumes and chains are left out, and so is what ends after `to`.
pub fn path<'a>(heads: &'a [Head], from: &Head, to: &'a Head) -> Result<Vec<&'a Head>, DeltaError> {
    ends(heads, from, to)?;
    let mut path = vec![to];
    let mut since = to.since()?;
    while since > from.era {
        let last = path[path.len() - 1];
        let (reaches, next) = further(heads, last, to, since)
            .ok_or_else(|| missing(heads, last, to, since, from.era))?;
        path.push(next);
        since = reaches;
    }
    path.reverse();
    Ok(path)
}

fn ends(heads: &[Head], from: &Head, to: &Head) -> Result<(), DeltaError> {
    from.same_line(to).map_err(|error| match error {
        DeltaError::OtherChain { first, second, reason: None } => {
            DeltaError::OtherChain { first, second, reason: began(heads, to) }
        }
        other => other,
    })?;
    if from.era >= to.era {
        return Err(DeltaError::NotBefore {
            from: from.snapshot.clone(),
            from_era: from.era,
            to: to.snapshot.clone(),
            to_era: to.era,
        });
    }
    Ok(())
}

/// The list that joins on to what is covered and reaches back the furthest.
fn further<'a>(heads: &'a [Head], last: &Head, to: &Head, since: Era) -> Option<(Era, &'a Head)> {
    heads
        .iter()
        .filter(|head| head.line == to.line && (since..last.era).contains(&head.era))
        .filter_map(|head| Some((head.since().ok()?, head)))
        .filter(|(reaches, _)| *reaches < since)
        .min_by_key(|(reaches, _)| *reaches)
}

/// Why nothing joins on.
fn missing(heads: &[Head], last: &Head, to: &Head, since: Era, from: Era) -> DeltaError {
    let full = heads.iter().find_map(|head| match &head.reach {
        Reach::Full(reason) if head.line == to.line && (since..last.era).contains(&head.era) => {
            Some((head.snapshot.clone(), reason.clone()))
        }
        _ => None,
    });
    match full {
        Some((snapshot, reason)) => DeltaError::Full { snapshot, reason },
        None => DeltaError::Gap { snapshot: last.snapshot.clone(), since, from },
    }
}

/// Why the chain of `to` began, by its first full snapshot that is still there.
fn began(heads: &[Head], to: &Head) -> Option<String> {
    let of_chain = heads.iter().chain([to]).filter(|head| head.line.chain == to.line.chain);
    let fulls = of_chain.filter_map(|head| match &head.reach {
        Reach::Full(reason) => Some((head.era, reason)),
        Reach::Since(_) => None,
    });
    fulls.min_by_key(|(era, _)| *era).map(|(_, reason)| reason.clone())
}
