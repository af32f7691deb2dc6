//! The definitions of the kinds, as the API server wants them.
//!
//! derive → tidy → YAML: [`crds`] derives the definitions from the types and tidies what the derivation leaves that
//! Kubernetes does not want.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{ChangedBlockSlice, EraSnapshot, EraTracking, EraVolume};

/// A definition could not be written down. It depends on the types of this crate alone, so a test rules it out.
#[derive(Debug, thiserror::Error)]
#[error("definition {name} cannot be written as YAML")]
pub struct NotWritable {
    name: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The definitions of all four kinds, in the order they are documented in.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [EraTracking::crd(), EraVolume::crd(), EraSnapshot::crd(), ChangedBlockSlice::crd()]
        .into_iter()
        .map(tidied)
        .collect()
}

fn tidied(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|it| it.open_api_v3_schema.as_mut())
        {
            tidy(schema);
        }
    }
    crd
}

/// An absent field is the only way to say "not set": null is not a value of its own. The formats of unsigned numbers are
/// unknown to Kubernetes, which warns of them; their minimum says the same.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".to_owned());
        schema.minimum = schema.minimum.or(Some(0.0));
    }
    for child in schema.properties.iter_mut().flat_map(|it| it.values_mut()) {
        tidy(child);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
}

/// The file that a definition is kept in: `eratrack.dev_eratrackings.yaml`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// A definition as YAML, with the same bytes at every call.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, NotWritable> {
    yaml(crd).map_err(|source| NotWritable { name: file_name(crd), source })
}

/// All definitions as one stream of YAML documents.
pub fn crds_yaml() -> Result<String, NotWritable> {
    let documents: Result<Vec<String>, _> = crds().iter().map(to_yaml).collect();
    Ok(documents?.join("---\n"))
}

fn yaml(
    crd: &CustomResourceDefinition,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut value = serde_json::to_value(crd)?;
    whole_numbers(&mut value);
    // Long lines stay whole: a rule that is folded cannot be searched for.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    Ok(serde_saphyr::to_string_with_options(&value, options)?)
}

/// Bounds are floating-point numbers in the definition's type, and all of ours are whole: `4096`, not `4096.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|it| it.fract() == 0.0) {
                *number = format!("{whole:.0}").parse().unwrap_or_else(|_| number.clone());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
