//! What the API server refused, as far as it matters what to do next.

use std::time::Duration;

use eratrack_api::Reason;
use kube::core::Status;

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiErrorKind {
    /// The API server itself said that this very object is not there.
    Gone,
    /// It is another object by now, or was changed meanwhile.
    Conflict,
    /// An object of that name is there already.
    Exists,
    /// The request breaks a rule; the same request will break it again.
    Invalid,
    /// We may not.
    Forbidden,
    /// A ResourceQuota of the namespace is used up.
    QuotaExceeded,
    /// Not now: too many requests, a time-out, no connection.
    Unavailable,
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {object}: {message}")]
pub(crate) struct ApiError {
    /// What kind of refusal.
    pub(crate) kind: ApiErrorKind,
    doing: &'static str,
    object: String,
    message: String,
    #[source]
    source: Option<Box<kube::Error>>,
}

impl ApiError {
    /// A failed request to do something to an object.
    pub(crate) fn new(doing: &'static str, object: &str, error: kube::Error) -> Self {
        let (kind, message) = match &error {
            kube::Error::Api(status) => (of_status(status), status.message.clone()),
            other => (ApiErrorKind::Unavailable, other.to_string()),
        };
        // The status is said in full by its message.
        let source = (!matches!(error, kube::Error::Api(_))).then(|| Box::new(error));
        Self { kind, doing, object: object.to_owned(), message, source }
    }

    /// A request that was given up.
    pub(crate) fn timed_out(doing: &'static str, object: &str) -> Self {
        let (object, message) = (object.to_owned(), "no answer in time".to_owned());
        Self { kind: ApiErrorKind::Unavailable, doing, object, message, source: None }
    }

    /// The reason a condition gives for it, if a user or an administrator must act before it can succeed.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self.kind {
            ApiErrorKind::QuotaExceeded => Some(Reason::QuotaExceeded),
            ApiErrorKind::Forbidden | ApiErrorKind::Invalid => Some(Reason::OperationFailed),
            ApiErrorKind::Gone
            | ApiErrorKind::Conflict
            | ApiErrorKind::Exists
            | ApiErrorKind::Unavailable => None,
        }
    }

    /// When it is worth another try.
    pub(crate) fn retry_after(&self) -> Duration {
        match self.kind {
            // The cache lags behind; what it learns next comes with a new look of its own.
            ApiErrorKind::Gone | ApiErrorKind::Conflict | ApiErrorKind::Exists => {
                Duration::from_secs(1)
            }
            ApiErrorKind::Unavailable => Duration::from_secs(5),
            // An administrator must act first.
            ApiErrorKind::Forbidden | ApiErrorKind::QuotaExceeded => Duration::from_secs(60),
            ApiErrorKind::Invalid => Duration::from_secs(300),
        }
    }
}

fn of_status(status: &Status) -> ApiErrorKind {
    match (status.code, status.reason.as_str()) {
        // Without the object's details it may be the whole kind that is missing: a reason to wait, not to act.
        (404, "NotFound") if status.details.as_ref().is_some_and(|it| !it.name.is_empty()) => {
            ApiErrorKind::Gone
        }
        (409, "AlreadyExists") => ApiErrorKind::Exists,
        (409, _) => ApiErrorKind::Conflict,
        (400 | 422, _) => ApiErrorKind::Invalid,
        // The quota's own words: it has no reason of its own.
        (403, _) if status.message.contains("exceeded quota") => ApiErrorKind::QuotaExceeded,
        (401 | 403, _) => ApiErrorKind::Forbidden,
        _ => ApiErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::object;

    #[test]
    fn a_missing_kind_is_not_a_missing_object() {
        let table = [
            (
                json!({ "code": 404, "reason": "NotFound", "details": { "name": "n1", "kind": "nodes" } }),
                ApiErrorKind::Gone,
            ),
            (
                json!({ "code": 404, "reason": "NotFound", "details": {} }),
                ApiErrorKind::Unavailable,
            ),
            (json!({ "code": 404 }), ApiErrorKind::Unavailable),
            (json!({ "code": 409, "reason": "AlreadyExists" }), ApiErrorKind::Exists),
            (json!({ "code": 409, "reason": "Conflict" }), ApiErrorKind::Conflict),
            (json!({ "code": 422, "reason": "Invalid" }), ApiErrorKind::Invalid),
            (json!({ "code": 403, "reason": "Forbidden" }), ApiErrorKind::Forbidden),
            (
                json!({ "code": 403, "reason": "Forbidden", "message": "forbidden: exceeded quota: q, requested: …" }),
                ApiErrorKind::QuotaExceeded,
            ),
            (json!({ "code": 429, "reason": "TooManyRequests" }), ApiErrorKind::Unavailable),
            (json!({ "code": 500, "reason": "InternalError" }), ApiErrorKind::Unavailable),
        ];
        for (status, expected) in table {
            let status: Status = object(status);
            let error = ApiError::new("get", "Node n1", kube::Error::Api(Box::new(status.clone())));
            assert_eq!(error.kind, expected, "{status:?}");
        }
    }

    #[test]
    fn the_message_says_what_was_tried() {
        let status: Status =
            object(json!({ "code": 422, "reason": "Invalid", "message": "name too long" }));
        let error =
            ApiError::new("create", "EraSnapshot shop/a", kube::Error::Api(Box::new(status)));
        assert_eq!(crate::exit::chain(&error), "cannot create EraSnapshot shop/a: name too long");
    }
}
