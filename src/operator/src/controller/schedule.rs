//! When a schedule fires: five-field cron in a time zone, as pure functions of the time.

use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use eratrack_api::{Reason, Snapshots};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A schedule that was read and has a future.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
    starting_deadline: SignedDuration,
}

/// Why a schedule cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// The time zone is not in the database that was compiled in.
    #[error(
        "spec.snapshots.timeZone {zone:?} is not known; give an IANA name such as Europe/Berlin"
    )]
    TimeZoneUnknown {
        /// As written.
        zone: String,
    },
    /// The API server's rules let it pass, the parser does not.
    #[error(
        "spec.snapshots.schedule {schedule:?} cannot be read; give five fields such as '*/15 * * * *'"
    )]
    Unreadable {
        /// As written.
        schedule: String,
        /// The parser's words.
        source: CronError,
    },
    /// No time satisfies it.
    #[error(
        "spec.snapshots.schedule {schedule:?} never fires; correct the day of the month or the month"
    )]
    NeverFires {
        /// As written.
        schedule: String,
    },
}

impl ScheduleError {
    /// The reason a condition gives for it.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TimeZoneUnknown { .. } => Reason::TimeZoneUnknown,
            Self::Unreadable { .. } | Self::NeverFires { .. } => Reason::ScheduleNeverFires,
        }
    }
}

/// What a schedule asks for at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Everything that was due is done.
    Nothing,
    /// The snapshots of this time.
    Fire(Timestamp),
    /// The snapshots of this time were due, but it is later than the starting deadline allows.
    Missed(Timestamp),
}

impl Schedule {
    /// Reads the schedule, and makes sure that it fires at some time after `now`.
    pub(crate) fn read(spec: &Snapshots, now: Timestamp) -> Result<Self, ScheduleError> {
        let zone = TimeZone::get(&spec.time_zone)
            .ok()
            .filter(|zone| !zone.is_unknown())
            .ok_or_else(|| ScheduleError::TimeZoneUnknown { zone: spec.time_zone.clone() })?;
        let cron = Cron::from_str(&spec.schedule).map_err(|source| ScheduleError::Unreadable {
            schedule: spec.schedule.clone(),
            source,
        })?;
        let starting_deadline = SignedDuration::from_secs(spec.starting_deadline_seconds.into());
        let schedule = Self { cron, zone, starting_deadline };
        match schedule.next_after(now) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::NeverFires { schedule: spec.schedule.clone() }),
        }
    }

    /// The first time after `now` at which it fires.
    pub(crate) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&self.local(now), false).ok().map(|at| at.timestamp())
    }

    /// What is due at `now`, given that everything up to `done` was taken care of.
    ///
    /// Of several times that passed, only the newest counts: one boundary now covers them all.
    pub(crate) fn due(&self, done: Timestamp, now: Timestamp) -> Due {
        let newest = self.cron.find_previous_occurrence(&self.local(now), true);
        match newest.ok().map(|at| at.timestamp()) {
            Some(at) if at <= done => Due::Nothing,
            Some(at) if now.duration_since(at) <= self.starting_deadline => Due::Fire(at),
            Some(at) => Due::Missed(at),
            None => Due::Nothing,
        }
    }

    /// Whether it fires at exactly this time.
    pub(crate) fn fires_at(&self, at: Timestamp) -> bool {
        let before = at.checked_sub(SignedDuration::from_nanos(1));
        before.is_ok_and(|before| self.next_after(before) == Some(at))
    }

    /// The first moment at which it is too late for the snapshots of this time.
    pub(crate) fn end_of(&self, at: Timestamp) -> Option<Timestamp> {
        at.checked_add(self.starting_deadline + SignedDuration::from_nanos(1)).ok()
    }

    fn local(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
}

/// A time's UTC minute as names of snapshots carry it: `202611222115`.
pub(crate) fn utc_minute(at: Timestamp) -> String {
    at.strftime("%Y%m%d%H%M").to_string()
}

#[cfg(test)]
mod tests {
    use eratrack_api::Keep;
    use proptest::prelude::*;

    use super::*;

