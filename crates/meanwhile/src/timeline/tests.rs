use serde_json::{Value, json};

use super::*;

fn line(event: Value) -> String {
    timeline().line(&serde_json::from_value(event).unwrap())
}

fn timeline() -> Timeline {
    let created_at = "2026-01-31T23:59:59.900Z".to_owned();
    Timeline::of(false, created_at, STEP_WIDTH)
}

#[test]
fn what_a_step_tells_of_itself_is_printed_once_and_not_after_its_end() {
    let mut timeline = timeline();
    let mut lines = |progress: Value, kind: &str| {
        let status = json!({
            "id": "1", "flow": "f", "version": "v", "status": "running", "created_at": "", "updated_at": "",
            "steps": [{ "id": "print", "status": "running", "attempts": 1, "progress": progress }],
        });
        let events = json!({ "events": [{ "type": kind, "step": "print", "at": "" }], "next": null });
        let (status, events) = (serde_json::from_value(status).unwrap(), serde_json::from_value(events).unwrap());
        timeline.progress_lines(&status, &events)
    };
    let half = || json!({ "percent": 50, "message": "page 5" });
    assert_eq!(lines(half(), "step.waiting"), ["             % print      50 %, page 5"]);
    assert_eq!(lines(half(), "step.waiting"), Vec::<String>::new());
    assert_eq!(lines(json!({ "message": "page 6" }), "step.running"), ["             % print      page 6"]);
    assert_eq!(lines(half(), "step.succeeded"), Vec::<String>::new());
    assert_eq!(lines(Value::Null, "step.waiting"), Vec::<String>::new());
}

#[test]
fn a_line_says_when_where_and_what() {
    let done = json!({"type": "step.succeeded", "step": "charge", "attempts": 3, "at": "2026-02-01T00:00:00.150Z"});
    assert_eq!(line(done), "   +0.250 s  + charge     done (attempt 3)");
    let early = json!({"type": "job.accepted", "at": "2026-01-31T23:59:59.899Z"});
    assert_eq!(line(early), "   +0.000 s  o            accepted");
}

