//! `docs/reasons.md`, made from the enum.

use std::fmt::Write as _;

use crate::condition::ConditionType;
use crate::names::EVENTS;
use crate::reason::{Place, Reason, Subject};

/// Sections of the page: the conditions, who writes them, and what they answer.
const SECTIONS: [(Place, &str, &str); 11] = [
    (
        (Subject::EraVolume, ConditionType::Attached),
        "agent, or controller while no node is known",
        "Is era in the volume's data path?",
    ),
    (
        (Subject::EraVolume, ConditionType::TrackingIntact),
        "agent, or controller while no node is known",
        "Is the next snapshot incremental? If not, why not; the same reason stands in `fullReason` of that snapshot.",
    ),
    (
        (Subject::EraVolume, ConditionType::Ready),
        "controller",
        "Both together, and whether the node's agent is ready.",
    ),
    (
        (Subject::EraVolume, ConditionType::ReplicaCurrent),
        "agent",
        "Does its replica follow? `status.replica` says which snapshot it equals.",
    ),
    (
        (Subject::EraTracking, ConditionType::Ready),
        "controller",
        "Is everything that it names tracked, and are the snapshots on time?",
    ),
    (
        (Subject::EraTracking, ConditionType::TrackingIntact),
        "controller",
        "Will the next snapshots all be incremental?",
    ),
    (
        (Subject::EraTracking, ConditionType::SnapshotCurrent),
        "controller",
        "Has the latest scheduled time its snapshots?",
    ),
    (
        (Subject::EraTracking, ConditionType::ReplicaCurrent),
        "controller",
        "Does the replica follow? What the volume's condition says, or why nothing is copied at all.",
    ),
    (
        (Subject::EraSnapshot, ConditionType::Ready),
        "agent, or controller until a node is assigned and when it fails",
        "Can the list be read? The `Phase` column prints this reason.",
    ),
    (
        (Subject::EraSnapshot, ConditionType::Readable),
        "agent, in mode Local",
        "Does its device show the volume as it was, or did it until its reader had finished?",
    ),
    (
        (Subject::EraSnapshot, ConditionType::Failed),
        "agent or controller",
        "Is it hopeless? Once true, it stays so.",
    ),
];

const HEAD: &str = "<!-- Generated from src/api/src/reason.rs by `cargo e2e generate`. -->
# Conditions and their reasons

Every condition carries a reason in one word, and a message with the values involved. Reasons are part of the interface:
none is ever renamed, so that alerts and scripts can match on them. Events use the same words; the last table has those that
are for events alone.

";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for (place, writer, question) in SECTIONS {
        section(&mut page, place, writer, question);
    }
    page.push_str("## Events alone\n\n| reason | what it means |\n|---|---|\n");
    for (reason, means) in EVENTS {
        let _ = writeln!(page, "| `{reason}` | {means} |");
    }
    page
}

fn section(page: &mut String, place: Place, writer: &str, question: &str) {
    let (subject, condition) = place;
    // Writing to a String cannot fail.
    let _ = writeln!(page, "## {}: {}\n", subject.as_str(), condition.as_str());
    let _ = writeln!(page, "{question} Written by: {writer}.\n");
    let (own, borrowed): (Vec<Reason>, Vec<Reason>) = Reason::ALL
        .iter()
        .copied()
        .filter(|reason| reason.places().contains(&place))
        .partition(|reason| reason.places()[0] == place);
    if !own.is_empty() {
        page.push_str("| reason | what it means | what to do |\n|---|---|---|\n");
        for reason in &own {
            row(page, *reason);
        }
        page.push('\n');
    }
    if !borrowed.is_empty() {
        let names: Vec<String> = borrowed.iter().map(|reason| format!("`{reason}`")).collect();
        let also = if own.is_empty() { "Reasons" } else { "Also" };
        let _ = writeln!(page, "{also}, as explained in another table: {}.\n", names.join(", "));
    }
}

fn row(page: &mut String, reason: Reason) {
    let _ = writeln!(page, "| `{reason}` | {} | {} |", reason.means(), reason.remedy());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_row_and_all_its_places() {
        let page = markdown();
        for reason in Reason::ALL {
            let row = format!("| `{reason}` | {} | {} |\n", reason.means(), reason.remedy());
            assert_eq!(page.matches(&row).count(), 1, "{reason} has not exactly one row");
            for (subject, condition) in reason.places() {
                let title = format!("## {}: {}\n", subject.as_str(), condition.as_str());
                let section = page.split(&title).nth(1).expect("a section of every place");
                let section = section.split("\n## ").next().unwrap_or_default();
                assert!(
                    section.contains(&format!("`{reason}`")),
                    "{reason} is missing under {title}"
                );
            }
        }
    }

    #[test]
    fn every_sentence_is_one_and_fits_a_table() {
        for reason in Reason::ALL {
            for text in [reason.means(), reason.remedy()] {
                assert!(text.ends_with('.'), "{reason}: {text}");
                assert!(!text.contains('|') && !text.contains('\n'), "{reason}: {text}");
            }
        }
    }

    #[test]
    fn names_fit_the_schema_and_parse_back() {
        for reason in Reason::ALL {
            assert!(reason.as_str().len() <= 64);
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("NoSuchReason"), None);
    }

    #[test]
    fn every_condition_of_a_kind_has_a_section() {
        let mut places: Vec<Place> =
            Reason::ALL.iter().flat_map(|it| it.places()).copied().collect();
        places.sort_unstable();
        places.dedup();
        let mut sections: Vec<Place> = SECTIONS.iter().map(|(place, ..)| *place).collect();
        sections.sort_unstable();
        assert_eq!(places, sections);
    }
}
