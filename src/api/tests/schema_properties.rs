//! What the definitions promise, checked on the definitions themselves. How the API server reads them is tested on a real
//! one, in the cluster tier.

use eratrack_api::crd::crds;
use serde_json::{Value, json};

fn definitions() -> Vec<Value> {
    crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect()
}

fn definition(plural: &str) -> Value {
    definitions().into_iter().find(|crd| crd["spec"]["names"]["plural"] == plural).unwrap()
}

fn version(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]
}

fn schema(crd: &Value) -> &Value {
    &version(crd)["schema"]["openAPIV3Schema"]
}

/// Calls `check` with every schema of every definition, and the path to it.
fn each_schema(check: impl Fn(&str, &Value)) {
    for crd in definitions() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        walk(&kind, schema(&crd), &check);
    }
}

fn walk(path: &str, schema: &Value, check: &impl Fn(&str, &Value)) {
    check(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, check);
    }
    for (name, key) in [("[]", "items"), ("{}", "additionalProperties")] {
        if schema[key].is_object() {
            walk(&format!("{path}{name}"), &schema[key], check);
        }
    }
}

#[test]
fn every_string_list_and_map_has_a_bound() {
    each_schema(|path, schema| {
        let bounded = match schema["type"].as_str().unwrap_or_else(|| panic!("{path} has no type"))
        {
            "string" => {
                schema["maxLength"].is_u64()
                    || schema["enum"].is_array()
                    || schema["format"] == "date-time"
            }
            "array" => schema["maxItems"].is_u64(),
            "object" if schema["additionalProperties"].is_object() => {
                schema["maxProperties"].is_u64()
            }
            "integer" => schema["minimum"].is_number() && schema["format"] == "int64",
            "object" | "boolean" => true,
            other => panic!("{path}: unexpected type {other}"),
        };
        assert!(bounded, "{path} has no bound: {schema}");
    });
}

#[test]
fn every_rule_has_a_message_for_a_person() {
    each_schema(|path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.len() > 10 || message == "is immutable", "{path}: {rule}");
        }
    });
}

#[test]
fn nothing_may_be_null_and_every_field_is_described() {
    each_schema(|path, schema| {
        assert!(schema.get("nullable").is_none(), "{path} may be null");
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            // The fields of a label selector are described by Kubernetes.
            let described = child["description"].is_string() || path.contains(".selector");
            assert!(described, "{path}.{name} has no description");
            let text = child["description"].as_str().unwrap_or_default();
            assert!(!text.contains('['), "{path}.{name} speaks to Rust programmers: {text}");
        }
    });
}

#[test]
fn all_kinds_are_namespaced_and_of_one_category() {
    let expected = [
        ("EraTracking", "et"),
        ("EraVolume", "evol"),
        ("EraSnapshot", "esnap"),
        ("ChangedBlockSlice", "cbs"),
    ];
    for (crd, (kind, short)) in definitions().iter().zip(expected) {
        let spec = &crd["spec"];
        assert_eq!(spec["names"]["kind"], kind);
        assert_eq!(spec["names"]["shortNames"], json!([short]));
        assert_eq!(spec["names"]["categories"], json!(["eratrack"]));
        assert_eq!(spec["names"]["listKind"], format!("{kind}List"));
        assert_eq!(
            (&spec["group"], &spec["scope"]),
            (&json!("eratrack.dev"), &json!("Namespaced"))
        );
        assert_eq!(version(crd)["name"], "v1alpha1");
        let has_status = schema(crd)["properties"]["status"].is_object();
        assert_eq!(has_status, kind != "ChangedBlockSlice");
        assert_eq!(has_status, version(crd)["subresources"]["status"].is_object());
    }
}

#[test]
fn columns_are_as_documented() {
    let expected = [
        ("eratrackings", "Matched Tracked Intact Changed Last Next Ready Reason Age"),
        ("eravolumes", "Node Era Block Changed Meta% Intact Reason Ready Age +Device +Chain"),
        (
            "erasnapshots",
            "Claim Phase Type Why_Full Changed Blocks Since Era Age +Ranges +Slices +Mode +Device +Base +Node",
        ),
        ("changedblockslices", "Snapshot Index Of BlockSize Blocks First Last Age"),
    ];
    for (plural, columns) in expected {
        let crd = definition(plural);
        let shown: Vec<String> = version(&crd)["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| {
                let wide = if column["priority"] == 1 { "+" } else { "" };
                format!("{wide}{}", column["name"].as_str().unwrap().replace(' ', "_"))
            })
            .collect();
        assert_eq!(shown.join(" "), columns, "{plural}");
    }
}

