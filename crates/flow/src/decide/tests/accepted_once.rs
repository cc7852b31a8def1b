//! Steps whose answer only accepts the work, of services that take no call twice.

use super::completions::{answer, resting};
use super::*;
use crate::callback::{Callbacks, SECRET_BYTES_MIN, Secrets};
use crate::slip::{Released, ReleasedBy};

/// `VERIFY` stands for the question, or for nothing.
const ONCE: &str = r#"
flow: once
steps:
  - id: print
    http: { method: POST, url: "{{ env.A }}/p", body: { to: "{{ callback.url }}" } }
    callback: { timeout: 1h }
    timeout: 10s
    idempotent: false
    VERIFY
    retry: { attempts: 3, backoff: 2s..2s }
    compensate: { http: { method: DELETE, url: "{{ env.A }}/p" } }
"#;
const ASKED: &str =
    "verify: { http: { url: '{{ env.A }}/p/{{ job.id }}' }, done_when: '{{ response.status == 200 }}' }";
const POLLED: &str = r#"
flow: polled
steps:
  - id: ship
    http: { method: POST, url: "{{ env.A }}/s" }
    poll: { url: "{{ env.A }}/s/1", every: 5s, until: "{{ response.body.done }}", timeout: 1m }
    timeout: 10s
    idempotent: false
    verify: { http: { url: "{{ env.A }}/s" }, done_when: "{{ response.status == 200 }}" }
    compensate: { http: { method: DELETE, url: "{{ env.A }}/s" } }
"#;

fn once() -> Definition {
    flow(&ONCE.replace("VERIFY", ASKED))
}

fn unasked() -> Definition {
    flow(&ONCE.replace("VERIFY", ""))
}

fn worker() -> Env {
    let secrets = Secrets::new(vec!["k".repeat(SECRET_BYTES_MIN)]).unwrap();
    Env { callbacks: Callbacks { api_url: "http://api".to_owned(), secrets }, ..env() }
}

fn answered(flow: &Definition, slip: &Slip, answer: HttpAnswer) -> Decision {
    let now_ms = NOW_MS;
    advance(flow, slip, classify(flow, slip, answer, now_ms), now_ms)
}

/// The slip once something has released it.
fn released(slip: &Slip, by: ReleasedBy, payload: Option<Value>) -> Slip {
    Slip { released: Some(Released { by, payload }), ..slip.clone() }
}

