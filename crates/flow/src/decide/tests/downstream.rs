//! A downstream that is not to be called: the job rests, and loses no attempts.

use super::*;
use crate::definition::Limits;
use crate::slip::{Pass, Released, ReleasedBy};
use crate::view::{JobView, StepStatus, WaitingFor};

fn busy(reason: HoldReason, after_ms: Option<u64>) -> Busy {
    Busy { downstream: "payment:8080".to_owned(), reason, after_ms }
}

#[track_caller]
fn hold(decision: &Decision) -> &Hold {
    let Next::Hold(hold) = &decision.next else { panic!("{decision:?}") };
    hold
}

/// The slip as a breaker lets it pass.
fn let_pass(slip: Slip, is_probe: bool) -> Slip {
    let payload = Some(Pass { epoch: 3, is_probe }.to_json());
    Slip { released: Some(Released { by: ReleasedBy::Breaker, payload }), ..slip }
}

fn timed_out() -> Outcome {
    let error = StepError { code: code::TIMED_OUT.to_owned(), message: "late".to_owned(), status: None };
    Outcome::Failed { error, retryable: true, effect: Effect::Unknown, retry_after_ms: None }
}

#[test]
fn a_downstream_is_what_the_step_says_or_else_the_host_of_its_url() {
    for (url, host) in [
        ("http://Payment:8080/charges?x=1", Some("payment:8080")),
        ("https://user:secret@payment.example:443/charges", Some("payment.example")),
        ("http://payment.example:80", Some("payment.example")),
        ("https://payment.example:80/", Some("payment.example:80")),
        ("http://[::1]:8080/a", Some("[::1]:8080")),
        ("http:///a", None),
        ("payment", None),
    ] {
        assert_eq!(host_of(url).as_deref(), host, "{url}");
    }
    let named = flow("flow: t\nsteps:\n  - { id: a, native: f, downstream: erp }\n  - { id: b, native: f }\n");
    let of = |step: &str| {
        let slip = slip_at(&named, step);
        downstream(&named, &slip, &prepare(&named, &slip, &env(), NOW_MS))
    };
    assert_eq!((of("a").as_deref(), of("b")), (Some("erp"), None));
    let three = flow(THREE);
    let slip = slip_at(&three, "a");
    assert_eq!(downstream(&three, &slip, &prepare(&three, &slip, &env(), NOW_MS)).as_deref(), Some("a"));
}

#[test]
fn only_what_says_that_the_downstream_is_ill_counts_against_it() {
    let response = |status| HttpAnswer::Response {
        status,
        retry_after: None,
        content_type: None,
        headers: Vec::new(),
        body: Vec::new(),
    };
    let answers = [
        (response(200), Told::Answered),
        (response(404), Told::Answered),
        (response(429), Told::Answered),
        (response(500), Told::Failed),
        (response(503), Told::Failed),
        (HttpAnswer::TimedOut, Told::Failed),
        (HttpAnswer::ConnectFailed(String::new()), Told::Failed),
        (HttpAnswer::ConnectionLost(String::new()), Told::Failed),
        (HttpAnswer::Aborted, Told::Nothing),
    ];
    for (answer, wanted) in answers {
        assert_eq!(told_by(&answer), wanted, "{answer:?}");
    }
    let native = [
        (ok(Value::Null), Told::Answered),
        (failed(true, Effect::Unknown), Told::Failed),
        (failed(false, Effect::Refused), Told::Answered),
        (Outcome::Cancelled, Told::Nothing),
        (Outcome::too_large("x"), Told::Nothing),
    ];
    for (outcome, wanted) in native {
        assert_eq!(told(&outcome), wanted, "{outcome:?}");
    }
}

#[test]
fn a_slip_that_must_not_call_rests_until_the_jobs_deadline_with_all_its_attempts() {
    let flow = flow(THREE);
    let at = Slip { attempt: 2, ..slip_at(&flow, "a") };
    let decision = wait_for_downstream(&flow, &at, "default", &busy(HoldReason::Breaker, None), NOW_MS);
    let held = hold(&decision);
    assert_eq!((held.reason, held.limit.as_deref()), (HoldReason::Breaker, Some("payment:8080")));
    assert_eq!((held.release_after_ms, held.slip.attempt, held.slip.hop), (Some(3_600_000), 2, at.hop + 1));
    let mut view = JobView::from_event(0, &start(&flow, new_job(), NOW_MS).events[0]);
    view.apply(1, &decision.events[0]);
    assert_eq!((view.status, view.steps[0].status), (JobStatus::Waiting, StepStatus::Waiting));
    let (breaker, until_ms) = (Some("payment:8080".to_owned()), Some(NOW_MS + 3_600_000));
    assert_eq!(
        view.steps[0].waiting_for,
        Some(WaitingFor { signal: None, breaker, limit: None, poll: None, until_ms })
    );
    let short = wait_for_downstream(&flow, &at, "default", &busy(HoldReason::Limit, Some(700)), NOW_MS);
    assert_eq!((hold(&short).reason, hold(&short).release_after_ms), (HoldReason::Limit, Some(700)));
    let forever = Slip { deadline_ms: None, ..at };
    let forever = wait_for_downstream(&flow, &forever, "default", &busy(HoldReason::Breaker, None), NOW_MS);
    assert_eq!(hold(&forever).release_after_ms, None);
}

