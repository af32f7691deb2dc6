//! An API server that writes down what it is asked. It answers a write with what was written, as a real one would, and
//! whatever a scenario tells it to.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::{self, Handle};

/// A request as a test reads it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and path, without the query: `PATCH /apis/…/eravolumes/data`.
    pub(crate) what: String,
    /// The query.
    pub(crate) query: String,
    /// The body, or null.
    pub(crate) body: Value,
}

/// The answer to requests whose method and path end so.
#[derive(Clone, Debug)]
struct Rule {
    ending: &'static str,
    code: u16,
    answer: Value,
}

/// No code at all.
const HANG: u16 = 0;

/// The API server of one test.
pub(crate) struct FakeApi {
    asked: Arc<Mutex<Vec<Asked>>>,
    rules: Arc<Mutex<Vec<Rule>>>,
    client: Client,
}

impl FakeApi {
    /// One that accepts everything.
    pub(crate) fn new() -> Self {
        let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
        let api = Self {
            asked: Arc::default(),
            rules: Arc::default(),
            client: Client::new(service, "default"),
        };
        tokio::spawn(serve(handle, api.asked.clone(), api.rules.clone()));
        api
    }

    /// Answers requests whose method and path end in `ending` with a Status of this code and reason.
    pub(crate) fn refuse(self, ending: &'static str, code: u16, reason: &str, name: &str) -> Self {
        let answer = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
            "message": format!("{reason} of {name}"), "details": { "name": name },
        });
        self.answer(ending, code, answer)
    }

    /// Answers requests whose method and path end in `ending` so.
    pub(crate) fn answer(self, ending: &'static str, code: u16, answer: Value) -> Self {
        self.rules.lock().expect("not poisoned").push(Rule { ending, code, answer });
        self
    }

    /// Never answers requests whose method and path end in `ending`.
    pub(crate) fn hang(self, ending: &'static str) -> Self {
        self.answer(ending, HANG, Value::Null)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// What was asked so far, but for events.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let all = self.asked.lock().expect("not poisoned").clone();
        all.into_iter().filter(|it| !it.what.contains("events.k8s.io")).collect()
    }

    /// The method and the end of the path of what was asked: `PATCH eravolumes/data`.
    pub(crate) fn order(&self) -> Vec<String> {
        self.asked().iter().map(|it| brief(&it.what)).collect()
    }

    /// The reasons of the events that were sent.
    pub(crate) fn events(&self) -> Vec<String> {
        let all = self.asked.lock().expect("not poisoned").clone();
        let events = all.iter().filter(|it| it.what.contains("events.k8s.io"));
        events.map(|it| it.body["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Method, and the path after its namespace or version.
fn brief(what: &str) -> String {
    let (method, path) = what.split_once(' ').unwrap_or((what, ""));
    let parts: Vec<_> = path.split('/').filter(|it| !it.is_empty()).collect();
    let from = parts.iter().position(|it| *it == "namespaces").map_or(2, |at| at + 2);
    format!("{method} {}", parts[from.min(parts.len())..].join("/"))
}

async fn serve(
    mut handle: Handle<Request<Body>, Response<Body>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    rules: Arc<Mutex<Vec<Rule>>>,
) {
    let mut unanswered = Vec::new();
    while let Some((request, send)) = handle.next_request().await {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let what = format!("{} {}", parts.method, parts.uri.path());
        let query = parts.uri.query().unwrap_or_default().to_owned();
        asked.lock().expect("not poisoned").push(Asked {
            what: what.clone(),
            query,
            body: body.clone(),
        });
        let rule = rules
            .lock()
            .expect("not poisoned")
            .iter()
            .find(|it| brief(&what).ends_with(it.ending))
            .cloned();
        let (code, answer) = rule.map_or((200, echo(&what, body)), |it| (it.code, it.answer));
        if code == HANG {
            unanswered.push(send);
            continue;
        }
        let answer = Body::from(serde_json::to_vec(&answer).expect("JSON"));
        send.send_response(Response::builder().status(code).body(answer).expect("a response"));
    }
}

/// The object as written, with what only the API server knows.
fn echo(what: &str, body: Value) -> Value {
    if what.starts_with("DELETE") {
        return json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" });
    }
    let base = json!({ "metadata": { "name": what.rsplit('/').next(), "uid": "made-by-the-fake-api-server-00000000" },
                       "spec": { "claimName": "x", "claims": {} } });
    if what.ends_with("/status") {
        return super::merged(json!({ "metadata": { "name": "x" } }), with_spec(what, body));
    }
    super::merged(base, with_spec(what, body))
}

/// A write of a status or of metadata leaves the spec as it is; the client wants to read one all the same.
fn with_spec(what: &str, body: Value) -> Value {
    let reference = json!({ "name": "x", "uid": "x" });
    let spec = if what.contains("/eravolumes/") {
        json!({ "claim": reference, "volume": reference, "granularity": "256Ki" })
    } else if what.contains("/erasnapshots") {
        json!({ "claimName": "x" })
    } else {
        json!({ "claims": {} })
    };
    super::merged(json!({ "spec": spec }), body)
}
