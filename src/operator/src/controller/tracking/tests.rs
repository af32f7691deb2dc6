//! Steps 2, 3 and 5 by tables over scenes; the whole pipeline against an API server that plays scenarios.

#![allow(clippy::needless_pass_by_value)] // a json! literal is handed over, not kept
#![allow(clippy::large_stack_arrays, clippy::type_complexity)] // rows of tables

use std::collections::BTreeMap;
use std::sync::Arc;

use eratrack_api::{EraTracking, EraTrackingStatus, EraVolume};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::apply::Applied;
use super::build::{Plan, build};
use super::dereference::{Inputs, dereference};
use super::firing::{Firing, Skip};
use super::validate::{Validated, Verdict, validate};
use super::{reconcile, status};
use crate::controller::context::Settings;
use crate::controller::error::ReconcileError;
use crate::controller::testing::fake_api::FakeApi;
use crate::controller::testing::scene::{Scene, noon};
use crate::controller::testing::{
    CREATED, attachment, bound_claim, condition, era_volume, local_volume, merged, object,
    snapshot, tracking, uid, volume_with,
};

fn all() -> EraTracking {
    tracking("all", json!({ "claims": { "selector": {} }, "granularity": "256Ki" }))
}

fn with(tracking: EraTracking, over: Value) -> EraTracking {
    object(merged(serde_json::to_value(tracking).expect("JSON"), over))
}

/// An EraTracking of all claims, with a schedule that was announced for noon.
fn scheduled(schedule: &str, keep: u32) -> EraTracking {
    let snapshots = json!({ "schedule": schedule, "keep": { "last": keep } });
    let status = json!({ "observedGeneration": 1, "nextSnapshotTime": "2026-11-22T12:00:00Z" });
    with(all(), json!({ "spec": { "snapshots": snapshots }, "status": status }))
}

fn owned(by: &str) -> Value {
    json!({ "metadata": {
        "labels": { "eratrack.dev/tracking": by, "app.kubernetes.io/managed-by": "eratrack",
                    "velero.io/exclude-from-backup": "true" },
        "ownerReferences": [{ "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraTracking", "name": by,
                              "uid": uid("et", by), "controller": true }],
    } })
}

/// The EraVolume of a claim as `all` would make it, with these conditions.
fn tracked(claim: &str, conditions: &[Value]) -> EraVolume {
    era_volume(claim, merged(owned("all"), json!({ "status": { "conditions": conditions } })))
}

fn healthy(claim: &str) -> EraVolume {
    tracked(
        claim,
        &[
            condition("Attached", "True", "Attached"),
            condition("TrackingIntact", "True", "ChainIntact"),
            condition("Ready", "True", "Tracking"),
        ],
    )
}

fn inputs(scene: Scene, tracking: EraTracking) -> Inputs {
    let scene = scene.tracking(tracking.clone());
    dereference(&scene.world(), Arc::new(tracking))
}

fn planned(inputs: &Inputs) -> (Validated, Plan) {
    let validated = validate(inputs, Settings::default(), noon());
    let plan = build(inputs, &validated, noon());
    (validated, plan)
}

/// The status after a plan that the API server carried out as it stands.
fn status_of(inputs: &Inputs) -> EraTrackingStatus {
    let (validated, plan) = planned(inputs);
    let mut volumes = inputs.volumes.clone();
    volumes.extend(plan.apply.into_iter().map(|it| (it.name_any(), Arc::new(it))));
    let applied = Applied { volumes, firing: plan.firing, ..Applied::default() };
    status::status(inputs, &validated, &applied, noon())
}

fn said(status: &EraTrackingStatus, type_: &str) -> String {
    let found = status.conditions.iter().find(|it| it.type_ == type_);
    found.map(|it| format!("{} {}", it.status.as_str(), it.reason)).unwrap_or_default()
}

fn message(status: &EraTrackingStatus, type_: &str) -> String {
    status
        .conditions
        .iter()
        .find(|it| it.type_ == type_)
        .map(|it| it.message.clone())
        .unwrap_or_default()
}

fn names<K: ResourceExt>(objects: &[K]) -> Vec<String> {
    objects.iter().map(ResourceExt::name_any).collect()
}