/// The columns' paths lead to fields that exist: a renamed field would otherwise just print nothing.
#[test]
fn columns_and_selectable_fields_lead_somewhere() {
    for crd in definitions() {
        let columns = version(&crd)["additionalPrinterColumns"].as_array().unwrap();
        let fields = version(&crd)["selectableFields"].as_array().into_iter().flatten();
        for entry in columns.iter().chain(fields) {
            let path = entry["jsonPath"].as_str().unwrap();
            if path == ".metadata.creationTimestamp" {
                continue;
            }
            let found = path.trim_start_matches('.').split('.').try_fold(
                schema(&crd),
                |at, step| match step.split_once("[?(@") {
                    Some((list, _)) => at["properties"].get(list).map(|it| &it["items"]),
                    None if step.starts_with("type==") => Some(at),
                    None => at["properties"].get(step),
                },
            );
            assert!(found.is_some(), "{path} of {} leads nowhere", crd["metadata"]["name"]);
        }
    }
}

#[test]
fn selectable_fields_are_what_the_agent_and_users_watch_by() {
    let expected: [(&str, &[&str]); 4] = [
        ("eratrackings", &[]),
        ("eravolumes", &[".spec.nodeName"]),
        ("erasnapshots", &[".spec.claimName", ".status.nodeName"]),
        ("changedblockslices", &[".snapshot.name"]),
    ];
    for (plural, paths) in expected {
        let crd = definition(plural);
        let fields: Vec<&Value> = version(&crd)["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| &it["jsonPath"])
            .collect();
        assert_eq!(fields, paths, "{plural}");
    }
}

#[test]
fn defaults_are_as_documented() {
    let crd = definition("eratrackings");
    let spec = &schema(&crd)["properties"]["spec"];
    assert_eq!(spec["required"], json!(["claims"]));
    assert_eq!(spec["properties"]["granularity"]["default"], "256Ki");
    let snapshots = &spec["properties"]["snapshots"];
    assert_eq!(snapshots["required"], json!(["schedule"]));
    let default = |field: &str| &snapshots["properties"][field]["default"];
    assert_eq!(default("timeZone"), "Etc/UTC");
    assert_eq!(default("suspend"), false);
    assert_eq!(default("startingDeadlineSeconds"), 300);
    assert_eq!(default("keep"), &json!({}), "the controller keeps 24 then");
    assert_eq!(default("jitterSeconds"), 0);
    assert_eq!(default("concurrencyPolicy"), "Forbid");
    assert_eq!(default("mode"), "Boundary");

    let crd = definition("erasnapshots");
    let spec = &schema(&crd)["properties"]["spec"];
    assert_eq!(spec["required"], json!(["claimName"]));
    assert_eq!(spec["properties"]["deadlineSeconds"]["default"], 600);
    assert_eq!(spec["properties"]["mode"]["default"], "Boundary");
}

/// What a user may write names claims, granularity and times, and nothing of a node.
#[test]
fn a_user_can_name_nothing_of_a_node() {
    let fields = |plural: &str| {
        let crd = definition(plural);
        let names: Vec<String> = schema(&crd)["properties"]["spec"]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        names
    };
    assert_eq!(fields("eratrackings"), ["claims", "granularity", "replica", "snapshots"]);
    let crd = definition("eratrackings");
    let replica = &schema(&crd)["properties"]["spec"]["properties"]["replica"]["properties"];
    let replica: Vec<&String> = replica.as_object().unwrap().keys().collect();
    assert_eq!(replica, ["claimName", "maxBytesPerSecond", "verify"]);
    assert_eq!(fields("erasnapshots"), ["claimName", "deadlineSeconds", "holdSeconds", "mode"]);
}

#[test]
fn bounds_agree_with_the_names() {
    use eratrack_api::names;
    let crd = definition("changedblockslices");
    let properties = &schema(&crd)["properties"];
    assert_eq!(properties["ranges"]["maxLength"], names::SLICE_RANGES_MAX);
    assert_eq!(properties["count"]["maximum"], f64::from(names::SLICES_MAX));
    assert_eq!(properties["index"]["maximum"], f64::from(2 * names::SLICES_MAX - 1));
    assert_eq!(properties["snapshot"]["properties"]["name"]["maxLength"], names::SNAPSHOT_NAME_MAX);
    let crd = definition("eratrackings");
    let keep = &schema(&crd)["properties"]["spec"]["properties"]["snapshots"]["properties"]["keep"];
    assert_eq!(keep["properties"]["last"]["maximum"], f64::from(names::KEEP_MAX));
    let rule = &schema(&crd)["x-kubernetes-validations"][0]["rule"];
    assert!(rule.as_str().unwrap().ends_with(&format!("<= {}", names::TRACKING_NAME_MAX)));
    assert_eq!(
        (crd["spec"]["group"].as_str(), version(&crd)["name"].as_str()),
        (Some(names::GROUP), Some(names::VERSION))
    );
}
