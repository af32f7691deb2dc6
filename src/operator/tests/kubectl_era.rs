//! The program called as `kubectl-era`, with a kubeconfig whose server is a few answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use eratrack_api::changed_block_slice::summary;
use serde_json::{Value, json};

const API: &str = "/apis/eratrack.dev/v1alpha1/namespaces/shop";

/// Answers by path, without the query. A path that is missing is an object that is not there.
fn serve(answers: BTreeMap<String, Value>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = Arc::new(answers);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = answers.clone();
            thread::spawn(move || answer(&stream, &answers));
        }
    });
    port
}

fn answer(mut stream: &TcpStream, answers: &BTreeMap<String, Value>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let asked = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = asked.split([' ', '?']).nth(1).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{name} not found"), "details": {"name": name}});
    let (code, body) = match answers.get(path) {
        Some(found) => ("200 OK", found),
        None => ("404 Not Found", &gone),
    };
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

fn snapshot(name: &str, since: Option<u32>, era: u32, list: &str) -> Value {
    json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshot",
        "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"claimName": "data"},
        "status": {"volumeUID": "v", "chainID": "c", "era": era, "sinceEra": since, "sizeBytes": 50 * 4096,
            "blockSizeBytes": 4096, "type": if since.is_some() { "Incremental" } else { "Full" },
            "fullReason": since.is_none().then_some("NoBaseline"), "slices": summary([list]),
            "conditions": [{"type": "Ready", "status": "True", "reason": "Complete", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })
}

fn slice(name: &str, ranges: &str, blocks: u64, [first, last]: [u64; 2]) -> (String, Value) {
    let path = format!("{API}/changedblockslices/{name}-0");
    let slice = json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "ChangedBlockSlice", "metadata": {"name": format!("{name}-0")},
        "snapshot": {"name": name, "uid": name}, "index": 0, "count": 1, "blockSizeBytes": 4096,
        "blocks": blocks, "first": first, "last": last, "encoding": "List", "ranges": ranges,
    });
    (path, slice)
}

/// Three snapshots; the slice of `lost` is gone.
fn cluster(lost: &str) -> BTreeMap<String, Value> {
    let items = [
        snapshot("a", None, 2, "0-49"),
        snapshot("b", Some(2), 4, "1,5-6"),
        snapshot("c", Some(4), 6, "2-4"),
    ];
    let snapshots = json!({"apiVersion": "eratrack.dev/v1alpha1", "kind": "EraSnapshotList", "metadata": {}, "items": items});
    let volume = json!({
        "apiVersion": "eratrack.dev/v1alpha1", "kind": "EraVolume", "metadata": {"name": "data", "namespace": "shop"},
        "spec": {"claim": {"name": "data", "uid": "u"}, "volume": {"name": "pv", "uid": "v"}, "granularity": "256Ki"},
        "status": {"conditions": [{"type": "TrackingIntact", "status": "False", "reason": "NodeRebooted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let mut answers = BTreeMap::from([
        (format!("{API}/erasnapshots"), snapshots),
        (format!("{API}/eravolumes/data"), volume),
        slice("b", "1,5-6", 3, [1, 6]),
        slice("c", "2-4", 3, [2, 4]),
    ]);
    answers.remove(&format!("{API}/changedblockslices/{lost}-0"));
    answers
}

/// Calls the plugin with these words; the context's namespace is `shop`.
fn era(port: u16, words: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-era");
    symlink(env!("CARGO_BIN_EXE_eratrack"), &plugin).unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "it", "user": "me", "namespace": "shop"}},
            {"name": "there", "context": {"cluster": "it", "user": "me", "namespace": "other"}}],
    });
    let file = dir.path().join("config");
    std::fs::write(&file, config.to_string()).unwrap();
    Command::new(plugin).args(words).env("KUBECONFIG", file).output().unwrap()
}

fn said(output: &Output) -> (String, Option<i32>) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[test]
fn as_a_plugin_it_reads_what_changed_with_the_users_kubeconfig() {
    let port = serve(cluster("none"));
    let between = ["changed", "data", "--from", "a", "--to", "c"];
    assert_eq!(said(&era(port, &between)), ("1-6\n".to_owned(), Some(0)));
    let csv = [&["-n", "shop"], &between[..], &["-o", "csv"]].concat();
    assert_eq!(said(&era(port, &csv)), ("offset,length\n4096,24576\n".to_owned(), Some(0)));
    let named = ["--context", "there", "changed", "shop/data", "--from", "b", "--to", "c"];
    assert_eq!(said(&era(port, &named)), ("2-4\n".to_owned(), Some(0)));
    let (sentence, code) = said(&era(port, &["why", "shop/data"]));
    assert!(code == Some(0) && sentence.contains("will be full (NodeRebooted)"), "{sentence}");
}

#[test]
fn what_cannot_be_answered_has_its_exit_code() {
    let port = serve(cluster("b"));
    let code = |words: &[&str]| {
        let output = era(port, words);
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let cases: [(&[&str], i32, &str); 7] = [
        (&["changed", "data", "--from", "a", "--to", "c"], 8, "b-0 is gone"),
        (&["changed", "data", "--from", "c", "--to", "a"], 5, "c (era 6) is not before a (era 2)"),
        (&["changed", "data", "--from", "x", "--to", "a"], 6, "no EraSnapshot x"),
        (&["changed", "no/such/claim", "--from", "a", "--to", "c"], 2, "NAMESPACE/NAME"),
        (&["-n", "other", "why", "shop/data"], 5, "give one of them"),
        (&["why", "other"], 6, "is not tracked"),
        (&["--context", "nowhere", "status"], 1, "cannot use the kubeconfig"),
    ];
    for (words, expected, why) in cases {
        let (found, text) = code(words);
        assert!(found == Some(expected) && text.contains(why), "{words:?}: {found:?} {text}");
    }
}
