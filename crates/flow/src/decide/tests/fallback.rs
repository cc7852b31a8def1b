//! Steps with another way on.

use super::*;

const QUOTE: &str = r#"
flow: t
steps:
  - { id: a, native: f, compensate: { native: undo_f } }
  - id: quote
    native: q
    downstream: quotes
    retry: { attempts: 2, backoff: 1ms..1ms }
    fallback: { value: { price: "{{ input.n }}", source: usual } }
  - id: book
    native: b
    retry: { attempts: 1 }
    compensate: { native: undo_b, with: "{{ steps.book.output.id | default(step.idempotency_key) }}" }
    fallback: { step: by_hand }
  - { id: print, native: p }
  - { id: by_hand, native: h }
result: { quote: "{{ steps.quote.output }}", booked: "{{ steps.book.output.id | default(none) }}" }
"#;

fn open() -> Busy {
    Busy { downstream: "quotes".to_owned(), reason: HoldReason::Breaker, after_ms: None }
}

#[test]
fn a_step_that_fails_for_good_falls_back_on_a_value_once_its_attempts_are_over() {
    let flow = flow(QUOTE);
    let first = advance(&flow, &slip_at(&flow, "quote"), failed(true, Effect::Unknown), NOW_MS);
    let Next::RetryNow { slip: again, .. } = first.next else { panic!("{first:?}") };
    let decision = advance(&flow, &again, failed(true, Effect::Unknown), NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::StepSkipped]);
    assert_eq!(decision.events[0].data.as_ref().map(|data| &data["code"]), Some(&json!("step-failed")));
    let next = slip(&decision);
    let done = next.done.last().unwrap();
    assert_eq!((next.step.as_str(), done.output.clone()), ("book", Some(json!({ "price": 5, "source": "usual" }))));
    assert_eq!((done.uncertain, done.carried.error_code.as_deref()), (true, Some("step-failed")));
}

#[test]
fn a_step_with_a_fallback_does_not_wait_for_its_breaker_and_has_nothing_to_undo() {
    let flow = flow(QUOTE);
    let decision = wait_for_downstream(&flow, &slip_at(&flow, "quote"), "default", &open(), NOW_MS);
    let next = slip(&decision);
    assert_eq!((next.step.as_str(), kinds(&decision)), ("book", vec![EventKind::StepSkipped]));
    assert_eq!(decision.events[0].data.as_ref().map(|data| &data["code"]), Some(&json!("breaker-open")));
    assert!(next.done.last().unwrap().undone);
    let limit = Busy { reason: HoldReason::Limit, after_ms: Some(700), ..open() };
    let decision = wait_for_downstream(&flow, &slip_at(&flow, "quote"), "default", &limit, NOW_MS);
    assert!(matches!(decision.next, Next::Hold(_)), "a limit is waited for");
}

#[test]
fn a_step_that_may_have_been_done_is_undone_although_the_job_went_on_another_way() {
    let flow = flow(QUOTE);
    let decision = advance(&flow, &slip_at(&flow, "book"), failed(false, Effect::Unknown), NOW_MS);
    let by_hand = slip(&decision);
    assert_eq!(by_hand.step, "by_hand");
    let back = slip(&advance(&flow, &by_hand, failed(false, Effect::Refused), NOW_MS));
    assert_eq!((back.phase, back.step.as_str()), (Phase::Undo, "book"));
    let refused = slip(&advance(&flow, &slip_at(&flow, "book"), failed(false, Effect::Refused), NOW_MS));
    let back = slip(&advance(&flow, &refused, failed(false, Effect::Refused), NOW_MS));
    assert_eq!((back.phase, back.step.as_str()), (Phase::Undo, "a"), "what was refused is not undone");
}

#[test]
fn a_job_whose_time_is_over_or_that_is_cancelled_takes_no_other_way() {
    let flow = flow(QUOTE);
    let at = Slip { deadline_ms: Some(NOW_MS), ..slip_at(&flow, "quote") };
    for outcome in [failed(true, Effect::Unsent), Outcome::Cancelled] {
        assert_eq!(slip(&advance(&flow, &at, outcome, NOW_MS)).phase, Phase::Undo);
    }
}

#[test]
fn a_fallback_is_checked_before_it_is_used() {
    let problems = |fallback: &str| {
        let text = QUOTE.replace("fallback: { step: by_hand }", fallback);
        let problems = Definition::parse_yaml("t.yaml", &text, &mut |_| Err("none".to_owned())).err();
        problems.unwrap_or_default().iter().map(|problem| problem.message.clone()).collect::<Vec<_>>()
    };
    for (fallback, wanted) in [
        ("fallback: { step: a }", "`fallback`: there is no later step `a`"),
        ("fallback: { step: print, value: 1 }", "a `fallback` is either a `value` or a `step`"),
        ("fallback: { value: 1 }", "a step with `compensate` has no value to fall back on"),
        ("fallback: { value: \"{{ env.A }}\" }", "`env` is not known here: only what is sent by a worker may use it"),
    ] {
        assert!(problems(fallback).contains(&wanted.to_owned()), "{fallback}: {:?}", problems(fallback));
    }
    let without = QUOTE.replace(" | default(none)", "");
    let problems = Definition::parse_yaml("t.yaml", &without, &mut |_| Err("none".to_owned())).err().unwrap();
    assert!(problems[0].message.starts_with("`steps.book.output` is absent"), "{problems:?}");
}