#[test]
fn an_undo_that_must_not_call_rests_without_an_end_and_its_job_stays_on_its_way_back() {
    let flow = flow(THREE);
    let back = slip(&advance(&flow, &slip_at(&flow, "c"), Outcome::Cancelled, NOW_MS));
    let decision = wait_for_downstream(&flow, &back, "default", &busy(HoldReason::Breaker, None), NOW_MS);
    assert_eq!((hold(&decision).release_after_ms, decision.events[0].status), (None, JobStatus::Compensating));
}

#[test]
fn a_probe_that_fails_in_vain_is_no_attempt_and_its_doubt_stays() {
    let flow = flow(THREE);
    for attempt in [0, 2] {
        let at = let_pass(Slip { attempt, ..slip_at(&flow, "a") }, true);
        let decision = advance(&flow, &at, timed_out(), NOW_MS);
        let Next::RetryNow { slip, delay_ms: 0 } = decision.next else { panic!("{decision:?}") };
        assert_eq!((slip.attempt, slip.attempt_uncertain, slip.pass()), (attempt, true, None));
        assert!(decision.events.is_empty());
    }
    let last = Slip { attempt: 2, ..slip_at(&flow, "a") };
    let decision = advance(&flow, &let_pass(last, false), timed_out(), NOW_MS);
    assert_eq!(kinds(&decision)[0], EventKind::StepFailed, "what merely passes is an attempt like any other");
}

#[test]
fn a_probe_that_is_refused_for_good_fails_its_step_like_any_attempt() {
    let flow = flow(THREE);
    let decision = advance(&flow, &let_pass(slip_at(&flow, "a"), true), failed(false, Effect::Refused), NOW_MS);
    assert_eq!(kinds(&decision)[0], EventKind::StepFailed);
    let back = slip(&advance(&flow, &slip_at(&flow, "c"), Outcome::Cancelled, NOW_MS));
    let again = advance(&flow, &let_pass(Slip { attempt: 9, ..back }, true), timed_out(), NOW_MS);
    assert!(matches!(again.next, Next::RetryNow { slip, .. } if slip.attempt == 9), "an undo is not given up");
}

#[test]
fn a_step_in_front_of_a_breaker_comes_back_over_by_its_time_and_with_what_it_had_left_by_the_breaker() {
    let flow =
        flow("flow: t\nsteps:\n  - { id: a, native: f, deadline: 60s, timeout: 2m, compensate: { native: g } }\n");
    // Twenty seconds were spent before.
    let at = Slip { step_left_ms: Some(40_000), ..begin_time(&flow, slip_at(&flow, "a")) };
    let decision = wait_for_downstream(&flow, &at, "default", &busy(HoldReason::Breaker, None), NOW_MS);
    let held = hold(&decision);
    assert_eq!(held.release_after_ms, Some(40_000), "the rest ends with the step's time");

    let by_time = begin_time(&flow, held.slip.clone());
    assert_eq!((by_time.step_left_ms, &by_time.step_state), (Some(0), &None));
    let Prepared::Outcome(outcome) = prepare(&flow, &by_time, &env(), NOW_MS) else { panic!("it calls") };
    let end = advance(&flow, &by_time, outcome, NOW_MS);
    assert_eq!(kinds(&end), [EventKind::StepFailed, EventKind::JobFailed], "nothing was called, so nothing is undone");
    assert_eq!(end.events[0].data.as_ref().unwrap()["code"], code::DEADLINE_EXCEEDED);

    let by_breaker = begin_time(&flow, let_pass(held.slip.clone(), false));
    assert_eq!((by_breaker.step_left_ms, &by_breaker.step_state), (Some(40_000), &None));
    let Prepared::Native(call) = prepare(&flow, &by_breaker, &env(), NOW_MS) else { panic!("it does not call") };
    assert_eq!(call.timeout_ms, 40_000, "its attempt may take all of it");
    // The breaker opens again before the call: nothing is lost by coming back.
    let again = wait_for_downstream(&flow, &by_breaker, "default", &busy(HoldReason::Breaker, None), NOW_MS);
    assert_eq!(hold(&again).release_after_ms, Some(40_000));
}

#[test]
fn the_limits_of_a_flow_are_told_by_the_names_and_hosts_that_they_are_of() {
    let flow = flow(
        "flow: t\nsteps:\n\
         \x20 - { id: a, http: { method: POST, url: \"{{ env.A }}/x/{{ input.n }}\" }, limits: { rate: 2/s } }\n\
         \x20 - { id: b, http: { method: POST, url: \"https://B:8443/x\" }, limits: { in_flight: 3 } }\n\
         \x20 - { id: c, native: f, downstream: till, limits: { rate: 9/m } }\n\
         \x20 - { id: d, http: { method: POST, url: \"{{ env.NONE }}/x\" }, limits: { in_flight: 1 } }\n\
         \x20 - { id: e, native: f }\n",
    );
    let limits = |per_minute, in_flight| Limits { per_minute, in_flight };
    let expected = [("a", limits(Some(120), None)), ("b:8443", limits(None, Some(3))), ("till", limits(Some(9), None))];
    assert_eq!(super::super::limits(&flow, &env()), expected.map(|(name, limits)| (name.to_owned(), limits)));
    assert_eq!(limits(Some(9), None).strictest(limits(Some(8), Some(1))), limits(Some(8), Some(1)));
}
