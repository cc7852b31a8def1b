//! Ticks: as the clock of their zone says, on the days of its changes too, and by the policy where they are late.

use super::*;
use crate::time::{read_rfc3339, rfc3339};

fn schedule(cron: &str, more: &str) -> Definition {
    parse(&format!("flow: t\non: {{ cron: \"{cron}\"{more} }}\nsteps:\n  - {{ id: a, native: f }}\n")).unwrap()
}

fn at(text: &str) -> i64 {
    read_rfc3339(text).unwrap()
}

/// The next ticks after this instant, in UTC.
fn ticks(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let flow = schedule(cron, &format!(", timezone: {zone}"));
    let schedule = flow.trigger().unwrap().schedule().unwrap();
    let mut at_ms = at(after);
    let mut next = || {
        at_ms = schedule.next_ms(at_ms).unwrap();
        rfc3339(at_ms).replace(":00.000Z", "Z")
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_time_that_the_clock_leaps_over_comes_at_the_end_of_the_gap() {
    // In Berlin 2027-03-28 has no 02:30.
    assert_eq!(
        ticks("30 2 * * *", "Europe/Berlin", "2027-03-26T12:00:00Z", 4),
        ["2027-03-27T01:30Z", "2027-03-28T01:00Z", "2027-03-29T00:30Z", "2027-03-30T00:30Z"]
    );
    assert_eq!(
        ticks("*/30 * * * *", "Europe/Berlin", "2027-03-28T00:15:00Z", 3),
        ["2027-03-28T00:30Z", "2027-03-28T01:00Z", "2027-03-28T01:30Z"]
    );
    assert_eq!(
        ticks("30 2 * * *", "America/New_York", "2027-03-14T00:00:00Z", 2),
        ["2027-03-14T07:00Z", "2027-03-15T06:30Z"]
    );
}

#[test]
fn a_time_that_the_clock_shows_twice_comes_once_and_a_repetition_goes_on() {
    // In Berlin 2027-10-31 has 02:30 twice.
    assert_eq!(
        ticks("30 2 * * *", "Europe/Berlin", "2027-10-29T12:00:00Z", 3),
        ["2027-10-30T00:30Z", "2027-10-31T00:30Z", "2027-11-01T01:30Z"]
    );
    assert_eq!(
        ticks("*/30 * * * *", "Europe/Berlin", "2027-10-31T00:15:00Z", 4),
        ["2027-10-31T00:30Z", "2027-10-31T01:00Z", "2027-10-31T01:30Z", "2027-10-31T02:00Z"]
    );
}

#[test]
fn ticks_that_were_missed_follow_the_policy() {
    let due = |missed: &str, from: &str, now: &str| {
        let flow = schedule("0 * * * *", missed);
        let due = flow.trigger().unwrap().schedule().unwrap().due(at(from), at(now));
        let hours: Vec<String> = due.ticks.iter().map(|tick| rfc3339(*tick)[11..16].to_owned()).collect();
        (
            hours.join(" "),
            due.reached_ms.map(rfc3339).unwrap_or_default()[..].get(11..16).map(str::to_owned),
            due.skipped,
        )
    };
    let reached = |text: &str| Some(text.to_owned());
    let (from, late, in_time) = ("2027-01-05T05:00:00Z", "2027-01-05T08:30:00Z", "2027-01-05T08:00:00.250Z");
    assert_eq!(due(", missed: skip", from, late), (String::new(), reached("08:00"), 3));
    assert_eq!(due(", missed: skip", from, in_time), ("08:00".to_owned(), reached("08:00"), 2));
    assert_eq!(due("", from, late), ("08:00".to_owned(), reached("08:00"), 2));
    assert_eq!(due("", from, in_time), ("08:00".to_owned(), reached("08:00"), 2));
    assert_eq!(due(", missed: all", from, late), ("06:00 07:00 08:00".to_owned(), reached("08:00"), 0));
    assert_eq!(due(", missed: all", from, "2027-01-05T05:59:59Z"), (String::new(), None, 0));
}

#[test]
fn no_more_than_a_hundred_missed_ticks_are_made_up_for() {
    let flow = schedule("* * * * *", ", missed: all");
    let schedule = flow.trigger().unwrap().schedule().unwrap();
    let now = at("2027-01-05T08:00:30Z");
    let due = schedule.due(now - 30 * crate::time::DAY_MS, now);
    assert_eq!((due.ticks.len(), due.reached_ms), (MISSED_MAX, Some(at("2027-01-05T08:00:00Z"))));
    assert!(due.skipped > 0 && due.ticks.is_sorted());
    assert_eq!(due.ticks[0], at("2027-01-05T06:21:00Z"));
}

#[test]
fn the_input_of_a_tick_tells_the_instant_and_the_clock_of_the_zone() {
    let flow = schedule("0 6 * * *", ", timezone: Europe/Berlin");
    let schedule = flow.trigger().unwrap().schedule().unwrap();
    let input = schedule.input(at("2027-07-05T04:00:00Z"));
    assert_eq!(input, json!({ "tick": "2027-07-05T04:00:00.000Z", "scheduled_at": "2027-07-05T06:00:00+02:00" }));
    assert_eq!(schedule.terms(), "0 6 * * * Europe/Berlin");
}

#[test]
fn what_is_no_schedule_is_refused_with_what_would_do() {
    let with = |on: &str| format!("flow: t\non: {{ {on} }}\nsteps:\n  - {{ id: a, native: f }}\n");
    for (on, said) in [
        ("cron: \"0 6 * *\"", "`cron` has 4 of five fields"),
        ("cron: \"0 0 6 * * *\"", "`cron` has 6 of five fields"),
        ("cron: \"60 6 * * *\"", "`cron`: "),
        ("cron: \"0 6 30 2 *\"", "never comes"),
        ("cron: \"0 6 * * *\", timezone: Europe/Berln", "there is no `Europe/Berln`"),
        ("cron: \"0 6 * * *\", missed: some", "`missed` cannot be `some`"),
        ("cron: \"0 6 * * *\", filter: \"{{ true }}\"", "`filter` belongs to `topic`, not to `cron`"),
    ] {
        refused(&with(on), &[said]);
    }
    let strict = with("cron: \"0 6 * * *\"").replace("steps:", "input: { required: [order] }\nsteps:");
    refused(&strict, &["`input` does not take the input of a schedule", "order"]);
}