#[test]
fn a_rest_says_what_ends_it() {
    let rest = |more: Value| {
        let mut event = json!({"type": "step.waiting", "step": "s", "at": "2026-02-01T00:00:00.150Z"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line(event).split_once("s          ").unwrap().1.to_owned()
    };
    assert_eq!(rest(json!({"next_attempt_after_ms": 500})), "sleeps for 0.5 s");
    assert_eq!(rest(json!({"next_attempt_after_ms": 172_800_000, "signal": "yes"})), "waits for `yes`, 2 d at most");
    assert_eq!(rest(json!({"signal": "yes"})), "waits for `yes`");
    let poll = json!({"host": "courier:8080", "timeout_ms": 172_800_000});
    assert_eq!(
        rest(json!({"next_attempt_after_ms": 5_000, "reason": "timer", "data": {"poll": poll}})),
        "polls courier:8080, first in 5 s, 2 d at most"
    );
    let callback = json!({"next_attempt_after_ms": 172_800_000, "signal": "callback:pack:1:0"});
    assert_eq!(rest(callback), "waits for its callback, 2 d at most");
    let held = |reason: &str| {
        let data = json!({"downstream": "payment:80"});
        rest(json!({"next_attempt_after_ms": 900_000, "reason": reason, "data": data}))
    };
    assert_eq!(held("breaker"), "waits for the breaker of payment:80");
    assert_eq!(held("limit"), "waits for room within the limits of payment:80");
    assert_eq!(
        ["0.25 s", "90 s", "2 min", "5 min 30 s", "3 h", "1 d 1 h"],
        [250, 90_000, 120_000, 330_000, 10_800_000, 90_000_000].map(duration).each_ref().map(String::as_str)
    );
}

/// The words of all lines, for these events of a job with this status.
fn told(status: Value, events: &[Value]) -> Vec<String> {
    let mut document = json!({
        "id": "1", "flow": "f", "version": "v", "status": "running", "updated_at": "",
        "created_at": "2026-02-01T00:00:00.000Z",
    });
    document.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
    let at = |(second, event): (usize, &Value)| {
        let mut event = event.clone();
        let fields = event.as_object_mut().unwrap();
        fields.entry("at").or_insert_with(|| json!(format!("2026-02-01T00:00:{second:02}.000Z")));
        event
    };
    let events: Vec<Value> = events.iter().enumerate().map(at).collect();
    let (status, events) = (
        serde_json::from_value(document).unwrap(),
        serde_json::from_value(json!({ "events": events, "next": null })).unwrap(),
    );
    let lines = timeline().new_lines(&status, &events);
    lines.iter().map(|line| line.split_at(11).1.trim_start().to_owned()).collect()
}

#[test]
fn an_end_names_what_is_undone_or_that_nothing_is() {
    let undone = json!({ "type": "step.compensated", "step": "charge", "phase": "undo" });
    let end = |events: &[Value]| told(json!({}), events).pop().unwrap();
    assert_eq!(end(&[undone, json!({ "type": "job.failed" })]), "*            failed; undone: charge");
    assert_eq!(end(&[json!({ "type": "job.failed" })]), "*            failed; nothing was undone");
    assert_eq!(end(&[json!({ "type": "job.cancelled" })]), "*            cancelled; nothing was undone");
}

#[test]
fn a_cancel_stands_at_its_time_with_its_reason_and_once() {
    let cancel = json!({ "requested_at": "2026-02-01T00:00:00.500Z", "by": "ann", "reason": "ordered twice" });
    let events = [json!({ "type": "job.accepted" }), json!({ "type": "job.cancelled" })];
    assert_eq!(
        told(json!({ "cancel": cancel }), &events),
        [
            "o            accepted",
            "o            to be cancelled, as ann wants: ordered twice",
            "*            cancelled; nothing was undone",
        ]
    );
    assert_eq!(told(json!({ "cancel": cancel }), &events[..1]).len(), 2, "nothing has come of it yet");
}

#[test]
fn a_late_start_is_no_sleep_and_an_undo_is_told_from_a_step() {
    let sleeps = json!({ "type": "step.waiting", "step": "a", "reason": "timer", "next_attempt_after_ms": 3_600_000 });
    let rest = |at: &str| {
        let mut event = sleeps.clone();
        event["at"] = json!(at);
        event
    };
    let accepted = json!({ "type": "job.accepted" });
    let lines = told(json!({}), &[accepted.clone(), rest("2026-02-01T00:00:00.000Z")]);
    assert_eq!(lines[1], ". a          starts in 1 h");
    let lines = told(json!({}), &[accepted, rest("2026-02-01T00:00:00.007Z")]);
    assert_eq!(lines[1], ". a          sleeps for 1 h");
    let busy = |phase: &str| {
        let event = json!({ "type": "step.retrying", "step": "a", "phase": phase, "next_attempt_after_ms": 500,
            "data": { "message": "POST was answered 503" } });
        told(json!({}), &[event]).remove(0)
    };
    assert_eq!(busy("forward"), "~ a          POST was answered 503; again in 0.5 s");
    assert_eq!(busy("undo"), "~ a          undo: POST was answered 503; again in 0.5 s");
}

#[test]
fn an_operators_word_is_no_approval() {
    let done = json!({ "type": "step.succeeded", "step": "pay", "attempts": 1, "actor": "default" });
    let said = json!({ "type": "job.resumed", "step": "pay", "actor": "default", "data": { "outcome": "succeeded" } });
    assert_eq!(told(json!({}), &[said, done.clone()])[1], "+ pay        done, as said by default");
    assert_eq!(told(json!({}), &[done]), ["+ pay        done, approved by default"]);
}

#[test]
fn a_failure_says_why() {
    let failed = json!({
        "type": "step.failed", "step": "charge", "attempts": 1, "at": "2026-02-01T00:00:01.000Z",
        "data": {"message": "402 declined"},
    });
    assert_eq!(line(failed), "   +1.100 s  x charge     402 declined");
}
