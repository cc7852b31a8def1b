use serde_json::json;
use uuid::Uuid;

use crate::event::{EventKind, JobStatus};
use crate::slip::HoldReason;

use super::*;

mod accepted_once;
mod answers;
mod auth;
mod completions;
mod doubts;
mod downstream;
mod fallback;
mod missing;
mod replies;
mod rests;
mod sandbox;
mod undo;

const NOW_MS: i64 = 1_700_000_000_000;

/// Three steps: `a` and `c` can be undone, `b` cannot.
const THREE: &str = r#"
flow: test
deadline: 1h
steps:
  - id: a
    http: { method: POST, url: "{{ env.A }}/a", body: { n: "{{ input.n }}" } }
    retry: { attempts: 3, backoff: 1ms..1ms }
    compensate:
      http: { method: DELETE, url: "{{ env.A }}/a/{{ steps.a.output.id | default(step.idempotency_key) }}" }
  - id: b
    native: f
    queue: other
    retry: { attempts: 2, backoff: 500s..500s }
  - id: c
    http: { method: POST, url: "{{ env.A }}/c", fail_on: [503], retry_on: [409], expose: true }
    compensate: { http: { method: DELETE, url: "{{ env.A }}/c" }, retry: { attempts: 2, backoff: 1ms..1ms } }
result: { a: "{{ steps.a.output.id }}" }
"#;

fn flow(text: &str) -> Definition {
    Definition::parse_yaml("test.yaml", text, &mut |_| Err("none".to_owned())).unwrap_or_else(|problems| {
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", shown.join("\n"))
    })
}

fn new_job() -> NewJob {
    NewJob {
        job: JobId::new(Uuid::from_u128(7)),
        tenant: "default".to_owned(),
        key: "k".to_owned(),
        input: json!({ "n": 5 }),
        correlation_id: "c".to_owned(),
        priority: 1,
        retry_of: None,
    }
}

fn env() -> Env {
    Env { vars: [("A".to_owned(), "http://a".to_owned())].into(), ..Env::default() }
}

fn ok(output: Value) -> Outcome {
    Outcome::done(output)
}

fn failed(retryable: bool, effect: Effect) -> Outcome {
    let error = StepError { code: code::STEP_FAILED.to_owned(), message: "no".to_owned(), status: Some(500) };
    Outcome::Failed { error, retryable, effect, retry_after_ms: None }
}

/// The slip of a decision that sends one.
#[track_caller]
fn slip(decision: &Decision) -> Slip {
    match &decision.next {
        Next::Step { slip, .. } | Next::RetryNow { slip, .. } => slip.clone(),
        Next::Hold(hold) => hold.slip.clone(),
        Next::End => panic!("the job has ended: {decision:?}"),
    }
}

fn kinds(decision: &Decision) -> Vec<EventKind> {
    decision.events.iter().map(|event| event.kind).collect()
}

/// The slip that comes to `step`, every step before it done with `{"id": "<step>-1"}`.
fn slip_at(flow: &Definition, step: &str) -> Slip {
    let mut decision = start(flow, new_job(), NOW_MS);
    while slip(&decision).step != step {
        let at = slip(&decision);
        decision = advance(flow, &at, ok(json!({ "id": format!("{}-1", at.step) })), NOW_MS);
    }
    slip(&decision)
}

#[test]
fn a_job_starts_with_its_acceptance_and_a_slip_for_its_first_step() {
    let flow = flow(THREE);
    let decision = start(&flow, new_job(), NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::JobAccepted]);
    assert_eq!((decision.events[0].hop, decision.events[0].index), (0, 0));
    assert_eq!(decision.events[0].status, JobStatus::Accepted);
    let slip = slip(&decision);
    assert_eq!((slip.step.as_str(), slip.hop, slip.visit, slip.attempt), ("a", 1, 1, 0));
    assert_eq!(slip.deadline_ms, Some(NOW_MS + 3_600_000));
}

#[test]
fn success_goes_to_the_next_step_on_its_queue_and_the_last_one_ends_the_job() {
    let flow = flow(THREE);
    let decision = advance(&flow, &slip_at(&flow, "a"), ok(json!({ "id": 1 })), NOW_MS);
    assert!(
        matches!(&decision.next, Next::Step { slip, queue } if slip.step == "b" && queue == "other" && slip.hop == 2)
    );
    let end = advance(&flow, &slip_at(&flow, "c"), ok(Value::Null), NOW_MS);
    assert_eq!(end.next, Next::End);
    assert_eq!(kinds(&end), [EventKind::StepSucceeded, EventKind::JobSucceeded]);
    assert_eq!(end.events[1].data, Some(json!({ "a": "a-1" })));
    assert_eq!(end.events[1].index, 1);
}

