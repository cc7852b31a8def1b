use super::*;

/// A flow of one HTTP step and one step with this in it.
fn with_rest(lines: &str) -> String {
    with_step(&format!("  - id: b\n    {lines}\n"))
}

#[test]
fn a_sleep_is_a_duration_or_an_instant() {
    for sleep in
        ["10m", "\"{{ input.delay }}\"", "{ until: 2026-12-24T18:00:00+01:00 }", "{ until: \"{{ input.at }}\" }"]
    {
        parse(&with_rest(&format!("sleep: {sleep}"))).unwrap_or_else(|problems| panic!("{sleep}: {problems:?}"));
    }
    refused(&with_rest("sleep: soon"), &["`sleep`: `soon` is not a duration", "test.yaml:6:12", "200ms, 2s"]);
    refused(&with_rest("sleep: 400d"), &["`400d` is too long", "at most 365d"]);
    refused(&with_rest("sleep: 10"), &["`sleep` is `10`"]);
    refused(&with_rest("sleep: { until: tomorrow }"), &["`until`: `tomorrow` is not an instant", "RFC 3339"]);
    refused(&with_rest("sleep: { for: 10m }"), &["unknown key `for` in `sleep`", "`sleep` has no `until`"]);
    refused(&with_rest("sleep: \"{{ env.DELAY }}\""), &["`env` is not known here"]);
}

#[test]
fn a_wait_names_its_signal_and_what_follows_its_time() {
    let flow = parse(&with_rest(
        "wait: { signal: approval, schema: { type: object, required: [n] }, timeout: 2d, on_timeout: a }",
    ))
    .unwrap();
    let wait = flow.step("b").unwrap().wait().unwrap();
    assert_eq!((wait.signal.as_str(), wait.timeout_ms), ("approval", Some(172_800_000)));
    assert_eq!(wait.on_timeout, OnTimeout::Step("a".to_owned()));
    assert_eq!(wait.validate(&json!({ "n": 1 })), []);
    assert_eq!(wait.validate(&json!({}))[0].pointer, "");
    assert_eq!(wait.validate(&Value::Null).len(), 1, "no payload at all");
    refused(&with_rest("wait: { timeout: 2d }"), &["`wait` has no `signal`"]);
    refused(&with_rest("wait: { signal: meanwhile.resume }"), &["`signal` cannot be `meanwhile.resume`"]);
    refused(&with_rest("wait: { signal: s, schema: { type: wrong } }"), &["`schema` is not a JSON Schema"]);
    refused(&with_rest("wait: { signal: s, on_timeout: fail }"), &["`on_timeout` without `timeout`"]);
    refused(&with_rest("wait: { signal: s, timeout: 1m, on_timeout: b }"), &["would wait again and again"]);
    refused(
        &with_rest("wait: { signal: s, timeout: 1m, on_timeout: fall }"),
        &["there is no step `fall`", "test.yaml:6:49", "fail, continue, a, b", "did you mean `fail`?"],
    );
}

#[test]
fn an_approval_has_a_schema_of_its_own() {
    let flow = parse(&with_rest("wait: { signal: approval, approve: { by: [ann, bob] } }")).unwrap();
    let wait = flow.step("b").unwrap().wait().unwrap();
    let fits = |payload: Value| wait.validate(&payload).is_empty();
    assert!(fits(json!({ "decision": "approved", "by": "ann" })));
    assert!(fits(json!({ "decision": "rejected", "by": "bob", "comment": "no" })));
    for payload in [
        json!({ "decision": "approved" }),
        json!({ "decision": "approved", "by": "eve" }),
        json!({ "decision": "perhaps", "by": "ann" }),
        json!({ "decision": "approved", "by": "ann", "more": 1 }),
        json!(true),
    ] {
        assert!(!fits(payload.clone()), "{payload}");
    }
    let everybody = parse(&with_rest("wait: { signal: approval, approve: {} }")).unwrap();
    assert!(
        everybody.step("b").unwrap().wait().unwrap().validate(&json!({"decision": "approved", "by": "eve"})).is_empty()
    );
    refused(&with_rest("wait: { signal: s, approve: {}, schema: true }"), &["an approval has a schema of its own"]);
    refused(&with_rest("wait: { signal: s, approve: { by: [] } }"), &["`by` names 0 people"]);
}

#[test]
fn a_step_that_rests_calls_nothing() {
    refused(&with_rest("sleep: 1s\n    native: f"), &["a step cannot be both `sleep` and `native`"]);
    refused(&with_rest("sleep: 1s\n    wait: { signal: s }"), &["a step cannot be both `sleep` and `wait`"]);
    refused(&with_rest("sleep: 1s\n    compensate: { native: f }"), &["a `sleep` has no `compensate`"]);
    refused(&with_rest("wait: { signal: s }\n    timeout: 1m"), &["a `wait` has no `timeout`", "inside `wait`"]);
    let deadline = "a `timeout` inside `wait` bounds it, and the flow's `deadline`";
    refused(&with_rest("wait: { signal: s }\n    deadline: 1m"), &["a `wait` has no `deadline`", deadline]);
    refused(&with_rest("sleep: 1s\n    deadline: 1m"), &["a `sleep` has no `deadline`", "it ends by itself"]);
}

#[test]
fn the_output_of_a_wait_that_may_be_in_vain_needs_a_fallback() {
    let flow = |on_timeout: &str, read: &str| {
        let wait = format!("wait: {{ signal: s, timeout: 1m, on_timeout: {on_timeout} }}");
        let rest = "  - { id: c, native: f }\n  - { id: d, native: f }\n";
        with_rest(&wait) + rest + &format!("result: {{ x: \"{{{{ steps.{read} }}}}\" }}\n")
    };
    refused(&flow("continue", "b.output.n"), &["`steps.b.output` is absent if its wait was in vain", "a fallback"]);
    refused(&flow("d", "c.output.n"), &["`steps.c.output` is absent if the wait of `b` was in vain"]);
    for (on_timeout, read) in [
        ("fail", "b.output.n"),
        ("continue", "b.output.n | default(1)"),
        ("d", "d.output.n"),
        ("a", "c.output.n"),
        ("a", "b.output.n"),
    ] {
        parse(&flow(on_timeout, read)).unwrap_or_else(|problems| panic!("{on_timeout} {read}: {problems:?}"));
    }
}

#[test]
fn the_published_schema_takes_what_the_parser_takes() {
    let language: Value = serde_json::from_str(LANGUAGE).unwrap();
    let validator = jsonschema::options().build(&language).unwrap();
    for lines in ["sleep: 1s", "sleep: { until: \"{{ input.at }}\" }", "wait: { signal: s, approve: { by: [ann] } }"] {
        let document = parse(&with_rest(lines)).unwrap().document().clone();
        let errors: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{lines}: {errors:?}");
    }
}

#[test]
fn two_waits_for_one_signal_want_the_same_payload() {
    let two = |first: &str, second: &str| {
        with_rest(&format!("wait: {{ signal: s{first} }}\n  - id: c\n    wait: {{ signal: s{second} }}"))
    };
    for same in ["", ", schema: { type: object }", ", approve: { by: [ann] }"] {
        parse(&two(same, same)).unwrap_or_else(|problems| panic!("{same}: {problems:?}"));
    }
    for (first, second) in [("", ", schema: { type: object }"), (", approve: { by: [ann] }", ", approve: {}")] {
        let said =
            ["step `b` waits for the signal `s`, too, with another payload", "test.yaml:8:11", "the same `schema`"];
        refused(&two(first, second), &said);
    }
}
