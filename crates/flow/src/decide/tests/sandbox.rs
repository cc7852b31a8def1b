//! Calls that are answered by the flow itself.

use super::*;

const SANDBOX: &str = r#"
flow: test
sandbox: true
steps:
  - id: a
    http: { method: POST, url: "{{ env.NOWHERE }}/a", fail_on: [402], expose: true }
    timeout: 2s
    retry: { attempts: 3, backoff: 1ms..1ms }
    compensate: { http: { method: DELETE, url: "{{ env.NOWHERE }}/a" } }
    simulate:
      latency: "{{ '9s' if input.ask == 'slow' else '100ms..900ms' }}"
      output: { key: "{{ step.idempotency_key }}", at: "{{ step.attempt }}" }
      fail:
        - { when: "{{ input.ask == 'no' }}", status: 402, detail: "not {{ input.n }}" }
        - { when: "{{ input.ask == 'later' and step.attempt == 1 }}", status: 503 }
        - { when: "{{ input.ask == 'silent' }}", error: no-answer }
        - { when: "{{ input.ask == 'broken' }}", error: connection-lost }
        - { when: "{{ input.ask == 'nobody' }}", error: no-connection }
        - { when: "{{ input.ask == 'some' }}", percent: 30, status: 500 }
        - { when: "{{ input.n if input.ask == 'odd' else false }}", status: 500 }
  - id: b
    native: not_here
    simulate: { fail: [{ status: 404 }] }
    compensate: { native: not_here_either, simulate: { latency: 30ms, fail: [{ status: 410 }] } }
  - id: c
    http: { method: POST, url: "{{ env.NOWHERE }}/c", body: "{{ callback.url }}" }
    callback: { timeout: 1h }
    idempotent: false
    verify: { http: { url: "{{ env.NOWHERE }}/c" }, done_when: "{{ response.status == 200 }}" }
    simulate: { output: done }
"#;

fn asking(ask: &str) -> (Definition, Slip) {
    let (flow, job) = (flow(SANDBOX), NewJob { input: json!({ "n": 5, "ask": ask }), ..new_job() });
    let first = slip(&start(&flow, job, NOW_MS));
    (flow, first)
}