#[test]
fn steps_whose_condition_is_false_are_skipped_in_the_same_decision() {
    let step = |id: &str, when: &str| format!("  - {{ id: {id}, native: f, when: \"{{{{ {when} }}}}\" }}\n");
    let text = format!("flow: t\nsteps:\n{}{}", step("a", "input.n > 9"), step("b", "input.n > 8"));
    let all = start(&flow(&text), new_job(), NOW_MS);
    assert_eq!(
        kinds(&all),
        [EventKind::JobAccepted, EventKind::StepSkipped, EventKind::StepSkipped, EventKind::JobSucceeded]
    );
    assert_eq!(all.next, Next::End);
    let indexes: Vec<u32> = all.events.iter().map(|event| event.index).collect();
    assert_eq!(indexes, [0, 1, 2, 3]);
    let wrong = start(&flow(&text.replace("input.n > 9", "input.m")), new_job(), NOW_MS);
    assert_eq!(kinds(&wrong), [EventKind::JobAccepted, EventKind::StepFailed, EventKind::JobFailed]);
    assert!(wrong.events[2].data.as_ref().unwrap()["message"].as_str().unwrap().contains("`input.m` is missing"));
}

#[test]
fn a_short_delay_is_waited_for_in_the_worker_and_a_long_one_as_a_hold() {
    let flow = flow(THREE);
    let short = advance(&flow, &slip_at(&flow, "a"), failed(true, Effect::Unknown), NOW_MS);
    assert!(matches!(short.next, Next::RetryNow { delay_ms: 0..=1, .. }), "{short:?}");
    let slip = slip(&short);
    assert_eq!((slip.attempt, slip.hop, slip.attempt_uncertain, short.events.len()), (1, 1, true, 0));
    let long = advance(&flow, &slip_at(&flow, "b"), failed(true, Effect::Unsent), NOW_MS);
    let Next::Hold(hold) = &long.next else { panic!("{long:?}") };
    assert_eq!(
        (hold.reason, hold.slip.hop, hold.slip.attempt, hold.queue.as_str()),
        (HoldReason::Backoff, 3, 1, "other")
    );
    assert_eq!(kinds(&long), [EventKind::StepRetrying]);
    assert_eq!(long.events[0].next_attempt_after_ms, hold.release_after_ms);
    assert_eq!(long.events[0].status, JobStatus::Waiting);
}

#[test]
fn what_the_other_side_asks_for_is_waited_for_but_never_past_the_deadline() {
    let flow = flow(THREE);
    let later = |outcome| match outcome {
        Outcome::Failed { error, retryable, effect, .. } => {
            Outcome::Failed { error, retryable, effect, retry_after_ms: Some(7_000) }
        }
        other => other,
    };
    let at = slip_at(&flow, "a");
    let asked = advance(&flow, &at, later(failed(true, Effect::Unsent)), NOW_MS);
    assert!(matches!(asked.next, Next::Hold(Hold { release_after_ms: Some(7_000), .. })));
    let near = at.deadline_ms.unwrap() - 3_000;
    let over = advance(&flow, &at, later(failed(true, Effect::Unsent)), near);
    assert_eq!(kinds(&over), [EventKind::StepFailed, EventKind::JobFailed], "another attempt would come too late");
    let codes: Vec<&Value> = over.events.iter().map(|event| &event.data.as_ref().unwrap()["code"]).collect();
    assert_eq!(codes, [code::STEP_FAILED, code::DEADLINE_EXCEEDED], "the step's own failure is told, too");
    assert!(over.events.iter().all(|event| event.data.as_ref().unwrap()["attempts"] == 1), "{over:?}");
    // A call that may have had its effect is undone.
    let back = advance(&flow, &at, later(failed(true, Effect::Unknown)), near);
    assert_eq!((kinds(&back)[1], slip(&back).step.as_str()), (EventKind::JobCompensating, "a"));
}

