use super::*;
use crate::callback::{Callbacks, Permit, Purpose, SECRET_BYTES_MIN, Secrets};
use crate::slip::{Released, ReleasedBy};

const COMPLETED: &str = r#"
flow: completed
steps:
  - id: print
    http: { method: POST, url: "{{ env.A }}/p", body: { to: "{{ callback.url }}" }, expose: true }
    callback: { timeout: 1h }
    timeout: 10s
    retry: { attempts: 3, backoff: 1ms..1ms }
    compensate:
      http: { method: DELETE, url: "{{ env.A }}/p/{{ steps.print.output.id | default(step.idempotency_key) }}" }
  - id: ship
    http: { method: POST, url: "{{ env.A }}/s", fail_on: [409] }
    poll:
      url: "{{ env.A }}/s/{{ response.body.id }}?of={{ steps.print.output }}"
      headers: { authorization: "Bearer {{ secrets.T }}" }
      every: 5s
      until: "{{ response.body.state == 'done' }}"
      timeout: 1m
    compensate: { http: { method: DELETE, url: "{{ env.A }}/s" } }
result: "{{ steps.ship.output.n }}"
"#;

fn completed() -> Definition {
    flow(COMPLETED)
}

fn worker() -> Env {
    let secrets = Secrets::new(vec!["k".repeat(SECRET_BYTES_MIN)]).unwrap();
    let callbacks = Callbacks { api_url: "http://api".to_owned(), secrets };
    Env { callbacks, secrets: [("T".to_owned(), "t".to_owned())].into(), ..env() }
}

pub(super) fn answer(status: u16, body: &Value) -> HttpAnswer {
    let (retry_after, content_type) = (None, Some("application/json".to_owned()));
    HttpAnswer::Response { status, retry_after, content_type, headers: Vec::new(), body: body.to_string().into_bytes() }
}

/// The decision after the answer to the call of the slip's step.
fn answered(slip: &Slip, answer: HttpAnswer, now_ms: i64) -> Decision {
    let flow = completed();
    let outcome = classify(&flow, slip, answer, now_ms);
    advance(&flow, slip, outcome, now_ms)
}

#[track_caller]
pub(super) fn resting(decision: &Decision) -> Hold {
    match &decision.next {
        Next::Hold(hold) => hold.clone(),
        other => panic!("{other:?}"),
    }
}

fn accepted(slip: &Slip) -> Hold {
    resting(&answered(slip, answer(202, &json!("?")), NOW_MS))
}

/// The decision once the callback has come.
#[track_caller]
fn called_back(slip: &Slip, payload: Value) -> Decision {
    released(slip, ReleasedBy::Signal, Some(payload))
}