#[track_caller]
fn simulated_by(flow: &Definition, slip: &Slip) -> Simulated {
    match prepare(flow, slip, &Env::default(), NOW_MS) {
        Prepared::Simulated(simulated) => simulated,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_of_a_sandbox_is_answered_by_the_flow_in_its_own_time_and_alike_each_time() {
    let (flow, slip) = asking("yes");
    let answer = simulated_by(&flow, &slip);
    assert_eq!(answer.outcome, ok(json!({ "key": slip.idempotency_key(), "at": 1 })));
    assert!((100..=900).contains(&answer.after_ms), "{answer:?}");
    assert_eq!(simulated_by(&flow, &slip), answer);
    let latencies: std::collections::BTreeSet<u64> =
        (0..20).map(|attempt| simulated_by(&flow, &Slip { attempt, ..slip.clone() }).after_ms).collect();
    assert!(latencies.len() > 10, "each attempt draws its own: {latencies:?}");
}

#[test]
fn each_outcome_of_a_real_call_can_be_asked_for() {
    let outcome = |ask: &str, attempt: u32| {
        let (flow, slip) = asking(ask);
        simulated_by(&flow, &Slip { attempt, ..slip })
    };
    let failed = |simulated: &Simulated| match &simulated.outcome {
        Outcome::Failed { error, retryable, effect, .. } => (error.clone(), *retryable, *effect),
        other => panic!("{other:?}"),
    };
    let (error, retryable, effect) = failed(&outcome("no", 0));
    assert_eq!((error.status, retryable, effect), (Some(402), false, Effect::RuledOut));
    assert_eq!(error.message, "POST was answered 402: not 5");
    let (error, retryable, effect) = failed(&outcome("later", 0));
    assert_eq!((error.status, retryable, effect), (Some(503), true, Effect::Unknown));
    assert!(matches!(outcome("later", 1).outcome, Outcome::Succeeded { .. }));
    for (ask, code, effect) in [
        ("silent", code::TIMED_OUT, Effect::Unknown),
        ("slow", code::TIMED_OUT, Effect::Unknown),
        ("broken", code::CONNECTION_FAILED, Effect::Unknown),
        ("nobody", code::CONNECTION_FAILED, Effect::Unsent),
    ] {
        let answer = outcome(ask, 0);
        let (error, retryable, given) = failed(&answer);
        assert_eq!((error.code.as_str(), retryable, given), (code, true, effect), "{ask}");
        assert_eq!(answer.after_ms == 2_000, code == code::TIMED_OUT, "{ask}: {answer:?}");
    }
    let failures = (0..1_000).filter(|attempt| matches!(outcome("some", *attempt).outcome, Outcome::Failed { .. }));
    assert!((250..350).contains(&failures.count()), "three of ten");
}

#[test]
fn an_answer_that_cannot_be_formed_fails_the_step() {
    let (flow, slip) = asking("odd");
    let Prepared::Outcome(Outcome::Failed { error, retryable: false, .. }) =
        prepare(&flow, &slip, &Env::default(), NOW_MS)
    else {
        panic!("it is formed")
    };
    assert_eq!(error.code, code::EXPRESSION_FAILED);
    assert_eq!(error.message, "`simulate`: `when` gives neither true nor false");
}

#[test]
fn native_steps_and_undos_need_nothing_of_the_worker() {
    let (flow, _) = asking("yes");
    let at_b = Slip { step: "b".to_owned(), ..slip_at(&flow, "b") };
    let Outcome::Failed { retryable: false, effect: Effect::Refused, .. } = simulated_by(&flow, &at_b).outcome else {
        panic!("it is refused")
    };
    let undo = Slip { phase: Phase::Undo, ..at_b };
    let answer = simulated_by(&flow, &undo);
    assert_eq!((answer.after_ms, answer.outcome), (30, Outcome::NothingToUndo { status: Some(410) }));
    let undo_of_a = Slip { step: "a".to_owned(), ..undo };
    assert_eq!(simulated_by(&flow, &undo_of_a), Simulated { after_ms: 0, outcome: ok(Value::Null) });
    assert!(limits(&flow, &env()).is_empty());
}

#[test]
fn work_that_would_be_accepted_ends_with_its_answer_and_verify_says_that_it_was_not_done() {
    let (flow, _) = asking("yes");
    let at_c = slip_at(&flow, "c");
    assert_eq!(simulated_by(&flow, &at_c).outcome, ok(json!("done")));
    let lost = advance(&flow, &lost(&flow, &at_c), failed(true, Effect::Unknown), NOW_MS);
    let asking = slip(&lost);
    assert!(asks_first(&flow, &asking), "{asking:?}");
    let Prepared::Outcome(outcome) = prepare(&flow, &asking, &Env::default(), NOW_MS) else { panic!("it asks") };
    assert_eq!(outcome, Outcome::NotDone);
    let again = slip(&advance(&flow, &asking, outcome, NOW_MS));
    assert_eq!((again.step.as_str(), asks_first(&flow, &again)), ("c", false));
}

#[test]
fn without_its_line_the_same_flow_makes_its_calls_and_still_knows_the_answers() {
    let (sandbox, slip) = asking("yes");
    let real = sandbox.for_real();
    let env = Env { vars: [("NOWHERE".to_owned(), "http://here".to_owned())].into(), ..Env::default() };
    assert!(matches!(prepare(&real, &slip, &env, NOW_MS), Prepared::Http(_)));
    assert_eq!(simulated(&real, &slip, NOW_MS), Some(simulated_by(&sandbox, &slip)));
    assert!(real.step("c").unwrap().callback().is_some() && sandbox.step("c").unwrap().callback().is_none());
}
