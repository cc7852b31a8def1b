use super::*;

const NOTHING: Outcome = Outcome::NothingToUndo { status: Some(404) };

/// The flow of three steps, with these lines more in step `a`.
fn with_a(lines: &str) -> Definition {
    flow(
        &THREE.replace(
            "    retry: { attempts: 3, backoff: 1ms..1ms }\n    compensate:",
            &format!("{lines}    compensate:"),
        ),
    )
}

/// The slip that undoes step `a`, whose only attempt may have been done.
fn undo_of_unknown(flow: &Definition) -> Slip {
    let at = Slip { attempt: 99, ..slip_at(flow, "a") };
    let back = slip(&advance(flow, &at, failed(true, Effect::Unknown), NOW_MS));
    assert_eq!((back.phase, back.done[0].uncertain), (Phase::Undo, true));
    back
}

#[test]
fn an_unknown_outcome_whose_undo_found_nothing_is_undone_once_more_under_another_key() {
    let flow = with_a("    timeout: 7s\n");
    let back = undo_of_unknown(&flow);
    let first = advance(&flow, &back, NOTHING, NOW_MS);
    let Next::Hold(hold) = &first.next else { panic!("{first:?}") };
    assert_eq!((hold.reason, hold.release_after_ms), (HoldReason::Backoff, Some(7_000)), "the step's longest time");
    assert_eq!((hold.slip.step.as_str(), hold.slip.hop, hold.slip.attempt), ("a", back.hop + 1, 0));
    let [event] = first.events.as_slice() else { panic!("{first:?}") };
    assert_eq!((event.kind, event.status), (EventKind::StepRetrying, JobStatus::Compensating));
    assert_eq!(
        (event.step.as_deref(), event.phase, event.next_attempt_after_ms),
        (Some("a"), Phase::Undo, Some(7_000))
    );
    let data = event.data.as_ref().unwrap();
    assert_eq!((&data["code"], &data["status"]), (&json!("nothing-to-undo"), &json!(404)));
    let keys = [&back, &hold.slip].map(|slip| match prepare(&flow, slip, &env(), NOW_MS) {
        Prepared::Http(call) => (call.idempotency_key.unwrap(), call.url),
        other => panic!("{other:?}"),
    });
    let job = Uuid::from_u128(7);
    assert_eq!(keys[0].0, format!("{job}:a:1:undo"));
    assert_eq!(keys[1].0, format!("{job}:a:1:undo:2"), "a service that remembers keys would repeat its first answer");
    assert_eq!(keys[0].1, keys[1].1, "the same is undone");
    for outcome in [NOTHING, ok(Value::Null)] {
        let end = advance(&flow, &hold.slip, outcome, NOW_MS);
        assert_eq!((kinds(&end), end.next), (vec![EventKind::StepCompensated, EventKind::JobFailed], Next::End));
    }
}

#[test]
fn a_second_undo_is_retried_and_parked_as_the_first() {
    let flow = with_a("");
    let second = slip(&advance(&flow, &undo_of_unknown(&flow), NOTHING, NOW_MS));
    let again = slip(&advance(&flow, &second, failed(true, Effect::Unknown), NOW_MS));
    assert_eq!((again.attempt, again.idempotency_key()), (1, second.idempotency_key()));
    let parked = advance(&flow, &again, failed(false, Effect::Refused), NOW_MS);
    assert_eq!(kinds(&parked), [EventKind::JobParked]);
    let sent_on = slip(&parked);
    assert_eq!((sent_on.attempt, sent_on.idempotency_key()), (0, second.idempotency_key()));
    assert_eq!(advance(&flow, &sent_on, NOTHING, NOW_MS).next, Next::End);
}

#[test]
fn no_undo_is_repeated_where_the_outcome_was_known_or_the_step_says_so() {
    let flow = with_a("");
    let certain = slip(&advance(&flow, &slip_at(&flow, "b"), failed(false, Effect::Refused), NOW_MS));
    assert_eq!(advance(&flow, &certain, NOTHING, NOW_MS).next, Next::End, "it was done");
    let found = advance(&flow, &undo_of_unknown(&flow), ok(Value::Null), NOW_MS);
    assert_eq!(found.next, Next::End, "it was there");
    let settled = with_a("    settle: 0s\n");
    assert_eq!(advance(&settled, &undo_of_unknown(&settled), NOTHING, NOW_MS).next, Next::End, "`settle: 0s`");
    let longer = with_a("    settle: 2m\n");
    let second = advance(&longer, &undo_of_unknown(&longer), NOTHING, NOW_MS);
    assert!(matches!(second.next, Next::Hold(Hold { release_after_ms: Some(120_000), .. })), "{second:?}");
}

#[test]
fn a_step_that_says_on_its_way_forward_that_nothing_is_to_be_undone_has_failed() {
    let flow = flow(THREE);
    let decision = advance(&flow, &slip_at(&flow, "c"), NOTHING, NOW_MS);
    assert_eq!(kinds(&decision), [EventKind::StepFailed, EventKind::JobCompensating]);
}

#[test]
fn a_step_that_was_undone_by_hand_counts_as_undone_without_a_call_and_the_next_one_is_undone() {
    let flow = flow(THREE);
    let back = slip(&advance(&flow, &slip_at(&flow, "c"), failed(false, Effect::Unknown), NOW_MS));
    assert_eq!(back.step, "c");
    let Next::Hold(parked) = advance(&flow, &back, failed(false, Effect::Refused), NOW_MS).next else { panic!() };
    let said = Said::Undone("ticket 17".to_owned());
    assert!(can_be_ruled(&parked.slip, &said) && !can_be_ruled(&parked.slip, &Said::Failed));
    let verdict = Verdict { said, by: "ann".to_owned() };
    assert_eq!(Verdict::from_json(&verdict.to_json()).as_ref(), Some(&verdict));
    let ruled = ruled(parked.slip, &verdict);
    assert_eq!(ruled.requires, [UNDONE_BY_HAND], "a worker without it would call");
    let Prepared::Outcome(outcome) = prepare(&flow, &ruled, &env(), NOW_MS) else { panic!("it is called") };
    let on = advance(&flow, &ruled, outcome, NOW_MS);
    let [event] = on.events.as_slice() else { panic!("{on:?}") };
    assert_eq!((event.kind, event.actor.as_deref(), event.attempts), (EventKind::StepCompensated, Some("ann"), 0));
    assert_eq!(event.data, Some(json!({ "outcome": "undone", "reason": "ticket 17" })));
    let next = slip(&on);
    assert_eq!((next.step.as_str(), next.requires.len(), &next.released), ("a", 0, &None));
    assert!(matches!(prepare(&flow, &next, &env(), NOW_MS), Prepared::Http(_)), "its undo is called");
    // It says nothing of a job on its way forward.
    let forward = Slip { attempt_uncertain: true, ..slip_at(&flow, "a") };
    assert!(!can_be_ruled(&forward, &verdict.said) && can_be_ruled(&forward, &Said::Failed));
}
