//! By tables, by an oracle that goes through the calendar the slow way, and over a year.

#![allow(clippy::needless_pass_by_value)] // rules are made where they are used

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span};
use proptest::prelude::*;

use super::*;

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn complete(name: &str, at: i64) -> Item<'_> {
    let (created, outcome) = (second(at), Outcome::Complete(second(at)));
    Item { name, created, outcome, chain: None, bytes: 0 }
}

fn other(name: &str, at: i64, outcome: Outcome) -> Item<'_> {
    Item { outcome, ..complete(name, at) }
}

fn none() -> Rules {
    let (last, hourly, daily, weekly, monthly) = (0, 0, 0, 0, 0);
    Rules { last, hourly, daily, weekly, monthly, within: None, zone: TimeZone::UTC }
}

fn keep(rules: Rules) -> Keep {
    Keep { rules, most: 128, bytes: u64::MAX }
}

fn last(last: u32) -> Keep {
    keep(Rules { last, ..none() })
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("a zone")
}

const NOW: Timestamp = Timestamp::MAX;

#[test]
fn the_oldest_go_first() {
    let items = [complete("c", 3), complete("a", 1), complete("b", 2)];
    assert_eq!(expired(&items, &last(1), NOW), ["a", "b"]);
    assert_eq!(expired(&items, &last(3), NOW), [""; 0]);
    assert_eq!(
        expired(&items, &last(0), NOW),
        ["a", "b"],
        "never the last one, which is the next one's base"
    );
}

#[test]
fn three_failed_stay_and_pending_ones_always() {
    let mut items: Vec<_> = [("f1", 1), ("f2", 2), ("f3", 3), ("f4", 4)]
        .map(|(n, t)| other(n, t, Outcome::Failed))
        .into();
    items.push(other("p", 0, Outcome::Pending));
    items.push(complete("c", 5));
    assert_eq!(expired(&items, &last(1), NOW), [""; 0]);
    assert_eq!(expired_failures(&items), ["f1"]);
}

#[test]
fn lists_that_take_too_much_go_first_and_the_newest_never() {
    let of = |name, at, bytes| Item { bytes, ..complete(name, at) };
    let items = [of("a", 1, 10), of("b", 2, 500), of("c", 3, 400), of("d", 4, 99)];
    let table: [(u64, &[&str]); 5] = [
        (1010, &[]),
        (1009, &["a"]),
        (999, &["a", "b"]),
        (99, &["a", "b", "c"]),
        (0, &["a", "b", "c"]),
    ];
    for (bytes, expected) in table {
        assert_eq!(expired(&items, &Keep { bytes, ..last(9) }, NOW), expected, "{bytes}");
    }
}

#[test]
fn the_administrators_limit_takes_the_oldest_first() {
    let items = [complete("a", 1), complete("b", 2), complete("c", 3)];
    assert_eq!(expired(&items, &Keep { most: 2, ..last(9) }, NOW), ["a"]);
}

#[test]
fn the_newest_is_found_whatever_became_of_it() {
    let items = [complete("b", 2), other("c", 3, Outcome::Failed), complete("a", 1)];
    assert_eq!(newest(&items).map(|item| item.name), Some("c"));
    assert_eq!(newest(&[]), None);
}

#[test]
fn a_clock_that_was_set_back_prunes_no_newer_boundary_for_an_older_one() {
    let of = |name, time: i64, era| Item { chain: Some(("c", era)), ..complete(name, time) };
    // The third was made after the node's clock had been set back by hours.
    let third = Item { created: second(50_000), ..of("c", 7200, 7) };
    let items = [of("a", 36_000, 5), of("b", 39_600, 6), third.clone()];
    assert_eq!(expired(&items, &last(1), NOW), ["a", "b"]);
    // And where the chain does not tell, whatever was made last stays besides.
    let restarted = Item { chain: Some(("d", 1)), ..third };
    let items = [of("a", 36_000, 5), of("b", 39_600, 6), restarted];
    assert_eq!(expired(&items, &last(1), NOW), ["a"]);
}

