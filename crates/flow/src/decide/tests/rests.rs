use super::*;
use crate::slip::{Released, ReleasedBy};

const RESTS: &str = r#"
flow: rests
deadline: 1h
steps:
  - id: first
    native: f
    compensate: { native: g }
  - id: nap
    sleep: "{{ input.nap | default('10m') }}"
  - id: approve
    wait: { signal: approval, approve: { by: [ann, bob] }, timeout: 20m }
  - id: details
    wait: { signal: details, schema: { type: object, required: [n] }, timeout: 5m, on_timeout: continue }
  - id: last
    native: f
    with: { n: "{{ steps.details.output.n | default(0) }}" }
result: { by: "{{ steps.approve.output.by }}", n: "{{ steps.details.output.n | default(0) }}" }
"#;

/// The outcome that the slip's step asks for without a call.
#[track_caller]
fn asked(flow: &Definition, slip: &Slip, now_ms: i64) -> Outcome {
    match prepare(flow, slip, &env(), now_ms) {
        Prepared::Outcome(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// The next decision about a slip at a step that rests.
#[track_caller]
fn go(flow: &Definition, slip: &Slip, now_ms: i64) -> Decision {
    advance(flow, slip, asked(flow, slip, now_ms), now_ms)
}

#[track_caller]
fn hold(decision: &Decision) -> &Hold {
    match &decision.next {
        Next::Hold(hold) => hold,
        other => panic!("{other:?}"),
    }
}

fn at(flow: &Definition, step: &str) -> Slip {
    slip_at(flow, step)
}

fn signalled(hold: &Hold, payload: Value) -> Slip {
    let released = Released { by: ReleasedBy::Signal, payload: Some(payload) };
    Slip { released: Some(released), ..hold.slip.clone() }
}

#[test]
fn a_sleep_rests_once_and_goes_on() {
    let flow = flow(RESTS);
    let rest = go(&flow, &at(&flow, "nap"), NOW_MS);
    let held = hold(&rest);
    assert_eq!((held.reason, held.release_after_ms, &held.signal), (HoldReason::Timer, Some(600_000), &None));
    let [event] = rest.events.as_slice() else { panic!("{rest:?}") };
    assert_eq!((event.kind, event.status), (EventKind::StepWaiting, JobStatus::Waiting));
    assert_eq!((event.reason, event.next_attempt_after_ms), (Some(HoldReason::Timer), Some(600_000)));
    let on = go(&flow, &held.slip, NOW_MS + 600_000);
    assert_eq!(kinds(&on), [EventKind::StepSucceeded]);
    let next = slip(&on);
    assert_eq!((next.step.as_str(), next.released, next.hop), ("approve", None, held.slip.hop + 1));
}

#[test]
fn a_sleep_takes_what_the_input_says_and_refuses_what_is_no_duration() {
    let flow = flow(RESTS);
    let with = |nap: Value| Slip { input: json!({ "nap": nap }), ..at(&flow, "nap") };
    let length = |nap| hold(&go(&flow, &with(nap), NOW_MS)).release_after_ms;
    assert_eq!(length(json!("90s")), Some(90_000));
    assert_eq!(asked(&flow, &with(json!("0s")), NOW_MS), ok(Value::Null));
    for nap in [json!(90), json!("soon"), json!(null), json!({})] {
        let failed = go(&flow, &with(nap), NOW_MS);
        assert_eq!(kinds(&failed), [EventKind::StepFailed, EventKind::JobCompensating]);
        let message = failed.events[0].data.as_ref().unwrap()["message"].to_string();
        assert!(message.contains("`sleep`: ") && message.contains("200ms, 2s"), "{message}");
    }
}

#[test]
fn a_sleep_ends_at_its_instant_however_it_is_written() {
    let text = |until: &str| format!("flow: t\nsteps:\n  - {{ id: s, sleep: {{ until: \"{until}\" }} }}");
    for until in ["2023-11-14T22:15:20Z", "2023-11-14T23:15:20.000+01:00", "{{ input.at }}"] {
        let flow = flow(&text(until));
        let slip = Slip { input: json!({ "at": "2023-11-14T22:15:20Z" }), ..at(&flow, "s") };
        assert_eq!(hold(&go(&flow, &slip, NOW_MS)).release_after_ms, Some(120_000), "{until}");
        assert_eq!(asked(&flow, &slip, NOW_MS + 120_000), ok(Value::Null), "it has passed");
    }
}

#[test]
fn the_deadline_ends_any_rest_and_the_job_is_undone() {
    let flow = flow(RESTS);
    let late = NOW_MS + 3_600_000 - 60_000;
    for step in ["nap", "approve"] {
        let rest = go(&flow, &at(&flow, step), late);
        let held = hold(&rest);
        assert_eq!(held.release_after_ms, Some(60_000), "{step}");
        // The clock of the worker that takes it may be behind: the hold says what its end means.
        let end = go(&flow, &held.slip, late + 59_000);
        assert_eq!(kinds(&end), [EventKind::JobCompensating]);
        let back = slip(&end);
        assert_eq!(back.failure.as_ref().unwrap().code, code::DEADLINE_EXCEEDED);
        assert_eq!((back.step.as_str(), back.phase), ("first", Phase::Undo));
    }
}

#[test]
fn a_signal_gives_its_payload_as_the_output_and_names_who_decided() {
    let flow = flow(RESTS);
    let rest = go(&flow, &at(&flow, "approve"), NOW_MS);
    let held = hold(&rest);
    assert_eq!((held.reason, held.signal.as_deref()), (HoldReason::Signal, Some("approval")));
    assert_eq!((held.release_after_ms, rest.events[0].signal.as_deref()), (Some(1_200_000), Some("approval")));
    let payload = json!({ "decision": "approved", "by": "ann" });
    let on = go(&flow, &signalled(held, payload.clone()), NOW_MS);
    assert_eq!(kinds(&on), [EventKind::StepSucceeded]);
    assert_eq!(on.events[0].actor.as_deref(), Some("ann"));
    assert_eq!(slip(&on).done.last().unwrap().output, Some(payload));
}

#[test]
fn a_rejection_and_a_wait_in_vain_fail_the_step_for_good() {
    let flow = flow(RESTS);
    let rest = go(&flow, &at(&flow, "approve"), NOW_MS);
    let no = json!({ "decision": "rejected", "by": "bob", "comment": "too much" });
    let rejected = go(&flow, &signalled(hold(&rest), no), NOW_MS);
    assert_eq!(kinds(&rejected), [EventKind::StepFailed, EventKind::JobCompensating]);
    assert_eq!(rejected.events[0].actor.as_deref(), Some("bob"));
    let failure = slip(&rejected).failure.unwrap();
    assert_eq!((failure.code.as_str(), failure.message.as_str()), ("rejected", "rejected by bob: too much"));
    let in_vain = go(&flow, &hold(&rest).slip, NOW_MS + 1_200_000);
    assert_eq!(kinds(&in_vain), [EventKind::StepFailed, EventKind::JobCompensating]);
    assert_eq!(slip(&in_vain).failure.unwrap().code, code::TIMED_OUT);
    // A worker that stopped may have taken it before: nothing was called all the same.
    let again = redelivered(hold(&rest).slip.clone());
    let back = slip(&go(&flow, &again, NOW_MS + 1_200_000));
    assert!(back.done.iter().all(|done| done.step != "approve"), "{back:?}");
}

#[test]
fn a_wait_in_vain_may_let_the_job_go_on_without_its_output() {
    let flow = flow(RESTS);
    let rest = go(&flow, &at(&flow, "details"), NOW_MS);
    let on = go(&flow, &hold(&rest).slip, NOW_MS + 300_000);
    assert_eq!(kinds(&on), [EventKind::StepSkipped]);
    assert_eq!(on.events[0].data.as_ref().unwrap()["code"], "timed-out");
    let last = slip(&on);
    assert_eq!(last.step, "last");
    assert!(matches!(prepare(&flow, &last, &env(), NOW_MS), Prepared::Native(call) if call.input == json!({ "n": 0 })));
}

#[test]
fn a_wait_in_vain_may_lead_back_and_every_visit_counts() {
    let text = "
flow: loops
steps:
  - { id: ask, native: f, compensate: { native: g } }
  - { id: answer, wait: { signal: answer, timeout: 1m, on_timeout: ask } }
";
    let flow = flow(text);
    let mut at = at(&flow, "answer");
    for visit in 1..=3 {
        assert_eq!((at.step.as_str(), at.visit), ("answer", visit));
        let rest = go(&flow, &at, NOW_MS);
        let again = slip(&go(&flow, &hold(&rest).slip, NOW_MS + 60_000));
        assert_eq!((again.step.as_str(), again.visit), ("ask", visit + 1));
        assert_eq!(again.idempotency_key(), format!("{}:ask:{}", again.job, visit + 1));
        at = slip(&advance(&flow, &again, ok(Value::Null), NOW_MS));
    }
    // Whatever was done in any visit is undone, the last first.
    let mut back = slip(&advance(&flow, &at, Outcome::Cancelled, NOW_MS));
    let mut undone = Vec::new();
    loop {
        undone.push((back.step.clone(), back.visit));
        let decision = advance(&flow, &back, ok(Value::Null), NOW_MS);
        if decision.next == Next::End {
            break;
        }
        back = slip(&decision);
    }
    assert_eq!(undone, [4, 3, 2, 1].map(|visit| ("ask".to_owned(), visit)));
}

#[test]
fn a_loop_has_an_end() {
    let text = "
flow: loops
steps:
  - { id: nap, sleep: 1s }
  - { id: answer, wait: { signal: answer, timeout: 1m, on_timeout: nap } }
";
    let flow = flow(text);
    let mut decision = start(&flow, new_job(), NOW_MS);
    for _ in 0..1_000 {
        if decision.next == Next::End {
            let failure = decision.events.last().unwrap().data.clone().unwrap();
            assert_eq!(failure["code"], code::TOO_MANY_VISITS);
            return;
        }
        decision = go(&flow, &slip(&decision), NOW_MS);
    }
    panic!("{decision:?}");
}

#[test]
fn a_parked_wait_that_is_sent_on_waits_anew() {
    let text = "flow: t\non_failure: park\nsteps:\n  - { id: w, wait: { signal: s, timeout: 1m } }";
    let flow = flow(text);
    let rest = go(&flow, &at(&flow, "w"), NOW_MS);
    let parked = go(&flow, &hold(&rest).slip, NOW_MS + 60_000);
    assert_eq!(hold(&parked).reason, HoldReason::Attention);
    let anew = go(&flow, &hold(&parked).slip, NOW_MS + 70_000);
    assert_eq!((hold(&anew).reason, hold(&anew).slip.visit), (HoldReason::Signal, 2));
}

#[test]
fn a_job_that_starts_later_rests_in_front_of_its_first_step_and_its_time_begins_then() {
    let flow = flow(THREE);
    let decision = start_later(&flow, new_job(), 60_000, NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::JobAccepted, EventKind::StepWaiting]);
    let told = &decision.events[1];
    assert_eq!((told.hop, told.index, told.step.as_deref(), told.status), (0, 1, Some("a"), JobStatus::Waiting));
    assert_eq!((told.next_attempt_after_ms, told.reason), (Some(60_000), Some(HoldReason::Timer)));
    let Next::Hold(hold) = &decision.next else { panic!("{decision:?}") };
    assert_eq!((hold.release_after_ms, hold.reason, hold.queue.as_str()), (Some(60_000), HoldReason::Timer, "default"));
    // It is the slip of a job that was accepted later.
    let later = slip(&start(&flow, new_job(), NOW_MS + 60_000));
    assert_eq!(hold.slip.deadline_ms, later.deadline_ms);
    let same = Slip { facts: later.facts.clone(), ..hold.slip.clone() };
    assert_eq!(same, later);
    assert_eq!(hold.slip.accepted_at_ms, NOW_MS);
}
