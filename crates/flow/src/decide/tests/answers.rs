use super::*;

#[test]
fn answers_are_classified_by_the_defaults_and_by_the_flow() {
    let flow = flow(THREE);
    let (at_a, at_c) = (slip_at(&flow, "a"), slip_at(&flow, "c"));
    let undo = slip(&advance(&flow, &at_c, Outcome::Cancelled, NOW_MS));
    let answer =
        |status| HttpAnswer::Response { status, retry_after: None, body: b"{\"detail\":\"too bad\"}".to_vec() };
    let verdict = |slip: &Slip, answer| match classify(&flow, slip, answer, NOW_MS) {
        Outcome::Failed { retryable, effect, .. } => Some((retryable, effect)),
        Outcome::Succeeded { .. } | Outcome::Cancelled => None,
    };
    for (status, expected) in [
        (200, None),
        (204, None),
        (302, Some((false, Effect::Refused))),
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
    assert_eq!(verdict(&at_c, answer(503)), Some((false, Effect::Unknown)), "fail_on");
    assert_eq!(verdict(&at_c, answer(409)), Some((true, Effect::Unsent)), "retry_on");
    assert_eq!((verdict(&undo, answer(404)), verdict(&undo, answer(410))), (None, None));
    assert_eq!(verdict(&at_a, HttpAnswer::TimedOut), Some((true, Effect::Unknown)));
    assert_eq!(verdict(&at_a, HttpAnswer::ConnectFailed(String::new())), Some((true, Effect::Unsent)));
    assert_eq!(verdict(&at_a, HttpAnswer::ConnectionLost(String::new())), Some((true, Effect::Unknown)));
    assert_eq!(verdict(&at_a, HttpAnswer::Aborted), Some((true, Effect::Unknown)));
    assert_eq!(verdict(&at_a, HttpAnswer::TooLarge { status: 200, limit_bytes: 1 }), Some((false, Effect::Done)));
    let message = |slip: &Slip| match classify(&flow, slip, answer(400), NOW_MS) {
        Outcome::Failed { error, .. } => error.message,
        Outcome::Succeeded { .. } | Outcome::Cancelled => String::new(),
    };
    assert_eq!(message(&at_c), "POST was answered 400: too bad", "`expose` takes the reason over");
    assert_eq!(message(&at_a), "POST was answered 400");
}

#[test]
fn retry_after_is_read_as_seconds_or_as_a_date() {
    let flow = flow(THREE);
    let at = slip_at(&flow, "a");
    let after = |header: &str| {
        let answer = HttpAnswer::Response { status: 503, retry_after: Some(header.to_owned()), body: Vec::new() };
        match classify(&flow, &at, answer, 784_111_770_000) {
            Outcome::Failed { retry_after_ms, .. } => retry_after_ms,
            Outcome::Succeeded { .. } | Outcome::Cancelled => None,
        }
    };
    assert_eq!(after("7"), Some(7_000));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7_000));
    assert_eq!(after("Sat, 06 Nov 1993 08:49:37 GMT"), Some(0));
    assert_eq!(after("99999999999999999"), Some(3_600_000));
    assert_eq!(after("soon"), None);
}

#[test]
fn an_output_is_json_or_a_text_or_null() {
    let flow = flow(THREE);
    let at = slip_at(&flow, "a");
    let output = |body: &[u8]| {
        classify(&flow, &at, HttpAnswer::Response { status: 200, retry_after: None, body: body.to_vec() }, NOW_MS)
    };
    assert_eq!(output(b"{\"b\":1,\"a\":2}"), ok(json!({ "b": 1, "a": 2 })));
    assert_eq!(output(b"plain"), ok(json!("plain")));
    assert_eq!(output(b" \n"), ok(Value::Null));
    assert_eq!(output(b"\xff"), ok(json!("\u{fffd}")));
}