/// The boundaries of these times that are kept, as they were written.
fn kept<'a>(rules: Rules, newest_first: &[&'a str]) -> Vec<&'a str> {
    let times: Vec<_> = newest_first.iter().map(|text| at(text)).collect();
    let kept = rules.kept(&times, NOW);
    newest_first.iter().zip(kept).filter(|(_, kept)| *kept).map(|(text, _)| *text).collect()
}

#[test]
fn a_rule_counts_the_periods_that_have_a_snapshot_and_keeps_the_newest_of_each() {
    let times = [
        "2026-11-22T21:45:00Z",
        "2026-11-22T21:30:00Z",
        "2026-11-22T08:00:00Z",
        "2026-11-15T23:59:00Z",
        "2026-11-15T00:00:00Z",
        "2026-10-31T12:00:00Z",
        "2026-01-01T00:00:00Z",
    ];
    let pick = |indexes: &[usize]| indexes.iter().map(|it| times[*it]).collect::<Vec<_>>();
    assert_eq!(kept(Rules { last: 2, ..none() }, &times), pick(&[0, 1]));
    assert_eq!(kept(Rules { hourly: 3, ..none() }, &times), pick(&[0, 2, 3]));
    assert_eq!(kept(Rules { daily: 3, ..none() }, &times), pick(&[0, 3, 5]));
    // 16 to 22 November are one week, 9 to 15 another.
    assert_eq!(kept(Rules { weekly: 2, ..none() }, &times), pick(&[0, 3]));
    assert_eq!(kept(Rules { monthly: 2, ..none() }, &times), pick(&[0, 5]));
    let two = Rules { last: 2, monthly: 2, ..none() };
    assert_eq!(kept(two, &times), pick(&[0, 1, 5]), "each looks at all, whatever others keep");
}

#[test]
fn while_a_rule_has_some_left_it_keeps_the_oldest_too() {
    let times = ["2026-11-22T21:45:00Z", "2026-11-22T21:30:00Z", "2026-11-22T21:15:00Z"];
    assert_eq!(kept(Rules { daily: 2, ..none() }, &times), [times[0], times[2]]);
    assert_eq!(kept(Rules { daily: 1, ..none() }, &times), [times[0]]);
}

#[test]
fn weeks_are_those_of_iso_8601_over_the_turn_of_the_year() {
    // 2026-12-28 to 2027-01-03 is week 53 of 2026.
    let times = [
        "2027-01-04T00:00:00Z",
        "2027-01-03T23:00:00Z",
        "2026-12-28T00:00:00Z",
        "2026-12-27T23:59:00Z",
    ];
    assert_eq!(kept(Rules { weekly: 3, ..none() }, &times), [times[0], times[1], times[3]]);
}

#[test]
fn periods_are_those_of_the_time_zone() {
    // In Kathmandu (+5:45) the day begins at 18:15 UTC.
    let times = ["2026-11-22T18:15:00Z", "2026-11-22T18:14:59Z", "2026-11-21T18:15:00Z"];
    let day = |zone_: &str| kept(Rules { daily: 2, zone: zone(zone_), ..none() }, &times);
    assert_eq!(day("Asia/Kathmandu"), [times[0], times[1]]);
    assert_eq!(day("Etc/UTC"), [times[0], times[2]]);
    // In Berlin the hour from 02:00 came twice on 2026-10-25: one hour of the clock.
    let times = ["2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z", "2026-10-24T23:30:00Z"];
    let berlin = Rules { hourly: 2, zone: zone("Europe/Berlin"), ..none() };
    assert_eq!(kept(berlin, &times), [times[0], times[2]]);
}

fn boundaries<'a>(times: &[&'a str]) -> Vec<Item<'a>> {
    let item = |text: &&'a str| Item {
        name: text,
        created: at(text),
        outcome: Outcome::Complete(at(text)),
        chain: None,
        bytes: 0,
    };
    times.iter().map(item).collect()
}

