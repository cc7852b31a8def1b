use super::*;
use crate::view::Running;

const PAY: &str = r#"
flow: pay
deadline: 1h
steps:
  - id: charge
    http: { method: POST, url: "{{ env.A }}/charges" }
    idempotent: false
    verify:
      http: { url: "{{ env.A }}/charges/{{ step.idempotency_key }}", retry_on: [409] }
      done_when: "{{ none if response.status == 200 and response.body.state == 'open' else response.status == 200 }}"
      retry: { attempts: 2, backoff: 30s..30s }
    timeout: 10s
    retry: { attempts: 2, backoff: 1ms..1ms }
    compensate: { http: { method: DELETE, url: "{{ env.A }}/charges" } }
  - id: ship
    native: f
    with: "{{ steps.charge.output.id }}"
"#;

fn pay() -> Definition {
    flow(PAY)
}

fn without_verify() -> Definition {
    let start = PAY.find("    verify:").unwrap();
    let end = PAY.find("    timeout:").unwrap();
    flow(&format!("{}{}", &PAY[..start], &PAY[end..]))
}

fn answered(status: u16, body: Value) -> HttpAnswer {
    HttpAnswer::Response {
        status,
        retry_after: None,
        content_type: None,
        headers: Vec::new(),
        body: body.to_string().into_bytes(),
    }
}

