//! What both roles share of metrics: the registry with its prefix, and its text form.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// The media type of [`encode`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An empty registry; every name gets the prefix `eratrack_`.
pub(crate) fn registry() -> Registry {
    Registry::with_prefix("eratrack")
}

/// The registry's figures in OpenMetrics text.
pub(crate) fn encode(registry: &Registry) -> String {
    let mut body = String::new();
    // The only failure is a writer's, and a String has none.
    let _ = text::encode(&mut body, registry);
    body
}