/// The decision about a slip that asks for no call.
#[track_caller]
fn uncalled(flow: &Definition, slip: &Slip) -> Decision {
    match prepare(flow, slip, &worker(), NOW_MS) {
        Prepared::Outcome(outcome) => advance(flow, slip, outcome, NOW_MS),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn called_back(flow: &Definition, slip: &Slip, outcome: &str) -> Decision {
    uncalled(flow, &released(slip, ReleasedBy::Signal, Some(json!({ "outcome": outcome }))))
}

#[test]
fn what_was_accepted_is_not_called_again_and_ends_by_its_callback() {
    let (flow, at) = (once(), slip_at(&once(), "print"));
    assert!(marks_first(&flow, &at));
    let hold = resting(&answered(&flow, &at, answer(202, &Value::Null)));
    assert_eq!(hold.reason, HoldReason::Signal);
    let over = released(&hold.slip, ReleasedBy::Signal, Some(json!({ "outcome": "done" })));
    assert!(!marks_first(&flow, &over), "it calls nothing");
    assert_eq!(kinds(&uncalled(&flow, &over)), [EventKind::StepSucceeded, EventKind::JobSucceeded]);
    let cancelled = advance(&flow, &hold.slip, Outcome::Cancelled, NOW_MS);
    assert_eq!((slip(&cancelled).phase, slip(&cancelled).done[0].uncertain), (Phase::Undo, true));
}

#[test]
fn a_callback_of_failure_says_that_nothing_was_done_so_it_may_be_called_again() {
    let (flow, at) = (once(), slip_at(&once(), "print"));
    let hold = resting(&answered(&flow, &at, answer(202, &Value::Null)));
    let failed = called_back(&flow, &hold.slip, "failed");
    assert_eq!(kinds(&failed), [EventKind::StepFailed, EventKind::JobFailed]);
    let retry = resting(&called_back(&flow, &hold.slip, "retry"));
    assert_eq!(retry.reason, HoldReason::Backoff);
    let Prepared::Http(call) = prepare(&flow, &retry.slip, &worker(), NOW_MS) else { panic!("it is called again") };
    assert!(call.method == "POST" && marks_first(&flow, &retry.slip), "after another mark");
}

#[test]
fn a_call_of_which_nobody_knows_is_a_success_if_it_is_called_back_and_else_asked_about() {
    let (flow, at) = (once(), slip_at(&once(), "print"));
    let gone = lost(&flow, &at);
    for waits in [answered(&flow, &at, HttpAnswer::TimedOut), uncalled(&flow, &gone)] {
        let asked = resting(&waits);
        let signal = Some("callback:print:1:0".to_owned());
        assert_eq!((asked.reason, asked.release_after_ms), (HoldReason::Timer, Some(3_610_000)), "it may be done");
        assert_eq!(asked.signal, signal, "and be called back");
        let done = called_back(&flow, &asked.slip, "done");
        assert_eq!(kinds(&done), [EventKind::StepSucceeded, EventKind::JobSucceeded]);
        assert_eq!(done.events[0].attempts, 1, "one call was made");
        let over = released(&asked.slip, ReleasedBy::Signal, Some(json!({ "outcome": "done" })));
        assert!(!asks_first(&flow, &over) && !marks_first(&flow, &over), "it calls nothing");
        let Prepared::Http(question) = prepare(&flow, &asked.slip, &worker(), NOW_MS) else { panic!("it asks") };
        assert!(question.method == "GET" && asks_first(&flow, &asked.slip));
        let done = answered(&flow, &asked.slip, answer(200, &Value::Null));
        assert_eq!(kinds(&done), [EventKind::StepSucceeded, EventKind::JobSucceeded]);
        let again = answered(&flow, &asked.slip, HttpAnswer::TimedOut);
        assert_eq!(slip(&again).attempt, slip(&waits).attempt, "a question is no attempt");
    }
}

#[test]
fn a_call_that_was_never_accepted_is_made_again_once_the_question_says_so_and_its_failure_is_told() {
    let (flow, at) = (once(), slip_at(&once(), "print"));
    let lost = || HttpAnswer::ConnectionLost("it was closed".to_owned());
    let doubted = answered(&flow, &at, lost());
    assert_eq!(kinds(&doubted), [EventKind::StepRetrying]);
    let told = doubted.events[0].data.as_ref().unwrap();
    assert!(told["code"] == code::CONNECTION_FAILED && told["message"].as_str().unwrap().contains("it was closed"));
    let again = answered(&flow, &slip(&doubted), answer(404, &Value::Null));
    assert!(again.events.is_empty() && marks_first(&flow, &slip(&again)), "it is called once more: {again:?}");
    let Prepared::Http(call) = prepare(&flow, &slip(&again), &worker(), NOW_MS) else { panic!("it is called") };
    assert_eq!(call.method, "POST");
    let body: Value = serde_json::from_slice(call.body.unwrap().bytes().unwrap()).unwrap();
    let hold = resting(&answered(&flow, &slip(&again), answer(202, &Value::Null)));
    assert_eq!(hold.signal.as_deref(), Some("callback:print:1:1"), "another round: {body}");
    let done = called_back(&flow, &hold.slip, "done");
    assert_eq!((kinds(&done)[0], done.events[0].attempts), (EventKind::StepSucceeded, 2));
    // As often as its retries allow.
    let mut last = again;
    for _ in 0..2 {
        let doubted = answered(&flow, &slip(&last), lost());
        last = answered(&flow, &slip(&doubted), answer(404, &Value::Null));
    }
    assert_eq!(kinds(&last), [EventKind::StepFailed, EventKind::JobFailed]);
    assert_eq!(last.events[0].data.as_ref().unwrap()["code"], code::CONNECTION_FAILED);
    // One that was accepted, and is never called back, has failed for good.
    let hold = resting(&answered(&flow, &at, answer(202, &Value::Null)));
    let vain = resting(&uncalled(&flow, &released(&hold.slip, ReleasedBy::Time, None)));
    assert_eq!((vain.reason, vain.release_after_ms), (HoldReason::Timer, Some(10_000)), "the rest of its time");
    let not_done = answered(&flow, &vain.slip, answer(404, &Value::Null));
    assert_eq!(kinds(&not_done), [EventKind::StepFailed, EventKind::JobFailed]);
    assert_eq!(not_done.events[0].attempts, 1);
}

#[test]
fn without_a_question_an_operator_is_asked_and_the_next_call_is_marked_again() {
    let (flow, at) = (unasked(), slip_at(&unasked(), "print"));
    let hold = resting(&answered(&flow, &at, answer(202, &Value::Null)));
    let parked = resting(&uncalled(&flow, &released(&hold.slip, ReleasedBy::Time, None)));
    assert_eq!(parked.reason, HoldReason::Attention);
    let Prepared::Http(call) = prepare(&flow, &parked.slip, &worker(), NOW_MS) else { panic!("it is called") };
    assert!(call.method == "POST" && marks_first(&flow, &parked.slip));
    let again = resting(&answered(&flow, &parked.slip, answer(202, &Value::Null)));
    assert_eq!(again.signal, hold.signal, "the callback of either call ends it");
    assert!(!marks_first(&flow, &released(&again.slip, ReleasedBy::Signal, None)));
    // Of the first call nobody knows still.
    let failed = resting(&called_back(&flow, &again.slip, "failed"));
    assert_eq!(failed.reason, HoldReason::Attention);
}

#[test]
fn looks_need_no_mark_and_a_poll_in_vain_is_asked_about() {
    let flow = flow(POLLED);
    let at = slip_at(&flow, "ship");
    let hold = resting(&answered(&flow, &at, answer(202, &json!({}))));
    assert!(!marks_first(&flow, &hold.slip) && is_polling(&flow, &hold.slip));
    let done = answered(&flow, &hold.slip, answer(200, &json!({ "done": true })));
    assert_eq!(kinds(&done), [EventKind::StepSucceeded, EventKind::JobSucceeded]);
    let again = resting(&answered(&flow, &hold.slip, answer(200, &json!({ "done": false }))));
    assert!(is_polling(&flow, &again.slip));
    let refused = resting(&answered(&flow, &hold.slip, answer(404, &Value::Null)));
    assert_eq!((refused.reason, refused.release_after_ms), (HoldReason::Timer, Some(70_000)));
    assert!(asks_first(&flow, &refused.slip) && !is_polling(&flow, &refused.slip));
    let late = Slip { hop: 9, ..hold.slip };
    let in_vain = classify(&flow, &late, answer(200, &json!({ "done": false })), NOW_MS + 60_000);
    let in_vain = resting(&advance(&flow, &late, in_vain, NOW_MS + 60_000));
    assert_eq!(in_vain.release_after_ms, Some(10_000), "what is left of the time of its call");
}
