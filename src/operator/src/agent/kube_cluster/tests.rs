//! What is asked of the API server, and what its answers mean.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::response::StatusDetails;
use serde_json::Value;
use tower_test::mock;

use super::*;
use eratrack_api::Reason;

use crate::agent::testing::{CLAIM_UID, era_volume, snapshot};

fn answer(reason: &str, code: u16, message: &str, name: &str) -> ClusterError {
    let details = StatusDetails {
        name: name.to_owned(),
        group: "eratrack.dev".to_owned(),
        kind: "eravolumes".to_owned(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    };
    let status = Status::failure(message, reason).with_code(code).with_details(details);
    classify("EraVolume apps/data", "data", kube::Error::Api(status.boxed()))
}

#[test]
fn only_a_not_found_of_that_name_means_gone() {
    assert!(matches!(answer("NotFound", 404, "", "data"), ClusterError::Gone { .. }));
    assert!(matches!(answer("NotFound", 404, "", "other"), ClusterError::Unavailable { .. }));
    let missing_kind = Status::failure("404 page not found", "NotFound").with_code(404);
    let error = classify("EraVolume apps/data", "data", kube::Error::Api(missing_kind.boxed()));
    assert!(matches!(error, ClusterError::Unavailable { .. }), "{error}");
}

#[test]
fn answers_are_told_apart() {
    let quota = "erasnapshots \"x-0\" is forbidden: exceeded quota: q, requested: count/changedblockslices.eratrack.dev=1";
    assert!(matches!(answer("Forbidden", 403, quota, ""), ClusterError::Quota { .. }));
    assert!(matches!(answer("Forbidden", 403, "no", ""), ClusterError::Unavailable { .. }));
    assert!(matches!(answer("AlreadyExists", 409, "", ""), ClusterError::Exists { .. }));
    assert!(matches!(answer("Conflict", 409, "uid", ""), ClusterError::Conflict { .. }));
    assert!(matches!(answer("Invalid", 422, "x", ""), ClusterError::Rejected { .. }));
    assert!(matches!(answer("", 500, "x", ""), ClusterError::Unavailable { .. }));
}

/// A request: method, path with query, and body.
type Asked = (String, String, Value);

/// Does something with a cluster whose API server answers everything with `answer`; what it was asked.
async fn asked<F: Future>(answer: Value, act: impl FnOnce(KubeCluster) -> F) -> Vec<Asked> {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let kept = log.clone();
    let served = tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            kept.lock().expect("ok").push((parts.method.to_string(), parts.uri.to_string(), body));
            let answer = serde_json::to_vec(&answer).expect("JSON");
            send.send_response(Response::new(Body::from(answer)));
        }
    });
    act(KubeCluster::new(Client::new(service, "default"), "node1")).await;
    served.await.expect("no panic");
    std::mem::take(&mut *log.lock().expect("ok"))
}

/// Without it, an apply makes again what was just deleted.
#[tokio::test]
async fn a_status_is_applied_with_the_objects_uid() {
    let volume = era_volume();
    let answer = serde_json::to_value(&volume).expect("JSON");
    let status = EraVolumeStatus::default();
    let asked =
        asked(answer, |cluster| async move { cluster.write_volume(&volume, &status).await }).await;
    let (method, path, body) = &asked[0];
    assert_eq!(method, "PATCH");
    assert!(
        path.starts_with("/apis/eratrack.dev/v1alpha1/namespaces/apps/eravolumes/data/status?")
    );
    assert!(path.contains("force=true") && path.contains("fieldManager=eratrack-agent"), "{path}");
    assert_eq!(body["metadata"]["uid"], "33333333-3333-4333-8333-333333333333");
}

#[tokio::test]
async fn what_the_controller_writes_of_a_status_is_left_to_it() {
    let made = snapshot("s", &json!({"nodeName": "node1", "volumeUID": CLAIM_UID}));
    let answer = serde_json::to_value(&made).expect("JSON");
    let status = EraSnapshotStatus { era: Some(3), ..made.status.clone().expect("a status") };
    let asked =
        asked(answer, |cluster| async move { cluster.write_snapshot(&made, &status).await }).await;
    let (_, _, body) = &asked[0];
    assert_eq!(body["metadata"]["uid"], "uid-of-s");
    assert_eq!(body["status"], json!({"era": 3}));
}

/// With one, the API server may answer from a cache that is behind: an old base makes a list short.
#[tokio::test]
async fn the_base_is_read_from_a_quorum() {
    let claim = Key { namespace: "apps".to_owned(), name: "data".to_owned() };
    let answer = json!({"apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshotList", "metadata": {}, "items": []});
    let asked = asked(answer, |cluster| async move { cluster.snapshots_of(&claim).await }).await;
    let (method, path, _) = &asked[0];
    assert_eq!((method.as_str(), asked.len()), ("GET", 1));
    assert!(path.contains("fieldSelector=spec.claimName%3Ddata"), "{path}");
    assert!(!path.contains("resourceVersion"), "{path}");
}

/// An EraTracking has many volumes, and all of them the same words.
#[tokio::test]
async fn events_of_two_volumes_on_their_tracking_are_two_and_a_long_one_is_cut() {
    let owned = |name: &str| {
        let mut volume = era_volume();
        volume.metadata.name = Some(name.to_owned());
        volume.metadata.uid = Some(format!("uid-of-{name}"));
        let owner = json!({"apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking", "name": "t", "uid": "t"});
        volume.metadata.owner_references =
            serde_json::from_value(json!([owner])).expect("an owner");
        volume
    };
    let (a, b) = (owned("a"), owned("b"));
    let notice = Notice {
        warning: true,
        reason: Reason::TableReloaded,
        message: "x".repeat(3000),
        action: "Track",
    };
    let asked = asked(json!({}), |cluster| async move {
        cluster.notice_volume(&a, &notice);
        cluster.notice_volume(&b, &notice);
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await;
    let of_tracking =
        |(method, _, body): &&Asked| method == "POST" && body["regarding"]["kind"] == "EraTracking";
    assert_eq!(asked.iter().filter(of_tracking).count(), 2, "{asked:?}");
    assert!(
        asked.iter().all(|(_, _, body)| body["note"].as_str().is_some_and(|it| it.len() <= 1024))
    );
}
