//! From observed and desired to steps, or to a refusal with its reason.
