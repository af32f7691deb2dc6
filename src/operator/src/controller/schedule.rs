//! When a schedule fires: five-field cron in a time zone, as pure functions of the time.

use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use eratrack_api::{Reason, Snapshots};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use sha2::{Digest, Sha256};

/// So many times are counted one by one; what passed before is not counted.
const COUNTED: usize = 10_000;

/// A schedule that was read and has a future.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
    starting_deadline: SignedDuration,
    jitter: SignedDuration,
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
        let zone = time_zone(spec)?;
        let cron = Cron::from_str(&spec.schedule).map_err(|source| ScheduleError::Unreadable {
            schedule: spec.schedule.clone(),
            source,
        })?;
        let starting_deadline = SignedDuration::from_secs(spec.starting_deadline_seconds.into());
        let jitter = SignedDuration::from_secs(spec.jitter_seconds.into());
        let schedule = Self { cron, zone, starting_deadline, jitter };
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
            Some(at) if now.duration_since(at) <= self.spread(at) + self.starting_deadline => {
                Due::Fire(at)
            }
            Some(at) => Due::Missed(at),
            None => Due::Nothing,
        }
    }

    /// Whether it fires at exactly this time.
    pub(crate) fn fires_at(&self, at: Timestamp) -> bool {
        let before = at.checked_sub(SignedDuration::from_nanos(1));
        before.is_ok_and(|before| self.next_after(before) == Some(at))
    }

    /// When the snapshot of this time starts: a moment between it and the next time, within the jitter. Of one object, `of`
    /// as uid, and one claim it is always the same, whoever asks.
    pub(crate) fn start(&self, at: Timestamp, of: &str, claim: &str) -> Timestamp {
        let mut digest = Sha256::new();
        digest.update(of.as_bytes());
        digest.update(b"\n");
        digest.update(claim.as_bytes());
        let share =
            digest.finalize()[..4].iter().fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
        let offset = (share * (self.spread(at).as_secs() + 1)) >> 32;
        at.checked_add(SignedDuration::from_secs(offset)).unwrap_or(at)
    }

    /// How long after this time the last of its snapshots starts: they are over before the next time.
    fn spread(&self, at: Timestamp) -> SignedDuration {
        let next = self.next_after(at).unwrap_or(Timestamp::MAX);
        let room = next.duration_since(at) - SignedDuration::from_secs(1);
        self.jitter.min(room).max(SignedDuration::ZERO)
    }

    /// The first moment at which it is too late for a snapshot that should have started then.
    pub(crate) fn end_of(&self, start: Timestamp) -> Option<Timestamp> {
        start.checked_add(self.starting_deadline + SignedDuration::from_nanos(1)).ok()
    }

    /// The times from the one to the other, without that: the first ten thousand.
    pub(crate) fn times(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + '_ {
        let before = from.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(from);
        let times = std::iter::successors(self.next_after(before), |at| self.next_after(*at));
        times.take_while(move |at| *at < to).take(COUNTED)
    }

    fn local(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
}

/// The time zone of a schedule.
pub(crate) fn time_zone(spec: &Snapshots) -> Result<TimeZone, ScheduleError> {
    let zone = TimeZone::get(&spec.time_zone).ok().filter(|zone| !zone.is_unknown());
    zone.ok_or_else(|| ScheduleError::TimeZoneUnknown { zone: spec.time_zone.clone() })
}

/// A time's UTC minute as names of snapshots carry it: `202611222115`.
pub(crate) fn utc_minute(at: Timestamp) -> String {
    at.strftime("%Y%m%d%H%M").to_string()
}

#[cfg(test)]
mod tests;