#[test]
fn within_reaches_back_from_the_newest_that_is_not_of_the_future() {
    let rules = || Rules { within: Some(Span::new().days(2)), ..none() };
    let times = &["2026-11-22T12:00:00Z", "2026-11-20T12:00:01Z", "2026-11-20T12:00:00Z"];
    assert_eq!(expired(&boundaries(times), &keep(rules()), at("2027-11-22T12:00:00Z")), [times[2]]);
    // A clock that was a year ahead takes nothing else along.
    let wrong = &["2027-11-22T12:00:00Z", times[0], times[1]];
    assert_eq!(expired(&boundaries(wrong), &keep(rules()), at("2026-11-22T12:00:30Z")), [""; 0]);
    // A controller whose clock is behind all of them keeps all.
    assert_eq!(expired(&boundaries(times), &keep(rules()), at("2020-01-01T00:00:00Z")), [""; 0]);
}

/// The slow way: for each snapshot and each rule, count what is before it.
fn oracle(rules: &Rules, times: &[Timestamp], now: Timestamp) -> BTreeSet<usize> {
    let local: Vec<_> = times.iter().map(|it| it.to_zoned(rules.zone.clone())).collect();
    let formats = [
        (rules.hourly, "%Y-%m-%d %H"),
        (rules.daily, "%Y-%m-%d"),
        (rules.weekly, "%G-%V"),
        (rules.monthly, "%Y-%m"),
    ];
    let mut kept: BTreeSet<usize> = (0..times.len().min(rules.last as usize)).collect();
    for (count, format) in formats {
        let names: Vec<_> = local.iter().map(|it| it.strftime(format).to_string()).collect();
        for index in 0..times.len() {
            let before: BTreeSet<_> = names[..index].iter().collect();
            let room = before.len() < count as usize;
            let first = !before.contains(&names[index]);
            if room && (first || index + 1 == times.len()) {
                kept.insert(index);
            }
        }
    }
    if let Some(within) = rules.within {
        let latest = local.iter().filter(|it| it.timestamp() <= now).max();
        for (index, it) in local.iter().enumerate() {
            if latest.is_none_or(|latest| *it > latest - within) {
                kept.insert(index);
            }
        }
    }
    kept
}

const ZONES: [&str; 5] =
    ["Etc/UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"];

fn rules() -> impl Strategy<Value = Rules> {
    let few = 0_u32..6;
    let within = prop::option::of(
        (0_i32..2, 0_i32..40, 0_i32..60)
            .prop_map(|(months, days, hours)| Span::new().months(months).days(days).hours(hours)),
    );
    (
        few.clone(),
        few.clone(),
        few.clone(),
        few.clone(),
        few,
        within,
        prop::sample::select(&ZONES[..]),
    )
        .prop_map(|(last, hourly, daily, weekly, monthly, within, name)| Rules {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            within,
            zone: zone(name),
        })
}

/// Times over some months, close together and far apart, the newest first.
fn times() -> impl Strategy<Value = Vec<Timestamp>> {
    let gap = prop_oneof![1_i64..7200, 1_i64..200_000, 1_i64..4_000_000];
    (1_700_000_000_i64..1_800_000_000, prop::collection::vec(gap, 0..40)).prop_map(
        |(newest, gaps)| {
            let mut next = newest;
            let mut step = |gap: i64| {
                next -= gap;
                next
            };
            gaps.into_iter().map(|gap| second(step(gap))).collect()
        },
    )
}

fn items_of<'a>(names: &'a [String], times: &[Timestamp]) -> Vec<Item<'a>> {
    let item = |(name, at): (&'a String, &Timestamp)| Item {
        name,
        created: *at,
        outcome: Outcome::Complete(*at),
        chain: None,
        bytes: 0,
    };
    names.iter().zip(times).map(item).collect()
}

