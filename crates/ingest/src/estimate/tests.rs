use flow::id::JobId;
use flow::slip::Phase;
use store::statistics::Histogram;

use super::*;

const FLOW: &str = r#"
flow: order
steps:
  - { id: reserve, native: reserve }
  - { id: charge, native: charge }
  - { id: gift, native: gift, when: "{{ input.gift }}" }
  - { id: ship, native: ship }
"#;

fn definition() -> Definition {
    Definition::parse_yaml("order.yaml", FLOW, &mut |name| Err(name.to_owned())).unwrap()
}

fn counts(succeeded: u64, skipped: u64, ms: impl IntoIterator<Item = u64>) -> Counts {
    let mut durations = Histogram::default();
    ms.into_iter().for_each(|ms| durations.add(ms));
    Counts { succeeded, skipped, durations, ..Counts::default() }
}

/// Steps take 1 s, 4 s and 2 s, a job 7 s.
fn expected() -> Expected {
    let same = |ms| std::iter::repeat_n(ms, 100);
    let steps = [
        ("", counts(100, 0, same(7_000))),
        ("reserve", counts(100, 0, same(1_000))),
        // One in ten takes 60 s.
        ("charge", counts(100, 0, same(4_000).take(90).chain(same(60_000).take(10)))),
        ("gift", counts(10, 90, same(500).take(10))),
        ("ship", counts(100, 0, same(2_000))),
    ];
    Expected::of(steps.map(|(name, counts)| (name.to_owned(), counts)).into())
}

/// A job that was accepted at 0, after these events.
fn job(told: &[(EventKind, Option<&str>, i64)]) -> (JobView, Vec<(i64, JobEvent)>) {
    let mut accepted = test_kit::sample_event(
        "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse::<JobId>().unwrap(),
        EventKind::JobAccepted,
        JobStatus::Accepted,
        0,
    );
    accepted.steps_total = 4;
    let mut events = vec![(0, accepted.clone())];
    for (number, (kind, step, at_ms)) in told.iter().enumerate() {
        let number = i64::try_from(number).unwrap() + 1;
        let hop = u32::try_from(number).unwrap();
        let step = step.map(str::to_owned);
        let status = if *kind == EventKind::JobParked { JobStatus::NeedsAttention } else { JobStatus::Running };
        let event =
            JobEvent { kind: *kind, step, at_ms: *at_ms, hop, status, phase: Phase::Forward, ..accepted.clone() };
        events.push((number, event));
    }
    let mut view = JobView::from_event(0, &events[0].1);
    for (cursor, event) in &events[1..] {
        view.apply(*cursor, event);
    }
    (view, events)
}

fn left_s(told: &[(EventKind, Option<&str>, i64)], now_ms: i64) -> Option<u64> {
    let (view, events) = job(told);
    let left_ms = left_ms((&view, &events), &definition(), &expected(), now_ms)?;
    Some((left_ms / 1_000.0).round() as u64)
}

const RESERVED: (EventKind, Option<&str>, i64) = (EventKind::StepSucceeded, Some("reserve"), 1_000);
const CHARGED: (EventKind, Option<&str>, i64) = (EventKind::StepSucceeded, Some("charge"), 5_000);

#[test]
fn what_is_left_is_the_rest_of_the_present_step_and_those_to_come_that_are_not_mostly_skipped() {
    assert_eq!((left_s(&[], 0), left_s(&[], 3_000)), (Some(7), Some(4)));
    assert_eq!((left_s(&[RESERVED], 1_000), left_s(&[RESERVED], 3_000)), (Some(6), Some(4)));
    assert_eq!(left_s(&[RESERVED, CHARGED], 5_000), Some(2), "the gift is mostly skipped");
    let skipped = (EventKind::StepSkipped, Some("gift"), 5_000);
    assert_eq!(left_s(&[RESERVED, CHARGED, skipped], 6_000), Some(1));
}

#[test]
fn a_step_that_takes_longer_than_most_is_expected_to_be_one_of_the_long_ones() {
    let left = left_s(&[RESERVED], 21_000).unwrap();
    assert!((40..=44).contains(&left), "60 s less the 20 s that it has lasted, and 2 s of shipping: {left}");
    assert_eq!(left_s(&[RESERVED], 301_000), None, "no step has ever taken so long");
}

#[test]
fn a_rest_whose_end_is_known_lasts_to_it() {
    let (view, mut events) = job(&[RESERVED]);
    let (_, last) = events.last().unwrap().clone();
    let retrying = JobEvent {
        kind: EventKind::StepRetrying,
        step: Some("charge".to_owned()),
        next_attempt_after_ms: Some(30_000),
        ..last
    };
    let mut view = view;
    view.apply(5, &retrying);
    events.push((5, retrying));
    let left = left_ms((&view, &events), &definition(), &expected(), 1_000).unwrap();
    assert!((left - 32_000.0).abs() < 300.0, "{left}");
}

#[test]
fn a_job_that_starts_later_has_that_time_before_it() {
    let (mut view, mut events) = job(&[]);
    let waiting = JobEvent {
        kind: EventKind::StepWaiting,
        step: Some("reserve".to_owned()),
        status: JobStatus::Waiting,
        index: 1,
        reason: Some(HoldReason::Timer),
        next_attempt_after_ms: Some(100_000),
        ..events[0].1.clone()
    };
    view.apply(1, &waiting);
    events.push((1, waiting));
    let left = |now_ms| left_ms((&view, &events), &definition(), &expected(), now_ms).unwrap() / 1_000.0;
    assert!((left(40_000) - 67.0).abs() < 0.5 && (left(102_000) - 5.0).abs() < 0.5);
}

#[test]
fn nothing_is_said_of_what_is_not_known_or_does_not_go_on() {
    let (view, events) = job(&[RESERVED]);
    let mut steps = expected().steps;
    steps.remove("ship");
    assert_eq!(left_ms((&view, &events), &definition(), &Expected::of(steps), 1_000), None);
    assert_eq!(left_ms((&view, &events), &definition(), &Expected::default(), 1_000), None);
    assert_eq!(left_s(&[RESERVED, (EventKind::JobParked, Some("charge"), 2_000)], 2_000), None);
}

#[test]
fn the_time_to_ask_again_is_a_second_at_least_and_bounded() {
    let asked = |left_ms| retry_after_s(left_ms, (3, 60));
    assert_eq!([None, Some(0.0), Some(1_001.0), Some(1e9)].map(asked), [3, 1, 2, 60]);
}
