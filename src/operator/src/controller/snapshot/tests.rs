//! An EraSnapshot's reconciliation against an API server that plays scenarios.

use std::sync::Arc;

use eratrack_api::EraSnapshot;
use serde_json::{Value, json};

use super::reconcile;
use crate::controller::error::ReconcileError;
use crate::controller::testing::fake_api::FakeApi;
use crate::controller::testing::scene::Scene;
use crate::controller::testing::{condition, era_volume, snapshot, uid};

async fn reconciled(
    scene: Scene,
    snapshot: EraSnapshot,
    api: &FakeApi,
) -> Result<(), ReconcileError> {
    let context = scene.snapshot(snapshot.clone()).context(api);
    reconcile(Arc::new(snapshot), context).await.map(drop)
}

fn tracked() -> Scene {
    Scene::new().volume(era_volume("data", json!({})))
}

fn assigned(over: Value) -> EraSnapshot {
    let base = json!({ "status": { "nodeName": "n1", "volumeUID": uid("pv", "pv-data"),
                                   "conditions": [condition("Ready", "False", "Reading")] } });
    snapshot("s", "data", crate::controller::testing::merged(base, over))
}

#[tokio::test]
async fn scenario_a_new_one_is_given_to_its_node() {
    let api = FakeApi::new();
    reconciled(tracked(), snapshot("s", "data", json!({})), &api).await.expect("done");
    assert_eq!(api.order(), ["PATCH erasnapshots/s/status"]);
    let body = &api.asked()[0].body;
    assert_eq!(body["status"]["nodeName"], "n1");
    assert_eq!(body["status"]["volumeUID"], json!(uid("pv", "pv-data")));
    assert_eq!(body["status"]["conditions"][0]["reason"], "Pending");
    assert_eq!(
        body["metadata"]["resourceVersion"], "7",
        "an agent that was faster must not be overwritten"
    );
}

#[tokio::test]
async fn scenario_one_made_by_hand_waits_for_room_and_for_its_turn() {
    let slices = json!({ "count": 45, "bytes": 4_300_000, "sha256": "0".repeat(64) });
    let kept = json!({ "status": { "conditions": [condition("Ready", "True", "Complete")], "slices": slices } });
    let busy = json!({ "status": { "nodeName": "n1" } });
    for (other, reason) in [(kept, "StorageBudget"), (busy, "RateLimited")] {
        let api = FakeApi::new();
        let scene = tracked().snapshot(snapshot("other", "data", other));
        reconciled(scene, snapshot("s", "data", json!({})), &api).await.expect("done");
        let status = &api.asked()[0].body["status"];
        assert_eq!(status["conditions"][0]["reason"], reason);
        assert_eq!(status["nodeName"], Value::Null, "no agent is told");
    }
}

#[tokio::test]
async fn scenario_what_a_new_one_waits_for_is_an_event() {
    let untracked = FakeApi::new();
    reconciled(Scene::new(), snapshot("s", "data", json!({})), &untracked).await.expect("done");
    assert_eq!(untracked.events(), ["NotTracked"]);
    let given = FakeApi::new();
    reconciled(tracked(), snapshot("s", "data", json!({})), &given).await.expect("done");
    assert_eq!(given.events(), [""; 0], "that it was given to an agent is no news");
}

#[tokio::test]
async fn scenario_one_at_work_is_left_alone() {
    let api = FakeApi::new();
    reconciled(tracked(), assigned(json!({})), &api).await.expect("done");
    assert_eq!(api.order(), [""; 0]);
}

#[tokio::test]
async fn scenario_the_deadline_ends_it_for_good() {
    let late = assigned(json!({ "metadata": { "creationTimestamp": "2026-11-22T11:50:00Z" } }));
    let api = FakeApi::new();
    reconciled(tracked(), late.clone(), &api).await.expect("done");
    let body = &api.asked()[0].body;
    assert_eq!(body["status"]["nodeName"], "n1", "what an apply leaves out, it takes away");
    assert_eq!(body["status"]["volumeUID"], json!(uid("pv", "pv-data")));
    let said: Vec<_> = body["status"]["conditions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| format!("{}={} {}", it["type"], it["status"], it["reason"]).replace('"', ""))
        .collect();
    assert_eq!(said, ["Ready=False DeadlineExceeded", "Failed=True DeadlineExceeded"]);
    assert_eq!(api.events(), ["DeadlineExceeded"], "once, although it stands in two conditions");

    let raced = FakeApi::new().refuse("PATCH erasnapshots/s/status", 409, "Conflict", "s");
    let error = reconciled(tracked(), late, &raced).await.expect_err("the agent completed it");
    assert!(error.is_routine(), "{error}");
    assert_eq!(raced.events(), [""; 0]);
}

#[tokio::test]
async fn scenario_a_node_that_went_ends_it_once_confirmed() {
    let scene = || tracked().without_node("n1");
    let gone = FakeApi::new().refuse("GET nodes/n1", 404, "NotFound", "n1");
    reconciled(scene(), assigned(json!({})), &gone).await.expect("done");
    assert_eq!(gone.order(), ["GET nodes/n1", "PATCH erasnapshots/s/status"]);
    let there = FakeApi::new().answer("GET nodes/n1", 200, json!({ "metadata": { "name": "n1" } }));
    reconciled(scene(), assigned(json!({})), &there).await.expect("done");
    assert_eq!(there.order(), ["GET nodes/n1"]);
}
