use eratrack_api::{ConcurrencyPolicy, Keep, SnapshotMode};
use proptest::prelude::*;

use super::*;

fn spec(schedule: &str, zone: &str) -> Snapshots {
    Snapshots {
        schedule: schedule.into(),
        time_zone: zone.into(),
        mode: SnapshotMode::Boundary,
        hold_seconds: None,
        suspend: false,
        starting_deadline_seconds: 300,
        jitter_seconds: 0,
        concurrency_policy: ConcurrencyPolicy::Forbid,
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
fn half_hour_zones_change_by_half_an_hour_and_lose_nothing() {
    // On Lord Howe Island clocks go back from 02:00 to 01:30 and forward from 02:00 to 02:30.
    let days = times("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T12:00:00Z", 3);
    assert_eq!(
        days,
        ["2026-04-03T14:45:00Z", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
        "the first of the two 01:45 of 5 April"
    );
    let days = times("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T12:00:00Z", 3);
    assert_eq!(
        days,
        ["2026-10-02T15:45:00Z", "2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
        "02:30 on 4 October, the end of the gap"
    );
    // Others are only off by a part of an hour.
    assert_eq!(
        times("0 0 * * *", "Asia/Kathmandu", "2026-11-22T00:00:00Z", 1),
        ["2026-11-22T18:15:00Z"]
    );
    assert_eq!(
        times("30 2 * * *", "America/St_Johns", "2026-11-01T00:00:00Z", 2),
        ["2026-11-01T06:00:00Z", "2026-11-02T06:00:00Z"]
    );
}

/// With a jitter, and the claims that the tests ask for.
fn jittered(schedule: &str, zone: &str, jitter_seconds: u32) -> Schedule {
    let spec = Snapshots { jitter_seconds, ..spec(schedule, zone) };
    Schedule::read(&spec, at("2026-01-01T00:00:00Z")).expect("a schedule")
}

#[test]
fn each_claim_starts_within_the_jitter_and_always_as_late() {
    let schedule = jittered("0 * * * *", "Etc/UTC", 600);
    let (one, two) = (at("2026-11-22T10:00:00Z"), at("2026-11-22T11:00:00Z"));
    let late = |at: Timestamp, of: &str, claim: &str| {
        schedule.start(at, of, claim).duration_since(at).as_secs()
    };
    let all: Vec<_> = (0..200).map(|it| late(one, "uid", &format!("c{it}"))).collect();
    assert!(all.iter().all(|it| (0..=600).contains(it)), "{all:?}");
    let spread = all.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(spread > 150, "{spread} moments for 200 claims");
    for it in 0..200 {
        let claim = format!("c{it}");
        assert_eq!(late(one, "uid", &claim), late(two, "uid", &claim));
    }
    assert_ne!(late(one, "uid", "c1"), late(one, "other", "c1"));
    assert_eq!(read("0 * * * *", "Etc/UTC").start(one, "uid", "c1"), one, "without jitter");
}

#[test]
fn jitter_never_reaches_the_next_time_over_both_changes_too() {
    let zones = ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"];
    let changes = [
        "2026-03-28T20:00:00Z",
        "2026-10-24T20:00:00Z",
        "2026-04-04T12:00:00Z",
        "2026-10-03T12:00:00Z",
    ];
    for (zone, from) in zones.into_iter().flat_map(|zone| changes.map(|from| (zone, from))) {
        for schedule in ["*/15 * * * *", "*/40 * * * *", "30 1,2 * * *"] {
            let schedule = jittered(schedule, zone, 3600);
            let mut time = schedule.next_after(at(from)).expect("it fires");
            for _ in 0..30 {
                let next = schedule.next_after(time).expect("it fires");
                for claim in ["a", "b", "c"] {
                    let start = schedule.start(time, "uid", claim);
                    assert!(time <= start && start < next, "{zone} {time} {start} {next}");
                }
                time = next;
            }
        }
    }
}

#[test]
fn the_starting_deadline_counts_from_the_last_start() {
    let schedule = jittered("0 * * * *", "Etc/UTC", 600);
    let (done, ten) = (at("2026-11-22T09:00:00Z"), at("2026-11-22T10:00:00Z"));
    assert_eq!(schedule.due(done, at("2026-11-22T10:15:00Z")), Due::Fire(ten));
    assert_eq!(schedule.due(done, at("2026-11-22T10:15:01Z")), Due::Missed(ten));
}

#[test]
fn times_are_counted_from_the_first_to_before_the_last() {
    let schedule = read("*/10 * * * *", "Etc/UTC");
    let count = |from, to| schedule.times(at(from), at(to)).count();
    assert_eq!(count("2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"), 6);
    assert_eq!(count("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"), 0);
    assert_eq!(count("2020-11-22T10:00:00Z", "2026-11-22T10:00:00Z"), COUNTED);
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
    assert_eq!(schedule.due(at("2026-11-22T10:10:00Z"), at("2026-11-22T10:12:00Z")), Due::Nothing);
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
