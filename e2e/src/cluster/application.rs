//! The application: a pod that writes records to a volume (`e2e/recorder`), and asking it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Kubectl, images::RECORDER};
use crate::failure::Outcome;

/// The pod that writes.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    kubectl: Kubectl,
    /// The pod.
    pub(crate) name: String,
}

/// What the application says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// How many records it has made durable and acknowledged.
    pub(crate) acknowledged: u64,
    /// The longest time between two acknowledged records, in milliseconds, since it was last asked to forget.
    pub(crate) longest_gap_ms: u64,
    /// Whether it pauses.
    pub(crate) quiesced: bool,
}

/// By what a pod that was restarted is told from one that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pod: String,
    container: String,
    restarts: u64,
}

impl Application {
    /// The manifest of the pod.
    pub(crate) fn manifest(name: &str, claim: &str) -> String {
        Self::pod(name, &[claim], "args: [write, /data]")
    }

    /// The manifest of a pod that has the volumes mounted and lets them be.
    pub(crate) fn idle(name: &str, claims: &[&str]) -> String {
        Self::pod(name, claims, "command: [sleep, '2147483647']")
    }

    /// The first claim's volume is mounted at `/data`, the others' at `/data1`, `/data2`, …
    fn pod(name: &str, claims: &[&str], work: &str) -> String {
        let number = |index: usize| if index == 0 { String::new() } else { index.to_string() };
        let list = |line: &dyn Fn(String, &str) -> String| -> String {
            let lines = claims.iter().enumerate().map(|(index, claim)| line(number(index), claim));
            lines.collect::<Vec<_>>().join(", ")
        };
        let mounts = list(&|at, _| format!("{{name: data{at}, mountPath: /data{at}}}"));
        let volumes = list(&|at, claim| {
            format!("{{name: data{at}, persistentVolumeClaim: {{claimName: {claim}}}}}")
        });
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  tolerations: [{{key: e2e/second, operator: Exists}}]
  containers:
  - name: recorder
    image: {RECORDER}
    imagePullPolicy: Never
    {work}
    volumeMounts: [{mounts}]
  volumes: [{volumes}]
"
        )
    }

    /// The application of that name in the namespace of `kubectl`.
    pub(crate) fn new(kubectl: &Kubectl, name: &str) -> Self {
        Self { kubectl: kubectl.clone(), name: name.to_owned() }
    }

    /// Waits until it has acknowledged its first records.
    pub(crate) fn until_writing(&self) -> Outcome {
        let pod = format!("pod/{}", self.name);
        self.kubectl.until_condition(&pod, "Ready", "True", Duration::from_secs(180))?;
        self.until_more(5)
    }

    /// Waits until it has acknowledged this many more records than now.
    pub(crate) fn until_more(&self, records: u64) -> Outcome {
        let what = format!("{records} more records to be acknowledged");
        let mut first = None;
        self.kubectl.until_logged(&self.name, &what, Duration::from_secs(120), |line| {
            let number = acknowledged(line)?;
            (number >= *first.get_or_insert(number) + records).then_some(())
        })
    }

    /// How far it is; the longest gap is counted anew from here.
    pub(crate) fn lap(&self) -> Outcome<Status> {
        self.ask(&["lap"])
    }

    /// Lets it finish its record and pause.
    pub(crate) fn quiesce(&self) -> Outcome<Status> {
        self.ask(&["quiesce"])
    }

    /// Has it write noise of `seed` at `offset` of the file `known`, through the filesystem, durably.
    pub(crate) fn pattern(&self, offset: u64, length: u64, seed: u64) -> Outcome<Status> {
        self.ask(&["pattern", "known", &offset.to_string(), &length.to_string(), &seed.to_string()])
    }

    /// Has it read every acknowledged record back; how many there were.
    pub(crate) fn verify(&self) -> Outcome<u64> {
        let answer: Value = self.ask(&["verify"])?;
        answer["verified"].as_u64().ok_or_else(|| format!("not an answer: {answer}").into())
    }

    /// The arguments of kubectl that ask it.
    pub(crate) fn asking<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["exec", &self.name, "--", "/recorder", "tell"], words].concat()
    }

    /// Which incarnation of the pod is running.
    pub(crate) fn incarnation(&self) -> Outcome<Incarnation> {
        let pod = self.kubectl.json(&["get", "pod", &self.name])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let container = &pod["status"]["containerStatuses"][0];
        let incarnation = Incarnation {
            pod: text(&pod["metadata"]["uid"]),
            container: text(&container["containerID"]),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
        };
        if container["state"]["running"].is_null() || incarnation.container.is_empty() {
            return Err(format!("the application does not run: {}", container["state"]).into());
        }
        Ok(incarnation)
    }

    /// The number of the last record that its log acknowledges: what an outsider relies upon.
    pub(crate) fn acknowledged_in_log(&self) -> Outcome<u64> {
        let log = self.kubectl.run(&["logs", &self.name, "--tail=1"])?;
        acknowledged(&log).ok_or_else(|| format!("the application's log ends with {log:?}").into())
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> Outcome<T> {
        let answer = self.kubectl.run(&self.asking(words))?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// The number of the record that a line of its log acknowledges.
fn acknowledged(line: &str) -> Option<u64> {
    line.trim().strip_prefix("acknowledged ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::acknowledged;

    #[test]
    fn an_acknowledgement_is_read() {
        assert_eq!(acknowledged("acknowledged 264 a486eab5cb94fb4d\n"), Some(264));
        assert_eq!(acknowledged("recorder: no space left"), None);
    }
}