#[test]
fn a_failure_for_good_turns_back_to_the_last_step_that_can_be_undone() {
    let flow = flow(THREE);
    let decision = advance(&flow, &slip_at(&flow, "c"), failed(false, Effect::Refused), NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::StepFailed, EventKind::JobCompensating]);
    let back = slip(&decision);
    assert_eq!(
        (back.step.as_str(), back.phase, back.hop, back.attempt),
        ("a", Phase::Undo, 4, 0),
        "b cannot be undone"
    );
    assert_eq!(back.failure.as_ref().map(|failure| failure.step.as_str()), Some("c"));
    let end = advance(&flow, &back, ok(Value::Null), NOW_MS);
    assert_eq!((kinds(&end), &end.next), (vec![EventKind::StepCompensated, EventKind::JobFailed], &Next::End));
    assert_eq!(end.events[1].data.as_ref().unwrap()["step"], "c");
}

#[test]
fn an_unknown_outcome_counts_as_done_when_undoing() {
    let flow = flow(THREE);
    let mut at = slip_at(&flow, "c");
    at.attempt = 4;
    let decision = advance(&flow, &at, failed(true, Effect::Unknown), NOW_MS);
    let back = slip(&decision);
    assert_eq!(
        (back.step.as_str(), back.done.last().map(|done| (done.uncertain, done.output.is_some()))),
        ("c", Some((true, false)))
    );
    let done = advance(&flow, &at, failed(false, Effect::Done), NOW_MS);
    assert_eq!(slip(&done).done.last().map(|done| done.uncertain), Some(false), "done, but its output is lost");
}

#[test]
fn an_unknown_outcome_is_remembered_until_a_success_or_an_answer_that_the_step_names() {
    let flow = flow(THREE);
    let unknown = slip(&advance(&flow, &slip_at(&flow, "a"), failed(true, Effect::Unknown), NOW_MS));
    let refused_later = slip(&advance(&flow, &unknown, failed(true, Effect::Unsent), NOW_MS));
    assert!(refused_later.attempt_uncertain, "no connection says nothing of the attempt before");
    let exhausted = advance(&flow, &refused_later, failed(true, Effect::Unsent), NOW_MS);
    assert_eq!(slip(&exhausted).phase, Phase::Undo, "the first attempt may have been done");
    let refused = advance(&flow, &refused_later, failed(false, Effect::Refused), NOW_MS);
    let back = slip(&refused);
    assert_eq!(
        (back.phase, back.step.as_str(), back.done.last().map(|done| done.uncertain)),
        (Phase::Undo, "a", Some(true)),
        "409 is what a service says that has done it and knows no keys"
    );
    let ruled_out = advance(&flow, &refused_later, failed(false, Effect::RuledOut), NOW_MS);
    assert_eq!(ruled_out.next, Next::End, "nothing was done");
}

#[test]
fn a_job_that_was_parked_before_its_steps_condition_was_known_looks_at_it_when_it_is_sent_on() {
    let text = "flow: t\non_failure: park\nsteps:\n  - { id: a, native: f }\n  - id: b\n    native: f\n    \
                when: \"{{ steps.a.output.go }}\"\n  - { id: c, native: f }\n";
    let flow = flow(text);
    let parked_at = |output: Value| {
        let decision = advance(&flow, &slip_at(&flow, "a"), ok(output), NOW_MS);
        let Next::Hold(hold) = decision.next else { panic!("{decision:?}") };
        assert_eq!((hold.reason, hold.slip.step.as_str(), hold.slip.visit), (HoldReason::Attention, "b", 2));
        hold.slip
    };
    let unknown = parked_at(json!({ "go": "perhaps" }));
    let Prepared::Outcome(outcome) = prepare(&flow, &unknown, &Env::default(), NOW_MS) else { panic!("it is called") };
    assert!(matches!(outcome, Outcome::Failed { .. }), "still unknown");
    // As after a new version of the flow, or a mended output.
    let with = |go: bool| {
        let mut slip = unknown.clone();
        slip.done[0].output = Some(json!({ "go": go }));
        slip
    };
    let Prepared::Outcome(outcome) = prepare(&flow, &with(false), &Env::default(), NOW_MS) else {
        panic!("it is called though its condition does not hold")
    };
    let skipped = advance(&flow, &with(false), outcome, NOW_MS);
    assert_eq!((kinds(&skipped), slip(&skipped).step.as_str()), (vec![EventKind::StepSkipped], "c"));
    assert!(matches!(prepare(&flow, &with(true), &Env::default(), NOW_MS), Prepared::Native(_)));
}

