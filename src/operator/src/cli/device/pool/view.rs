//! Pools, as people and scripts see them: docs/formats.md.

use std::path::PathBuf;

use eratrack_dm::{AreaState, Finding, PoolArea, PoolState};
use eratrack_model::pool::Copy;
use eratrack_model::units::DevNo;
use serde::Serialize;

use crate::cli::device::output::{Show, size};

/// A pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolView {
    device: PathBuf,
    device_number: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    details: Option<Details>,
}

/// How a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    /// As it should be.
    Sound,
    /// It can be used; `check` has something to say.
    Findings,
    /// Its table cannot be used.
    Unusable,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    pool: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    disk_bytes: u64,
    room_bytes: u64,
    used_bytes: u64,
    areas: usize,
    changes: u64,
}

impl PoolView {
    pub(super) fn of(pool: &PoolState) -> Self {
        let state = if pool.findings.is_empty() { State::Sound } else { State::Findings };
        let details = Details {
            pool: pool.table.pool().to_string(),
            serial: pool.identity.clone(),
            disk_bytes: pool.disk.0,
            room_bytes: pool.table.room().0,
            used_bytes: pool.table.used().0,
            areas: pool.areas.len(),
            changes: pool.table.sequence(),
        };
        Self { state, details: Some(details), ..Self::bare(pool.device, pool.path.clone()) }
    }

    /// One whose table cannot be used.
    pub(super) fn broken(device: DevNo, path: PathBuf, why: String) -> Self {
        Self { state: State::Unusable, why: Some(why), ..Self::bare(device, path) }
    }

    fn bare(device: DevNo, path: PathBuf) -> Self {
        let device_number = device.to_string();
        Self { device: path, device_number, state: State::Sound, why: None, details: None }
    }
}

/// One in full: a line a fact.
impl Show for PoolView {
    fn names(&self) -> Vec<String> {
        vec![self.device.display().to_string()]
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let mut rows = Vec::new();
        let mut fact = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        fact("device", format!("{} ({})", self.device.display(), self.device_number));
        fact("state", format!("{:?}", self.state));
        self.why.iter().for_each(|why| fact("why", why.clone()));
        if let Some(it) = &self.details {
            fact("pool", it.pool.clone());
            it.serial.iter().for_each(|serial| fact("serial", serial.clone()));
            fact("size", size(it.disk_bytes));
            fact("room for areas", size(it.room_bytes));
            fact("used", format!("{} by {} areas", size(it.used_bytes), it.areas));
        }
        (vec!["FACT", "VALUE"], rows)
    }
}

/// All of them.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct PoolViews(pub(super) Vec<PoolView>);

impl Show for PoolViews {
    fn names(&self) -> Vec<String> {
        self.0.iter().flat_map(PoolView::names).collect()
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let head = vec!["DEVICE", "POOL", "ROOM", "USED", "AREAS", "STATE", "WHY"];
        let row = |view: &PoolView| {
            let details = |of: fn(&Details) -> String| view.details.as_ref().map_or("-".into(), of);
            vec![
                view.device.display().to_string(),
                details(|it| it.pool.clone()),
                details(|it| size(it.room_bytes)),
                details(|it| size(it.used_bytes)),
                details(|it| it.areas.to_string()),
                format!("{:?}", view.state),
                view.why.clone().unwrap_or_default(),
            ]
        };
        (head, self.0.iter().map(row).collect())
    }
}

/// An area of a pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AreaView {
    stack: String,
    start: u64,
    bytes: u64,
    state: &'static str,
}

/// All of a pool's areas, in the order of the disk.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct AreaViews(Vec<AreaView>);

impl AreaViews {
    pub(super) fn of(pool: &PoolState) -> Self {
        let view = |PoolArea { area, state }: &PoolArea| AreaView {
            stack: area.stack.to_string(),
            start: area.start.0,
            bytes: area.length.0,
            state: match state {
                AreaState::InUse => "InUse",
                AreaState::Recorded => "Recorded",
                AreaState::Unused => "Unused",
            },
        };
        Self(pool.areas.iter().map(view).collect())
    }
}

impl Show for AreaViews {
    fn names(&self) -> Vec<String> {
        self.0.iter().map(|area| area.stack.clone()).collect()
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let row = |area: &AreaView| {
            vec![area.stack.clone(), size(area.start), size(area.bytes), area.state.to_owned()]
        };
        (vec!["STACK", "START", "SIZE", "STATE"], self.0.iter().map(row).collect())
    }
}

/// What `check` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FindingViews {
    clean: bool,
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingView {
    severity: &'static str,
    problem: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    message: String,
}