    fn spec(schedule: &str, zone: &str) -> Snapshots {
        Snapshots {
            schedule: schedule.into(),
            time_zone: zone.into(),
            suspend: false,
            starting_deadline_seconds: 300,
            keep: Keep::default(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn read(schedule: &str, zone: &str) -> Schedule {
        Schedule::read(&spec(schedule, zone), at("2026-01-01T00:00:00Z")).expect("a schedule")
    }

    fn times(schedule: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = read(schedule, zone);
        let next = |at: &Timestamp| schedule.next_after(*at);
        std::iter::successors(next(&at(from)), next).take(count).map(|t| t.to_string()).collect()
    }

    #[test]
    fn five_fields() {
        let table = [
            ("*/15 * * * *", "2026-11-22T21:50:58Z", "2026-11-22T22:00:00Z"),
            ("0 0 * * *", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("30 6 29 2 *", "2026-11-22T00:00:00Z", "2028-02-29T06:30:00Z"),
            ("0 12 * * 7", "2026-11-22T21:00:00Z", "2026-11-29T12:00:00Z"),
            ("0 12 * * 0", "2026-11-22T21:00:00Z", "2026-11-29T12:00:00Z"),
            // Both days restricted: either will do, as in every crontab.
            ("0 0 13 * 5", "2026-11-22T00:00:00Z", "2026-11-27T00:00:00Z"),
        ];
        for (schedule, from, expected) in table {
            assert_eq!(times(schedule, "Etc/UTC", from, 1), [expected], "{schedule}");
        }
    }

    #[test]
    fn clocks_going_forward_lose_no_daily_run() {
        // In Berlin 02:00–03:00 did not exist on 2026-03-29.
        let days = times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
        assert_eq!(days[0], "2026-03-28T01:30:00Z");
        assert_eq!(days[1], "2026-03-29T01:00:00Z", "03:00 summer time, the end of the gap");
        assert_eq!(days[2], "2026-03-30T00:30:00Z");
    }

    #[test]
    fn clocks_going_back_repeat_no_daily_run() {
        // In Berlin 02:00–03:00 came twice on 2026-10-25.
        let days = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(days, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn every_quarter_of_an_hour_goes_on_through_both_changes() {
        for from in ["2026-03-29T00:31:00Z", "2026-10-24T23:31:00Z"] {
            let quarters = times("*/15 * * * *", "Europe/Berlin", from, 12);
            let gaps: Vec<_> = quarters
                .windows(2)
                .map(|pair| at(&pair[1]).duration_since(at(&pair[0])).as_mins())
                .collect();
            assert_eq!(gaps, [15; 11], "{quarters:?}");
        }
    }

    #[test]
    fn only_the_newest_time_counts_and_only_within_the_deadline() {
        let schedule = read("*/10 * * * *", "Etc/UTC");
        let done = at("2026-11-22T10:00:00Z");
        let table = [
            ("2026-11-22T10:09:59Z", Due::Nothing),
            ("2026-11-22T10:10:00Z", Due::Fire(at("2026-11-22T10:10:00Z"))),
            ("2026-11-22T10:15:00Z", Due::Fire(at("2026-11-22T10:10:00Z"))),
            ("2026-11-22T10:15:01Z", Due::Missed(at("2026-11-22T10:10:00Z"))),
            ("2026-11-22T11:31:00Z", Due::Fire(at("2026-11-22T11:30:00Z"))),
        ];
        for (now, expected) in table {
            assert_eq!(schedule.due(done, at(now)), expected, "{now}");
        }
        assert_eq!(
            schedule.due(at("2026-11-22T10:10:00Z"), at("2026-11-22T10:12:00Z")),
            Due::Nothing
        );
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        let now = at("2026-11-22T00:00:00Z");
        let table = [
            ("0 0 31 2 *", "Etc/UTC", Reason::ScheduleNeverFires, "31 2"),
            ("0 0 30,31 2 *", "Etc/UTC", Reason::ScheduleNeverFires, "30,31"),
            ("0 0 * * *", "Europe/Atlantis", Reason::TimeZoneUnknown, "Atlantis"),
            ("0 0 * * *", "Etc/Unknown", Reason::TimeZoneUnknown, "Etc/Unknown"),
            ("0 0 9-3 * *", "Etc/UTC", Reason::ScheduleNeverFires, "9-3"),
        ];
        for (schedule, zone, reason, word) in table {
            let error = Schedule::read(&spec(schedule, zone), now).expect_err(schedule);
            assert_eq!(error.reason(), reason, "{schedule} {zone}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn names_carry_the_utc_minute() {
        assert_eq!(utc_minute(at("2026-11-22T21:15:00Z")), "202611222115");
    }

    proptest! {
        #[test]
        fn looking_back_from_a_time_finds_that_time(
            second in 1_600_000_000_i64..2_000_000_000,
            schedule in prop::sample::select(vec!["*/15 * * * *", "30 2 * * *", "5 4 1 * *", "0 */3 * * 1-5", "59 23 31 12 *"]),
            zone in prop::sample::select(vec!["Etc/UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ) {
            let schedule = read(schedule, zone);
            let from = Timestamp::from_second(second).expect("in range");
            let next = schedule.next_after(from).expect("it fires");
            prop_assert!(next > from);
            prop_assert_eq!(schedule.due(from, next), Due::Fire(next));
            prop_assert_eq!(schedule.due(next, next), Due::Nothing);
            prop_assert!(schedule.fires_at(next));
            prop_assert!(next.duration_since(from) < SignedDuration::from_secs(2) || !schedule.fires_at(from + SignedDuration::from_millis(1)));
        }
    }
}