#[test]
fn a_deadline_stops_no_job_whose_remaining_steps_do_not_apply() {
    let text =
        "flow: t\ndeadline: 1s\nsteps:\n  - { id: a, native: f }\n  - { id: b, native: f, when: \"{{ false }}\" }\n";
    let flow = flow(text);
    let late = advance(&flow, &slip_at(&flow, "a"), ok(json!(1)), NOW_MS + 2_000);
    let expected = [EventKind::StepSucceeded, EventKind::StepSkipped, EventKind::JobSucceeded];
    assert_eq!((kinds(&late), late.next), (expected.to_vec(), Next::End));
}

#[test]
fn a_step_that_must_not_be_repeated_is_parked_after_an_unknown_outcome() {
    let text = "flow: t\nsteps:\n  - id: a\n    native: f\n    idempotent: false\n    compensate: { native: g }\n";
    let flow = flow(text);
    let first = slip_at(&flow, "a");
    let decision = advance(&flow, &first, failed(true, Effect::Unknown), NOW_MS);
    let Next::Hold(hold) = &decision.next else { panic!("{decision:?}") };
    assert_eq!((hold.reason, hold.release_after_ms), (HoldReason::Attention, None));
    assert_eq!(kinds(&decision), [EventKind::StepFailed, EventKind::JobParked]);
    assert_eq!(decision.events[1].status, JobStatus::NeedsAttention);
    assert_eq!(hold.slip.idempotency_key(), first.idempotency_key(), "whoever repeats it does so under the same key");
    let retried = advance(&flow, &first, failed(true, Effect::Unsent), NOW_MS);
    assert!(matches!(retried.next, Next::RetryNow { .. }), "nothing was sent, so it may be sent");
    let cancelled = advance(&flow, &hold.slip, Outcome::Cancelled, NOW_MS);
    assert_eq!(slip(&cancelled).phase, Phase::Undo, "and may have been done");
}

#[test]
fn a_flow_that_parks_waits_for_an_operator_and_then_begins_a_new_visit() {
    let flow = flow(&THREE.replace("deadline: 1h", "deadline: 1h\non_failure: park"));
    let decision = advance(&flow, &slip_at(&flow, "c"), failed(false, Effect::Refused), NOW_MS);
    let Next::Hold(hold) = &decision.next else { panic!("{decision:?}") };
    assert_eq!((hold.slip.step.as_str(), hold.slip.visit, hold.slip.attempt, hold.slip.hop), ("c", 2, 0, 4));
    assert_eq!(hold.slip.deadline_ms, None, "an operator decides when it ends");
    let event = resumed(&hold.slip, 3, NOW_MS);
    assert_eq!((event.kind, event.status, event.hop), (EventKind::JobResumed, JobStatus::Running, 4));
    assert_eq!((event.steps_total, event.step.as_deref()), (3, Some("c")));
    let late = prepare(&flow, &hold.slip, &env(), NOW_MS + 86_400_000);
    assert!(
        matches!(late, Prepared::Http(call) if call.idempotency_key.as_ref().is_some_and(|key| key.ends_with(":c:2")))
    );
}

#[test]
fn a_deadline_that_has_passed_turns_the_job_back_but_not_one_that_is_on_its_way_back() {
    let flow = flow(THREE);
    let at = slip_at(&flow, "b");
    let late = at.deadline_ms.unwrap();
    let Prepared::Outcome(outcome) = prepare(&flow, &at, &env(), late) else { panic!() };
    let decision = advance(&flow, &at, outcome, late);
    assert_eq!(kinds(&decision), [EventKind::JobCompensating]);
    assert_eq!(decision.events[0].data.as_ref().unwrap()["attempts"], 0, "it was not called");
    let back = slip(&decision);
    assert_eq!(back.failure.as_ref().map(|failure| failure.code.as_str()), Some(code::DEADLINE_EXCEEDED));
    assert!(matches!(prepare(&flow, &back, &env(), late), Prepared::Http(_)));
    let succeeded = advance(&flow, &at, ok(Value::Null), late);
    assert_eq!(kinds(&succeeded), [EventKind::StepSucceeded, EventKind::JobCompensating]);
    let last = advance(&flow, &slip_at(&flow, "c"), ok(Value::Null), late);
    assert_eq!(last.next, Next::End);
    assert_eq!(last.events[1].kind, EventKind::JobSucceeded, "the last success wins");
}

