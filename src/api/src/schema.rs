//! Parts of the schemas that attributes on a field cannot say, or that several kinds share.
//!
//! Every string, list and map has a bound: without them the API server cannot bound the cost of the rules, and refuses
//! the definition.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::Condition;
use crate::condition::MESSAGE_MAX;

const NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
const LABEL_KEY: &str =
    "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// Rules in CEL, each with the message a user sees.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Vec<Value> {
    rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect()
}

/// The name of an object, as most kinds have it.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": NAME })
}

/// A set of claims' names.
pub(crate) fn claim_names(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": object_name(generator),
    })
}

/// An era that has begun. The kernel counts eras in 32 bits, and a device's first is 1.
pub(crate) fn era(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": u32::MAX })
}

/// `metav1.LabelSelector`, with bounds, and with the checks that the API server makes of its own selectors.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": { "type": "string", "maxLength": 63, "pattern": LABEL_VALUE },
                "x-kubernetes-validations": [{
                    "rule": format!("self.all(key, size(key) <= 317 && key.matches('{LABEL_KEY}'))"),
                    "message": "a key must be a label's name, such as app or app.kubernetes.io/name",
                }],
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": label_requirement(),
            },
        },
    })
}

fn label_requirement() -> Value {
    json!({
        "type": "object",
        "required": ["key", "operator"],
        "x-kubernetes-validations": [{
            "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "message": "In and NotIn need values; Exists and DoesNotExist must have none",
        }],
        "properties": {
            "key": { "type": "string", "minLength": 1, "maxLength": 317, "pattern": LABEL_KEY },
            "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
            "values": {
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "atomic",
                "items": { "type": "string", "maxLength": 63, "pattern": LABEL_VALUE },
            },
        },
    })
}

/// The fields of a schedule: which, what it is called, what it is made of, and that as a pattern.
const FIELDS: [(&str, &str, &str, &str); 5] = [
    ("first", "minute", "0-59", "(([*]|[0-5]?[0-9](-[0-5]?[0-9])?)(/[1-9][0-9]?)?,)+"),
    (
        "second",
        "hour",
        "0-23",
        "(([*]|([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?)(/[1-9][0-9]?)?,)+",
    ),
    (
        "third",
        "day of month",
        "1-31",
        "(([*]|(0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?)(/[1-9][0-9]?)?,)+",
    ),
    ("fourth", "month", "1-12", "(([*]|(0?[1-9]|1[0-2])(-(0?[1-9]|1[0-2]))?)(/[1-9][0-9]?)?,)+"),
    ("fifth", "day of week", "0-7", "(([*]|[0-7](-[0-7])?)(/[1-7])?,)+"),
];

/// A crontab's five fields, each checked by a rule of its own, so that the message names the wrong one.
pub(crate) fn schedule(_: &mut SchemaGenerator) -> Schema {
    let mut rules = vec![json!({
        "rule": "self.split(' ').size() == 5",
        "message": "needs five fields: minute hour day-of-month month day-of-week, e.g. '*/15 * * * *'",
    })];
    for (index, (nth, name, values, pattern)) in FIELDS.iter().enumerate() {
        rules.push(json!({
            "rule": format!("self.split(' ').size() != 5 || (self.split(' ')[{index}]+',').matches('^{pattern}$')"),
            "message": format!("{nth} field ({name}) must be made of {values}, * , - and /"),
        }));
    }
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 128, "x-kubernetes-validations": rules })
}

/// A list of conditions, one of each type, each of which may have another writer.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": generator.subschema_for::<Condition>(),
    })
}

const _: () =
    assert!(MESSAGE_MAX == 1024, "the bound on Condition::message is written there as a number");