#[track_caller]
fn released(slip: &Slip, by: ReleasedBy, payload: Option<Value>) -> Decision {
    let flow = completed();
    let is_told = by == ReleasedBy::Signal;
    let slip = Slip { released: Some(Released { by, payload }), ..slip.clone() };
    assert_eq!(is_cancelled(&slip, true), !is_told, "what a callback says counts before a cancel");
    match prepare(&flow, &slip, &worker(), NOW_MS) {
        Prepared::Outcome(outcome) => advance(&flow, &slip, outcome, NOW_MS),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn call(slip: &Slip) -> HttpCall {
    match prepare(&completed(), slip, &worker(), NOW_MS) {
        Prepared::Http(call) => call,
        other => panic!("{other:?}"),
    }
}

/// The permit that a request tells.
fn told(slip: &Slip) -> Permit {
    let body: Value = serde_json::from_slice(call(slip).body.unwrap().bytes().unwrap()).unwrap();
    let text = body["to"].as_str().unwrap().strip_prefix("http://api/v1/callbacks/").unwrap();
    worker().callbacks.secrets.verify(Purpose::Callback, text).unwrap()
}

fn print() -> Slip {
    slip_at(&completed(), "print")
}

fn ship() -> Slip {
    Slip { done: vec![done("print", Some(json!("x")))], ..slip_at(&completed(), "ship") }
}

fn done(step: &str, output: Option<Value>) -> crate::slip::Completed {
    let carried = crate::slip::CarriedStep::default();
    crate::slip::Completed { step: step.to_owned(), visit: 1, output, uncertain: false, undone: false, carried }
}

#[test]
fn a_2xx_lets_the_token_rest_until_the_callback_ends_the_step_with_its_output() {
    let hold = accepted(&print());
    let signal = told(&print()).signal();
    assert_eq!((hold.reason, hold.release_after_ms, hold.signal), (HoldReason::Signal, Some(3_600_000), Some(signal)));
    assert!(hold.slip.attempt_uncertain, "it may have its effect from now on");
    let on = called_back(&hold.slip, json!({ "outcome": "done", "body": { "id": 7 } }));
    assert_eq!(kinds(&on), [EventKind::StepSucceeded]);
    let next = slip(&on);
    assert_eq!((next.step.as_str(), &next.step_state, next.attempt_uncertain), ("ship", &None, false));
    assert_eq!((next.done[0].output.clone(), next.done[0].uncertain), (Some(json!({ "id": 7 })), false));
    let empty = called_back(&hold.slip, json!({ "outcome": "done" }));
    assert_eq!(slip(&empty).done[0].output, Some(Value::Null));
}

#[test]
fn what_was_accepted_is_undone_when_the_job_goes_back_and_a_failure_that_was_called_back_is_not() {
    let hold = accepted(&print());
    for back in [
        advance(&completed(), &hold.slip, Outcome::Cancelled, NOW_MS),
        released(&hold.slip, ReleasedBy::Time, None),
        released(&hold.slip, ReleasedBy::Deadline, None),
    ] {
        let back = slip(&back);
        assert_eq!((back.phase, back.step.as_str(), back.done[0].uncertain), (Phase::Undo, "print", true));
    }
    // The job's time was over when the callback came: nobody can say any more that nothing is to be undone.
    let late = Slip { deadline_ms: Some(NOW_MS), ..hold.slip.clone() };
    let back = slip(&called_back(&late, json!({ "outcome": "done" })));
    assert_eq!((back.step.as_str(), back.failure.unwrap().code.as_str()), ("print", code::DEADLINE_EXCEEDED));
    // What it was done with serves to undo it.
    let told = slip(&called_back(&late, json!({ "outcome": "done", "body": { "id": 7 } })));
    assert_eq!((told.done[0].output.clone(), told.done[0].uncertain), (Some(json!({ "id": 7 })), false));
    assert_eq!(call(&told).url, "http://a/p/7");
    let failed = slip(&called_back(&late, json!({ "outcome": "failed" })));
    assert_eq!((failed.done[0].output.clone(), failed.done[0].uncertain), (None, true));
    let vain = released(&hold.slip, ReleasedBy::Time, None);
    assert_eq!(vain.events[0].data.as_ref().unwrap()["code"], code::TIMED_OUT);
    let problem = json!({ "detail": "out of paper", "status": 409 });
    let failed = called_back(&hold.slip, json!({ "outcome": "failed", "problem": problem }));
    assert_eq!(kinds(&failed), [EventKind::StepFailed, EventKind::JobFailed], "there is nothing to undo");
    let data = failed.events[0].data.as_ref().unwrap();
    assert!(data["message"].as_str().unwrap().ends_with("out of paper") && data["status"] == 409, "{data}");
    // Another attempt has had no answer: it may have had its effect.
    let hold = accepted(&Slip { attempt: 1, attempt_uncertain: true, ..print() });
    let failed = called_back(&hold.slip, json!({ "outcome": "failed" }));
    assert_eq!(kinds(&failed), [EventKind::StepFailed, EventKind::JobCompensating]);
}

#[test]
fn all_attempts_of_a_round_tell_one_address_and_a_retry_that_was_called_back_begins_another() {
    let first = told(&print());
    let later = Slip { attempt: 2, attempt_uncertain: true, hop: 9, ..print() };
    assert_eq!(told(&later), first, "under one idempotency key, one request");
    let retry = called_back(&accepted(&print()).slip, json!({ "outcome": "retry" }));
    let again = &resting(&retry).slip;
    assert_eq!(kinds(&retry), [EventKind::StepRetrying], "it is committed before the next call");
    assert_eq!((again.attempt, &again.released, again.attempt_uncertain), (1, &None, false));
    let second = told(again);
    assert_eq!((second.round, second.visit), (1, 1));
    assert_ne!(second.signal(), first.signal(), "a late callback of the first round does not end the second");
    let hold = accepted(again);
    assert_eq!(hold.signal, Some(second.signal()));
    // The retries are the step's.
    let hold = accepted(&Slip { attempt: 2, ..print() });
    let over = called_back(&hold.slip, json!({ "outcome": "retry" }));
    assert_eq!(kinds(&over), [EventKind::StepFailed, EventKind::JobFailed]);
}

#[test]
fn a_call_without_an_answer_is_a_success_if_its_callback_comes() {
    // The last attempt has had none: its callback is waited for.
    let last = Slip { attempt: 2, ..print() };
    let hold = resting(&answered(&last, HttpAnswer::TimedOut, NOW_MS));
    assert_eq!((hold.reason, hold.signal.clone()), (HoldReason::Signal, Some(told(&last).signal())));
    assert_eq!(kinds(&called_back(&hold.slip, json!({ "outcome": "done" }))), [EventKind::StepSucceeded]);
    let vain = released(&hold.slip, ReleasedBy::Time, None);
    assert_eq!(kinds(&vain), [EventKind::StepFailed, EventKind::JobCompensating], "and not for ever");
    // A refusal says nothing of the attempt before it.
    let refused = answered(&Slip { attempt_uncertain: true, ..print() }, answer(409, &Value::Null), NOW_MS);
    assert_eq!(resting(&refused).reason, HoldReason::Signal);
    // Who answers that it failed knows of no work.
    let broken = answered(&last, answer(500, &Value::Null), NOW_MS);
    assert_eq!(kinds(&broken), [EventKind::StepFailed, EventKind::JobCompensating]);
    let refused = answered(&print(), answer(409, &Value::Null), NOW_MS);
    assert_eq!(kinds(&refused), [EventKind::StepFailed, EventKind::JobFailed]);
}

#[test]
fn a_callback_ends_a_back_off() {
    let hold = resting(&answered(&print(), asks_to_come_later(), NOW_MS));
    assert_eq!((hold.reason, hold.signal.clone()), (HoldReason::Backoff, Some(told(&print()).signal())));
    let done = called_back(&hold.slip, json!({ "outcome": "done" }));
    assert_eq!((kinds(&done), done.events[0].attempts), (vec![EventKind::StepSucceeded], 1), "one call was made");
    assert_eq!(call(&hold.slip).method, "POST", "without one the call is made again");
    // Where no further call can come in time, the callback is waited for as long as the step's time goes.
    let short = Slip { step_left_ms: Some(30_000), ..print() };
    let told = answered(&short, asks_to_come_later(), NOW_MS);
    let hold = resting(&told);
    assert_eq!((hold.reason, hold.release_after_ms), (HoldReason::Signal, Some(30_000)));
    let view = crate::view::JobView::from_event(0, &told.events[0]);
    assert_eq!((view.steps[0].next_attempt_at_ms, view.steps[0].status.as_str()), (None, "waiting"));
    assert_eq!(view.steps[0].error.as_ref().unwrap()["status"], 503, "it tells why it waits");
    let over = Slip { step_left_ms: Some(0), ..hold.slip };
    let over = released(&over, ReleasedBy::Time, None);
    let failure = slip(&over).failure.unwrap();
    assert_eq!((failure.code.as_str(), failure.attempts), (code::DEADLINE_EXCEEDED, 1));
}

fn asks_to_come_later() -> HttpAnswer {
    HttpAnswer::Response {
        status: 503,
        retry_after: Some("60".to_owned()),
        content_type: None,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

#[test]
fn a_worker_that_cannot_tell_where_to_call_back_leaves_the_call_to_another_one() {
    for callbacks in [Callbacks::default(), Callbacks { api_url: String::new(), ..worker().callbacks }] {
        let env = Env { callbacks, ..worker() };
        let Prepared::Missing(missing) = prepare(&completed(), &print(), &env, NOW_MS) else { panic!("it is called") };
        assert_eq!(missing.kind, MissingKind::Setting);
        assert!(missing.what.contains("callbacks.secrets"), "{}", missing.what);
    }
}

#[test]
fn a_poll_looks_until_the_work_is_done_and_gives_what_it_found() {
    let hold = resting(&answered(&ship(), answer(202, &json!({ "id": 7 })), NOW_MS));
    assert_eq!((hold.reason, hold.release_after_ms, &hold.signal), (HoldReason::Timer, Some(5_000), &None));
    assert!(hold.slip.attempt_uncertain);
    let look = call(&hold.slip);
    assert_eq!((look.method.as_str(), look.url.as_str(), &look.idempotency_key), ("GET", "http://a/s/7?of=x", &None));
    assert_eq!(look.headers, [("authorization".to_owned(), "Bearer t".to_owned())]);
    for passing in [answer(200, &json!({ "state": "busy" })), answer(503, &Value::Null), HttpAnswer::TimedOut] {
        let again = answered(&hold.slip, passing, NOW_MS + 5_000);
        assert_eq!((kinds(&again), resting(&again).release_after_ms), (vec![], Some(5_000)));
        assert_eq!(call(&resting(&again).slip), look);
    }
    let over = answered(&hold.slip, answer(200, &json!({ "state": "done", "n": 3 })), NOW_MS + 9_000);
    assert_eq!(kinds(&over), [EventKind::StepSucceeded, EventKind::JobSucceeded]);
    assert_eq!(over.events[1].data, Some(json!(3)));
}

#[test]
fn a_poll_comes_no_earlier_than_it_is_asked_to_and_ends_at_its_time() {
    let asked = |status, after: &str, now_ms| {
        let (retry_after, body) = (Some(after.to_owned()), br#"{"id":1,"state":"busy"}"#.to_vec());
        let content_type = None;
        let hold = resting(&answered(&ship(), answer(202, &json!({ "id": 7 })), NOW_MS));
        let answer = HttpAnswer::Response { status, retry_after, content_type, headers: Vec::new(), body };
        resting(&answered(&hold.slip, answer, now_ms)).release_after_ms
    };
    assert_eq!(asked(200, "20", NOW_MS), Some(20_000));
    assert_eq!(asked(429, "20", NOW_MS), Some(20_000));
    assert_eq!(asked(200, "1", NOW_MS), Some(5_000));
    assert_eq!(asked(200, "20", NOW_MS + 58_000), Some(2_000), "a last look at the end");
    let hold = resting(&answered(&ship(), answer(202, &json!({ "id": 7 })), NOW_MS));
    let vain = answered(&hold.slip, answer(200, &json!({ "state": "busy" })), NOW_MS + 60_000);
    assert_eq!(kinds(&vain), [EventKind::StepFailed, EventKind::JobCompensating]);
    let back = slip(&vain);
    assert_eq!((back.step.as_str(), back.failure.unwrap().code.as_str()), ("ship", code::TIMED_OUT));
    assert!(back.done[1].uncertain);
}

#[test]
fn a_poll_that_is_refused_fails_the_step_and_leaves_its_effect_open() {
    let hold = resting(&answered(&ship(), answer(202, &json!({ "id": 7 })), NOW_MS));
    let bodies = [json!({ "state": "done" }), Value::Null, json!({})];
    for (status, body) in [(404, &bodies[0]), (410, &bodies[1]), (409, &bodies[1]), (200, &bodies[2])] {
        let failed = answered(&hold.slip, answer(status, body), NOW_MS);
        assert_eq!(kinds(&failed), [EventKind::StepFailed, EventKind::JobCompensating], "{status}");
        assert!(slip(&failed).done[1].uncertain, "{status}");
        let message = failed.events[0].data.as_ref().unwrap()["message"].as_str().unwrap();
        let by_status = format!("its poll was answered {status}");
        assert_eq!(message == by_status, status != 200, "it says what was asked, and what is wrong else: {message}");
    }
}

#[test]
fn a_parked_step_is_called_again_and_its_late_callback_still_counts() {
    let flow = flow(&format!("{COMPLETED}on_failure: park\n"));
    let hold = accepted(&print());
    let vain = Slip { released: Some(Released { by: ReleasedBy::Time, payload: None }), ..hold.slip };
    let Prepared::Outcome(outcome) = prepare(&flow, &vain, &worker(), NOW_MS) else { panic!("it has waited in vain") };
    let parked = resting(&advance(&flow, &vain, outcome, NOW_MS));
    assert_eq!((parked.reason, parked.slip.visit, &parked.signal), (HoldReason::Attention, 1, &None));
    assert_eq!(told(&parked.slip), told(&print()), "the same visit, the same round");
    assert_eq!(accepted(&parked.slip).signal, hold.signal);
    let hold = resting(&answered(&ship(), answer(202, &json!({ "id": 7 })), NOW_MS));
    let parked = resting(&advance(&flow, &hold.slip, classify(&flow, &hold.slip, answer(404, &Value::Null), 0), 0));
    assert_eq!(call(&parked.slip).method, "POST");
}

/// A service that answers 202, says where its work is found and when to look, and takes no call twice.
const LINKED: &str = r#"
flow: linked
steps:
  - id: print
    http: { method: POST, url: "{{ env.A }}/v1/prints?fast=1", body: {} }
    poll: { url: "{{ response.headers.location }}", until: "{{ response.status == 200 }}" }
    compensate: { http: { method: DELETE, url: "{{ env.A }}/v1/prints" } }
"#;

fn linked(location: &str, retry_after: Option<&str>) -> HttpAnswer {
    HttpAnswer::Response {
        status: 202,
        retry_after: retry_after.map(str::to_owned),
        content_type: None,
        headers: vec![("location".to_owned(), location.to_owned())],
        body: Vec::new(),
    }
}

/// The decision once the work was accepted with this link.
fn accepted_at(location: &str, retry_after: Option<&str>) -> Decision {
    let flow = flow(LINKED);
    let at = slip_at(&flow, "print");
    let outcome = poll_host(&flow, &at, classify(&flow, &at, linked(location, retry_after), NOW_MS), &worker());
    advance(&flow, &at, outcome, NOW_MS)
}

#[test]
fn a_poll_follows_the_link_of_the_answer_and_tells_of_its_host() {
    let flow = flow(LINKED);
    let decision = accepted_at("/v1/prints/7", Some("20"));
    let hold = resting(&decision);
    assert_eq!(hold.release_after_ms, Some(20_000), "it says itself when to look");
    let told = decision.events[0].data.as_ref().unwrap();
    assert_eq!(told, &json!({ "poll": { "host": "a", "timeout_ms": 3_600_000 } }));
    let view = crate::view::JobView::from_event(0, &decision.events[0]);
    let waits = view.steps[0].waiting_for.clone().unwrap();
    assert_eq!((waits.poll.as_deref(), waits.until_ms), (Some("a"), Some(NOW_MS + 3_600_000)));
    let Prepared::Http(look) = prepare(&flow, &hold.slip, &worker(), NOW_MS) else { panic!("it looks") };
    assert_eq!((look.method.as_str(), look.url.as_str()), ("GET", "http://a/v1/prints/7"));
    assert_eq!(resting(&accepted_at("http://a/v1/prints/7", None)).release_after_ms, Some(5_000));
    assert_eq!(resting(&accepted_at("7", Some("0"))).release_after_ms, Some(1_000), "not without a pause");
}

#[test]
fn a_link_that_leads_elsewhere_or_is_not_there_fails_the_step_at_once_and_it_is_undone() {
    let long = format!("/{}", "a".repeat(3_000));
    for (location, why) in
        [("http://b/v1/prints/7", "another scheme, host or port"), (&long, "longer than"), ("", "empty")]
    {
        let decision = accepted_at(location, None);
        assert_eq!(kinds(&decision), [EventKind::StepFailed, EventKind::JobCompensating], "{location}");
        let data = decision.events[0].data.as_ref().unwrap();
        assert!(data["message"].as_str().unwrap().contains(why) && data["code"] == "expression-failed", "{data}");
        assert!(slip(&decision).done[0].uncertain);
    }
    let flow = flow(LINKED);
    let at = slip_at(&flow, "print");
    let outcome = poll_host(&flow, &at, classify(&flow, &at, answer(202, &Value::Null), NOW_MS), &worker());
    let data = advance(&flow, &at, outcome, NOW_MS).events[0].data.clone().unwrap();
    assert!(data["message"].as_str().unwrap().contains("`response.headers.location` is missing"), "{data}");
}
