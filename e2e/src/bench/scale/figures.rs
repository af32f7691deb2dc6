//! What was counted in some minutes, as a table. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{cluster::Requests, failure::Outcome};

/// The most requests for each snapshot.
const GOAL_REQUESTS: f64 = 12.0;

/// What etcd says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Store {
    /// The size of its file, and how much of that is in use: history that is not compacted yet counts.
    pub(super) total: f64,
    pub(super) in_use: f64,
    /// How often something was written.
    pub(super) puts: f64,
    /// What was written to its log.
    pub(super) logged: f64,
}

impl Store {
    /// From etcd's own metrics.
    pub(super) fn read(metrics: &str) -> Outcome<Self> {
        let value = |name: &str| -> Outcome<f64> {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.ok_or_else(|| format!("etcd does not tell {name}"))?.parse()?)
        };
        Ok(Self {
            total: value("etcd_mvcc_db_total_size_in_bytes")?,
            in_use: value("etcd_mvcc_db_total_size_in_use_in_bytes")?,
            puts: value("etcd_mvcc_put_total")?,
            logged: value("etcd_disk_wal_write_bytes_total")?,
        })
    }
}

/// What was counted.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) minutes: f64,
    pub(super) requests: Requests,
    pub(super) before: Store,
    pub(super) after: Store,
    /// Processor time of the controller, in seconds.
    pub(super) controller_seconds: f64,
    /// Scheduled times that passed without a snapshot of some claim.
    pub(super) missed: f64,
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn float(count: usize) -> f64 {
    count as f64
}

impl Window {
    /// How many snapshots were made.
    pub(super) fn snapshots(&self) -> f64 {
        let made = |account: &str, verb: &str, resource: &str| {
            account == "eratrack-controller" && verb == "create" && resource == "erasnapshots"
        };
        let counts = self.requests.iter();
        counts
            .filter(|(it, _)| made(&it.account, &it.verb, &it.resource))
            .map(|(_, n)| float(*n))
            .sum()
    }

    /// Requests for each snapshot, but for what whoever waits asks anyway.
    pub(super) fn for_each(&self) -> f64 {
        let asked = self.requests.iter().filter(|(request, _)| !request.rests());
        asked.map(|(_, count)| float(*count)).sum::<f64>() / self.snapshots()
    }

    pub(super) fn table(&self, title: &str) -> Outcome<String> {
        let snapshots = self.snapshots();
        let mut text = format!(
            "{title}: {snapshots:.0} snapshots in {:.0} minutes, {:.0} times missed\n\
             requests for each snapshot\n",
            self.minutes, self.missed
        );
        let mut resting: BTreeMap<&str, f64> = BTreeMap::new();
        for (request, count) in &self.requests {
            if request.rests() {
                *resting.entry(&request.account).or_default() += float(*count);
                continue;
            }
            let each = float(*count) / snapshots;
            writeln!(
                text,
                "  {:26} {:7} {:24} {each:6.2}",
                request.account, request.verb, request.resource
            )?;
        }
        writeln!(text, "  {:59} {:6.2}  goal {GOAL_REQUESTS}", "all", self.for_each())?;
        for (account, count) in resting {
            let minute = count / self.minutes;
            writeln!(text, "  watches and Lease a minute, {account:31} {minute:6.1}")?;
        }
        let each = |difference: f64| difference / snapshots;
        writeln!(
            text,
            "etcd for each snapshot: {:.1} writes, {:.1} KiB of log; its file grew from {:.0} to {:.0} MiB, {:.0} to {:.0} in use",
            each(self.after.puts - self.before.puts),
            each(self.after.logged - self.before.logged) / 1024.0,
            mebibytes(self.before.total),
            mebibytes(self.after.total),
            mebibytes(self.before.in_use),
            mebibytes(self.after.in_use),
        )?;
        let share = 100.0 * self.controller_seconds / (60.0 * self.minutes);
        writeln!(text, "controller: {share:.0} % of a processor")?;
        Ok(text)
    }
}

pub(super) fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// The bytes that etcd keeps of one object of each kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    pub(super) snapshot: f64,
    pub(super) slice: f64,
    pub(super) event: f64,
}

/// What so many claims take once all that is kept is there: with a snapshot a minute, and so many events an hour.
pub(super) fn kept(
    claims: usize,
    snapshots: usize,
    sizes: Sizes,
    events_per_snapshot: f64,
) -> String {
    let claims = float(claims);
    let lists = claims * float(snapshots) * (sizes.snapshot + sizes.slice);
    let events = claims * 60.0 * events_per_snapshot * sizes.event;
    format!(
        "one EraSnapshot takes {:.1} KiB, its short list {:.1}, an Event {:.1}\n\
         {snapshots} of each claim are kept: {:.0} MiB; Events of an hour: {:.0} MiB; more of neither after that\n",
        sizes.snapshot / 1024.0,
        sizes.slice / 1024.0,
        sizes.event / 1024.0,
        mebibytes(lists),
        mebibytes(events),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Request;

    fn window() -> Window {
        let request = |account: &str, verb: &str, resource: &str| Request {
            account: account.into(),
            verb: verb.into(),
            resource: resource.into(),
        };
        let requests = [
            (request("eratrack-controller", "create", "erasnapshots"), 20),
            (request("eratrack-agent", "patch", "erasnapshots/status"), 40),
            (request("generic-garbage-collector", "delete", "changedblockslices"), 20),
            (request("eratrack-controller", "update", "leases"), 30),
        ];
        let store = |puts, logged| Store { total: 2e6, in_use: 1e6, puts, logged };
        Window {
            minutes: 2.0,
            requests: Requests::from(requests),
            before: store(100.0, 0.0),
            after: store(200.0, 20_480.0),
            controller_seconds: 6.0,
            missed: 0.0,
        }
    }

    #[test]
    fn requests_are_counted_for_each_snapshot_without_what_rests() {
        let window = window();
        assert!((window.for_each() - 4.0).abs() < 1e-9);
        let table = window.table("20 claims").unwrap();
        assert!(
            table.starts_with("20 claims: 20 snapshots in 2 minutes, 0 times missed\n"),
            "{table}"
        );
        assert!(table.contains("4.00  goal 12\n"), "{table}");
        assert!(table.contains("etcd for each snapshot: 5.0 writes, 1.0 KiB of log"), "{table}");
        assert!(table.contains("15.0\n") && table.contains("controller: 5 % of"), "{table}");
    }

    #[test]
    fn etcd_tells_all_of_it_or_it_is_an_error() {
        let metrics = "etcd_mvcc_db_total_size_in_bytes 2e+06\netcd_mvcc_db_total_size_in_use_in_bytes 1e+06\n\
                       etcd_mvcc_put_total 100\netcd_disk_wal_write_bytes_total 0\n";
        assert_eq!(Store::read(metrics).unwrap(), window().before);
        assert!(Store::read("etcd_mvcc_put_total 100\n").is_err());
    }

    #[test]
    fn what_is_kept_is_added_up() {
        let sizes = Sizes { snapshot: 3072.0, slice: 1024.0, event: 1024.0 };
        let text = kept(1024, 24, sizes, 1.0);
        assert!(text.contains("are kept: 96 MiB; Events of an hour: 60 MiB;"), "{text}");
    }
}