impl FindingViews {
    pub(super) fn of(pool: &PoolState) -> Self {
        let findings: Vec<_> = pool.findings.iter().map(FindingView::of).collect();
        Self { clean: findings.iter().all(|finding| finding.severity == "warning"), findings }
    }

    /// How many of them are damage.
    pub(super) fn damage(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == "error").count()
    }
}

impl FindingView {
    fn of(finding: &Finding) -> Self {
        let severity = if finding.is_damage() { "error" } else { "warning" };
        let (problem, stack, message) = match finding {
            Finding::Stray { stack } => {
                let message = format!(
                    "a device of stack {stack} maps what is not its area: detach that stack before anything else"
                );
                ("stray", Some(stack), message)
            }
            Finding::Copy { copy, why } => {
                let which = match copy {
                    Copy::First => "first",
                    Copy::Second => "second",
                };
                ("copy", None, format!("the {which} copy: {why}; the next change writes it anew"))
            }
            Finding::Unused { stack } => {
                let message = format!(
                    "nobody on this machine needs the area of stack {stack}: free it with `device pool free`"
                );
                ("unused", Some(stack), message)
            }
            Finding::Grown { more } => {
                let message = format!("the disk has {more} more: use them with `device pool grow`");
                ("grown", None, message)
            }
        };
        Self { severity, problem, stack: stack.map(ToString::to_string), message }
    }
}

impl Show for FindingViews {
    fn names(&self) -> Vec<String> {
        self.findings.iter().map(|finding| finding.problem.to_owned()).collect()
    }

    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let row = |finding: &FindingView| {
            let FindingView { severity, problem, stack: _, message } = finding;
            vec![(*severity).to_owned(), (*problem).to_owned(), message.clone()]
        };
        (vec!["SEVERITY", "PROBLEM", "MESSAGE"], self.findings.iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::device::output::{self, Format};
    use eratrack_model::names::StackId;
    use eratrack_model::pool::{Table, TableError};
    use eratrack_model::units::Bytes;

    fn pool() -> PoolState {
        let id = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap();
        let stack: StackId = "data".parse().unwrap();
        let table = Table::new(id, Bytes(64 << 20)).unwrap();
        let (table, area) = table.allocate(&stack, Bytes(3 << 20), &[]).unwrap();
        PoolState {
            device: DevNo { major: 8, minor: 16 },
            path: "/dev/sdb".into(),
            identity: Some("serial-1".to_owned()),
            disk: Bytes(64 << 20),
            areas: vec![PoolArea { area, state: AreaState::Unused }],
            findings: vec![
                Finding::Copy { copy: Copy::Second, why: TableError::Checksum },
                Finding::Unused { stack },
            ],
            table,
        }
    }

    fn printed(format: Format, answer: &impl Show) -> String {
        let mut out = Vec::new();
        output::print(&mut out, format, answer).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pools_are_listed_in_each_format() {
        let broken =
            PoolView::broken(DevNo { major: 8, minor: 32 }, "/dev/sdc".into(), "torn".to_owned());
        let views = PoolViews(vec![PoolView::of(&pool()), broken]);
        assert_eq!(printed(Format::Name, &views), "/dev/sdb\n/dev/sdc\n");
        let table = printed(Format::Table, &views);
        let line =
            "/dev/sdb   0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11   62Mi   3Mi    1       Findings";
        assert!(table.contains(line), "{table}");
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, &views)).unwrap();
        assert_eq!(json[0]["usedBytes"], 3 << 20);
        assert_eq!((&json[0]["serial"], &json[0]["areas"]), (&"serial-1".into(), &1.into()));
        assert_eq!((&json[1]["state"], &json[1]["why"]), (&"Unusable".into(), &"torn".into()));
    }

    #[test]
    fn areas_are_listed_in_each_format() {
        let areas = AreaViews::of(&pool());
        assert_eq!(printed(Format::Name, &areas), "data\n");
        let json = r#"[{"stack":"data","start":1048576,"bytes":3145728,"state":"Unused"}]"#;
        assert_eq!(printed(Format::Json, &areas).trim(), json);
        let table = "STACK   START   SIZE   STATE\ndata    1Mi     3Mi    Unused\n";
        assert_eq!(printed(Format::Table, &areas), table);
    }

    #[test]
    fn findings_are_told_apart_by_what_they_mean() {
        let findings = FindingViews::of(&pool());
        assert_eq!((findings.clean, findings.damage()), (false, 1));
        let table = printed(Format::Table, &findings);
        assert!(table.contains("error      copy      the second copy: "), "{table}");
        assert!(table.contains("warning    unused"), "{table}");
        let sound = PoolState { findings: Vec::new(), ..pool() };
        let json = printed(Format::Json, &FindingViews::of(&sound));
        assert_eq!(json.trim(), r#"{"clean":true,"findings":[]}"#);
    }
}
