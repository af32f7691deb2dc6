//! An EraVolume's reconciliation against an API server that plays scenarios.

use std::sync::Arc;

use eratrack_api::EraVolume;
use serde_json::{Value, json};

use super::reconcile;
use crate::controller::error::ReconcileError;
use crate::controller::testing::fake_api::FakeApi;
use crate::controller::testing::scene::Scene;
use crate::controller::testing::{CREATED, condition, era_volume, node, tracking, uid};

fn attached(deleted: bool) -> EraVolume {
    let deletion = if deleted { json!(CREATED) } else { Value::Null };
    era_volume(
        "data",
        json!({
            "metadata": { "deletionTimestamp": deletion, "resourceVersion": "9",
                          "ownerReferences": [{ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking", "name": "all",
                                                "uid": uid("et", "all"), "controller": true }],
                          "finalizers": ["other.example.com/keep", "eratrack.dev/detach"] },
            "status": { "conditions": [condition("Attached", "True", "Attached"), condition("TrackingIntact", "True", "ChainIntact")] },
        }),
    )
}

async fn reconciled(scene: Scene, volume: EraVolume, api: &FakeApi) -> Result<(), ReconcileError> {
    let context = scene.volume(volume.clone()).context(api);
    reconcile(Arc::new(volume), context).await.map(drop)
}

#[tokio::test]
async fn scenario_ready_is_written_once() {
    let api = FakeApi::new();
    reconciled(Scene::new(), attached(false), &api).await.expect("done");
    assert_eq!(api.order(), ["PATCH eravolumes/data/status"]);
    let body = &api.asked()[0].body;
    let conditions = body["status"]["conditions"].as_array().expect("a list");
    assert_eq!(conditions.len(), 1, "Attached and TrackingIntact are the agent's: {conditions:?}");
    assert_eq!(conditions[0]["reason"], "Tracking");
    assert_eq!(body["metadata"]["uid"], json!(uid("ev", "data")));

    let mut settled = attached(false);
    let written = serde_json::from_value(conditions[0].clone()).expect("a condition");
    settled.status.as_mut().expect("a status").conditions.push(written);
    let again = FakeApi::new();
    reconciled(Scene::new(), settled, &again).await.expect("done");
    assert_eq!(again.order(), [""; 0]);
}

#[tokio::test]
async fn scenario_a_deleted_volume_is_held_while_its_agent_works() {
    let api = FakeApi::new();
    reconciled(Scene::new(), attached(true), &api).await.expect("done");
    assert_eq!(api.order(), ["PATCH eravolumes/data/status"], "the finalizer stays");
    assert_eq!(api.asked()[0].body["status"]["conditions"][0]["reason"], "Detaching");
}

#[tokio::test]
async fn scenario_a_detached_volume_is_let_go_and_only_our_finalizer() {
    let mut volume = attached(true);
    let detached =
        serde_json::from_value(condition("Attached", "False", "Detached")).expect("a condition");
    volume.status.as_mut().expect("a status").conditions[0] = detached;
    let api = FakeApi::new();
    reconciled(Scene::new(), volume, &api).await.expect("done");
    assert_eq!(api.order(), ["PATCH eravolumes/data"]);
    let metadata = &api.asked()[0].body["metadata"];
    assert_eq!(metadata["finalizers"], json!(["other.example.com/keep"]));
    assert_eq!(metadata["resourceVersion"], "9", "nothing may have changed since");
    assert_eq!(api.events(), ["LetGo"]);
}

#[tokio::test]
async fn scenario_a_volume_that_nobody_asked_for_is_deleted() {
    let of = |claims: Value| tracking("all", json!({ "claims": claims }));
    let owned = |kind: &str| json!([{ "apiVersion": "x/v1", "kind": kind, "name": "all", "uid": uid("et", "all"), "controller": true }]);
    let operator = json!([{ "key": "a", "operator": "Smells" }]);
    let unreadable = json!({ "selector": { "matchExpressions": operator } });
    let cases = [
        ("orphaned", json!([]), json!({ "names": ["other"] }), true),
        ("of another kind", owned("Backup"), json!({ "names": ["other"] }), true),
        ("owned", owned("EraTracking"), json!({ "names": ["other"] }), false),
        ("selected", json!([]), json!({ "names": ["data"] }), false),
        ("perhaps selected", json!([]), unreadable, false),
    ];
    for (name, owners, claims, expected) in cases {
        let mut volume = attached(false);
        volume.metadata.owner_references = serde_json::from_value(owners).expect("owners");
        let api = FakeApi::new();
        let scene = Scene::new().bound(&["data"]).tracking(of(claims));
        reconciled(scene, volume, &api).await.expect("done");
        let deleted = api.order().contains(&"DELETE eravolumes/data".to_owned());
        assert_eq!(deleted, expected, "{name}: {:?}", api.order());
        if deleted {
            assert_eq!(
                api.asked()[0].body["preconditions"]["uid"],
                json!(uid("ev", "data")),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn scenario_a_node_is_gone_only_when_the_api_server_says_so() {
    let scene = || Scene::new().without_node("n1");
    let there = FakeApi::new().answer(
        "GET nodes/n1",
        200,
        serde_json::to_value(node("n1", &[])).expect("JSON"),
    );
    reconciled(scene(), attached(true), &there).await.expect("done");
    assert_eq!(there.order(), ["GET nodes/n1"]);

    let no_answer = FakeApi::new().refuse("GET nodes/n1", 404, "NotFound", "");
    let error = reconciled(scene(), attached(true), &no_answer).await.expect_err("unconfirmed");
    assert!(matches!(error, ReconcileError::Confirm(_)), "{error}");

    let gone = FakeApi::new().refuse("GET nodes/n1", 404, "NotFound", "n1");
    reconciled(scene(), attached(true), &gone).await.expect("done");
    assert_eq!(gone.order(), ["GET nodes/n1", "PATCH eravolumes/data"]);
}

#[tokio::test]
async fn scenario_an_agent_that_goes_is_written_down_with_its_time() {
    let api = FakeApi::new();
    reconciled(Scene::new().agent("n1", false), attached(true), &api).await.expect("done");
    let ready = &api.asked()[0].body["status"]["conditions"][0];
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("Unknown"), &json!("AgentNotReady")));
    assert_eq!(ready["lastTransitionTime"], "2026-11-22T12:00:30Z");
}
