//! Which snapshots go as they are, and which are merged into another one first. Pure.
//!
//! A list is wanted as long as an earlier boundary of its chain stays from which it leads on. What is the oldest leads on from
//! nothing, and goes as it is.

use std::cmp::Reverse;

use eratrack_api::EraSnapshot;
use kube::ResourceExt;

use crate::controller::outcome::outcome;
use crate::controller::retention::Outcome;

/// A snapshot that goes, and the one that takes its list over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fold {
    /// The one that goes.
    pub(crate) gone: EraSnapshot,
    /// The one that refers to it, or has its list already.
    pub(crate) into: EraSnapshot,
}

/// What becomes of a snapshot whose time is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It goes.
    Drop,
    /// It is merged into another one, and goes.
    Fold(Box<Fold>),
    /// One that refers to it is being made: it stays until that is complete.
    Stay,
}

/// A boundary in its chain.
#[derive(Clone, Copy)]
struct Link<'a> {
    snapshot: &'a EraSnapshot,
    line: (&'a str, &'a str),
    era: u32,
    since: Option<u32>,
    outcome: Outcome,
}

/// What becomes of `gone`, the oldest first; what is merged comes first, the newest of it before. `all` are the claim's
/// snapshots that are not being deleted.
pub(crate) fn fates<'a>(
    all: &[&'a EraSnapshot],
    gone: &[&'a EraSnapshot],
) -> Vec<(&'a EraSnapshot, Fate)> {
    let links: Vec<_> = all.iter().filter_map(|it| link(it)).collect();
    let stays = |it: &Link<'_>| !gone.iter().any(|gone| gone.uid() == it.snapshot.uid());
    let fate = |it: &&'a EraSnapshot| match link(it) {
        Some(link) => fate(&link, &links, &stays),
        None => Fate::Drop,
    };
    let mut fates: Vec<_> = gone.iter().map(|it| (*it, fate(it))).collect();
    fates.sort_by_key(|(it, fate)| match (fate, link(it)) {
        (Fate::Fold(_), Some(link)) => (false, Reverse(link.era)),
        _ => (true, Reverse(0)),
    });
    fates
}

fn fate(gone: &Link<'_>, links: &[Link<'_>], stays: &impl Fn(&Link<'_>) -> bool) -> Fate {
    let peers = || links.iter().filter(|it| it.line == gone.line && it.era != gone.era);
    let refers = |it: &&Link<'_>| it.since == Some(gone.era);
    if peers().any(|it| refers(&it) && it.outcome == Outcome::Pending) {
        return Fate::Stay;
    }
    let complete = || peers().filter(|it| matches!(it.outcome, Outcome::Complete(_)));
    let Some(since) = gone.since else { return Fate::Drop };
    if !complete().any(|it| it.era <= since && stays(it)) {
        return Fate::Drop;
    }
    // Of several, after a merge that was cut short, the newest is the one that stays.
    let next = complete().filter(refers).max_by_key(|it| it.era);
    let covers = |it: &&Link<'_>| it.era > gone.era && it.since.is_some_and(|it| it <= since);
    match next.or_else(|| complete().filter(covers).min_by_key(|it| it.era)) {
        Some(into) => {
            let (gone, into) = (gone.snapshot.clone(), into.snapshot.clone());
            Fate::Fold(Box::new(Fold { gone, into }))
        }
        None => Fate::Drop,
    }
}

/// A boundary, if it was made.
fn link(snapshot: &EraSnapshot) -> Option<Link<'_>> {
    let status = snapshot.status.as_ref()?;
    let line = (status.volume_uid.as_deref()?, status.chain_id.as_deref()?);
    let (era, since) = (status.era?, status.since_era);
    Some(Link { snapshot, line, era, since, outcome: outcome(snapshot) })
}
