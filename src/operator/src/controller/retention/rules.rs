//! What a user wants kept, by the calendar: restic's `forget`, as a pure function of the boundaries' times.
//!
//! - Each rule looks at all snapshots, whatever the others keep; what any of them keeps stays. (Proxmox's prune lets a rule
//!   pass over what an earlier one kept. More of one rule can then mean less of another, and what is kept depends on the
//!   order of the rules.)
//! - A rule counts the periods that have a snapshot, the latest first, and keeps the newest of each. Days without one use
//!   nothing up.
//! - While a rule has some left, it keeps the very oldest too: the history gets as long as it may.
//! - `within` reaches back from the newest snapshot, not from now: where nothing new is made, nothing goes. One from the
//!   future, made while a clock was wrong, is not the newest here.
//! - Weeks are those of ISO 8601. The hour that comes twice when clocks go back is one hour, as in both.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// How many of the newest stay when no rule is given.
const LAST: u32 = 24;

/// What a user wants kept. 0 keeps none.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) last: u32,
    pub(crate) hourly: u32,
    pub(crate) daily: u32,
    pub(crate) weekly: u32,
    pub(crate) monthly: u32,
    pub(crate) within: Option<Span>,
    pub(crate) zone: TimeZone,
}

/// A period's name: of two times in one period it is the same.
type Period = [i16; 4];

/// How many periods, and which one a time is of.
type Rule = (u32, fn(&Zoned) -> Period);

impl Rules {
    /// Reads them; nothing if `within` cannot be read, which the API server's rules do not let pass.
    pub(crate) fn read(keep: &eratrack_api::Keep, zone: TimeZone) -> Option<Self> {
        let eratrack_api::Keep { last, hourly, daily, weekly, monthly, within } = keep;
        let counts = [last, hourly, daily, weekly, monthly].map(|it| it.unwrap_or(0));
        let none = keep == &eratrack_api::Keep::default();
        let [last, hourly, daily, weekly, monthly] = counts;
        let within = match within.as_deref() {
            Some(text) => Some(span(text)?),
            None => None,
        };
        let last = if none { LAST } else { last };
        Some(Self { last, hourly, daily, weekly, monthly, within, zone })
    }

    /// Of boundaries, the newest first, whether each is kept.
    pub(crate) fn kept(&self, newest_first: &[Timestamp], now: Timestamp) -> Vec<bool> {
        let local: Vec<_> = newest_first.iter().map(|at| at.to_zoned(self.zone.clone())).collect();
        let since = self.within.map(|within| since(&local, within, now));
        let mut kept: Vec<bool> = newest_first
            .iter()
            .map(|at| since.is_some_and(|since| since.is_none_or(|since| *at > since)))
            .collect();
        kept.iter_mut().take(count(self.last)).for_each(|it| *it = true);
        let rules: [Rule; 4] = [
            (self.hourly, |at| [at.year(), at.month().into(), at.day().into(), at.hour().into()]),
            (self.daily, |at| [at.year(), at.month().into(), at.day().into(), 0]),
            (self.weekly, week),
            (self.monthly, |at| [at.year(), at.month().into(), 0, 0]),
        ];
        for (count, period) in rules {
            keep_newest(&mut kept, &local, count, period);
        }
        kept
    }
}

/// Marks the newest of each of so many periods, and the oldest of all if there are not so many.
fn keep_newest(kept: &mut [bool], local: &[Zoned], count: u32, period: fn(&Zoned) -> Period) {
    let mut seen = BTreeSet::new();
    let oldest = local.len().saturating_sub(1);
    for (index, (kept, at)) in kept.iter_mut().zip(local).enumerate() {
        if seen.len() >= self::count(count) {
            break;
        }
        *kept |= seen.insert(period(at)) || index == oldest;
    }
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn week(at: &Zoned) -> Period {
    let week = at.date().iso_week_date();
    [week.year(), week.week().into(), 0, 0]
}

/// The time after which everything stays; none if that is everything.
fn since(local: &[Zoned], within: Span, now: Timestamp) -> Option<Timestamp> {
    let latest = local.iter().filter(|at| at.timestamp() <= now).max()?;
    latest.checked_sub(within).ok().map(|at| at.timestamp())
}

/// `1y6m14d12h`: each unit once at most, in this order.
fn span(text: &str) -> Option<Span> {
    let mut rest = text;
    let mut amount = |unit: char| match rest.split_once(unit) {
        Some((digits, after)) if digits.bytes().all(|it| it.is_ascii_digit()) => {
            rest = after;
            digits.parse::<i64>().ok()
        }
        Some(_) => None,
        None => Some(0),
    };
    let (years, months, days, hours) = (amount('y')?, amount('m')?, amount('d')?, amount('h')?);
    let span = Span::new().try_years(years).and_then(|it| it.try_months(months));
    let span = span.and_then(|it| it.try_days(days)).and_then(|it| it.try_hours(hours));
    span.ok().filter(|_| rest.is_empty() && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_it_is_written() {
        let some = |text| span(text).map(|it| it.to_string());
        assert_eq!(some("1y6m14d12h").as_deref(), Some("P1Y6M14DT12H"));
        assert_eq!(some("36h").as_deref(), Some("PT36H"));
        for text in ["", "d", "5", "5w", "5h3d", "3d3d", "-1d"] {
            assert_eq!(some(text), None, "{text:?}");
        }
    }

    #[test]
    fn without_any_rule_the_newest_24_stay_and_with_one_only_what_it_says() {
        let read = |keep| Rules::read(&keep, TimeZone::UTC).map(|it| (it.last, it.daily));
        let none = eratrack_api::Keep::default();
        assert_eq!(read(none.clone()), Some((24, 0)));
        assert_eq!(read(eratrack_api::Keep { daily: Some(7), ..none.clone() }), Some((0, 7)));
        assert_eq!(read(eratrack_api::Keep { within: Some("x".into()), ..none }), None);
    }
}
