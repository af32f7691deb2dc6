//! What an EraTracking asks for, read once.

use std::collections::BTreeSet;

use eratrack_api::EraTracking;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

/// Which claims, and who asked first.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    /// The EraTracking's name.
    pub(crate) name: String,
    /// The EraTracking's uid.
    pub(crate) uid: String,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// Which claims of its namespace.
    pub(crate) selection: Selection,
}

/// Which claims of a namespace.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// Those of these names, which need not exist.
    Names(BTreeSet<String>),
    /// Those with such labels.
    Labels(Selector),
    /// None: the selector cannot be read; with what is wrong.
    Unreadable(String),
}

impl Intent {
    /// Reads an EraTracking.
    pub(crate) fn of(tracking: &EraTracking) -> Self {
        let claims = &tracking.spec.claims;
        let selection = match (&claims.names, &claims.selector) {
            (Some(names), None) => Selection::Names(names.iter().cloned().collect()),
            (None, Some(selector)) => match selector.clone().try_into() {
                Ok(selector) => Selection::Labels(selector),
                Err(_) => Selection::Unreadable(unreadable(selector)),
            },
            _ => Selection::Unreadable(
                "spec.claims needs exactly one of names and selector".to_owned(),
            ),
        };
        Self {
            name: tracking.name_any(),
            uid: tracking.uid().unwrap_or_default(),
            created: tracking.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
            selection,
        }
    }

    /// Whether it is known what it asks for.
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self.selection, Selection::Unreadable(_))
    }

    /// Whether a claim of the namespace is among those it asks for.
    pub(crate) fn selects(&self, claim: &PersistentVolumeClaim) -> bool {
        match &self.selection {
            Selection::Names(names) => names.contains(&claim.name_any()),
            Selection::Labels(selector) => selector.matches(claim.labels()),
            Selection::Unreadable(_) => false,
        }
    }
}

fn unreadable(selector: &LabelSelector) -> String {
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    let operators: Vec<_> = expressions.iter().map(|it| it.operator.as_str()).collect();
    format!(
        "spec.claims.selector cannot be read: its operators are {}; there are In, NotIn, Exists and DoesNotExist",
        operators.join(", ")
    )
}

/// Of several that ask for one claim, the one that was first; names tell apart what was made in the same second.
pub(crate) fn first<'a>(
    claim: &PersistentVolumeClaim,
    intents: impl IntoIterator<Item = &'a Intent>,
) -> Option<&'a Intent> {
    let asking = intents.into_iter().filter(|intent| intent.selects(claim));
    asking.min_by_key(|intent| (intent.created, &intent.name))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // a json! literal is handed over, not kept
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::testing::{self, merged, object};

    fn claim(name: &str, labels: Value) -> PersistentVolumeClaim {
        object(
            json!({ "metadata": { "name": name, "namespace": testing::NAMESPACE, "labels": labels } }),
        )
    }

    fn intent(name: &str, created: &str, claims: Value) -> Intent {
        let tracking = testing::tracking(name, json!({ "claims": claims }));
        let value = serde_json::to_value(tracking).expect("JSON");
        Intent::of(&object(merged(value, json!({ "metadata": { "creationTimestamp": created } }))))
    }

    #[test]
    fn names_and_labels_select() {
        let pg = claim("data-pg-0", json!({ "app": "pg", "tier": "db" }));
        let table = [
            (json!({ "names": ["data-pg-0", "x"] }), true),
            (json!({ "names": ["x"] }), false),
            (json!({ "selector": {} }), true),
            (json!({ "selector": { "matchLabels": { "app": "pg" } } }), true),
            (json!({ "selector": { "matchLabels": { "app": "pg", "tier": "web" } } }), false),
            (
                json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["a", "pg"] }] } }),
                true,
            ),
            (
                json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["pg"] }] } }),
                false,
            ),
            (
                json!({ "selector": { "matchExpressions": [{ "key": "old", "operator": "DoesNotExist" }] } }),
                true,
            ),
            (
                json!({ "selector": { "matchExpressions": [{ "key": "old", "operator": "Exists" }] } }),
                false,
            ),
            (
                json!({ "selector": { "matchExpressions": [{ "key": "old", "operator": "Smells" }] } }),
                false,
            ),
            (json!({}), false),
            (json!({ "names": ["data-pg-0"], "selector": {} }), false),
        ];
        for (claims, expected) in table {
            assert_eq!(
                intent("a", testing::CREATED, claims.clone()).selects(&pg),
                expected,
                "{claims}"
            );
        }
    }

    #[test]
    fn an_operator_of_another_version_is_said() {
        let odd =
            json!({ "selector": { "matchExpressions": [{ "key": "old", "operator": "Smells" }] } });
        let Selection::Unreadable(message) = intent("a", testing::CREATED, odd).selection else {
            panic!("read")
        };
        assert!(message.contains("Smells"), "{message}");
    }

    #[test]
    fn the_older_one_has_the_claim() {
        let pg = claim("data-pg-0", json!({}));
        let all = json!({ "selector": {} });
        let old = intent("z-old", "2026-11-01T00:00:00Z", all.clone());
        let new = intent("a-new", "2026-11-02T00:00:00Z", all.clone());
        let same = intent("b-new", "2026-11-02T00:00:00Z", all);
        let older = intent("older", "2026-10-01T00:00:00Z", json!({ "names": ["another"] }));
        for order in [[&old, &new, &same, &older], [&older, &same, &new, &old]] {
            assert_eq!(first(&pg, order).map(|it| it.name.as_str()), Some("z-old"));
        }
        assert_eq!(first(&pg, [&same, &new]).map(|it| it.name.as_str()), Some("a-new"));
        assert_eq!(first(&pg, [&older]).map(|it| it.name.as_str()), None);
    }
}