#[test]
fn each_claim_gets_its_verdict() {
    let mut unbound = bound_claim("unbound", "", &[]);
    unbound.status = object(json!({ "phase": "Pending" }));
    let thief = bound_claim("thief", "pv-data", &["ReadWriteOnce"]);
    let leaving = with_deletion(bound_claim("leaving", "pv-leaving", &["ReadWriteOnce"]));
    let older = with(
        tracking("older", json!({ "claims": { "names": ["taken"] } })),
        json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    let scene = Scene::new()
        .bound(&["data", "taken"])
        .claim(unbound)
        .claim(thief)
        .claim(leaving)
        .tracking(older);
    let wish = json!({ "claims": { "names": ["data", "unbound", "thief", "taken", "missing", "leaving"] } });
    let inputs = inputs(scene, tracking("mine", wish));
    let (validated, plan) = planned(&inputs);
    let verdicts: BTreeMap<&str, &Verdict> =
        validated.claims.iter().map(|(k, v)| (k.as_str(), v)).collect();
    assert!(
        matches!(verdicts["data"], Verdict::Track(target) if target.place.node() == Some("n1"))
    );
    assert!(matches!(verdicts["unbound"], Verdict::NotBound(why) if why.contains("Pending")));
    assert!(
        matches!(verdicts["thief"], Verdict::NotBound(why) if why.contains("pv-data is not bound to it"))
    );
    assert_eq!(verdicts["taken"], &Verdict::Taken("older".into()));
    assert_eq!(verdicts["missing"], &Verdict::NotFound);
    assert_eq!(
        verdicts["leaving"],
        &Verdict::NotFound,
        "its volume gets its table back before it is removed"
    );
    assert_eq!(names(&plan.apply), ["data"]);
    let status = status_of(&inputs);
    assert_eq!((status.matched, status.tracked), (Some(4), Some(0)));
    assert_eq!(said(&status, "Ready"), "False ClaimNotFound");
    let message = message(&status, "Ready");
    assert!(message.contains("missing") && message.contains("; and 4 more"), "{message}");
}

fn with_deletion<K>(object_: K) -> K
where
    K: serde::Serialize + serde::de::DeserializeOwned,
{
    let value = serde_json::to_value(object_).expect("JSON");
    object(merged(value, json!({ "metadata": { "deletionTimestamp": CREATED } })))
}

#[test]
fn an_eravolume_is_made_whole() {
    let (_, plan) = planned(&inputs(Scene::new().bound(&["data"]), all()));
    let made = &plan.apply[0];
    assert_eq!(made.metadata.uid, None, "there is none yet");
    assert_eq!(made.finalizers(), ["eratrack.dev/detach"]);
    assert_eq!(made.owner_references()[0].uid, uid("et", "all"));
    assert_eq!(made.labels()["velero.io/exclude-from-backup"], "true");
    assert_eq!(made.spec.node_name.as_deref(), Some("n1"), "by its label: its hostname is host-1");
    assert_eq!(made.spec.volume.uid, uid("pv", "pv-data"));
}

#[test]
fn only_what_differs_is_applied_and_never_without_its_uid() {
    let cases: [(&str, EraVolume, usize); 4] = [
        ("the same", healthy("data"), 0),
        ("another granularity", with_spec(healthy("data"), json!({ "granularity": "1Mi" })), 1),
        ("another owner", era_volume("data", owned("older")), 1),
        ("on its way out", with_deletion(healthy("data")), 0),
    ];
    for (name, existing, applied) in cases {
        let (_, plan) = planned(&inputs(Scene::new().bound(&["data"]).volume(existing), all()));
        assert_eq!(plan.apply.len(), applied, "{name}");
        assert!(plan.apply.iter().all(|it| it.metadata.uid == Some(uid("ev", "data"))), "{name}");
        assert!(plan.remove.is_empty(), "{name}: {:?}", plan.remove);
    }
}

fn with_spec(volume: EraVolume, spec: Value) -> EraVolume {
    object(merged(serde_json::to_value(volume).expect("JSON"), json!({ "spec": spec })))
}

#[test]
fn what_nobody_asks_for_goes() {
    let other_uid = json!({ "claim": { "name": "data", "uid": uid("claim", "former") } });
    let pg =
        tracking("all", json!({ "claims": { "selector": { "matchLabels": { "app": "pg" } } } }));
    let older = with(
        all(),
        json!({ "metadata": { "name": "older", "uid": uid("et", "older"),
                                                  "creationTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    let base = || Scene::new().bound(&["data"]).volume(healthy("data"));
    let cases: [(&str, Scene, EraTracking, &[&str]); 6] = [
        ("selected", base(), all(), &[]),
        ("left the selection", base(), pg.clone(), &["data"]),
        ("another takes over", base().tracking(older), pg, &[]),
        ("the claim is gone", Scene::new().volume(healthy("data")), all(), &["data"]),
        (
            "the claim is another",
            Scene::new().bound(&["data"]).volume(with_spec(healthy("data"), other_uid)),
            all(),
            &["data"],
        ),
        ("not ours", Scene::new().volume(era_volume("data", owned("older"))), all(), &[]),
    ];
    for (name, scene, tracking, expected) in cases {
        let (_, plan) = planned(&inputs(scene, tracking));
        let removed: Vec<_> = plan.remove.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(removed, expected, "{name}");
        assert!(plan.remove.iter().all(|it| it.uid == uid("ev", "data")), "{name}");
    }
}

#[test]
fn what_cannot_be_read_ends_no_tracking() {
    let strange = json!({ "spec": { "claims": { "selector": { "matchExpressions": [{ "key": "a", "operator": "Smells" }] } } } });
    let unreadable = with(all(), strange.clone());
    let neighbour = with(
        with(all(), strange),
        json!({ "metadata": { "name": "other", "uid": uid("et", "other") } }),
    );
    let left =
        || tracking("all", json!({ "claims": { "selector": { "matchLabels": { "app": "pg" } } } }));
    let base = || Scene::new().bound(&["data"]).volume(healthy("data"));
    let gone = || Scene::new().volume(healthy("data"));
    let cases: [(&str, Scene, EraTracking, usize); 4] = [
        ("unreadable itself", base(), unreadable.clone(), 0),
        ("left, and another may select it", base().tracking(neighbour.clone()), left(), 0),
        ("left, and nobody else selects it", base(), left(), 1),
        ("the claim is gone", gone().tracking(neighbour), unreadable, 1),
    ];
    for (name, scene, tracking, removed) in cases {
        let (_, plan) = planned(&inputs(scene, tracking));
        assert_eq!(plan.remove.len(), removed, "{name}");
    }
}

#[test]
fn a_shared_volume_is_given_up_before_it_is_refused() {
    let shared = || {
        let claim_ref = json!({ "namespace": "shop", "name": "data", "uid": uid("claim", "data") });
        let spec = json!({ "claimRef": claim_ref, "accessModes": ["ReadWriteMany"] });
        Scene::new()
            .claim(bound_claim("data", "pv-data", &["ReadWriteMany"]))
            .persistent(volume_with("pv-data", spec))
    };
    let (_, fresh) = planned(&inputs(shared(), all()));
    assert_eq!(fresh.apply[0].spec.node_name, None, "it is shown, and no agent is told");
    let (_, assigned) = planned(&inputs(shared().volume(healthy("data")), all()));
    assert_eq!(
        (assigned.remove.len(), assigned.apply.len()),
        (1, 0),
        "its agent must put the table back"
    );
}

/// A volume of two nodes whose pod is on one of them, as a VolumeAttachment says, or on none.
fn movable(on: Option<&str>) -> Scene {
    let claim_ref = json!({ "namespace": "shop", "name": "data", "uid": uid("claim", "data") });
    let spec = json!({ "claimRef": claim_ref, "accessModes": ["ReadWriteOnce"] });
    let scene = Scene::new()
        .node("n2")
        .claim(bound_claim("data", "pv-data", &["ReadWriteOnce"]))
        .persistent(volume_with("pv-data", spec));
    match on {
        Some(node) => scene.attachment(attachment("pv-data", node, true)),
        None => scene,
    }
}

#[test]
fn a_volume_that_moves_is_given_up_on_its_node_before_another_gets_it() {
    let nowhere = || with_spec(healthy("data"), json!({ "nodeName": null }));
    let cases = [
        ("it stays", movable(Some("n1")).volume(healthy("data")), None, 0),
        ("it moved", movable(Some("n2")).volume(healthy("data")), None, 1),
        ("it is in use nowhere", movable(None).volume(healthy("data")), None, 0),
        ("it comes to its first node", movable(Some("n2")).volume(nowhere()), Some("n2"), 0),
        (
            "it is on its way out",
            movable(Some("n2")).volume(with_deletion(healthy("data"))),
            None,
            0,
        ),
        ("the former one is gone", movable(Some("n2")), Some("n2"), 0),
    ];
    for (name, scene, applied, removed) in cases {
        let (_, plan) = planned(&inputs(scene, all()));
        let node = plan.apply.first().and_then(|it| it.spec.node_name.as_deref());
        assert_eq!((node, plan.remove.len()), (applied, removed), "{name}");
    }
}

#[test]
fn a_volume_that_moves_while_another_takes_it_over_is_given_up_all_the_same() {
    let former = era_volume("data", owned("older"));
    let (_, plan) = planned(&inputs(movable(Some("n2")).volume(former), all()));
    assert_eq!((plan.apply.len(), plan.remove.len()), (0, 1));
}

#[test]
fn below_the_floor_nothing_new_is_tracked_and_nothing_is_lost() {
    let fine = with(all(), json!({ "spec": { "granularity": "4Ki" } }));
    let inputs = inputs(Scene::new().bound(&["data", "new"]).volume(healthy("data")), fine);
    let (_, plan) = planned(&inputs);
    assert!(plan.apply.is_empty() && plan.remove.is_empty(), "{plan:?}");
    let status = status_of(&inputs);
    assert_eq!(said(&status, "Ready"), "False LimitExceeded");
    assert!(
        message(&status, "Ready").contains("4Ki")
            && message(&status, "Ready").contains("--min-granularity")
    );
}

#[test]
fn the_schedule_makes_a_snapshot_of_each_attached_volume() {
    let away = tracked(
        "away",
        &[
            condition("Attached", "True", "Attached"),
            condition("Ready", "Unknown", "AgentNotReady"),
        ],
    );
    let refused = tracked("refused", &[condition("Attached", "False", "SharedFilesystem")]);
    let scene = Scene::new().bound(&["data", "away", "refused", "busy"]);
    let scene = scene.volume(healthy("data")).volume(away).volume(refused).volume(healthy("busy"));
    let given = json!({ "status": { "nodeName": "n1" } });
    let scene = scene.snapshot(snapshot("by-hand", "busy", given));
    // One that waits for its turn lets those of the schedule pass.
    let scene = scene.snapshot(snapshot("waits", "data", json!({})));
    let (_, plan) = planned(&inputs(scene, scheduled("*/5 * * * *", 3)));
    assert_eq!(names(&plan.create), ["away-202611221200", "data-202611221200"]);
    assert_eq!(plan.create[0].owner_references()[0].uid, uid("et", "all"));
    let skipped = vec![
        ("busy".to_owned(), Skip::Pending("by-hand".into())),
        ("refused".to_owned(), Skip::NotAttached),
    ];
    let at = |text: &str| text.parse::<Timestamp>().ok();
    // Those two may still be made, until the next time or the starting deadline, whichever is sooner.
    let expected = Firing {
        fired: at("2026-11-22T12:00:00Z"),
        skipped,
        next: at("2026-11-22T12:00:00Z"),
        look: at("2026-11-22T12:05:00Z"),
        ..Firing::default()
    };
    assert_eq!(plan.firing, expected);
}

/// The status of `*/5` with a claim that is well and one that is not attached, after some time, given what was said before.
fn with_one_detached(announced: &str, over: Value, now: &str) -> (Plan, EraTrackingStatus) {
    let detached = tracked("late", &[condition("Attached", "False", "NotInUse")]);
    let old = with_creation(healthy("data"));
    let scene = Scene::new().bound(&["data", "late"]).volume(old).volume(with_creation(detached));
    let made = complete("data-202611221200", "data", 59);
    let tracking =
        with(scheduled("*/5 * * * *", 3), json!({ "status": { "nextSnapshotTime": announced } }));
    let inputs = inputs(scene.snapshot(made), with(tracking, over));
    let now = now.parse().expect("a time");
    let validated = validate(&inputs, Settings::default(), now);
    let plan = build(&inputs, &validated, now);
    let applied = Applied {
        volumes: inputs.volumes.clone(),
        firing: plan.firing.clone(),
        ..Applied::default()
    };
    let status = status::status(&inputs, &validated, &applied, now);
    (plan, status)
}

/// Created well before everything here.
fn with_creation(volume: EraVolume) -> EraVolume {
    let value = serde_json::to_value(volume).expect("JSON");
    object(merged(value, json!({ "metadata": { "creationTimestamp": "2026-11-01T00:00:00Z" } })))
}

#[test]
fn a_volume_that_is_not_attached_in_time_makes_its_snapshot_overdue() {
    let (noon, hour) =
        ("2026-11-22T12:00:00Z", json!({ "spec": { "snapshots": { "schedule": "0 * * * *" } } }));
    let (plan, status) = with_one_detached(noon, hour.clone(), "2026-11-22T12:04:00Z");
    assert!(!plan.firing.done && plan.create.is_empty(), "{:?}", plan.firing);
    assert_eq!(
        plan.firing.next.map(|it| it.to_string()).as_deref(),
        Some(noon),
        "it stays announced"
    );
    assert_eq!(said(&status, "SnapshotCurrent"), "True OnSchedule");
    assert!(
        message(&status, "SnapshotCurrent").contains("late: its volume is not attached"),
        "{status:?}"
    );

    let (plan, status) = with_one_detached(noon, hour, "2026-11-22T12:05:01Z");
    assert_eq!(plan.firing.next.map(|it| it.to_string()).as_deref(), Some("2026-11-22T13:00:00Z"));
    assert_eq!(said(&status, "SnapshotCurrent"), "False SnapshotOverdue");
    let text = message(&status, "SnapshotCurrent");
    assert!(text.contains("late: ") && text.contains(noon) && !text.contains("data"), "{text}");
}

#[test]
fn a_schedule_that_is_faster_than_the_starting_deadline_tells_what_is_overdue_too() {
    let minutes = json!({ "spec": { "snapshots": { "schedule": "* * * * *" } } });
    let (plan, status) = with_one_detached("2026-11-22T12:00:00Z", minutes, "2026-11-22T12:01:00Z");
    assert_eq!(names(&plan.create), ["data-202611221201"]);
    assert_eq!(said(&status, "SnapshotCurrent"), "False SnapshotOverdue");
    let text = message(&status, "SnapshotCurrent");
    assert!(text.contains("late: no snapshot of 2026-11-22T12:00:00Z"), "{text}");
}

/// What becomes of a claim that is well, with these snapshots, when `announced` was announced and it is `now`.
fn at_time(announced: &str, spec: Value, there: &[&str], now: &str) -> (Plan, EraTrackingStatus) {
    let scene = Scene::new().bound(&["data"]).volume(with_creation(healthy("data")));
    let scene = there.iter().fold(scene, |scene, name| scene.snapshot(complete(name, "data", 59)));
    let over = json!({ "spec": { "snapshots": spec },
                       "status": { "nextSnapshotTime": announced, "missedRuns": 3 } });
    let inputs = inputs(scene, with(scheduled("*/5 * * * *", 3), over));
    let now = now.parse().expect("a time");
    let validated = validate(&inputs, Settings::default(), now);
    let plan = build(&inputs, &validated, now);
    let applied = Applied {
        volumes: inputs.volumes.clone(),
        firing: plan.firing.clone(),
        told: plan.asked.told.clone(),
        ..Applied::default()
    };
    let status = status::status(&inputs, &validated, &applied, now);
    (plan, status)
}

fn next(status: &EraTrackingStatus) -> Option<String> {
    status.next_snapshot_time.as_ref().map(|it| it.0.to_string())
}

#[test]
fn a_clock_that_is_set_forward_by_hours_fires_once_and_counts_what_passed() {
    let hours = json!({ "schedule": "0 * * * *" });
    let (plan, status) =
        at_time("2026-11-22T12:00:00Z", hours.clone(), &[], "2026-11-22T17:00:10Z");
    assert_eq!(names(&plan.create), ["data-202611221700"], "one boundary covers them all");
    assert_eq!(status.missed_runs, Some(3 + 5), "12:00 to 16:00");
    assert_eq!(
        status.last_missed_time.as_ref().map(|it| it.0.to_string()).as_deref(),
        Some("2026-11-22T16:00:00Z")
    );
    assert_eq!(next(&status).as_deref(), Some("2026-11-22T18:00:00Z"));
    // Too late even for the newest.
    let (plan, status) = at_time("2026-11-22T12:00:00Z", hours, &[], "2026-11-22T17:30:00Z");
    assert!(plan.create.is_empty());
    assert_eq!(
        (status.missed_runs, said(&status, "SnapshotCurrent")),
        (Some(3 + 6), "False SnapshotOverdue".into())
    );
}

#[test]
fn a_clock_that_is_set_back_by_hours_fires_nothing_twice_and_loses_nothing() {
    let hours = || json!({ "schedule": "0 * * * *" });
    // 17:00 was announced when the clock was set back: what comes next is announced instead.
    let (plan, status) = at_time("2026-11-22T17:00:00Z", hours(), &[], "2026-11-22T12:30:00Z");
    assert!(plan.create.is_empty());
    assert_eq!(next(&status).as_deref(), Some("2026-11-22T13:00:00Z"));
    assert_eq!(status.missed_runs, Some(3));
    // Then times come that were there before: those that have their snapshot make no second one, the others one.
    let there = ["data-202611221300"];
    let (plan, status) = at_time("2026-11-22T13:00:00Z", hours(), &there, "2026-11-22T13:00:05Z");
    assert!(plan.create.is_empty());
    assert_eq!(next(&status).as_deref(), Some("2026-11-22T14:00:00Z"));
    let (plan, status) = at_time("2026-11-22T14:00:00Z", hours(), &there, "2026-11-22T14:00:05Z");
    assert_eq!(names(&plan.create), ["data-202611221400"]);
    assert_eq!(status.missed_runs, Some(3));
    // Put right again, what has its snapshot is not counted as missed.
    let there = ["data-202611221500", "data-202611221700"];
    let (plan, status) = at_time("2026-11-22T15:00:00Z", hours(), &there, "2026-11-22T17:00:05Z");
    assert!(plan.create.is_empty());
    assert_eq!(status.missed_runs, Some(3 + 1), "16:00 alone");
}

#[test]
fn with_jitter_each_claim_starts_in_its_own_time_by_the_name_of_the_schedule() {
    let spec =
        || json!({ "schedule": "0 * * * *", "jitterSeconds": 3000, "startingDeadlineSeconds": 60 });
    let noon_ = "2026-11-22T12:00:00Z";
    let (plan, status) = at_time(noon_, spec(), &[], "2026-11-22T12:00:00Z");
    let [(claim, Skip::Later(start))] = &plan.firing.skipped[..] else {
        panic!("{:?}", plan.firing)
    };
    assert_eq!((claim.as_str(), plan.firing.look), ("data", Some(*start)));
    assert_eq!(next(&status).as_deref(), Some(noon_), "it stays announced");
    assert_eq!(said(&status, "SnapshotCurrent"), "True OnSchedule");
    let after = |seconds: i64| (*start + jiff::SignedDuration::from_secs(seconds)).to_string();
    // A new leader comes to the same moment and the same name.
    let (plan, status) = at_time(noon_, spec(), &[], &after(0));
    assert_eq!(names(&plan.create), ["data-202611221200"]);
    assert_eq!(
        (next(&status).as_deref(), status.missed_runs),
        (Some("2026-11-22T13:00:00Z"), Some(3))
    );
    let (plan, status) = at_time(noon_, spec(), &[], &after(61));
    assert!(plan.create.is_empty(), "its own starting deadline is over");
    assert_eq!(said(&status, "SnapshotCurrent"), "False SnapshotOverdue");
    assert_eq!(
        (next(&status).as_deref(), status.missed_runs),
        (Some("2026-11-22T13:00:00Z"), Some(4))
    );
}

#[test]
fn a_suspended_schedule_misses_nothing() {
    let suspended = json!({ "suspend": true });
    let (plan, status) = at_time("2026-11-22T12:00:00Z", suspended, &[], "2026-11-22T17:00:10Z");
    assert!(plan.create.is_empty());
    assert_eq!((next(&status), status.missed_runs), (None, Some(3)));
    assert_eq!(said(&status, "SnapshotCurrent"), "Unknown ScheduleSuspended");
    // When it goes on, only what comes then is announced.
    let (plan, status) = at_time("2026-11-22T09:02:00Z", json!({}), &[], "2026-11-22T17:00:10Z");
    assert!(plan.create.is_empty(), "the schedule never fires at 09:02");
    assert_eq!(status.missed_runs, Some(3));
}

/// An EraTracking whose annotation has this value, and whose status tells that one.
fn asking(value: &str, told: Option<&str>) -> EraTracking {
    let annotations = json!({ "eratrack.dev/snapshot-now": value });
    let status = json!({ "snapshotNow": told });
    with(all(), json!({ "metadata": { "annotations": annotations }, "status": status }))
}

#[test]
fn each_value_has_one_snapshot_made_of_each_claim() {
    let scene = || {
        Scene::new().bound(&["data", "log"]).volume(healthy("data")).claim(bound_claim(
            "unbound",
            "",
            &[],
        ))
    };
    let name = |claim: &str, value: &str| {
        eratrack_api::names::asked_snapshot_name(claim, &uid("et", "all"), value)
    };
    let (_, plan) = planned(&inputs(scene(), asking("1", None)));
    assert_eq!(names(&plan.asked.create), [name("data", "1"), name("log", "1")]);
    assert_eq!(plan.asked.told.as_deref(), Some("1"));
    let made = &plan.asked.create[0];
    assert_eq!(made.owner_references(), [], "it stays when the EraTracking goes");
    assert_eq!(made.labels()["eratrack.dev/made-by"], "hand");
    assert_eq!(made.annotations()["eratrack.dev/snapshot-now"], "1");
    // Killed before it was told: only what is missing is made.
    let half = scene().snapshot(snapshot(&name("data", "1"), "data", json!({})));
    let (_, plan) = planned(&inputs(half, asking("1", None)));
    assert_eq!(names(&plan.asked.create), [name("log", "1")]);
    for (value, told, made) in [("1", Some("1"), 0), ("2", Some("1"), 2), ("", None, 0)] {
        let (_, plan) = planned(&inputs(scene(), asking(value, told)));
        assert_eq!(plan.asked.create.len(), made, "{value:?} after {told:?}");
    }
    let (_, nobody) = planned(&inputs(Scene::new(), asking("1", None)));
    assert_eq!(nobody.asked, super::asked::Asked::default(), "it waits for a claim");
    let long = "x".repeat(129);
    let (_, plan) = planned(&inputs(scene(), asking(&long, None)));
    let told = plan.asked.told.expect("said");
    assert!(told.starts_with("sha256:") && told.len() == 71, "{told}");
    assert_eq!(plan.asked.create[0].annotations()["eratrack.dev/snapshot-now"], told);
}

#[tokio::test]
async fn scenario_what_is_asked_for_at_once_is_made_and_then_told() {
    let tracking = asking("now", None);
    let scene =
        || Scene::new().bound(&["data"]).volume(healthy("data")).tracking(asking("now", None));
    let api = FakeApi::new();
    reconcile(Arc::new(tracking.clone()), scene().context(&api)).await.expect("done");
    assert_eq!(api.order(), ["POST erasnapshots", "PATCH eratrackings/all/status"]);
    assert_eq!(api.asked()[1].body["status"]["snapshotNow"], "now");
    assert!(api.events().contains(&"SnapshotsAskedFor".to_owned()), "{:?}", api.events());
    let refusing = FakeApi::new().refuse("POST erasnapshots", 403, "Forbidden", "x");
    reconcile(Arc::new(tracking), scene().context(&refusing)).await.expect_err("refused");
    assert_eq!(refusing.asked()[1].body["status"]["snapshotNow"], Value::Null, "tried again");
}

#[tokio::test]
async fn scenario_missed_times_are_counted_and_told_once() {
    let hours = json!({ "spec": { "snapshots": { "schedule": "0 * * * *" } },
                        "status": { "nextSnapshotTime": "2026-11-22T09:00:00Z" } });
    let tracking = with(scheduled("*/5 * * * *", 3), hours);
    let scene = Scene::new().bound(&["data"]).volume(with_creation(healthy("data")));
    let api = FakeApi::new();
    reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect("done");
    assert_eq!(api.order(), ["POST erasnapshots", "PATCH eratrackings/all/status"]);
    assert_eq!(api.asked()[1].body["status"]["missedRuns"], 3, "9, 10 and 11 o'clock");
    assert!(api.events().contains(&"RunsMissed".to_owned()), "{:?}", api.events());
}

#[test]
fn a_snapshot_that_is_labelled_as_made_by_hand_is_not_pruned() {
    let labelled = merged(
        serde_json::to_value(complete("d1", "data", 1)).expect("JSON"),
        json!({ "metadata": { "labels": { "eratrack.dev/made-by": "hand" } } }),
    );
    let scene = Scene::new().bound(&["data"]).volume(healthy("data")).snapshot(object(labelled));
    let scene = [complete("d2", "data", 2), complete("d3", "data", 3)]
        .into_iter()
        .fold(scene, Scene::snapshot);
    let (_, plan) = planned(&inputs(scene, scheduled("0 0 1 1 *", 1)));
    let pruned: Vec<_> = plan.prune.drop.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(pruned, ["d2"]);
}

#[test]
fn what_to_keep_that_cannot_be_read_prunes_nothing() {
    for over in [json!({ "timeZone": "Europe/Atlantis" }), json!({ "keep": { "within": "x" } })] {
        let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
        let scene = [complete("d2", "data", 2), complete("d3", "data", 3)]
            .into_iter()
            .fold(scene, Scene::snapshot);
        let tracking = with(scheduled("0 0 1 1 *", 1), json!({ "spec": { "snapshots": over } }));
        assert!(planned(&inputs(scene, tracking)).1.prune.drop.is_empty(), "{over}");
    }
}

#[test]
fn nothing_fires_that_was_not_announced() {
    let cases = [
        ("never looked at", json!({ "status": null })),
        ("another schedule", json!({ "spec": { "snapshots": { "schedule": "7 * * * *" } } })),
        (
            "another zone",
            json!({ "spec": { "snapshots": { "schedule": "0 12 * * *", "timeZone": "Europe/Berlin" } } }),
        ),
        (
            "announced for later",
            json!({ "status": { "nextSnapshotTime": "2026-11-22T12:05:00Z" } }),
        ),
        ("suspended", json!({ "spec": { "snapshots": { "suspend": true } } })),
    ];
    for (name, over) in cases {
        let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
        let (_, plan) = planned(&inputs(scene, with(scheduled("*/5 * * * *", 3), over)));
        assert_eq!((plan.create.len(), plan.firing.fired), (0, None), "{name}");
    }
}

#[test]
fn an_edit_of_something_else_swallows_no_time() {
    let edits = json!({ "metadata": { "generation": 2 }, "spec": { "granularity": "1Mi", "snapshots": { "keep": { "last": 7 } } } });
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let (_, plan) = planned(&inputs(scene, with(scheduled("*/5 * * * *", 3), edits)));
    assert_eq!(names(&plan.create), ["data-202611221200"]);
}

#[test]
fn many_snapshots_follow_one_by_one() {
    let claims: Vec<String> = (0..25).map(|i| format!("c{i:02}")).collect();
    let names_: Vec<&str> = claims.iter().map(String::as_str).collect();
    let scene =
        claims.iter().fold(Scene::new().bound(&names_), |scene, it| scene.volume(healthy(it)));
    let inputs_ = inputs(scene, scheduled("*/5 * * * *", 3));
    let (_, plan) = planned(&inputs_);
    assert_eq!(plan.create.len(), 20);
    assert!(plan.firing.throttled && !plan.firing.done);
    let status = status_of(&inputs_);
    assert_eq!(said(&status, "SnapshotCurrent"), "True Throttled");
    assert_eq!(said(&status, "Ready"), "True AllTracked", "it passes in seconds");
    assert_eq!(
        status.next_snapshot_time.map(|it| it.0.to_string()).as_deref(),
        Some("2026-11-22T12:00:00Z")
    );
    // The next look, when those are there: the rest, and then it is done.
    let scene =
        claims.iter().fold(Scene::new().bound(&names_), |scene, it| scene.volume(healthy(it)));
    let scene = plan.create.iter().fold(scene, |scene, it| {
        scene.snapshot(snapshot(&it.name_any(), &it.spec.claim_name, owned("all")))
    });
    let (_, rest) = planned(&inputs(scene, scheduled("*/5 * * * *", 3)));
    assert_eq!((rest.create.len(), rest.firing.throttled), (5, false));
    assert!(rest.firing.done);
}

fn complete(name: &str, claim: &str, minute: u32) -> eratrack_api::EraSnapshot {
    let time = format!("2026-11-22T11:{minute:02}:00Z");
    let own = json!({ "metadata": { "creationTimestamp": time },
                      "status": { "boundaryTime": time, "conditions": [condition("Ready", "True", "Complete")] } });
    snapshot(name, claim, merged(owned("all"), own))
}

#[test]
fn only_its_own_scheduled_snapshots_are_pruned() {
    let scene = Scene::new().bound(&["data", "log"]).volume(healthy("data")).volume(healthy("log"));
    let mut by_hand = complete("by-hand", "data", 0);
    by_hand.metadata.owner_references = None;
    let scene = [
        complete("d3", "data", 3),
        complete("d1", "data", 1),
        complete("d2", "data", 2),
        complete("l1", "log", 1),
        by_hand,
    ]
    .into_iter()
    .fold(scene, Scene::snapshot);
    let (_, plan) = planned(&inputs(scene, scheduled("0 0 1 1 *", 1)));
    let pruned: Vec<_> = plan.prune.drop.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(pruned, ["d1", "d2"], "the oldest first; of each claim the newest stays");
}

#[test]
fn of_those_made_by_hand_only_old_failures_go() {
    let made = |name: &str, hour: u32, failed: bool| {
        let conditions = if failed {
            json!([condition("Failed", "True", "NodeGone")])
        } else {
            json!([condition("Ready", "True", "Complete")])
        };
        let created = format!("2026-11-22T{hour:02}:10:00Z");
        snapshot(
            name,
            "data",
            json!({ "metadata": { "creationTimestamp": created }, "status": { "conditions": conditions } }),
        )
    };
    let mut scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    for (name, hour, failed) in [
        ("ready", 1, false),
        ("f1", 2, true),
        ("f2", 3, true),
        ("f3", 4, true),
        ("f4", 5, true),
        ("f5", 11, true),
    ] {
        scene = scene.snapshot(made(name, hour, failed));
    }
    let (_, plan) = planned(&inputs(scene, all()));
    let pruned: Vec<_> = plan.prune.drop.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(pruned, ["f1"], "three stay, and what failed within the hour besides");
}

fn with_list(snapshot: eratrack_api::EraSnapshot, bytes: u64) -> eratrack_api::EraSnapshot {
    let slices = json!({ "status": { "slices": { "count": 16, "bytes": bytes, "sha256": "0".repeat(64) } } });
    object(merged(serde_json::to_value(snapshot).expect("JSON"), slices))
}

#[test]
fn old_lists_make_room_for_new_ones() {
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let lists = [("d1", 1), ("d2", 2), ("d3", 3)];
    let scene = lists.into_iter().fold(scene, |scene, (name, minute)| {
        scene.snapshot(with_list(complete(name, "data", minute), 1_500_000))
    });
    let inputs = inputs(scene, scheduled("*/5 * * * *", 24));
    let (_, plan) = planned(&inputs);
    let pruned: Vec<_> = plan.prune.drop.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(pruned, ["d1"]);
    assert_eq!(names(&plan.create), ["data-202611221200"], "in the same go");
    assert_eq!(said(&status_of(&inputs), "SnapshotCurrent"), "True OnSchedule");
}

#[test]
fn a_full_store_stops_the_schedule_and_says_so() {
    let big = json!({ "status": { "slices": { "count": 16, "bytes": 4_200_000, "sha256": "0".repeat(64) } } });
    let full = merged(serde_json::to_value(complete("d1", "data", 1)).expect("JSON"), big);
    let scene = Scene::new().bound(&["data"]).volume(healthy("data")).snapshot(object(full));
    let inputs = inputs(scene, scheduled("*/5 * * * *", 3));
    assert!(planned(&inputs).1.create.is_empty());
    let status = status_of(&inputs);
    assert_eq!(said(&status, "SnapshotCurrent"), "False StorageBudget");
    assert!(message(&status, "SnapshotCurrent").contains("made by hand"));
}

#[test]
fn the_status_sums_up() {
    let last = |bytes: u64, time: &str| json!({ "lastSnapshot": { "name": "s", "uid": uid("es", "s"), "era": 7, "time": time, "changedBytes": bytes } });
    let of = |volume: EraVolume, bytes, time| -> EraVolume {
        object(merged(
            serde_json::to_value(volume).expect("JSON"),
            json!({ "status": last(bytes, time) }),
        ))
    };
    let rebooted = tracked(
        "c",
        &[
            condition("Attached", "True", "Attached"),
            condition("TrackingIntact", "False", "NodeRebooted"),
            condition("Ready", "True", "Tracking"),
        ],
    );
    let scene = Scene::new().bound(&["a", "b", "c"]);
    let scene = scene.volume(of(healthy("a"), 247 << 20, "2026-11-22T11:00:00Z"));
    let scene =
        scene.volume(of(healthy("b"), (975 << 20) - 1, "2026-11-22T11:15:00Z")).volume(rebooted);
    let status = status_of(&inputs(scene, all()));
    assert_eq!((status.matched, status.tracked, status.intact), (Some(3), Some(3), Some(2)));
    assert_eq!(status.changed.as_deref(), Some("1222Mi"));
    assert_eq!(status.changed_bytes, Some((1222 << 20) - 1));
    assert_eq!(
        status.last_snapshot_time.as_ref().map(|it| it.0.to_string()).as_deref(),
        Some("2026-11-22T11:15:00Z")
    );
    assert_eq!(said(&status, "Ready"), "False VolumeNotIntact");
    assert!(message(&status, "Ready").contains("c: NodeRebooted"), "{}", message(&status, "Ready"));
    assert_eq!(said(&status, "TrackingIntact"), "False VolumeNotIntact");
    assert_eq!(said(&status, "SnapshotCurrent"), "Unknown NoSchedule");
}

#[test]
fn ready_names_the_first_thing_to_do() {
    let waiting = tracked(
        "data",
        &[
            condition("Attached", "True", "Attached"),
            condition("TrackingIntact", "False", "NoBaseline"),
            condition("Ready", "True", "Tracking"),
        ],
    );
    let refused = tracked("data", &[condition("Ready", "False", "SharedFilesystem")]);
    let failed = snapshot(
        "d1",
        "data",
        merged(
            owned("all"),
            json!({ "status": { "conditions": [condition("Failed", "True", "ChainBroken")] } }),
        ),
    );
    let bound = || Scene::new().bound(&["data"]);
    let never = with(scheduled("0 0 31 2 *", 3), json!({}));
    let nowhere = with(
        scheduled("0 0 * * *", 3),
        json!({ "spec": { "snapshots": { "timeZone": "Europe/Atlantis" } } }),
    );
    let missed = with(
        scheduled("*/5 * * * *", 3),
        json!({ "status": { "nextSnapshotTime": "2026-11-22T11:00:00Z" },
                      "spec": { "snapshots": { "startingDeadlineSeconds": 10 } } }),
    );
    let cases = [
        ("no claims", Scene::new(), all(), "False NoClaimsMatched", "selector"),
        ("new", bound(), all(), "False VolumeNotReady", "agent of node n1"),
        ("refused", bound().volume(refused), all(), "False VolumeNotReady", "SharedFilesystem"),
        ("no snapshot yet", bound().volume(waiting), all(), "True AllTracked", "1 of 1"),
        ("well", bound().volume(healthy("data")), all(), "True AllTracked", "1 of 1"),
        (
            "on time",
            bound().volume(healthy("data")),
            scheduled("*/5 * * * *", 3),
            "True AllTracked",
            "1 of 1",
        ),
        (
            "a failed snapshot",
            bound().volume(healthy("data")).snapshot(failed),
            scheduled("0 0 * * *", 3),
            "False SnapshotFailed",
            "d1: ChainBroken",
        ),
        (
            "missed",
            bound().volume(healthy("data")),
            missed,
            "False SnapshotOverdue",
            "2026-11-22T12:00:00Z",
        ),
        ("never", bound().volume(healthy("data")), never, "False ScheduleNeverFires", "31 2"),
        ("nowhere", bound().volume(healthy("data")), nowhere, "False TimeZoneUnknown", "Atlantis"),
    ];
    for (name, scene, tracking, expected, word) in cases {
        let status = status_of(&inputs(scene, tracking));
        assert_eq!(said(&status, "Ready"), expected, "{name}");
        assert!(message(&status, "Ready").contains(word), "{name}: {}", message(&status, "Ready"));
    }
}

#[test]
fn what_was_missed_stays_said_until_the_schedule_fires_again() {
    let overdue = json!({ "status": { "nextSnapshotTime": "2026-11-22T12:05:00Z", "conditions": [
        merged(condition("SnapshotCurrent", "False", "SnapshotOverdue"), json!({ "observedGeneration": 1 }))] } });
    let scene = || Scene::new().bound(&["data"]).volume(healthy("data"));
    let waiting = with(scheduled("*/5 * * * *", 3), overdue.clone());
    assert_eq!(
        said(&status_of(&inputs(scene(), waiting)), "SnapshotCurrent"),
        "False SnapshotOverdue"
    );
    let due = json!({ "status": { "nextSnapshotTime": "2026-11-22T12:00:00Z" } });
    let firing = with(scheduled("*/5 * * * *", 3), merged(overdue.clone(), due));
    assert_eq!(said(&status_of(&inputs(scene(), firing)), "SnapshotCurrent"), "True OnSchedule");
    let edited = |schedule: &str| {
        let edit = json!({ "metadata": { "generation": 2 }, "spec": { "snapshots": { "schedule": schedule } } });
        status_of(&inputs(scene(), with(with(scheduled("*/5 * * * *", 3), overdue.clone()), edit)))
    };
    assert_eq!(said(&edited("7 * * * *"), "SnapshotCurrent"), "True OnSchedule");
    assert_eq!(said(&edited("*/5 * * * *"), "SnapshotCurrent"), "False SnapshotOverdue");
}

#[tokio::test]
async fn scenario_first_look_applies_then_tells() {
    let api = FakeApi::new();
    let context = Scene::new().bound(&["data"]).tracking(all()).context(&api);
    reconcile(Arc::new(all()), context).await.expect("done");
    assert_eq!(api.order(), ["PATCH eravolumes/data", "PATCH eratrackings/all/status"]);
    let asked = api.asked();
    assert!(
        asked[0].query.contains("fieldManager=eratrack-controller")
            && asked[0].query.contains("force=true")
    );
    assert_eq!(asked[0].body["metadata"]["uid"], Value::Null);
    assert_eq!(asked[1].body["metadata"]["uid"], json!(uid("et", "all")));
    assert_eq!(asked[1].body["status"]["matched"], 1);
    assert_eq!(api.events(), ["VolumeNotReady", "VolumeNotIntact", "EraVolumesMade"]);
}

#[tokio::test]
async fn scenario_nothing_changed_asks_nothing() {
    let scene = || Scene::new().bound(&["data"]).volume(healthy("data"));
    let settled = with(
        all(),
        json!({ "status": serde_json::to_value(status_of(&inputs(scene(), all()))).expect("JSON") }),
    );
    let api = FakeApi::new();
    reconcile(Arc::new(settled.clone()), scene().tracking(settled).context(&api))
        .await
        .expect("done");
    assert_eq!(api.order(), [""; 0]);
    assert_eq!(api.events(), [""; 0]);
}

#[tokio::test]
async fn scenario_a_firing_creates_then_prunes_then_tells() {
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let scene = scene.snapshot(complete("d1", "data", 1)).snapshot(complete("d2", "data", 2));
    // A former leader made the snapshot, and this one has not seen it yet.
    let api = FakeApi::new().refuse("POST erasnapshots", 409, "AlreadyExists", "data-202611221200");
    let tracking = scheduled("*/5 * * * *", 1);
    reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect("done");
    assert_eq!(
        api.order(),
        ["POST erasnapshots", "DELETE erasnapshots/d1", "PATCH eratrackings/all/status"]
    );
    let asked = api.asked();
    assert_eq!(asked[0].body["metadata"]["name"], "data-202611221200");
    assert_eq!(asked[0].body["metadata"]["labels"]["velero.io/exclude-from-backup"], "true");
    assert_eq!(asked[1].body["preconditions"]["uid"], json!(uid("es", "d1")));
    assert_eq!(asked[2].body["status"]["lastScheduleTime"], "2026-11-22T12:00:00Z");
    assert_eq!(asked[2].body["status"]["nextSnapshotTime"], "2026-11-22T12:05:00Z");
}

/// A complete snapshot of a chain, without a change in it.
fn link(name: &str, minute: u32, since: Option<u32>, era: u32) -> eratrack_api::EraSnapshot {
    let status = json!({ "status": {
        "nodeName": "n1", "volumeUID": uid("pv", "pv-data"), "chainID": uid("chain", "1"), "era": era,
        "sinceEra": since, "type": if since.is_some() { "Incremental" } else { "Full" },
        "sizeBytes": 1 << 30, "blockSizeBytes": 4096, "changedBlocks": 0, "listedBytes": 0, "ranges": 0,
        "slices": eratrack_api::changed_block_slice::summary([]),
    } });
    object(merged(serde_json::to_value(complete(name, "data", minute)).expect("JSON"), status))
}

#[tokio::test]
async fn scenario_one_from_the_middle_is_merged_and_then_deleted() {
    let (mut first, second, third) =
        (link("d1", 1, None, 3), link("d2", 2, Some(3), 5), link("d3", 3, Some(5), 8));
    first.metadata.owner_references = None;
    let json_of = |it: &eratrack_api::EraSnapshot| serde_json::to_value(it).expect("JSON");
    let missing = json!({ "kind": "Status", "code": 404, "reason": "NotFound", "details": { "name": "d3-0" } });
    let api = FakeApi::new()
        .answer("GET erasnapshots/d2", 200, json_of(&second))
        .answer("GET erasnapshots/d3", 200, json_of(&third))
        .answer("GET changedblockslices/d3-0", 404, missing);
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let scene = [first, second, third].into_iter().fold(scene, Scene::snapshot);
    let tracking = scheduled("0 0 1 1 *", 1);
    reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect("done");
    let asked = [
        "GET erasnapshots/d2",
        "GET erasnapshots/d3",
        "PATCH erasnapshots/d3/status",
        "GET changedblockslices/d3-0",
        "DELETE erasnapshots/d2",
        "PATCH eratrackings/all/status",
    ];
    assert_eq!(api.order(), asked);
    let patch = &api.asked()[2];
    assert_eq!(
        (&patch.body["status"]["sinceEra"], &patch.body["status"]["era"]),
        (&json!(3), &json!(8))
    );
    assert_eq!(patch.body["metadata"]["resourceVersion"], "7", "if it was not written since");
    assert_eq!(
        patch.body["status"]["nodeName"], "n1",
        "what an apply leaves out it would take away"
    );
}

#[tokio::test]
async fn scenario_one_whose_list_is_not_whole_stays_and_is_told() {
    let (mut first, second, third) =
        (link("d1", 1, None, 3), link("d2", 2, Some(3), 5), link("d3", 3, Some(5), 8));
    first.metadata.owner_references = None;
    let lost: eratrack_api::EraSnapshot = object(merged(
        serde_json::to_value(second).expect("JSON"),
        json!({ "status": { "slices": { "count": 1, "bytes": 1, "sha256": "0".repeat(64) } } }),
    ));
    let missing = json!({ "kind": "Status", "code": 404, "reason": "NotFound", "details": { "name": "d2-0" } });
    let api = FakeApi::new()
        .answer("GET erasnapshots/d2", 200, serde_json::to_value(&lost).expect("JSON"))
        .answer("GET erasnapshots/d3", 200, serde_json::to_value(&third).expect("JSON"))
        .answer("GET changedblockslices/d2-0", 404, missing);
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let scene = [first, lost, third].into_iter().fold(scene, Scene::snapshot);
    let tracking = scheduled("0 0 1 1 *", 1);
    reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect("done");
    let asked = [
        "GET erasnapshots/d2",
        "GET erasnapshots/d3",
        "GET changedblockslices/d2-0",
        "PATCH eratrackings/all/status",
    ];
    assert_eq!(api.order(), asked);
    let status: EraTrackingStatus = object(api.asked()[3].body["status"].clone());
    assert_eq!(said(&status, "Ready"), "False NotMerged");
    let text = message(&status, "Ready");
    assert!(text.contains("EraSnapshot d2") && text.contains("d2-0 is gone"), "{text}");
}

#[test]
fn a_list_that_is_to_be_merged_makes_no_room() {
    let big = |it: eratrack_api::EraSnapshot| with_list(it, 1_500_000);
    let mut first = big(link("d1", 1, None, 3));
    first.metadata.owner_references = None;
    let scene = Scene::new().bound(&["data"]).volume(healthy("data")).snapshot(first);
    let scene = [link("d2", 2, Some(3), 5), link("d3", 3, Some(5), 8)]
        .into_iter()
        .fold(scene, |scene, it| scene.snapshot(big(it)));
    let (_, plan) = planned(&inputs(scene, scheduled("*/5 * * * *", 24)));
    assert_eq!(plan.prune.fold["data"].len(), 1, "for the budget, after the one made by hand");
    assert_eq!((plan.prune.drop.len(), plan.create.len()), (0, 0));
}

#[tokio::test]
async fn scenario_a_firing_asks_for_the_mode_that_the_tracking_wants() {
    let mut tracking = scheduled("*/5 * * * *", 24);
    let snapshots = tracking.spec.snapshots.as_mut().expect("a schedule");
    (snapshots.mode, snapshots.hold_seconds) = (eratrack_api::SnapshotMode::Local, Some(120));
    let scene = Scene::new().bound(&["data"]).volume(healthy("data")).tracking(tracking.clone());
    let api = FakeApi::new();
    reconcile(Arc::new(tracking), scene.context(&api)).await.expect("done");
    let spec = &api.asked()[0].body["spec"];
    assert_eq!((&spec["mode"], &spec["holdSeconds"]), (&json!("Local"), &json!(120)));
}

#[tokio::test]
async fn scenario_a_firing_that_failed_stays_announced() {
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let api = FakeApi::new().refuse("POST erasnapshots", 403, "Forbidden", "data-202611221200");
    let tracking = scheduled("*/5 * * * *", 1);
    let error = reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect_err("refused");
    assert!(matches!(error, ReconcileError::Refused(..)), "{error}");
    assert_eq!(api.order(), ["POST erasnapshots", "PATCH eratrackings/all/status"]);
    let status = &api.asked()[1].body["status"];
    assert_eq!(status["nextSnapshotTime"], "2026-11-22T12:00:00Z", "it is tried again");
}

#[tokio::test]
async fn scenario_a_write_that_is_refused_holds_up_no_other_and_is_told() {
    let scene = Scene::new().bound(&["a", "b"]).volume(healthy("gone"));
    let scene = [1, 2]
        .into_iter()
        .fold(scene, |scene, it| scene.snapshot(complete(&format!("d{it}"), "b", it)));
    let quota = json!({ "kind": "Status", "code": 403, "reason": "Forbidden",
                        "message": "eravolumes \"a\" is forbidden: exceeded quota: few" });
    let api = FakeApi::new().answer("PATCH eravolumes/a", 403, quota);
    let tracking = scheduled("0 0 1 1 *", 1);
    let error = reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect_err("it is tried again");
    assert_eq!(error.retry_after().as_secs(), 60);
    let asked = [
        "PATCH eravolumes/a",
        "PATCH eravolumes/b",
        "DELETE eravolumes/gone",
        "DELETE erasnapshots/d1",
        "PATCH eratrackings/all/status",
    ];
    assert_eq!(api.order(), asked);
    let status: EraTrackingStatus = object(api.asked()[4].body["status"].clone());
    assert_eq!(said(&status, "Ready"), "False QuotaExceeded", "{}", message(&status, "Ready"));
    assert!(message(&status, "Ready").contains("cannot apply EraVolume shop/a: "), "{status:?}");
}

#[tokio::test]
async fn scenario_a_quota_is_named_by_the_reason() {
    let quota = json!({ "kind": "Status", "code": 403, "reason": "Forbidden", "message": "exceeded quota: few" });
    let api = FakeApi::new().answer("POST erasnapshots", 403, quota);
    let scene = Scene::new().bound(&["data"]).volume(healthy("data"));
    let tracking = scheduled("*/5 * * * *", 1);
    reconcile(Arc::new(tracking.clone()), scene.tracking(tracking).context(&api))
        .await
        .expect_err("refused");
    let status: EraTrackingStatus = object(api.asked()[1].body["status"].clone());
    for type_ in ["Ready", "SnapshotCurrent"] {
        assert_eq!(said(&status, type_), "False QuotaExceeded");
        assert!(
            message(&status, type_).contains("EraSnapshot shop/data-202611221200: exceeded quota"),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn scenario_without_an_api_server_nothing_more_is_tried() {
    let api = FakeApi::new().refuse("PATCH eravolumes/a", 503, "ServiceUnavailable", "a");
    let scene = Scene::new().bound(&["a", "b"]).tracking(all());
    let error = reconcile(Arc::new(all()), scene.context(&api)).await.expect_err("unavailable");
    assert!(matches!(error, ReconcileError::Apply(_)), "{error}");
    assert_eq!(api.order(), ["PATCH eravolumes/a"]);
}

#[tokio::test]
async fn scenario_one_that_is_being_deleted_is_left_alone() {
    let gone = with_deletion(all());
    let api = FakeApi::new();
    reconcile(Arc::new(gone.clone()), Scene::new().bound(&["data"]).tracking(gone).context(&api))
        .await
        .expect("done");
    assert_eq!(api.order(), [""; 0]);
}

/// `all` for claim `data` alone, with `copy` as its replica.
fn replicated(over: Value) -> EraTracking {
    let spec = json!({ "claims": { "names": ["data"] }, "granularity": "256Ki",
        "replica": { "claimName": "copy", "maxBytesPerSecond": 1_048_576, "verify": true } });
    with(tracking("all", spec), over)
}

/// Claim `copy`, which asks to be a replica of `data`, and its volume, with what `claim` and `volume` say differently.
fn with_copy(scene: Scene, claim: Value, volume: Value) -> Scene {
    let asks = json!({ "metadata": { "annotations": { "eratrack.dev/replica-of": "data" } } });
    let mut copy = bound_claim("copy", "pv-copy", &["ReadWriteOnce"]);
    copy = object(merged(serde_json::to_value(copy).expect("JSON"), merged(asks, claim)));
    let local = local_volume("pv-copy", "copy", "host-1");
    let block = merged(json!({ "spec": { "volumeMode": "Block" } }), volume);
    let local = object(merged(serde_json::to_value(local).expect("JSON"), block));
    scene.claim(copy).persistent(local)
}

fn replica_word(inputs: &Inputs) -> (String, String) {
    let status = status_of(inputs);
    let found = status.conditions.into_iter().find(|it| it.type_ == "ReplicaCurrent");
    let found = found.expect("the condition");
    (found.reason, found.message)
}

#[test]
fn a_claim_that_asks_for_it_is_named_to_the_agent() {
    let scene = with_copy(Scene::new().bound(&["data"]), json!({}), json!({}));
    let inputs = inputs(scene, replicated(json!({})));
    let (_, plan) = planned(&inputs);
    let target = plan.apply[0].spec.replica.clone().expect("a target");
    assert_eq!((target.claim.name.as_str(), target.volume.name.as_str()), ("copy", "pv-copy"));
    assert_eq!((target.max_bytes_per_second, target.verify), (Some(1_048_576), true));
    assert_eq!(replica_word(&inputs).0, "ReplicaWaiting");
}

#[test]
fn what_may_not_be_a_replica_says_why_and_the_claim_is_tracked_all_the_same() {
    let none = || json!({});
    let names = |names: Value| json!({ "spec": { "claims": { "names": names } } });
    let rows: [(Value, Value, Value, &str, &str); 10] = [
        (names(json!(["data", "log"])), none(), none(), "ReplicaNeedsOneClaim", "selects 2 claims"),
        (
            json!({ "spec": { "replica": { "claimName": "data" } } }),
            none(),
            none(),
            "ReplicaIsSource",
            "data is the claim",
        ),
        (
            json!({ "spec": { "replica": { "claimName": "gone" } } }),
            none(),
            none(),
            "ReplicaClaimNotFound",
            "claim gone",
        ),
        (
            none(),
            json!({ "status": { "phase": "Pending" } }),
            none(),
            "ReplicaClaimNotBound",
            "its phase is Pending",
        ),
        (
            none(),
            json!({ "metadata": { "annotations": null } }),
            none(),
            "ReplicaNotAskedFor",
            "it has no annotation eratrack.dev/replica-of",
        ),
        (
            none(),
            json!({ "metadata": { "annotations": { "eratrack.dev/replica-of": "log" } } }),
            none(),
            "ReplicaNotAskedFor",
            "names \"log\"",
        ),
        (
            none(),
            none(),
            json!({ "spec": { "volumeMode": "Filesystem" } }),
            "ReplicaNotBlock",
            "volumeMode Filesystem",
        ),
        (
            none(),
            none(),
            json!({ "spec": { "volumeMode": null } }),
            "ReplicaNotBlock",
            "volumeMode Filesystem",
        ),
        (
            none(),
            none(),
            json!({ "spec": { "nodeAffinity": { "required": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["host-2"] }] }] } } } }),
            "ReplicaElsewhere",
            "on no single node, that of data on node n1",
        ),
        (
            none(),
            none(),
            json!({ "spec": { "claimRef": { "uid": "another" } } }),
            "ReplicaClaimNotBound",
            "not bound to it",
        ),
    ];
    for (tracking, claim, volume, reason, says) in rows {
        let scene = with_copy(Scene::new().bound(&["data", "log"]), claim, volume);
        let inputs = inputs(scene, replicated(tracking));
        let (_, plan) = planned(&inputs);
        let data = plan.apply.iter().find(|it| it.name_any() == "data").expect("tracked");
        assert_eq!(data.spec.replica, None, "{reason}");
        let (found, message) = replica_word(&inputs);
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(says), "{message}");
        let ready = status_of(&inputs).conditions.into_iter().find(|it| it.type_ == "Ready");
        let told = ready.expect("Ready").message;
        assert!(!told.is_empty());
    }
}

/// The EraVolume of `data`, whose replica is at that.
fn volume_with_replica(phase: &str) -> EraVolume {
    let status = json!({ "status": {
        "chain": { "id": "44444444-4444-4444-8444-444444444444", "startTime": CREATED, "startReason": "NoBaseline" },
        "replica": { "claimName": "copy", "phase": phase, "sinceEra": 7 },
    } });
    object(merged(serde_json::to_value(healthy("data")).expect("JSON"), status))
}

#[test]
fn snapshots_are_made_for_a_replica_when_it_can_be_copied_to_and_not_before() {
    for (phase, local) in [
        ("Waiting", false),
        ("Seeding", false),
        ("Seeded", true),
        ("Copying", true),
        ("Following", true),
    ] {
        let scene = with_copy(Scene::new().bound(&["data"]), json!({}), json!({}));
        let asked = json!({ "metadata": { "annotations": { "eratrack.dev/snapshot-now": "1" } } });
        let inputs = inputs(scene.volume(volume_with_replica(phase)), replicated(asked));
        let (_, plan) = planned(&inputs);
        let made = &plan.asked.create[0];
        let annotated = made.annotations().contains_key("eratrack.dev/replicate");
        let said = serde_json::to_value(made.spec.mode).expect("JSON");
        assert_eq!((annotated, said == "Local"), (local, local), "{phase}");
    }
}

/// Lists go on whatever a replica does: after one that failed, and while one is read, the schedule makes plain ones.
#[test]
fn what_holds_up_a_replica_holds_up_no_list() {
    for (condition, holds_up) in [
        (condition("Readable", "True", "PointInTime"), true),
        (condition("Failed", "True", "DeadlineExceeded"), true),
        (condition("Readable", "False", "Released"), false),
    ] {
        let annotations = json!({ "eratrack.dev/replicate": "true" });
        let over = json!({ "metadata": { "annotations": annotations }, "status": { "conditions": [condition] } });
        let scene = with_copy(Scene::new().bound(&["data"]), json!({}), json!({}));
        let scene = scene.snapshot(snapshot("before", "data", over));
        let inputs = inputs(scene.volume(volume_with_replica("Following")), replicated(json!({})));
        assert_eq!(super::replica::holds_up(&inputs, "data"), holds_up, "{condition}");
    }
}

#[test]
fn a_replica_that_has_everything_gets_its_first_point_in_time_at_once_and_one_only() {
    let scene = || {
        let scene = with_copy(Scene::new().bound(&["data"]), json!({}), json!({}));
        scene.volume(volume_with_replica("Seeded"))
    };
    let (_, plan) = planned(&inputs(scene(), replicated(json!({}))));
    let [first] = &plan.create[..] else { panic!("{:?}", plan.create) };
    assert!(first.name_any().starts_with("data-rep-"), "{}", first.name_any());
    assert!(first.annotations().contains_key("eratrack.dev/replicate"));
    let there = snapshot(&first.name_any(), "data", json!({}));
    let (_, plan) = planned(&inputs(scene().snapshot(there), replicated(json!({}))));
    assert!(plan.create.is_empty(), "{:?}", plan.create);
}

#[test]
fn what_the_agent_says_of_a_replica_is_said_of_the_tracking() {
    for (reason, status, ready) in [
        ("ReplicaFollowing", "True", true),
        ("ReplicaSeeding", "False", true),
        ("ReplicaInUse", "False", false),
    ] {
        let scene = with_copy(Scene::new().bound(&["data"]), json!({}), json!({}));
        let target = json!({ "claim": { "name": "copy", "uid": uid("claim", "copy") },
            "volume": { "name": "pv-copy", "uid": uid("pv", "pv-copy") },
            "maxBytesPerSecond": 1_048_576, "verify": true });
        let mut conditions: Vec<Value> = healthy("data")
            .status
            .expect("a status")
            .conditions
            .iter()
            .map(|it| serde_json::to_value(it).expect("JSON"))
            .collect();
        conditions.push(condition("ReplicaCurrent", status, reason));
        let over = json!({ "spec": { "replica": target }, "status": { "conditions": conditions } });
        let volume = object(merged(serde_json::to_value(healthy("data")).expect("JSON"), over));
        let inputs = inputs(scene.volume(volume), replicated(json!({})));
        let said = status_of(&inputs).conditions;
        let find = |type_: &str| said.iter().find(|it| it.type_ == type_).expect("it");
        assert_eq!(find("ReplicaCurrent").reason, reason);
        let word = serde_json::to_value(find("Ready").status).expect("JSON");
        assert_eq!(word == "True", ready, "{reason}: {}", find("Ready").message);
    }
}
