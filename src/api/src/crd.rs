//! The definitions of the kinds, as the API server wants them.
//!
//! derive → tidy → YAML: [`crds`] derives the definitions from the types and tidies what the derivation leaves that
//! Kubernetes does not want.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use crate::{ChangedBlockSlice, EraSnapshot, EraTracking, EraVolume};

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
        if let Some(schema) = version.schema.as_mut().and_then(|it| it.open_api_v3_schema.as_mut()) {
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
