//! The cases of [`super::schema`]: a table.
#![expect(
    clippy::needless_pass_by_value,
    reason = "`json!` in the place of an argument is what makes it a table"
)]

use serde_json::{Value, json};

use Expectation::{Accepted, Refused};

/// What the API server must say.
pub(super) enum Expectation {
    /// Yes.
    Accepted,
    /// No, with a message that contains this.
    Refused(&'static str),
}

/// An object that is created, on trial.
pub(super) struct Created {
    pub(super) name: &'static str,
    pub(super) object: Value,
    pub(super) expectation: Expectation,
}

/// A merge patch.
pub(super) enum Write {
    Object(Value),
    Status(Value),
}

/// An object that is created, brought into a state, and then written once more.
pub(super) struct Transition {
    pub(super) name: &'static str,
    pub(super) object: Value,
    pub(super) before: Vec<Write>,
    pub(super) write: Write,
    pub(super) expectation: Expectation,
}

const UID: &str = "0b5c1a52-6f0e-4b3f-9d6e-0c64d7c1a001";
const OTHER_UID: &str = "0b5c1a52-6f0e-4b3f-9d6e-0c64d7c1a002";
const TIME: &str = "2026-11-22T21:00:00Z";
const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// RFC 7386: null takes a field out.
fn merged(mut target: Value, patch: Value) -> Value {
    let Value::Object(fields) = patch else { return patch };
    if !target.is_object() {
        target = json!({});
    }
    for (name, value) in fields {
        let old = target[&name].take();
        if value.is_null() {
            target.as_object_mut().map(|it| it.remove(&name));
        } else {
            target[&name] = merged(old, value);
        }
    }
    target
}

fn object(kind: &str, name: &str, fields: Value, patch: Value) -> Value {
    let head = json!({ "apiVersion": "eratrack.dev/v1alpha1", "kind": kind, "metadata": { "name": name } });
    merged(merged(head, fields), patch)
}

fn tracking(patch: Value) -> Value {
    object("EraTracking", "pg", json!({ "spec": { "claims": { "names": ["data"] } } }), patch)
}

fn schedule(schedule: &str) -> Value {
    tracking(json!({ "spec": { "snapshots": { "schedule": schedule } } }))
}

fn snapshots(patch: Value) -> Value {
    merged(schedule("*/15 * * * *"), json!({ "spec": { "snapshots": patch } }))
}

fn selector(selector: Value) -> Value {
    tracking(json!({ "spec": { "claims": { "names": null, "selector": selector } } }))
}

fn expression(expression: Value) -> Value {
    selector(json!({ "matchExpressions": [expression] }))
}

fn volume(patch: Value) -> Value {
    let spec = json!({
        "claim": { "name": "data", "uid": UID },
        "volume": { "name": "pv-1", "uid": UID },
        "nodeName": "one",
        "granularity": "256Ki",
    });
    object("EraVolume", "data", json!({ "spec": spec }), patch)
}

fn snapshot(patch: Value) -> Value {
    object("EraSnapshot", "data-1", json!({ "spec": { "claimName": "data" } }), patch)
}

fn slice(patch: Value) -> Value {
    let fields = json!({
        "snapshot": { "name": "data-1", "uid": UID },
        "nodeName": "one",
        "index": 0,
        "count": 1,
        "blockSizeBytes": 4096,
        "blocks": 4,
        "first": 0,
        "last": 4,
        "encoding": "List",
        "ranges": "0,2-4",
    });
    object("ChangedBlockSlice", "data-1-0", fields, patch)
}

fn accepted(name: &'static str, object: Value) -> Created {
    Created { name, object, expectation: Accepted }
}

fn refused(name: &'static str, object: Value, message: &'static str) -> Created {
    Created { name, object, expectation: Refused(message) }
}

/// Every object that is created once.
pub(super) fn created() -> Vec<Created> {
    let mut cases = Vec::new();
    cases.extend(claims());
    cases.extend(selectors());
    cases.extend(granularities());
    cases.extend(schedules());
    cases.extend(schedule_options());
    cases.extend(keeping());
    cases.extend(volumes());
    cases.extend(snapshots_by_hand());
    cases.extend(slices());
    cases
}

fn claims() -> Vec<Created> {
    let one_of = "spec.claims: Invalid value: give exactly one of names and selector (selector: {} means every claim of the namespace)";
    vec![
        accepted("claims by name", tracking(json!({}))),
        accepted("claims by label", selector(json!({ "matchLabels": { "app": "pg" } }))),
        accepted("every claim", selector(json!({}))),
        accepted(
            "a name of 63 characters",
            tracking(json!({ "metadata": { "name": "x".repeat(63) } })),
        ),
        refused(
            "a name of 64 characters",
            tracking(json!({ "metadata": { "name": "x".repeat(64) } })),
            "must be at most 63 characters because it is used as a label value",
        ),
        refused(
            "names and selector",
            tracking(json!({ "spec": { "claims": { "selector": {} } } })),
            one_of,
        ),
        refused(
            "neither names nor selector",
            tracking(json!({ "spec": { "claims": { "names": null } } })),
            one_of,
        ),
        refused(
            "no claims at all",
            tracking(json!({ "spec": { "claims": null } })),
            "spec.claims: Required value",
        ),
        refused(
            "an empty list of names",
            tracking(json!({ "spec": { "claims": { "names": [] } } })),
            "spec.claims.names in body should have at least 1 items",
        ),
        refused(
            "a name twice",
            tracking(json!({ "spec": { "claims": { "names": ["data", "data"] } } })),
            "spec.claims.names[1]: Duplicate value: \"data\"",
        ),
        refused(
            "a path for a name",
            tracking(json!({ "spec": { "claims": { "names": ["/dev/sda"] } } })),
            "spec.claims.names[0]: Invalid value: \"/dev/sda\"",
        ),
        refused(
            "65 names",
            tracking(
                json!({ "spec": { "claims": { "names": (0..65).map(|i| format!("c{i}")).collect::<Vec<_>>() } } }),
            ),
            "spec.claims.names: Too many: 65: must have at most 64 items",
        ),
        refused(
            "something of a node",
            tracking(json!({ "spec": { "device": "/dev/sda" } })),
            "unknown field \"spec.device\"",
        ),
    ]
}

fn selectors() -> Vec<Created> {
    let key = "a key must be a label's name, such as app or app.kubernetes.io/name";
    let values = "In and NotIn need values; Exists and DoesNotExist must have none";
    vec![
        accepted(
            "a prefixed key",
            selector(json!({ "matchLabels": { "app.kubernetes.io/name": "pg" } })),
        ),
        accepted("an empty label value", selector(json!({ "matchLabels": { "app": "" } }))),
        accepted(
            "In with values",
            expression(json!({ "key": "app", "operator": "In", "values": ["a", "b"] })),
        ),
        accepted("Exists", expression(json!({ "key": "app", "operator": "Exists" }))),
        refused("In without values", expression(json!({ "key": "app", "operator": "In" })), values),
        refused(
            "NotIn with no value",
            expression(json!({ "key": "app", "operator": "NotIn", "values": [] })),
            values,
        ),
        refused(
            "Exists with values",
            expression(json!({ "key": "app", "operator": "Exists", "values": ["a"] })),
            values,
        ),
        refused(
            "an operator there is not",
            expression(json!({ "key": "app", "operator": "Gt", "values": ["1"] })),
            "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        refused("a key that no label has", selector(json!({ "matchLabels": { "a b": "c" } })), key),
        refused(
            "a value that no label has",
            selector(json!({ "matchLabels": { "app": "a b" } })),
            "spec.claims.selector.matchLabels.app: Invalid value: \"a b\"",
        ),
        refused(
            "a bad key in an expression",
            expression(json!({ "key": "-a", "operator": "Exists" })),
            "spec.claims.selector.matchExpressions[0].key: Invalid value: \"-a\"",
        ),
    ]
}

fn granularities() -> Vec<Created> {
    let granularity = |text: &str| tracking(json!({ "spec": { "granularity": text } }));
    let mut cases = vec![
        accepted("the finest granularity", granularity("4Ki")),
        accepted("the coarsest granularity", granularity("1Gi")),
    ];
    for text in ["100Ki", "2Ki", "2Gi", "256k", "262144"] {
        cases.push(refused(
            "a granularity that is no power of two from 4Ki to 1Gi",
            granularity(text),
            "supported values: \"4Ki\", \"8Ki\", \"16Ki\", \"32Ki\", \"64Ki\", \"128Ki\", \"256Ki\", \"512Ki\", \"1Mi\"",
        ));
    }
    cases.push(refused(
        "the message names field and value",
        granularity("100Ki"),
        "spec.granularity: Unsupported value: \"100Ki\"",
    ));
    cases
}

const FIVE_FIELDS: &str =
    "needs five fields: minute hour day-of-month month day-of-week, e.g. '*/15 * * * *'";
const MINUTE: &str = "first field (minute) must be made of 0-59, * , - and /";
const HOUR: &str = "second field (hour) must be made of 0-23, * , - and /";
const DAY: &str = "third field (day of month) must be made of 1-31, * , - and /";
const MONTH: &str = "fourth field (month) must be made of 1-12, * , - and /";
const WEEKDAY: &str = "fifth field (day of week) must be made of 0-7, * , - and /";

fn schedules() -> Vec<Created> {
    let good = [
        "* * * * *",
        "*/15 * * * *",
        "0,30 8-18 * * 1-5",
        "59 23 31 12 7",
        "05 03 01 01 0",
        "10-50/20 */2 */10 */3 *",
    ];
    let bad = [
        ("hourly", FIVE_FIELDS),
        ("* * * *", FIVE_FIELDS),
        ("0 * * * * *", FIVE_FIELDS),
        ("0  * * * *", FIVE_FIELDS),
        ("60 * * * *", MINUTE),
        ("*/0 * * * *", MINUTE),
        ("1- * * * *", MINUTE),
        ("0 24 * * *", HOUR),
        ("0 0 0 * *", DAY),
        ("0 0 32 * *", DAY),
        ("0 0 * 13 *", MONTH),
        ("0 0 * JAN *", MONTH),
        ("0 0 * * 8", WEEKDAY),
        ("0 0 * * MON", WEEKDAY),
    ];
    let good = good.map(|text| accepted("a schedule", schedule(text)));
    let bad = bad.map(|(text, message)| refused("a bad schedule", schedule(text), message));
    let mut cases: Vec<Created> = good.into_iter().chain(bad).collect();
    cases.push(refused(
        "the message names field and value",
        schedule("60 * * * *"),
        "spec.snapshots.schedule: Invalid value: \"60 * * * *\": first field (minute)",
    ));
    cases
}

fn schedule_options() -> Vec<Created> {
    let zone = |zone: &str| snapshots(json!({ "timeZone": zone }));
    vec![
        accepted("a time zone", zone("America/Argentina/Buenos_Aires")),
        accepted("a time zone with an offset", zone("Etc/GMT+1")),
        refused(
            "the node's own time zone",
            zone("Local"),
            "must be an IANA name such as Europe/Berlin",
        ),
        refused(
            "a time zone as a path",
            zone("../etc/passwd"),
            "spec.snapshots.timeZone: Invalid value",
        ),
        accepted("a short deadline", snapshots(json!({ "startingDeadlineSeconds": 10 }))),
        refused(
            "a deadline nobody meets",
            snapshots(json!({ "startingDeadlineSeconds": 9 })),
            "should be greater than or equal to 10",
        ),
        refused(
            "a deadline of more than a day",
            snapshots(json!({ "startingDeadlineSeconds": 86401 })),
            "should be less than or equal to 86400",
        ),
        refused(
            "snapshots without a schedule",
            snapshots(json!({ "schedule": null })),
            "spec.snapshots.schedule: Required value",
        ),
    ]
}

fn keeping() -> Vec<Created> {
    let keep = |keep: Value| snapshots(json!({ "keep": keep }));
    let nothing = "spec.snapshots.keep: Invalid value: keeps nothing: give at least one of last, hourly, daily, weekly, monthly and within that is not 0";
    let sum = "spec.snapshots.keep: Invalid value: last, hourly, daily, weekly and monthly together must be at most 128";
    let within = "spec.snapshots.keep.within in body should match";
    vec![
        accepted("what is kept without a word", keep(json!({}))),
        accepted("the least kept", keep(json!({ "last": 1 }))),
        accepted("the most kept", keep(json!({ "last": 128 }))),
        accepted(
            "every rule",
            keep(
                json!({ "last": 4, "hourly": 24, "daily": 7, "weekly": 5, "monthly": 12, "within": "1y6m14d12h" }),
            ),
        ),
        accepted("a rule that is off", keep(json!({ "last": 0, "daily": 7 }))),
        accepted("a span alone", keep(json!({ "within": "36h" }))),
        refused("nothing kept", keep(json!({ "last": 0 })), nothing),
        refused("nothing kept by any rule", keep(json!({ "daily": 0, "monthly": 0 })), nothing),
        refused("nothing kept by a span", keep(json!({ "last": 0, "within": "0d" })), nothing),
        refused(
            "too many kept",
            keep(json!({ "last": 129 })),
            "spec.snapshots.keep.last in body should be less than or equal to 128",
        ),
        refused("too many kept together", keep(json!({ "hourly": 100, "daily": 29 })), sum),
        refused("a span of weeks", keep(json!({ "within": "2w" })), within),
        refused("a span out of order", keep(json!({ "within": "5h3d" })), within),
        refused(
            "a rule there is not",
            keep(json!({ "yearly": 3 })),
            "unknown field \"spec.snapshots.keep.yearly\"",
        ),
        accepted("an hour of jitter", snapshots(json!({ "jitterSeconds": 3600 }))),
        refused(
            "more than an hour of jitter",
            snapshots(json!({ "jitterSeconds": 3601 })),
            "should be less than or equal to 3600",
        ),
        accepted("one at a time", snapshots(json!({ "concurrencyPolicy": "Forbid" }))),
        refused(
            "two at a time",
            snapshots(json!({ "concurrencyPolicy": "Allow" })),
            "spec.snapshots.concurrencyPolicy: Unsupported value: \"Allow\": supported values: \"Forbid\"",
        ),
    ]
}

fn volumes() -> Vec<Created> {
    vec![
        accepted("a volume named like its claim", volume(json!({}))),
        accepted("a volume of no node yet", volume(json!({ "spec": { "nodeName": null } }))),
        refused(
            "a volume not named like its claim",
            volume(json!({ "metadata": { "name": "other" } })),
            "metadata.name must equal spec.claim.name",
        ),
        refused(
            "a uid that is none",
            volume(json!({ "spec": { "claim": { "uid": "1" } } })),
            "spec.claim.uid in body should be at least 36 chars long",
        ),
        refused(
            "a volume of a granularity there is not",
            volume(json!({ "spec": { "granularity": "3Ki" } })),
            "spec.granularity: Unsupported value: \"3Ki\"",
        ),
    ]
}

fn snapshots_by_hand() -> Vec<Created> {
    vec![
        accepted("a snapshot", snapshot(json!({}))),
        accepted(
            "a snapshot's name of 243 characters",
            snapshot(json!({ "metadata": { "name": "x".repeat(243) } })),
        ),
        refused(
            "a snapshot's name of 244 characters",
            snapshot(json!({ "metadata": { "name": "x".repeat(244) } })),
            "metadata.name must be at most 243 characters because slices append their index",
        ),
        refused(
            "a snapshot of nothing",
            snapshot(json!({ "spec": { "claimName": null } })),
            "spec.claimName: Required value",
        ),
        refused(
            "a snapshot of a path",
            snapshot(json!({ "spec": { "claimName": "../x" } })),
            "spec.claimName: Invalid value: \"../x\"",
        ),
        refused(
            "a snapshot in no time",
            snapshot(json!({ "spec": { "deadlineSeconds": 1 } })),
            "spec.deadlineSeconds in body should be greater than or equal to 10",
        ),
        accepted(
            "a snapshot that is held for a while",
            snapshot(json!({ "spec": { "mode": "Local", "holdSeconds": 60 } })),
        ),
        refused(
            "a snapshot that is held for no time",
            snapshot(json!({ "spec": { "mode": "Local", "holdSeconds": 1 } })),
            "spec.holdSeconds in body should be greater than or equal to 30",
        ),
        refused(
            "a list that is held",
            snapshot(json!({ "spec": { "holdSeconds": 60 } })),
            "holdSeconds goes with mode Local: nothing is held otherwise",
        ),
        refused(
            "a schedule of lists that are held",
            snapshots(json!({ "holdSeconds": 60 })),
            "holdSeconds goes with mode Local: nothing is held otherwise",
        ),
        accepted(
            "a replica",
            tracking(
                json!({ "spec": { "replica": { "claimName": "copy", "maxBytesPerSecond": 65536, "verify": true } } }),
            ),
        ),
        refused(
            "a replica that is copied to at a byte a second",
            tracking(
                json!({ "spec": { "replica": { "claimName": "copy", "maxBytesPerSecond": 1 } } }),
            ),
            "spec.replica.maxBytesPerSecond in body should be greater than or equal to 65536",
        ),
        refused(
            "a replica without a claim",
            tracking(json!({ "spec": { "replica": { "verify": true } } })),
            "spec.replica.claimName: Required value",
        ),
        refused(
            "a replica by its path",
            tracking(json!({ "spec": { "replica": { "claimName": "/dev/sdb" } } })),
            "spec.replica.claimName in body should match",
        ),
        refused(
            "a mode that there is not",
            snapshot(json!({ "spec": { "mode": "Remote" } })),
            "spec.mode: Unsupported value: \"Remote\"",
        ),
    ]
}

fn slices() -> Vec<Created> {
    let name = "metadata.name must be the snapshot's name, a hyphen and the index";
    let contradiction = "index, first, last and blocks contradict each other";
    let ranges = |text: &str| slice(json!({ "ranges": text }));
    let named = |name: &str| slice(json!({ "metadata": { "name": name } }));
    vec![
        accepted("a slice", slice(json!({}))),
        accepted(
            "the last of 16 slices",
            slice(json!({ "metadata": { "name": "data-1-15" }, "index": 15, "count": 16 })),
        ),
        accepted("a slice of 96 KiB", ranges(&format!("1{}", ",1".repeat(49151)))),
        refused(
            "a slice of more than 96 KiB",
            ranges(&"1".repeat(98305)),
            "ranges: Too long: may not be more than 98304",
        ),
        refused("a slice of another snapshot's name", named("other-0"), name),
        refused("a slice of another index's name", named("data-1-1"), name),
        refused("a slice whose name goes on", named("data-1-0-0"), name),
        refused(
            "an index beyond the count",
            slice(json!({ "metadata": { "name": "data-1-1" }, "index": 1 })),
            contradiction,
        ),
        refused("a last block before the first", slice(json!({ "first": 5 })), contradiction),
        refused("more blocks than there is room for", slice(json!({ "blocks": 6 })), contradiction),
        refused(
            "a 17th slice",
            slice(json!({ "metadata": { "name": "data-1-16" }, "index": 16, "count": 17 })),
            "should be less than or equal to 1",
        ),
        accepted(
            "the first slice of a merge",
            slice(json!({ "metadata": { "name": "data-1-16" }, "index": 16 })),
        ),
        accepted(
            "the last slice of a merge",
            slice(json!({ "metadata": { "name": "data-1-31" }, "index": 31, "count": 16 })),
        ),
        refused(
            "a slice of a merge beyond the count",
            slice(json!({ "metadata": { "name": "data-1-17" }, "index": 17 })),
            contradiction,
        ),
        refused(
            "a slice of no place",
            slice(json!({ "metadata": { "name": "data-1-32" }, "index": 32 })),
            "should be less than or equal to 31",
        ),
        refused("an open range", ranges("0,2-"), "ranges: Invalid value: \"0,2-\""),
        refused("a slice of nothing", ranges(""), "ranges in body should be at least 1 chars long"),
        refused(
            "an encoding there is not",
            slice(json!({ "encoding": "Bitmap" })),
            "supported values: \"List\"",
        ),
        refused("no encoding", slice(json!({ "encoding": null })), "encoding: Required value"),
        refused(
            "blocks smaller than a page",
            slice(json!({ "blockSizeBytes": 512 })),
            "should be greater than or equal to 4096",
        ),
    ]
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": TIME })
}

/// A write of some fields of the status.
fn status(fields: Value) -> Write {
    Write::Status(json!({ "status": fields }))
}

/// The status of a snapshot whose boundary is made.
fn boundary() -> Value {
    json!({ "nodeName": "one", "chainID": UID, "era": 10, "sinceEra": 7, "type": "Incremental" })
}

/// The one write that makes a snapshot Ready.
fn ready(patch: Value) -> Write {
    let complete = json!({
        "slices": { "count": 0, "bytes": 0, "sha256": SHA256 },
        "conditions": [condition("Ready", "True", "Complete")],
    });
    status(merged(merged(boundary(), complete), patch))
}

/// Every object that is written again.
pub(super) fn transitions() -> Vec<Transition> {
    let mut cases = Vec::new();
    cases.extend(volume_transitions());
    cases.extend(boundary_transitions());
    cases.extend(ready_transitions());
    cases.extend(settled_transitions());
    cases.extend(device_transitions());
    cases.extend(slice_transitions());
    for (index, case) in cases.iter_mut().enumerate() {
        rename(&mut case.object, &format!("case-{index}"));
    }
    cases
}

/// Gives an object a name of its own, and with it what must agree with the name.
fn rename(object: &mut Value, name: &str) {
    object["metadata"]["name"] = name.into();
    if object["kind"] == "EraVolume" {
        object["spec"]["claim"]["name"] = name.into();
    }
    if object["kind"] == "ChangedBlockSlice" {
        object["snapshot"]["name"] = name.into();
        object["metadata"]["name"] = format!("{name}-0").into();
    }
}

fn volume_transitions() -> Vec<Transition> {
    let case = |name, before, write, expectation| Transition {
        name,
        object: volume(json!({})),
        before,
        write,
        expectation,
    };
    let spec = |fields: Value| Write::Object(json!({ "spec": fields }));
    let fixed = "spec: Invalid value: nodeName never changes once it is set; delete the EraVolume, and the controller makes it anew for the node where the volume is";
    let chain = |id: &str, era: u32| {
        status(
            json!({ "era": era, "chain": { "id": id, "startTime": TIME, "startReason": "NoBaseline" } }),
        )
    };
    vec![
        case("a volume on no node", vec![], spec(json!({ "nodeName": null })), Refused(fixed)),
        case(
            "a volume on another node",
            vec![],
            spec(json!({ "nodeName": "two" })),
            Refused(fixed),
        ),
        case("another granularity", vec![], spec(json!({ "granularity": "1Mi" })), Accepted),
        Transition {
            name: "a volume comes to a node",
            object: volume(json!({ "spec": { "nodeName": null } })),
            before: vec![],
            write: spec(json!({ "nodeName": "two" })),
            expectation: Accepted,
        },
        case(
            "a volume gets another claim",
            vec![],
            spec(json!({ "claim": { "uid": OTHER_UID } })),
            Refused("spec.claim: Invalid value: is immutable"),
        ),
        case(
            "a claim gets another volume",
            vec![],
            spec(json!({ "volume": { "name": "pv-2" } })),
            Refused("spec.volume: Invalid value: is immutable"),
        ),
        case("an era goes on", vec![chain(UID, 5)], chain(UID, 6), Accepted),
        case(
            "an era goes back",
            vec![chain(UID, 5)],
            chain(UID, 4),
            Refused("status: Invalid value: an era never goes back within a chain"),
        ),
        case("a new chain begins", vec![chain(UID, 5)], chain(OTHER_UID, 1), Accepted),
        case(
            "more than all is used",
            vec![],
            status(json!({ "metadata": { "usedPercent": 101 } })),
            Refused("should be less than or equal to 100"),
        ),
        case(
            "two conditions of a type",
            vec![],
            status(
                json!({ "conditions": [condition("Ready", "True", "Tracking"), condition("Ready", "False", "Tracking")] }),
            ),
            Refused("Duplicate value"),
        ),
        case(
            "a condition neither true nor false",
            vec![],
            status(json!({ "conditions": [condition("Ready", "Maybe", "Tracking")] })),
            Refused("supported values: \"True\", \"False\", \"Unknown\""),
        ),
    ]
}

fn boundary_transitions() -> Vec<Transition> {
    let case = |name, before, write, expectation| Transition {
        name,
        object: snapshot(json!({})),
        before,
        write,
        expectation,
    };
    let made = || vec![status(boundary())];
    let fixed = "status: Invalid value: era, chainID and nodeName of a boundary never change";
    let back = "status: Invalid value: a delta may only reach further back";
    vec![
        case(
            "another claim",
            vec![],
            Write::Object(json!({ "spec": { "claimName": "other" } })),
            Refused("spec: Invalid value: a snapshot is immutable; create another one"),
        ),
        case(
            "a label",
            vec![],
            Write::Object(json!({ "metadata": { "labels": { "a": "b" } } })),
            Accepted,
        ),
        case("a boundary", vec![], status(boundary()), Accepted),
        case(
            "a boundary of no chain",
            vec![],
            status(json!({ "nodeName": "one", "era": 3 })),
            Refused("status: Invalid value: a boundary needs chainID and nodeName beside era"),
        ),
        case("another era", made(), status(json!({ "era": 11 })), Refused(fixed)),
        case(
            "no era any more",
            made(),
            status(json!({ "era": null, "sinceEra": 7 })),
            Refused(fixed),
        ),
        case("another node", made(), status(json!({ "nodeName": "two" })), Refused(fixed)),
        case("another chain", made(), status(json!({ "chainID": OTHER_UID })), Refused(fixed)),
        case(
            "a delta that reaches further back",
            made(),
            status(json!({ "sinceEra": 5 })),
            Accepted,
        ),
        case("a delta that is cut short", made(), status(json!({ "sinceEra": 8 })), Refused(back)),
        case(
            "a delta that forgets its start",
            made(),
            status(json!({ "sinceEra": null })),
            Refused(back),
        ),
        case(
            "a delta since later",
            vec![],
            status(merged(boundary(), json!({ "sinceEra": 11 }))),
            Refused("status: Invalid value: sinceEra must not be greater than era"),
        ),
        case(
            "an era before the first",
            vec![],
            status(merged(boundary(), json!({ "sinceEra": 0 }))),
            Refused("should be greater than or equal to 1"),
        ),
    ]
}

fn ready_transitions() -> Vec<Transition> {
    let case = |name, before, write, expectation| Transition {
        name,
        object: snapshot(json!({})),
        before,
        write,
        expectation,
    };
    let failed = || {
        let conditions =
            [condition("Failed", "True", "NodeGone"), condition("Ready", "False", "NodeGone")];
        status(json!({ "conditions": conditions }))
    };
    let incomplete = "status: Invalid value: Ready needs era, chainID, type and slices, and sinceEra when Incremental";
    let both = "status: Invalid value: a snapshot cannot be both Ready and Failed";
    vec![
        case("complete", vec![], ready(json!({})), Accepted),
        case(
            "complete and full",
            vec![],
            ready(json!({ "type": "Full", "sinceEra": null, "fullReason": "NoBaseline" })),
            Accepted,
        ),
        case(
            "complete without a digest",
            vec![],
            ready(json!({ "slices": null })),
            Refused(incomplete),
        ),
        case(
            "incremental since when",
            vec![],
            ready(json!({ "sinceEra": null })),
            Refused(incomplete),
        ),
        case(
            "neither full nor incremental",
            vec![],
            ready(json!({ "type": null })),
            Refused(incomplete),
        ),
        case(
            "a digest that is none",
            vec![],
            ready(json!({ "slices": { "sha256": "abc" } })),
            Refused("status.slices.sha256: Invalid value: \"abc\""),
        ),
        case(
            "more slices than there may be",
            vec![],
            ready(json!({ "slices": { "count": 17 } })),
            Refused("should be less than or equal to 16"),
        ),
        case("failed", vec![], failed(), Accepted),
        case(
            "failed, and complete after all",
            vec![failed()],
            ready(json!({})),
            Refused("status: Invalid value: a failed snapshot stays failed"),
        ),
        case(
            "failed though complete",
            vec![ready(json!({}))],
            status(
                json!({ "conditions": [condition("Ready", "True", "Complete"), condition("Failed", "True", "DeadlineExceeded")] }),
            ),
            Refused(both),
        ),
    ]
}

/// A complete snapshot, and what is said of its device.
fn readable(holds: &str, reason: &str) -> Write {
    let conditions = [condition("Ready", "True", "Complete"), condition("Readable", holds, reason)];
    status(json!({ "conditions": conditions }))
}

/// A device that was given up never comes back.
fn device_transitions() -> Vec<Transition> {
    let case = |name, write, expectation| Transition {
        name,
        object: snapshot(json!({ "spec": { "mode": "Local" } })),
        before: vec![ready(json!({})), readable("False", "Released")],
        write,
        expectation,
    };
    let over = "status: Invalid value: a device that was given up is never readable again";
    vec![
        case("given up, and said once more", readable("False", "CopiesFull"), Accepted),
        case("given up, and readable again", readable("True", "PointInTime"), Refused(over)),
        case(
            "given up, and nothing said of it",
            status(json!({ "conditions": [condition("Ready", "True", "Complete")] })),
            Refused(over),
        ),
    ]
}

/// What is complete stays as it is.
fn settled_transitions() -> Vec<Transition> {
    let case = |name, write, expectation| Transition {
        name,
        object: snapshot(json!({})),
        before: vec![ready(json!({}))],
        write,
        expectation,
    };
    let settled = "status: Invalid value: slices, sinceEra and base of a complete snapshot never change, unless an earlier one is merged into it and sinceEra falls";
    let back = "status: Invalid value: a delta may only reach further back";
    let merged_list = json!({ "count": 1, "first": 16, "bytes": 1, "sha256": SHA256 });
    let base = json!({ "name": "earlier", "uid": OTHER_UID });
    vec![
        case("complete, and said once more", ready(json!({ "changed": "0" })), Accepted),
        case(
            "complete, and then other slices",
            status(json!({ "slices": { "count": 1 } })),
            Refused(settled),
        ),
        case("complete, and readable", readable("True", "PointInTime"), Accepted),
        case("complete, and then no slices", status(json!({ "slices": null })), Refused(settled)),
        case(
            "complete, and another merged into it",
            status(json!({ "sinceEra": 5, "slices": merged_list.clone(), "base": base })),
            Accepted,
        ),
        // An unchanged one adds nothing to the list.
        case(
            "complete, and an empty one merged into it",
            status(json!({ "sinceEra": 5 })),
            Accepted,
        ),
        case(
            "complete, and then since earlier without a list",
            status(json!({ "sinceEra": 5, "slices": null })),
            Refused("Ready needs era"),
        ),
        case(
            "complete, and then since later with another list",
            status(json!({ "sinceEra": 8, "slices": merged_list.clone() })),
            Refused(back),
        ),
        case(
            "complete, and then another list since the same",
            status(json!({ "sinceEra": 7, "slices": merged_list })),
            Refused(settled),
        ),
        case(
            "complete, and then full since earlier",
            status(json!({ "sinceEra": 5, "type": "Full" })),
            Refused(settled),
        ),
        case(
            "complete, and then another base",
            status(json!({ "base": { "name": "other", "uid": OTHER_UID } })),
            Refused(settled),
        ),
        case(
            "ready no more",
            status(json!({ "conditions": [condition("Ready", "False", "OperationFailed")] })),
            Accepted,
        ),
    ]
}

fn slice_transitions() -> Vec<Transition> {
    let case = |name, patch, expectation| Transition {
        name,
        object: slice(json!({})),
        before: vec![],
        write: Write::Object(patch),
        expectation,
    };
    let fixed = || Refused("a slice is immutable");
    vec![
        case("a label on a slice", json!({ "metadata": { "labels": { "a": "b" } } }), Accepted),
        case("other ranges", json!({ "ranges": "0,3-4" }), fixed()),
        case("another size of blocks", json!({ "blockSizeBytes": 8192 }), fixed()),
        case("another snapshot", json!({ "snapshot": { "uid": OTHER_UID } }), fixed()),
        case("another count of slices", json!({ "count": 2 }), fixed()),
        case("another count of blocks", json!({ "blocks": 3 }), fixed()),
        case("another first block", json!({ "first": 1 }), fixed()),
        case("another last block", json!({ "last": 5 }), fixed()),
        case("another writer", json!({ "nodeName": "two" }), fixed()),
        case("no writer", json!({ "nodeName": null }), fixed()),
    ]
}

/// What a user wrote, and what its spec becomes.
pub(super) fn written_defaults() -> [(Value, Value); 2] {
    let keep = json!({
        "claims": { "names": ["data"] },
        "granularity": "256Ki",
        "snapshots": {
            "schedule": "*/15 * * * *",
            "mode": "Boundary",
            "timeZone": "Etc/UTC",
            "suspend": false,
            "startingDeadlineSeconds": 300,
            "jitterSeconds": 0,
            "concurrencyPolicy": "Forbid",
            "keep": {},
        },
    });
    [
        (schedule("*/15 * * * *"), keep),
        (
            snapshot(json!({})),
            json!({ "claimName": "data", "deadlineSeconds": 600, "mode": "Boundary" }),
        ),
    ]
}

type Selection = ([(Value, Option<Write>); 2], &'static str);

/// Two objects, and a selector that only the first satisfies.
pub(super) fn selected() -> Vec<Selection> {
    let other = |kind: fn(Value) -> Value, name: &str, patch: Value| {
        (kind(merged(patch, json!({ "metadata": { "name": name } }))), None)
    };
    let other_volume = json!({ "spec": { "claim": { "name": "data2" }, "nodeName": "two" } });
    vec![
        ([(volume(json!({})), None), other(volume, "data2", other_volume)], "spec.nodeName=one"),
        (
            [
                (snapshot(json!({})), None),
                other(snapshot, "x-1", json!({ "spec": { "claimName": "x" } })),
            ],
            "spec.claimName=data",
        ),
        (
            [
                (snapshot(json!({})), Some(status(json!({ "nodeName": "one" })))),
                other(snapshot, "x-1", json!({ "spec": { "claimName": "data" } })),
            ],
            "status.nodeName=one",
        ),
        (
            [(slice(json!({})), None), other(slice, "x-0", json!({ "snapshot": { "name": "x" } }))],
            "snapshot.name=data-1",
        ),
    ]
}

/// An object of each kind, its short name, and the first line of its table.
pub(super) fn headers() -> [(Value, &'static str, &'static str); 4] {
    [
        (
            tracking(json!({})),
            "et",
            "NAME MATCHED TRACKED INTACT CHANGED LAST NEXT READY REASON AGE",
        ),
        (volume(json!({})), "evol", "NAME NODE ERA BLOCK CHANGED META% INTACT REASON READY AGE"),
        (
            snapshot(json!({})),
            "esnap",
            "NAME CLAIM PHASE TYPE WHY FULL CHANGED BLOCKS SINCE ERA AGE",
        ),
        (slice(json!({})), "cbs", "NAME SNAPSHOT INDEX OF BLOCKSIZE BLOCKS FIRST LAST AGE"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of the rules, as the committed definitions have them.
    fn messages() -> Vec<String> {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let lines = text.lines().filter_map(|line| line.trim().strip_prefix("- message: "));
            // A quoted scalar is written as JSON would write it.
            found
                .extend(lines.map(|it| serde_json::from_str(it).unwrap_or_else(|_| it.to_owned())));
        }
        found
    }

    #[test]
    fn every_rule_is_broken_by_a_case() {
        let rules = messages();
        assert!(rules.len() > 20, "{rules:?}");
        let expectations = created()
            .into_iter()
            .map(|it| it.expectation)
            .chain(transitions().into_iter().map(|it| it.expectation));
        let refusals: Vec<&str> = expectations
            .filter_map(|it| match it {
                Refused(message) => Some(message),
                Accepted => None,
            })
            .collect();
        for rule in rules {
            assert!(
                refusals.iter().any(|it| it.contains(&rule)),
                "no case breaks the rule {rule:?}"
            );
        }
    }

    #[test]
    fn null_takes_a_field_out() {
        assert_eq!(
            merged(json!({ "a": 1, "b": { "c": 2 } }), json!({ "a": null, "b": { "d": 3 } })),
            json!({ "b": { "c": 2, "d": 3 } })
        );
    }
}