/// The hold that the decision makes.
#[track_caller]
fn held(decision: &Decision) -> (HoldReason, Option<u64>, Slip) {
    match &decision.next {
        Next::Hold(hold) => (hold.reason, hold.release_after_ms, hold.slip.clone()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn request(flow: &Definition, slip: &Slip) -> (String, String) {
    match prepare(flow, slip, &env(), NOW_MS) {
        Prepared::Http(call) => (call.method, call.url),
        other => panic!("{other:?}"),
    }
}

/// What follows from this answer to what the slip asks for.
#[track_caller]
fn next(flow: &Definition, slip: &Slip, answer: HttpAnswer) -> Decision {
    request(flow, slip);
    advance(flow, slip, classify(flow, slip, answer, NOW_MS), NOW_MS)
}

/// The slip that asks whether a charge was made whose answer was lost.
fn asking(flow: &Definition) -> Slip {
    let decision = next(flow, &slip_at(flow, "charge"), HttpAnswer::TimedOut);
    let (reason, after_ms, slip) = held(&decision);
    assert_eq!((reason, after_ms), (HoldReason::Timer, Some(10_000)), "the call cannot be under way any more then");
    assert_eq!(kinds(&decision), [EventKind::StepRetrying]);
    assert_eq!((decision.events[0].status, decision.events[0].attempts), (JobStatus::Waiting, 1));
    slip
}

#[test]
fn an_unknown_outcome_is_asked_about_and_a_charge_that_was_made_is_done() {
    let flow = pay();
    let slip = asking(&flow);
    let key = "00000000-0000-0000-0000-000000000007%3Acharge%3A1";
    assert_eq!(request(&flow, &slip), ("GET".to_owned(), format!("http://a/charges/{key}")));
    assert!(!marks_first(&flow, &slip) && asks_first(&flow, &slip), "a question changes nothing");
    let done = next(&flow, &slip, answered(200, json!({ "id": "c-1", "state": "paid" })));
    assert_eq!(kinds(&done), [EventKind::StepSucceeded]);
    assert_eq!(done.events[0].attempts, 1);
    let Next::Step { slip, .. } = done.next else { panic!("{done:?}") };
    assert_eq!((slip.step.as_str(), slip.step_state), ("ship", None));
    assert_eq!(slip.done[0].output, Some(json!({ "id": "c-1", "state": "paid" })), "what `verify` was answered");
    assert!(!slip.done[0].uncertain);
}

#[test]
fn a_charge_that_was_not_made_may_be_made_again_as_often_as_the_policy_says() {
    let flow = pay();
    let again = next(&flow, &asking(&flow), answered(404, json!({})));
    let Next::Step { slip, .. } = &again.next else { panic!("{again:?}") };
    assert_eq!((slip.attempt, slip.attempt_uncertain, &slip.step_state), (1, false, &None));
    assert!(marks_first(&flow, slip), "it is marked anew");
    let lost_again = next(&flow, slip, HttpAnswer::ConnectionLost("reset".to_owned()));
    let last = next(&flow, &held(&lost_again).2, answered(404, json!({})));
    let expected = [EventKind::StepFailed, EventKind::JobFailed];
    assert_eq!((kinds(&last), last.events[0].attempts), (expected.to_vec(), 2), "nothing is to be undone");
}

#[test]
fn what_does_not_say_whether_it_was_done_is_asked_again_and_then_an_operator_decides() {
    let flow = pay();
    let slip = asking(&flow);
    for answer in [
        answered(503, json!({})),
        answered(409, json!({})),
        answered(200, json!({ "state": "open" })),
        HttpAnswer::TimedOut,
        HttpAnswer::ConnectFailed("refused".to_owned()),
    ] {
        let (reason, after_ms, again) = held(&next(&flow, &slip, answer.clone()));
        assert!(reason == HoldReason::Backoff && after_ms <= Some(30_000), "{answer:?}");
        assert!(asks_first(&flow, &again));
        assert_eq!(held(&next(&flow, &again, answer)).0, HoldReason::Attention, "it was asked as often as it may be");
    }
    for answer in [
        answered(401, json!({})),
        answered(302, json!({})),
        answered(200, json!([])),
        HttpAnswer::TooLarge { status: 200, limit_bytes: 5, has_store: false },
    ] {
        let parked = next(&flow, &slip, answer.clone());
        assert_eq!(kinds(&parked), [EventKind::StepFailed, EventKind::JobParked], "{answer:?}");
        let (_, _, slip) = held(&parked);
        assert!(matches!(prepare(&flow, &slip, &env(), NOW_MS), Prepared::Outcome(_)), "never called by that");
        let asked_anew = advance(&flow, &slip, nobody_knows(&flow, &slip), NOW_MS);
        assert!(asks_first(&flow, &held(&asked_anew).2), "sent on by an operator, it is asked again");
        let cancelled = advance(&flow, &slip, Outcome::Cancelled, NOW_MS);
        assert_eq!(super::slip(&cancelled).phase, Phase::Undo, "it may have been done");
    }
}

#[track_caller]
fn nobody_knows(flow: &Definition, slip: &Slip) -> Outcome {
    match prepare(flow, slip, &env(), NOW_MS) {
        Prepared::Outcome(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// The slip in the hold that marks the call as begun.
fn marked(flow: &Definition, slip: &Slip) -> Slip {
    assert!(marks_first(flow, slip));
    detach(flow, slip, &Running { worker: "w/1".to_owned(), since_ms: NOW_MS }, NOW_MS).0.slip
}

#[test]
fn a_slip_that_comes_again_was_begun_only_if_it_is_marked() {
    let flow = pay();
    let again = redelivered(slip_at(&flow, "charge"));
    assert_eq!(request(&flow, &again).0, "POST");
    let refused = advance(&flow, &again, failed(false, Effect::Refused), NOW_MS);
    assert_eq!(
        kinds(&refused),
        [EventKind::StepFailed, EventKind::JobFailed],
        "nothing was begun, so nothing is undone"
    );
    let begun = marked(&flow, &again);
    let decision = advance(&flow, &begun, nobody_knows(&flow, &begun), NOW_MS);
    let (reason, after_ms, asks) = held(&decision);
    assert_eq!(
        (reason, after_ms, asks.attempt),
        (HoldReason::Timer, Some(10_000), 0),
        "its worker took the attempt along"
    );
    assert_eq!(decision.events[0].data.as_ref().unwrap()["code"], code::OUTCOME_UNKNOWN);
    let not_done = next(&flow, &asks, answered(404, json!({})));
    assert!(matches!(&not_done.next, Next::Step { slip, .. } if marks_first(&flow, slip)));
}

#[test]
fn a_slip_that_was_begun_and_that_nothing_tells_of_is_parked_until_an_operator_sends_it_on() {
    let flow = without_verify();
    let begun = marked(&flow, &slip_at(&flow, "charge"));
    let parked = advance(&flow, &begun, nobody_knows(&flow, &begun), NOW_MS);
    assert_eq!(kinds(&parked), [EventKind::StepFailed, EventKind::JobParked]);
    let (reason, _, sent_on) = held(&parked);
    assert_eq!(reason, HoldReason::Attention);
    assert_eq!(request(&flow, &sent_on).0, "POST", "that is an operator's word");
    // The word holds for one call.
    let begun = marked(&flow, &redelivered(sent_on.clone()));
    assert!(matches!(prepare(&flow, &begun, &env(), NOW_MS), Prepared::Outcome(_)));
    let refused = advance(&flow, &sent_on, failed(false, Effect::Refused), NOW_MS);
    assert_eq!(held(&refused).0, HoldReason::Attention, "the call before it may have been done");
    let ruled_out = advance(&flow, &sent_on, failed(false, Effect::RuledOut), NOW_MS);
    assert_eq!(ruled_out.next, Next::End);
}

#[test]
fn a_call_that_is_broken_off_is_undone() {
    let flow = pay();
    let broken = broken_off(slip_at(&flow, "charge"));
    assert_eq!(slip(&advance(&flow, &broken, Outcome::Cancelled, NOW_MS)).phase, Phase::Undo);
    let never_begun = redelivered(slip_at(&flow, "charge"));
    assert_eq!(advance(&flow, &never_begun, Outcome::Cancelled, NOW_MS).next, Next::End);
}

#[test]
fn a_deadline_ends_the_doubt_where_the_step_can_be_undone() {
    let (flow, late_ms) = (pay(), NOW_MS + 3_600_000);
    let asking = asking(&flow);
    let over = advance(&flow, &asking, nobody_knows_at(&flow, &asking, late_ms), late_ms);
    assert_eq!(slip(&over).phase, Phase::Undo);
    assert_eq!(slip(&over).failure.unwrap().code, code::DEADLINE_EXCEEDED);
    let text = PAY.replace("    compensate: { http: { method: DELETE, url: \"{{ env.A }}/charges\" } }\n", "");
    let never_undone = self::flow(&text);
    let parked = advance(&never_undone, &asking, nobody_knows_at(&never_undone, &asking, late_ms), late_ms);
    assert_eq!(held(&parked).0, HoldReason::Attention, "it is not forgotten");
}

#[track_caller]
fn nobody_knows_at(flow: &Definition, slip: &Slip, now_ms: i64) -> Outcome {
    match prepare(flow, slip, &env(), now_ms) {
        Prepared::Outcome(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_that_a_deadline_has_brought_forward_does_not_say_that_nothing_was_done() {
    let (flow, soon_ms) = (pay(), NOW_MS + 3_595_000);
    let first = slip_at(&flow, "charge");
    let (_, after_ms, slip) = held(&advance(&flow, &first, failed(true, Effect::Unknown), soon_ms));
    assert_eq!(after_ms, Some(5_000), "a call may take ten seconds");
    let open = advance(&flow, &slip, classify(&flow, &slip, answered(404, json!({})), soon_ms), soon_ms);
    assert!(asks_first(&flow, &held(&open).2), "it may be done still");
    let done =
        advance(&flow, &slip, classify(&flow, &slip, answered(200, json!({ "state": "paid" })), soon_ms), soon_ms);
    assert_eq!(kinds(&done), [EventKind::StepSucceeded]);
}

#[test]
fn a_definite_no_and_a_call_that_was_not_sent_leave_no_doubt() {
    let flow = pay();
    let slip = slip_at(&flow, "charge");
    for answer in [answered(429, json!({})), HttpAnswer::ConnectFailed("refused".to_owned())] {
        let decision = next(&flow, &slip, answer);
        let Next::RetryNow { slip, .. } = decision.next else { panic!("{decision:?}") };
        assert!(marks_first(&flow, &slip) && !slip.attempt_uncertain);
    }
    assert_eq!(next(&flow, &slip, answered(409, json!({}))).next, Next::End);
}

#[test]
fn a_step_ends_with_its_own_deadline_whatever_the_clocks_say() {
    let text = "flow: t\ndeadline: 1h\nsteps:\n  - id: a\n    native: f\n    deadline: 60s\n\
        \x20   retry: { attempts: 9, backoff: 40s..40s }\n\
        \x20   compensate: { native: g }\n";
    let flow = flow(text);
    let first = begin_time(&flow, slip_at(&flow, "a"));
    assert_eq!(first.step_left_ms, Some(60_000));
    // Ten seconds were spent in the attempt.
    let spent = Slip { step_left_ms: Some(50_000), ..first };
    let rest = advance(&flow, &spent, failed_asking_for(&flow, 45_000), NOW_MS);
    let (_, after_ms, again) = held(&rest);
    assert_eq!((after_ms, again.step_left_ms), (Some(45_000), Some(5_000)), "a rest counts");
    let again = begin_time(&flow, again);
    assert_eq!(again.step_left_ms, Some(5_000), "the visit is the same");
    // Another worker, whose clock is an hour ahead, though not the job's.
    let Prepared::Native(call) = prepare(&flow, &again, &env(), NOW_MS + 1_800_000) else { panic!() };
    assert_eq!(call.timeout_ms, 5_000, "an attempt ends with it");
    let too_late = advance(&flow, &again, failed_asking_for(&flow, 45_000), NOW_MS);
    let over = Slip { step_left_ms: Some(0), ..again };
    let found = advance(&flow, &over, nobody_knows_at(&flow, &over, NOW_MS), NOW_MS);
    for (end, attempts) in [(too_late, 2), (found, 1)] {
        let failure = slip(&end).failure.unwrap();
        assert_eq!((failure.step.as_str(), failure.code.as_str()), ("a", code::DEADLINE_EXCEEDED));
        assert_eq!(failure.attempts, attempts, "calls that were made: {}", failure.message);
        assert_eq!(kinds(&end), [EventKind::StepFailed, EventKind::JobCompensating]);
        assert_eq!((slip(&end).phase, slip(&end).step_left_ms), (Phase::Undo, None), "the way back has none");
    }
}

/// May have been done, and is to be tried again after this time.
fn failed_asking_for(_: &Definition, after_ms: u64) -> Outcome {
    match failed(true, Effect::Unknown) {
        Outcome::Failed { error, retryable, effect, .. } => {
            Outcome::Failed { error, retryable, effect, retry_after_ms: Some(after_ms) }
        }
        other => other,
    }
}

/// The slip of a charge that an operator is asked about, with this word.
fn ruled_on(flow: &Definition, said: Said) -> Slip {
    let parked = held(&next(flow, &slip_at(flow, "charge"), HttpAnswer::TimedOut));
    assert_eq!(parked.0, HoldReason::Attention);
    assert!(awaits_verdict(&parked.2));
    ruled(parked.2, &Verdict { said, by: "ann".to_owned() })
}

/// What follows from a verdict: nothing is called.
#[track_caller]
fn by_verdict(flow: &Definition, slip: &Slip) -> Decision {
    assert_eq!(lost(flow, slip).released, slip.released, "it holds through the loss of a worker");
    match prepare(flow, slip, &env(), NOW_MS) {
        Prepared::Outcome(outcome) => advance(flow, slip, outcome, NOW_MS),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operator_says_that_it_was_done_and_with_what_and_the_job_goes_on_by_that() {
    let flow = without_verify();
    let slip = ruled_on(&flow, Said::Succeeded(json!({ "id": "c-9" })));
    let done = by_verdict(&flow, &slip);
    assert_eq!((kinds(&done), done.events[0].actor.as_deref()), (vec![EventKind::StepSucceeded], Some("ann")));
    let Next::Step { slip, .. } = done.next else { panic!("{done:?}") };
    assert_eq!((slip.step.as_str(), slip.released, slip.requires), ("ship", None, vec![]));
    assert_eq!((slip.done[0].output.clone(), slip.done[0].uncertain), (Some(json!({ "id": "c-9" })), false));
}

#[test]
fn an_operator_says_that_it_was_not_done_and_there_is_nothing_to_undo() {
    let flow = without_verify();
    let failed = by_verdict(&flow, &ruled_on(&flow, Said::Failed));
    assert_eq!(kinds(&failed), [EventKind::StepFailed, EventKind::JobFailed]);
    assert_eq!(failed.events[0].actor.as_deref(), Some("ann"));
    let parks = flow_that_parks();
    let again = held(&by_verdict(&parks, &ruled_on(&parks, Said::Failed)));
    assert_eq!((again.0, again.2.visit), (HoldReason::Attention, 2), "a visit of its own");
    assert!(!awaits_verdict(&again.2) && again.2.requires.is_empty());
    assert!(marks_first(&parks, &again.2), "sent on, it is called");
}

fn flow_that_parks() -> Definition {
    let start = PAY.find("    verify:").unwrap();
    let end = PAY.find("    timeout:").unwrap();
    flow(&format!("{}{}on_failure: park\n", &PAY[..start], &PAY[end..]))
}

#[test]
fn a_verdict_comes_before_a_cancel_and_words_that_are_none_count_for_nothing() {
    let flow = without_verify();
    let slip = ruled_on(&flow, Said::Failed);
    assert!(!is_cancelled(&slip, true), "else what it says would be lost");
    let Next::Step { slip: next, .. } = by_verdict(&flow, &ruled_on(&flow, Said::Succeeded(json!(null)))).next else {
        panic!("it goes on")
    };
    assert!(is_cancelled(&next, true));
    // As earlier versions have it.
    let back = advance(&flow, &slip, Outcome::Cancelled, NOW_MS);
    let Next::Step { slip: undo, .. } = back.next else { panic!("{back:?}") };
    assert_eq!((undo.step.as_str(), undo.phase, undo.requires), ("charge", Phase::Undo, vec![]));
    for payload in [json!(null), json!({ "outcome": "done", "by": "a" }), json!({ "outcome": "succeeded", "by": "a" })]
    {
        assert_eq!(Verdict::from_json(&payload), None, "{payload}");
    }
    for said in [Said::Failed, Said::Succeeded(json!(null)), Said::Succeeded(json!([1]))] {
        let verdict = Verdict { said, by: "a".to_owned() };
        assert_eq!(Verdict::from_json(&verdict.to_json()), Some(verdict));
    }
}
