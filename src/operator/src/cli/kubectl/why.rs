//! Why the next snapshot of a claim will be full; or that it will not.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use eratrack_api::{Condition, ConditionStatus, ConditionType, EraVolume, Reason, condition};
use serde::Serialize;

use super::access::Cluster;
use super::claim::Claim;
use super::error::KubectlError;

/// Of which claim.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The claim, as NAME or NAMESPACE/NAME
    #[arg(value_name = "CLAIM")]
    claim: Claim,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One sentence
    #[default]
    Text,
    /// An object (docs/formats.md)
    Json,
}

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    claim: String,
    next: Next,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// With the values involved, as the agent or the controller said it.
    message: String,
    sentence: String,
}

/// What the next snapshot will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Next {
    /// What changed since the last one.
    Incremental,
    /// Everything.
    Full,
    /// There can be none yet; the first one will be full.
    None,
    /// Nobody can tell.
    Unknown,
}

pub(super) async fn run(
    args: &WhyArgs,
    cluster: &Cluster,
    out: &mut impl Write,
) -> Result<(), KubectlError> {
    let namespace = cluster.namespace_of(&args.claim)?;
    let claim = args.claim.name.clone();
    let volume = cluster.volume(&namespace, &claim).await?;
    let volume = volume.ok_or(KubectlError::NotTracked { namespace: namespace.clone(), claim })?;
    print(args.output, &answer(&namespace, &volume), out).map_err(KubectlError::Print)
}

fn print(format: Format, answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text => writeln!(out, "{}", answer.sentence),
        Format::Json => {
            serde_json::to_writer(&mut *out, answer)?;
            writeln!(out)
        }
    }
}

fn answer(namespace: &str, volume: &EraVolume) -> Answer {
    let claim = volume.spec.claim.name.clone();
    let whose = format!("{namespace}/{claim}");
    let status = volume.status.as_ref();
    let intact =
        status.and_then(|it| condition::find(&it.conditions, ConditionType::TrackingIntact));
    let next = intact.map_or(Next::None, next);
    let base = status.and_then(|it| it.last_snapshot.as_ref());
    let base = base.map(|base| format!("{} (era {})", base.name, base.era));
    let because = intact.map_or_else(not_looked_at, because);
    let reason = intact.map(|intact| intact.reason.clone());
    let word = reason.as_ref().map_or_else(String::new, |word| format!(" ({word})"));
    let sentence = match next {
        Next::Incremental => format!(
            "The next snapshot of {whose} will be incremental: it refers to {}.",
            base.unwrap_or_else(|| "the last complete one".to_owned())
        ),
        Next::Full => format!("The next snapshot of {whose} will be full{word}: {because}"),
        Next::None => format!(
            "No snapshot of {whose} can be made yet{word}, and the first one will be full: {because}"
        ),
        Next::Unknown => {
            format!(
                "Nobody can tell whether the next snapshot of {whose} will be full{word}: {because}"
            )
        }
    };
    let message = intact.map(|intact| intact.message.clone()).unwrap_or_default();
    Answer { namespace: namespace.to_owned(), claim, next, reason, message, sentence }
}

fn next(intact: &Condition) -> Next {
    match (intact.status, intact.known_reason()) {
        (ConditionStatus::True, _) => Next::Incremental,
        (ConditionStatus::Unknown, _) => Next::Unknown,
        // A reason that is made for Attached is one why era is not in the data path.
        (ConditionStatus::False, Some(reason))
            if reason
                .places()
                .first()
                .is_some_and(|(_, place)| *place == ConditionType::Attached) =>
        {
            Next::None
        }
        (ConditionStatus::False, _) => Next::Full,
    }
}

/// What the reason means and what to do about it, as the rest of a sentence.
fn because(intact: &Condition) -> String {
    let Some(reason) = intact.known_reason() else {
        return format!(
            "{}; see the documentation of the version that is installed.",
            intact.message
        );
    };
    format!("{}; what to do: {}", lower(meaning(reason)), lower(reason.remedy()))
}

fn not_looked_at() -> String {
    "the agent of its node has not looked at the volume yet; what to do: see whether the agent's pod is ready.".to_owned()
}

/// Without what the sentence has said already.
fn meaning(reason: Reason) -> &'static str {
    const SAID: [&str; 4] = [
        "; the next snapshot is full.",
        "; the next one is full.",
        " The next snapshot is full.",
        ".",
    ];
    let means = reason.means();
    SAID.iter().find_map(|said| means.strip_suffix(said)).unwrap_or(means).trim_end_matches('.')
}

/// As a part of a sentence, whatever sentences it had of its own.
fn lower(text: &str) -> String {
    let parts = text.split(". ").map(|part| {
        let mut chars = part.chars();
        let first = chars.next().into_iter().flat_map(char::to_lowercase);
        first.chain(chars).collect::<String>()
    });
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{condition, volume};
    use super::*;
    use serde_json::json;

    fn said(status: &str, reason: &str) -> Answer {
        let intact = condition("TrackingIntact", status, reason, "device 253:3");
        let last = json!({"name": "data-1", "uid": "u", "era": 9, "time": "2026-01-01T00:00:00Z"});
        let status = json!({"conditions": [intact], "lastSnapshot": last});
        answer("shop", &volume("shop", "data", "daily", &status))
    }

    #[test]
    fn one_sentence_with_the_remedy() {
        let sentences = [
            said("True", "ChainIntact"),
            said("False", "NodeRebooted"),
            said("False", "MetadataFull"),
            said("False", "NotInUse"),
            said("Unknown", "AgentNotReady"),
            said("False", "FromTheFuture"),
            answer("shop", &volume("shop", "data", "daily", &json!({}))),
        ]
        .map(|answer| format!("{:?}: {}\n", answer.next, answer.sentence));
        assert_eq!(sentences.concat(), include_str!("golden/why.txt"));
    }

    #[test]
    fn every_reason_of_a_volume_makes_a_sentence() {
        for reason in Reason::ALL {
            let of_intact =
                |(_, place): &(_, ConditionType)| *place == ConditionType::TrackingIntact;
            if reason.places().iter().any(of_intact) {
                let sentence = said("False", reason.as_str()).sentence;
                assert!(sentence.contains("what to do: ") && sentence.ends_with('.'), "{sentence}");
                assert!(!sentence.contains("snapshot is full"), "said twice: {sentence}");
            }
        }
    }

    #[test]
    fn as_json() {
        let mut out = Vec::new();
        print(Format::Json, &said("False", "NodeRebooted"), &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["next"], &value["reason"]), (&json!("Full"), &json!("NodeRebooted")));
        assert_eq!(value["message"], "device 253:3");
    }
}
