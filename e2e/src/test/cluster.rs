//! The cluster tier: the scenarios on a real Kubernetes.

use std::{
    any::Any,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Instant,
};

use super::{
    Filter,
    report::{Report, Verdict},
};
use crate::{
    cluster, failure,
    scenario::{self, Scenario},
};

/// Runs the scenarios, group by group, the lanes of a group at the same time.
pub(crate) fn run(filter: Filter, report: &Report) {
    for group in scenario::all() {
        thread::scope(|scope| {
            for lane in &group {
                let chosen = lane.iter().filter(|it| filter.takes(it.name));
                scope.spawn(move || chosen.for_each(|scenario| judge(scenario, report)));
            }
        });
    }
}

/// Whether any scenario is chosen.
pub(crate) fn has(filter: Filter) -> bool {
    scenario::all().iter().flatten().flatten().any(|it| filter.takes(it.name))
}

fn judge(scenario: &Scenario, report: &Report) {
    let start = Instant::now();
    let ending = attempt(scenario);
    let name = format!("cluster {}", scenario.name);
    let verdict = if ending.is_ok() { Verdict::Passed } else { Verdict::Failed };
    if let Err(mut why) = ending {
        if let Some(path) = cluster::keep_diagnosis(scenario.name) {
            let _ = write!(why, "\nwhat the cluster says: {}", path.display());
        }
        report.explain(&name, why);
    }
    report.test(&name, verdict, Some(start.elapsed()));
}

/// A scenario that panics has failed; the others run all the same.
fn attempt(scenario: &Scenario) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(scenario.run)) {
        Ok(outcome) => outcome.map_err(|error| failure::explain(error.as_ref())),
        Err(panic) => Err(message(panic.as_ref())),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_with_its_message() {
        let scenario = Scenario { name: "x", run: || panic!("at step {}", 3) };
        assert_eq!(attempt(&scenario).unwrap_err(), "panicked: at step 3");
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let scenario = Scenario { name: "x", run: || Err("no such pod".into()) };
        assert_eq!(attempt(&scenario).unwrap_err(), "error: no such pod");
    }
}
