use super::*;

fn response(status: u16, retry_after: Option<&str>, body: &[u8]) -> HttpAnswer {
    HttpAnswer::Response {
        status,
        retry_after: retry_after.map(ToOwned::to_owned),
        content_type: None,
        headers: Vec::new(),
        body: body.to_vec(),
    }
}

#[test]
fn answers_are_classified_by_the_defaults_and_by_the_flow() {
    let flow = flow(THREE);
    let (at_a, at_c) = (slip_at(&flow, "a"), slip_at(&flow, "c"));
    let undo = slip(&advance(&flow, &at_c, Outcome::Cancelled, NOW_MS));
    let answer = |status| response(status, None, b"{\"detail\":\"too bad\"}");
    let verdict = |slip: &Slip, answer| match classify(&flow, slip, answer, NOW_MS) {
        Outcome::Failed { retryable, effect, .. } => Some((retryable, effect)),
        Outcome::Succeeded { .. }
        | Outcome::Accepted { .. }
        | Outcome::NotYet { .. }
        | Outcome::NothingToUndo { .. }
        | Outcome::Skipped
        | Outcome::NotDone
        | Outcome::Rests(_)
        | Outcome::NotSignalled
        | Outcome::Cancelled => None,
    };
    for (status, expected) in [
        (200, None),
        (204, None),
        (302, Some((false, Effect::Unknown))),
        (303, Some((false, Effect::Unknown))),
        (400, Some((false, Effect::Refused))),
        (402, Some((false, Effect::Refused))),
        (404, Some((false, Effect::Refused))),
        (408, Some((true, Effect::Unsent))),
        (409, Some((false, Effect::Refused))),
        (425, Some((true, Effect::Unsent))),
        (429, Some((true, Effect::Unsent))),
        (500, Some((true, Effect::Unknown))),
        (503, Some((true, Effect::Unknown))),
    ] {
        assert_eq!(verdict(&at_a, answer(status)), expected, "{status}");
    }
    assert_eq!(verdict(&at_c, answer(503)), Some((false, Effect::RuledOut)), "fail_on");
    let later = |status| response(status, Some("1"), b"");
    assert_eq!(verdict(&at_a, later(409)), Some((true, Effect::Unsent)), "not now, says 409 with Retry-After");
    assert_eq!(verdict(&at_a, later(423)), Some((true, Effect::Unsent)));
    assert_eq!(verdict(&at_a, later(402)), Some((false, Effect::Refused)));
    assert_eq!(verdict(&at_c, answer(409)), Some((true, Effect::Unsent)), "retry_on");
    for status in [404, 410] {
        let nothing = classify(&flow, &undo, answer(status), NOW_MS);
        assert_eq!(nothing, Outcome::NothingToUndo { status: Some(status) });
    }
    assert_eq!(verdict(&at_a, HttpAnswer::TimedOut), Some((true, Effect::Unknown)));
    assert_eq!(verdict(&at_a, HttpAnswer::ConnectFailed(String::new())), Some((true, Effect::Unsent)));
    assert_eq!(verdict(&at_a, HttpAnswer::ConnectionLost(String::new())), Some((true, Effect::Unknown)));
    assert_eq!(verdict(&at_a, HttpAnswer::Aborted), Some((true, Effect::Unknown)));
    assert_eq!(
        verdict(&at_a, HttpAnswer::TooLarge { status: 200, limit_bytes: 1, has_store: false }),
        Some((false, Effect::Done))
    );
    let message = |slip: &Slip| match classify(&flow, slip, answer(400), NOW_MS) {
        Outcome::Failed { error, .. } => error.message,
        _ => String::new(),
    };
    assert_eq!(message(&at_c), "POST was answered 400: too bad", "`expose` takes the reason over");
    assert_eq!(message(&at_a), "POST was answered 400");
}

#[test]
fn retry_after_is_read_as_seconds_or_as_a_date() {
    let flow = flow(THREE);
    let at = slip_at(&flow, "a");
    let after = |header: &str| {
        let answer = response(503, Some(header), b"");
        match classify(&flow, &at, answer, 784_111_770_000) {
            Outcome::Failed { retry_after_ms, .. } => retry_after_ms,
            Outcome::Succeeded { .. }
            | Outcome::Accepted { .. }
            | Outcome::NotYet { .. }
            | Outcome::NothingToUndo { .. }
            | Outcome::Skipped
            | Outcome::NotDone
            | Outcome::Rests(_)
            | Outcome::NotSignalled
            | Outcome::Cancelled => None,
        }
    };
    assert_eq!(after("7"), Some(7_000));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7_000));
    assert_eq!(after("Sat, 06 Nov 1993 08:49:37 GMT"), Some(0));
    assert_eq!(after("99999999999999999"), Some(u64::MAX));
    assert_eq!(after("soon"), None);
}

#[test]
fn a_success_that_cannot_be_read_was_done_all_the_same() {
    let flow = flow(THREE);
    let at = slip_at(&flow, "a");
    let typed = |content_type: &str, body: &[u8]| HttpAnswer::Response {
        status: 200,
        retry_after: None,
        content_type: Some(content_type.to_owned()),
        headers: Vec::new(),
        body: body.to_vec(),
    };
    assert_eq!(classify(&flow, &at, typed("text/plain", b"1e5"), NOW_MS), ok(json!("1e5")));
    let undecodable = HttpAnswer::Undecodable { status: 200, cause: "its content coding is `br`".to_owned() };
    for answer in [typed("application/json", b"OK"), undecodable.clone()] {
        let outcome = classify(&flow, &at, answer, NOW_MS);
        let Outcome::Failed { error, retryable: false, effect: Effect::Done, .. } = &outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((error.code.as_str(), error.status), (code::UNREADABLE_ANSWER, Some(200)));
        assert!(error.message.contains("the answer (200) cannot be read: it"), "{}", error.message);
        let back = slip(&advance(&flow, &at, outcome, NOW_MS));
        assert_eq!((back.step.as_str(), back.phase, back.done[0].uncertain), ("a", Phase::Undo, false));
    }
    let undo = slip(&advance(&flow, &slip_at(&flow, "c"), Outcome::Cancelled, NOW_MS));
    for answer in [typed("application/json", b"OK"), undecodable] {
        let decision = advance(&flow, &undo, classify(&flow, &undo, answer, NOW_MS), NOW_MS);
        assert!(kinds(&decision).contains(&EventKind::StepCompensated), "an undo has no output: {decision:?}");
    }
}

#[test]
fn another_attempt_is_made_no_earlier_than_the_answer_asks_for() {
    let day_ms = 24 * 60 * 60 * 1000;
    let wait = |text: &str, header: &str| {
        let flow = flow(text);
        let at = slip_at(&flow, "a");
        let decision = advance(&flow, &at, classify(&flow, &at, response(503, Some(header), b""), NOW_MS), NOW_MS);
        let Next::Hold(hold) = decision.next else { panic!("{decision:?}") };
        (hold.release_after_ms, hold.slip.attempt)
    };
    let endless = THREE.replace("deadline: 1h\n", "");
    assert_eq!(wait(&THREE.replace("deadline: 1h", "deadline: 2d"), "86400"), (Some(day_ms), 1));
    assert_eq!(wait(&endless, "86400"), (Some(day_ms), 1), "without a deadline, too");
    assert_eq!(wait(&endless, "99999999999999999"), (Some(365 * day_ms), 1), "or else a year");
}