proptest! {
    #[test]
    fn the_rules_keep_what_the_calendar_says(rules in rules(), times in times(), ahead in 0_i64..100) {
        let now = times.first().map_or(NOW, |it| *it - SignedDuration::from_hours(ahead));
        let kept = rules.kept(&times, now);
        let kept: BTreeSet<_> = (0..times.len()).filter(|index| kept[*index]).collect();
        prop_assert_eq!(kept, oracle(&rules, &times, now));
    }

    #[test]
    fn nothing_that_a_rule_keeps_is_pruned_and_the_newest_always_stays(rules in rules(), times in times()) {
        let names: Vec<_> = (0..times.len()).map(|it| format!("s{it:03}")).collect();
        let items = items_of(&names, &times);
        let kept = oracle(&rules, &times, NOW);
        let gone = expired(&items, &keep(rules), NOW);
        for (index, name) in names.iter().enumerate() {
            let stays = !gone.contains(&name.as_str());
            prop_assert_eq!(stays, index == 0 || kept.contains(&index), "{}", name);
        }
        prop_assert!(gone.is_sorted_by(|one, two| one > two), "the oldest first: {gone:?}");
    }

    #[test]
    fn more_keep_never_keeps_less(rules in rules(), more in rules(), times in times()) {
        let sum = Rules {
            last: rules.last + more.last,
            hourly: rules.hourly + more.hourly,
            daily: rules.daily + more.daily,
            weekly: rules.weekly + more.weekly,
            monthly: rules.monthly + more.monthly,
            within: rules.within.map(|it| it.days(it.get_days() + 1)),
            zone: rules.zone.clone(),
        };
        let (less, more) = (rules.kept(&times, NOW), sum.kept(&times, NOW));
        prop_assert!(less.iter().zip(&more).all(|(less, more)| *more || !less));
    }

    #[test]
    fn what_was_pruned_once_is_pruned(rules in rules(), times in times()) {
        let names: Vec<_> = (0..times.len()).map(|it| format!("s{it:03}")).collect();
        let mut items = items_of(&names, &times);
        let gone: Vec<_> = expired(&items, &keep(rules.clone()), NOW);
        items.retain(|it| !gone.contains(&it.name));
        prop_assert_eq!(expired(&items, &keep(rules), NOW), [""; 0]);
    }
}

/// Every quarter of an hour from 2026 on for a year and a little, pruned each time.
#[test]
fn a_year_of_quarter_hours_leaves_what_the_calendar_says() {
    let rules = Rules {
        last: 4,
        hourly: 24,
        daily: 7,
        weekly: 5,
        monthly: 12,
        zone: zone("Europe/Berlin"),
        ..none()
    };
    let keep = keep(rules.clone());
    let start = at("2025-12-31T23:00:00Z");
    let quarter = SignedDuration::from_mins(15);
    let all: Vec<Timestamp> = (0..366 * 96).map(|it| start + quarter * it).collect();
    let names: Vec<String> = all.iter().map(|it| it.strftime("%Y%m%d%H%M").to_string()).collect();
    let mut there: Vec<Item<'_>> = Vec::new();
    let mut most = 0;
    for item in items_of(&names, &all) {
        there.push(item);
        let gone: BTreeSet<_> = expired(&there, &keep, NOW).into_iter().collect();
        there.retain(|it| !gone.contains(it.name));
        most = most.max(there.len());
    }
    let left: Vec<_> = there.iter().map(|it| it.created).collect();
    // As if all of them had been there until now.
    let newest_first: Vec<_> = all.iter().rev().copied().collect();
    let mut expected: Vec<_> = newest_first
        .iter()
        .zip(rules.kept(&newest_first, NOW))
        .filter(|(_, kept)| *kept)
        .map(|(at, _)| *at)
        .collect();
    expected.reverse();
    assert_eq!(left, expected);
    assert_eq!((left.len(), most), (46, 48), "and never many more");
}