#[test]
fn a_cancelled_job_goes_back_and_ends_as_cancelled() {
    let flow = flow(THREE);
    let decision = advance(&flow, &slip_at(&flow, "c"), Outcome::Cancelled, NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::JobCompensating]);
    let end = advance(&flow, &slip(&decision), ok(Value::Null), NOW_MS);
    assert_eq!(kinds(&end), [EventKind::StepCompensated, EventKind::JobCancelled]);
    let at_once = advance(&flow, &slip_at(&flow, "a"), Outcome::Cancelled, NOW_MS);
    assert_eq!((kinds(&at_once), &at_once.next), (vec![EventKind::JobCancelled], &Next::End));
    let back = slip(&decision);
    let again = advance(&flow, &back, Outcome::Cancelled, NOW_MS);
    assert_eq!(again.next, Next::RetryNow { slip: back, delay_ms: 0 }, "it changes nothing on the way back");
}

#[test]
fn an_undo_that_is_given_up_parks_the_job() {
    let flow = flow(THREE);
    let mut at = slip_at(&flow, "c");
    at.attempt = 4;
    let back = slip(&advance(&flow, &at, failed(true, Effect::Unknown), NOW_MS));
    let again = advance(&flow, &back, failed(true, Effect::Unknown), NOW_MS);
    assert!(matches!(again.next, Next::RetryNow { .. }));
    let given_up = advance(&flow, &slip(&again), failed(true, Effect::Unknown), NOW_MS);
    let Next::Hold(hold) = &given_up.next else { panic!("{given_up:?}") };
    assert_eq!((hold.reason, hold.slip.phase, hold.slip.attempt), (HoldReason::Attention, Phase::Undo, 0));
    assert_eq!(kinds(&given_up), [EventKind::JobParked]);
    assert_eq!(hold.slip.idempotency_key(), back.idempotency_key());
    let refused = advance(&flow, &back, failed(false, Effect::Refused), NOW_MS);
    assert!(matches!(refused.next, Next::Hold(_)));
}

#[test]
fn a_result_that_cannot_be_rendered_fails_the_job_and_undoes_it() {
    let flow = flow(THREE);
    let mut at = slip_at(&flow, "c");
    at.done[0].output = Some(json!({}));
    let decision = advance(&flow, &at, ok(Value::Null), NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::StepSucceeded, EventKind::JobCompensating]);
    assert_eq!(slip(&decision).step, "c");
    let message = &decision.events[1].data.as_ref().unwrap()["message"];
    assert!(message.as_str().unwrap().contains("`steps.a.output.id` is missing"), "{message}");
}

#[test]
fn a_call_is_rendered_from_the_slip_and_the_environment() {
    let flow = flow(THREE);
    let Prepared::Http(call) = prepare(&flow, &slip_at(&flow, "a"), &env(), NOW_MS) else { panic!() };
    assert_eq!((call.method.as_str(), call.url.as_str(), call.timeout_ms), ("POST", "http://a/a", 30_000));
    assert_eq!(call.body, Some(Payload::Bytes(b"{\"n\":5}".to_vec())));
    assert_eq!(call.idempotency_key, Some(format!("{}:a:1", Uuid::from_u128(7))));
    let Prepared::Native(native) = prepare(&flow, &slip_at(&flow, "b"), &env(), NOW_MS) else { panic!() };
    assert_eq!((native.name.as_str(), native.input), ("f", json!({ "n": 5 })));
}

#[test]
fn an_undo_names_what_was_done_by_its_output_or_else_by_its_key() {
    let flow = flow(THREE);
    let mut back = slip(&advance(&flow, &slip_at(&flow, "c"), Outcome::Cancelled, NOW_MS));
    let Prepared::Http(call) = prepare(&flow, &back, &env(), NOW_MS) else { panic!() };
    assert_eq!(call.url, "http://a/a/a-1");
    assert!(call.idempotency_key.unwrap().ends_with(":a:1:undo"));
    back.done[0].output = None;
    let Prepared::Http(call) = prepare(&flow, &back, &env(), NOW_MS) else { panic!() };
    assert_eq!(call.url, format!("http://a/a/{}%3Aa%3A1", Uuid::from_u128(7)));
}
