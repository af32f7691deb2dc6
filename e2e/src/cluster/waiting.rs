//! Waiting for objects: kubectl's watch, read until an object is as it should be.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    Kubectl,
    follow::{Followed, ahead, follow},
};
use crate::{failure::Outcome, wait};

impl Kubectl {
    /// Waits until the object, `resource/name`, exists and `check` finds what it looks for in it.
    ///
    /// `check` says what is still missing; that and the object's conditions are in the error when the deadline comes.
    pub(crate) fn until<T>(
        &self,
        object: &str,
        what: &str,
        deadline: Duration,
        check: impl FnMut(&Value) -> Result<T, String>,
    ) -> Outcome<T> {
        let (resource, name) =
            object.split_once('/').ok_or_else(|| format!("{object} is not resource/name"))?;
        let selector = format!("--field-selector=metadata.name={name}");
        self.until_any(&[resource, &selector], &format!("{object}: {what}"), deadline, check)
    }

    /// Waits until `check` finds what it looks for in one of the objects that `kubectl get` with these arguments lists.
    pub(crate) fn until_any<T>(
        &self,
        arguments: &[&str],
        what: &str,
        deadline: Duration,
        mut check: impl FnMut(&Value) -> Result<T, String>,
    ) -> Outcome<T> {
        let mut last = "nothing".to_owned();
        let end = ahead(deadline);
        while Instant::now() < end {
            let mut command = self.command();
            command.arg("get").args(arguments);
            command.args(["--watch", "--output-watch-events", "--output=json"]);
            let followed = follow(&mut command, end, |event: Value| {
                let object = &event["object"];
                let checked = if event["type"] == "DELETED" {
                    Err("it was deleted".to_owned())
                } else {
                    check(object)
                };
                checked.map_err(|missing| last = format!("{missing}{}", conditions(object))).ok()
            })?;
            match followed {
                Followed::Found(found) => return Ok(found),
                Followed::TimedOut => break,
                // The API server closed the watch, or does not know the resource yet.
                Followed::Ended(why) => {
                    last = format!("{last}\n{why}");
                    wait::pause();
                }
            }
        }
        let seconds = deadline.as_secs();
        Err(format!("waited {seconds} s in vain for {what}; last seen: {last}").into())
    }

    /// Waits until the object's condition has this status.
    pub(crate) fn until_condition(
        &self,
        object: &str,
        condition: &str,
        status: &str,
        deadline: Duration,
    ) -> Outcome<Value> {
        let what = format!("{condition}={status}");
        self.until(object, &what, deadline, |value| match self::condition(value, condition) {
            Some(found) if found["status"] == status => Ok(value.clone()),
            Some(_) => Err("another status".to_owned()),
            None => Err("no such condition yet".to_owned()),
        })
    }

    /// Waits until the object is gone.
    pub(crate) fn until_gone(&self, object: &str, deadline: Duration) -> Outcome {
        let timeout = format!("--timeout={}s", deadline.as_secs());
        self.run(&["wait", "--for=delete", object, &timeout]).map(drop)
    }

    /// Reads a pod's log from its last line on, as it grows, until `check` finds what it looks for in a line.
    pub(crate) fn until_logged<T>(
        &self,
        pod: &str,
        what: &str,
        deadline: Duration,
        mut check: impl FnMut(&str) -> Option<T>,
    ) -> Outcome<T> {
        let mut command = self.command();
        command.args(["logs", "--follow", "--tail=1", pod]);
        let mut last = String::new();
        let followed = follow(&mut command, ahead(deadline), |line: String| {
            let found = check(&line);
            last = line;
            found
        })?;
        let why = match followed {
            Followed::Found(found) => return Ok(found),
            Followed::TimedOut => format!("waited {} s", deadline.as_secs()),
            Followed::Ended(why) => format!("the log ended {why}"),
        };
        Err(format!("{pod}: {why}, in vain for {what}; the last line: {last}").into())
    }
}

/// A condition of an object by its type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)
}

/// What the object says of itself, for an error message.
fn conditions(object: &Value) -> String {
    let Some(all) = object["status"]["conditions"].as_array() else { return String::new() };
    let line = |it: &Value| {
        let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
        format!("\n  {}={} {}: {}", text("type"), text("status"), text("reason"), text("message"))
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_is_found_by_type() {
        let ready = json!({"type": "Ready", "status": "False", "reason": "X", "message": "m"});
        let object = json!({"status": {"conditions": [ready]}});
        assert_eq!(condition(&object, "Ready").unwrap()["status"], "False");
        assert!(condition(&object, "Failed").is_none());
        assert_eq!(conditions(&object), "\n  Ready=False X: m");
    }
}
