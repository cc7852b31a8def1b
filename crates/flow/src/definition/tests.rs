use serde_json::{Value, json};

use super::*;
use crate::slip::Phase;

mod auth;
mod completions;
mod fuzz;
mod input;
mod page;
mod requests;
mod respond;
mod rests;
mod routes;
mod sandbox;
mod schedules;
mod schema;
mod triggers;
mod upload;

const ORDER: &str = include_str!("../../../../flows/order.yaml");
const ORDER_SCHEMA: &str = include_str!("../../../../flows/order.schema.json");
const LANGUAGE: &str = include_str!("../../../../schemas/flow.schema.json");

fn parse(text: &str) -> Result<Definition, Vec<Problem>> {
    Definition::parse_yaml("test.yaml", text, &mut |name| match name {
        "order.schema.json" => Ok(serde_json::from_str(ORDER_SCHEMA).unwrap()),
        _ => Err("no such file".to_owned()),
    })
}

/// Every problem of a flow, as it is shown.
fn problems(text: &str) -> String {
    let problems = parse(text).map(|_| "no problem").unwrap_err();
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// A flow of one HTTP step, with these lines more in it.
fn with_step(lines: &str) -> String {
    let step = "  - id: a\n    http: { method: POST, url: \"{{ env.A }}/a\" }\n";
    format!("flow: test\nsteps:\n{step}{lines}")
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let shown = problems(text);
    for part in expected {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}

#[test]
fn the_example_flow_reads_as_it_is_written() {
    let order = parse(ORDER).unwrap();
    assert_eq!((order.name(), order.deadline_ms()), ("order", Some(900_000)));
    assert_eq!(order.route(), Some(&Route { method: "POST".to_owned(), path: "/orders".to_owned() }));
    let ids: Vec<_> = order.steps().iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["reserve", "charge", "ship"]);
    assert!(order.steps().iter().all(|step| step.is_undoable() && step.is_idempotent()));
    assert_eq!(
        order.step("charge").unwrap().retry(Phase::Forward).unwrap(),
        Retry { attempts: 3, backoff_min_ms: 200, backoff_max_ms: 2_000 }
    );
    assert_eq!(order.queues(), ["default"]);
}

#[test]
fn a_definition_survives_its_document() {
    let order = parse(ORDER).unwrap();
    let text = order.document().to_string();
    let again = Definition::from_document(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(again.version(), order.version());
    assert_eq!(again.document().to_string(), text);
    assert_eq!(order.version().len(), 12);
    assert_eq!(order.document()["input"]["title"], "An order", "the schema is inlined");
}

#[test]
fn a_step_settles_within_its_timeout_unless_it_says_otherwise() {
    let settle_ms = |lines: &str| {
        let flow = parse(&with_step(&format!("    compensate: {{ native: f }}\n{lines}"))).unwrap();
        flow.steps()[0].settle_ms()
    };
    assert_eq!((settle_ms(""), settle_ms("    timeout: 2s\n")), (30_000, 2_000));
    assert_eq!((settle_ms("    settle: 0s\n"), settle_ms("    settle: 1h\n")), (0, 3_600_000));
}

#[test]
fn a_step_that_is_asked_about_must_not_be_repeated_and_its_question_changes_nothing() {
    let verify = |inside: &str| format!("    verify: {{ http: {{ url: \"{{{{ env.A }}}}/a\" }}, {inside} }}\n");
    let done_when = "done_when: \"{{ response.status == 200 and response.body.id == step.idempotency_key }}\"";
    let flow = parse(&with_step(&format!("    idempotent: false\n    settle: 5s\n{}", verify(done_when)))).unwrap();
    let step = &flow.steps()[0];
    let asked = step.verify().unwrap();
    assert_eq!((step.is_idempotent(), step.settle_ms()), (false, 5_000));
    assert_eq!((asked.timeout_ms, asked.retry, asked.http.method.as_str()), (30_000, Retry::UNDO_DEFAULT, "GET"));
    refused(&with_step(&verify(done_when)), &["`verify` of a step that may be repeated", "`idempotent: false`"]);
    let refused_with = |verify: &str, reasons: &[&str]| {
        refused(&with_step(&format!("    idempotent: false\n{verify}")), reasons);
    };
    refused_with(&verify("timeout: 5s"), &["`verify` has no `done_when`"]);
    refused_with(&verify("done_when: \"yes\""), &["`done_when` is not an expression"]);
    refused_with(&verify("done_when: \"{{ response.state }}\""), &["`response` has no `state`", "status, body"]);
    refused_with(&verify("done_when: \"{{ env.A }}\""), &["`env` is not known here"]);
    let post = "    verify: { http: { method: POST, url: \"{{ env.A }}/a\" }, done_when: \"{{ true }}\" }\n";
    refused_with(post, &["`method` cannot be `POST`", "GET, HEAD"]);
    refused(&with_step("    when: \"{{ response.status }}\"\n"), &["unknown name `response`"]);
    refused("flow: t\nsteps:\n  - { id: a, sleep: 1s, deadline: 5s }\n", &["a `sleep` has no `deadline`"]);
}

#[test]
fn comments_and_layout_do_not_change_the_version_but_words_do() {
    let one = parse(&with_step("")).unwrap();
    let same =
        parse("# hello\nflow: test\nsteps: [ { id: a, http: { method: POST, url: '{{ env.A }}/a' } } ]").unwrap();
    let other = parse(&with_step("    timeout: 2s\n")).unwrap();
    assert_eq!(one.version(), same.version());
    assert_ne!(one.version(), other.version());
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    refused(
        "flow: test\nsumary: hm\nsteps:\n  - id: a\n    http: { metod: POST, url: \"{{ env.A }}/a\" }\n",
        &[
            "error: unknown key `sumary` in the flow\n  --> test.yaml:2:1\n   = expected: flow, summary, route",
            "help: did you mean `summary`?",
            "error: unknown key `metod` in `http`\n  --> test.yaml:5:13",
            "help: did you mean `method`?",
            "`http` has no `method`",
        ],
    );
}

#[test]
fn words_of_later_versions_are_refused_as_such() {
    refused(
        &with_step("    repeatable: true\n"),
        &["`repeatable` is not yet supported in this version", "test.yaml:5:5"],
    );
    refused(
        &with_step("  - id: b\n    emit: { topic: t }\n"),
        &["`emit` is not yet supported in this version", "test.yaml:6:5"],
    );
}

#[test]
fn names_that_an_expression_cannot_see_are_refused() {
    let later = "  - id: b\n    native: f\n    with: { x: \"{{ steps.c.output }}\" }\n  - id: c\n    native: f\n";
    refused(&with_step(later), &["`steps.c` is not an earlier step", "test.yaml:7:16", "expected: a"]);
    refused(&with_step("    when: \"{{ env.A == '1' }}\"\n"), &["`env` is not known here", "test.yaml:5:11"]);
    refused(&with_step("key: \"{{ inptu.a }}\"\n"), &["unknown name `inptu`", "did you mean `input`?"]);
    refused(&with_step("result: \"{{ steps.a.ouput }}\"\n"), &["a step has no `ouput`", "steps.a.output"]);
    refused(&with_step("result: \"{{ job.idd }}\"\n"), &["`job` has no `idd`", "did you mean `id`?"]);
    refused(&with_step("result: \"{{ steps }}\"\n"), &["`steps` must be followed by a step's id"]);
}

#[test]
fn a_compensation_must_cope_with_an_absent_output_of_its_step() {
    let undo = |url: &str| with_step(&format!("    compensate:\n      http: {{ method: DELETE, url: \"{url}\" }}\n"));
    refused(
        &undo("{{ env.A }}/a/{{ steps.a.output.id }}"),
        &[
            "`steps.a.output` may be absent when `a` is undone",
            "{{ steps.a.output.id | default(step.idempotency_key) }}",
        ],
    );
    assert!(parse(&undo("{{ env.A }}/a/{{ steps.a.output.id | default(step.idempotency_key) }}")).is_ok());
}

#[test]
fn expressions_that_cannot_be_compiled_are_refused_with_their_place() {
    refused(&with_step("result: { a: \"{{ input. }}\" }\n"), &["is not an expression", "test.yaml:5:14"]);
    refused(&with_step("result: \"{{ input.a\"\n"), &["a `{{` has no `}}` that closes it"]);
    refused(&with_step("result: \"{% if input.a %}1{% endif %}\"\n"), &["are not part of the language"]);
    refused(&with_step("result: {{ input.a }}\n"), &["needs quotes"]);
    refused(&with_step("result: \"{{ input.a | nosuchfilter }}\"\n"), &["there is no filter `nosuchfilter`"]);
    refused(&with_step("result: \"{{ input.a is nosuchtest }}\"\n"), &["there is no test `nosuchtest`"]);
    let fine = with_step("result: \"{{ 'a | b is c' if input.a is not defined else input.a | upper | length }}\"\n");
    assert!(parse(&fine).is_ok());
}

#[test]
fn a_call_finishes_when_its_job_is_cancelled_unless_its_step_says_otherwise() {
    let aborts = |lines: &str| parse(&with_step(lines)).unwrap().steps()[0].aborts_on_cancel();
    assert_eq!([aborts(""), aborts("    cancel: finish\n"), aborts("    cancel: abort\n")], [false, false, true]);
    refused(&with_step("    cancel: abrt\n"), &["`cancel` cannot be `abrt`", "did you mean `abort`?"]);
}

#[test]
fn limits_and_kinds_are_checked_and_said() {
    refused(&with_step("    timeout: 2\n"), &["`timeout` is `2`", "200ms, 2s, 15m, 2h or 2d"]);
    refused(&with_step("    timeout: 0s\n"), &["`timeout`: `0s` is too short", "expected: at least 1ms"]);
    refused(&with_step("    settle: 1s\n"), &["`settle` without `compensate`", "test.yaml:5:5"]);
    refused(
        &with_step("    compensate: { native: f }\n    settle: 2d\n"),
        &["`2d` is too long", "expected: at most 1d"],
    );
    for (given, said, bound) in
        [("2h", "`2h` (`120m`) is too long", "15m"), ("1200s", "`timeout`: `1200s` is too long", "900s")]
    {
        refused(&with_step(&format!("    timeout: {given}\n")), &[said, &format!("expected: at most {bound}")]);
    }
    refused(&with_step("    timeout: 20m\n"), &["`timeout`: `20m` is too long\n", "expected: at most 15m"]);
    refused(&with_step("    retry: { attempts: 0 }\n"), &["`attempts` is `0`", "a whole number from 1 to 100"]);
    refused(&with_step("    retry: { backoff: 2s..1s }\n"), &["`2s` is longer than `1s`"]);
    refused(&with_step("    retry: { backoff: 2s }\n"), &["is not a range", "200ms..30s"]);
    refused(&with_step("    idempotent: \"no\"\n"), &["`idempotent` is `no`", "true or false"]);
    refused(&with_step("on_failure: compensat\n"), &["cannot be `compensat`", "did you mean `compensate`?"]);
    refused(&with_step("retention: 59m\n"), &["`retention`: `59m` is too short", "at least 60m"]);
    refused(&with_step("result_ttl: 500ms\n"), &["`result_ttl`: `500ms` is too short", "at least 1000ms"]);
    refused(&with_step("route: GET /a\n"), &["`GET /a` is not a route"]);
    refused(&with_step("route: POST /v1/jobs\n"), &["under `/v1`"]);
    refused(&with_step("  - id: a\n    native: f\n"), &["two steps named `a`", "test.yaml:5:9"]);
    refused(&with_step("  - id: A-b\n    native: f\n"), &["`id` cannot be `A-b`"]);
    refused(&with_step("  - id: b\n"), &["a step has no `http`"]);
    refused(&with_step("    native: f\n"), &["cannot be both `http` and `native`"]);
    refused(&with_step("    when: \"yes\"\n"), &["`when` is not an expression"]);
    refused("flow: test\nsteps: []\n", &["at least one step"]);
    refused("flow: test\n", &["the flow has no `steps`"]);
    refused("- a\n", &["the flow is a list", "a mapping with flow"]);
    let many: String = (0..=limit::STEPS_MAX).map(|n| format!("  - {{ id: s{n}, native: f }}\n")).collect();
    refused(&format!("flow: test\nsteps:\n{many}"), &["101 steps are too many", "at most 100"]);
    refused(&format!("flow: test # {}", "x".repeat(limit::DOCUMENT_BYTES_MAX)), &["too large"]);
}

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    refused("flow: test\nsteps: [\n", &["not YAML", "test.yaml:"]);
    refused("flow: a\nflow: b\n", &["test.yaml:2:1"]);
    refused("", &["test.yaml"]);
    refused("flow: &a [*a]\n", &["test.yaml"]);
}

#[test]
fn a_schema_that_cannot_be_had_or_compiled_is_refused() {
    refused(
        &with_step("input: { $ref: nowhere.json }\n"),
        &["`nowhere.json` cannot be read: no such file", "test.yaml:5:16"],
    );
    refused(&with_step("input: { type: 5 }\n"), &["`input` is not a JSON Schema"]);
    refused(&with_step("input: text\n"), &["`input` is a text"]);
    let document = json!({ "flow": "t", "input": { "$ref": "a.json" }, "steps": [{ "id": "a", "native": "f" }] });
    assert!(Definition::from_document(&document).unwrap_err()[0].message.contains("must be inlined"));
}

#[test]
fn a_bad_input_is_answered_with_pointers() {
    let order = parse(ORDER).unwrap();
    let good = json!({ "customer_id": "c", "sku": "s", "qty": 1, "amount_cents": 5, "card": "4242", "address": "x" });
    assert_eq!(order.validate_input(&good), []);
    let mut bad = good.clone();
    bad["qty"] = json!(0);
    bad["simulate"] = json!({ "payment": 5 });
    let pointers: Vec<_> = order.validate_input(&bad).into_iter().map(|error| error.pointer).collect();
    assert_eq!(pointers, ["/qty", "/simulate/payment"]);
    assert_eq!(order.validate_input(&json!([])).len(), 1);
}

#[test]
fn the_ordering_key_comes_from_the_input_or_else_from_the_caller() {
    let order = parse(ORDER).unwrap();
    assert_eq!(order.ordering_key(&json!({ "customer_id": "c-1" }), "job"), Ok("c-1".to_owned()));
    let missing = order.ordering_key(&json!({}), "job").unwrap_err().to_string();
    assert!(missing.contains("`input.customer_id` is missing"), "{missing}");
    assert!(order.ordering_key(&json!({ "customer_id": "" }), "job").is_err());
    assert!(order.ordering_key(&json!({ "customer_id": null }), "job").is_err());
    assert!(order.ordering_key(&json!({ "customer_id": "x".repeat(300) }), "job").is_err());
    assert_eq!(parse(&with_step("")).unwrap().ordering_key(&json!({}), "job"), Ok("job".to_owned()));
}

#[test]
fn several_problems_are_reported_at_once_in_the_order_of_the_file() {
    let found =
        parse("flow: Test\nsteps:\n  - id: a\n    native: f\n    timeout: x\nresult: \"{{ nope }}\"\n").unwrap_err();
    let lines: Vec<u32> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 5, 6]);
}

#[test]
fn the_output_of_a_step_that_may_be_skipped_needs_a_fallback() {
    let flow = |reading: &str| {
        format!(
            "flow: t\nsteps:\n  - id: a\n    native: f\n    when: \"{{{{ input.n > 1 }}}}\"\n  \
             - id: b\n    native: f\n{reading}"
        )
    };
    let absent = "`steps.a.output` is absent unless `{{ input.n > 1 }}` holds";
    for reading in [
        "result: \"{{ steps.a.output.id }}\"\n",
        "result: { all: [\"x {{ steps.a.output }}\"] }\n",
        "    with: { id: \"{{ steps.a.output.id }}\" }\n",
        "    when: \"{{ steps.a.output.id == 'x' }}\"\n",
        "    when: \"{{ input.n > 2 }}\"\n    with: { id: \"{{ steps.a.output.id }}\" }\n",
        "    compensate: { native: g, with: \"{{ steps.a.output }}\" }\n",
        "  - id: c\n    http: { method: GET, url: \"{{ env.A }}/{{ steps.a.output.id }}\" }\n",
        "  - id: c\n    http: { method: GET, url: \"{{ env.A }}\", headers: { x-a: \"{{ steps.a.output.id }}\" } }\n",
    ] {
        refused(&flow(reading), &[absent, "a fallback, or the same `when`", "| default(none)"]);
    }
    for reading in [
        "result: \"{{ steps.a.output.id | default(none) }}\"\n",
        "result: \"{{ steps.a.output if steps.a.output is defined else steps.b.output }}\"\n",
        "    when: \"{{ input.n > 1 }}\"\n    with: { id: \"{{ steps.a.output.id }}\" }\n",
    ] {
        assert!(parse(&flow(reading)).is_ok(), "{reading}");
    }
    let applied = json!({ "flow": "t", "steps": [{ "id": "a", "native": "f", "when": "{{ input.n > 1 }}" }],
        "result": "{{ steps.a.output }}" });
    assert!(Definition::from_document(&applied).is_ok(), "what was applied once stays readable");
}

#[test]
fn numbers_are_those_of_yaml_1_2_and_one_that_looks_like_a_text_gets_a_hint() {
    let flow = with_step(
        "  - id: b\n    native: f\n    with: { zip: 01234, big: 100000000000000000001, price: 1.10, hex: 0x10 }\n",
    );
    let flow = parse(&flow).unwrap();
    let with = &flow.document()["steps"][1]["with"];
    assert_eq!(with.to_string(), r#"{"zip":1234,"big":100000000000000000001,"price":1.10,"hex":16}"#);
    let hints: Vec<String> = flow.hints().iter().map(ToString::to_string).collect();
    assert_eq!(
        hints,
        ["hint: `01234` is the number 1234\n  --> test.yaml:7:18\n   = help: as a text it needs quotes: \"01234\""]
    );
    assert_eq!(Definition::from_document(flow.document()).unwrap().version(), flow.version());
    assert!(parse(ORDER).unwrap().hints().is_empty());
}

#[test]
fn a_fallback_in_another_place_is_no_fallback() {
    let flow = |reading: &str| {
        let step = "  - { id: a, native: f, when: \"{{ input.n > 1 }}\" }\n";
        format!("flow: t\nsteps:\n{step}result: \"{{{{ {reading} }}}}\"\n")
    };
    refused(
        &flow("steps.a.output.id == input.id | default(none)"),
        &[
            "`steps.a.output` is absent unless",
            "a `|` belongs to the value before it",
            "{{ (steps.a.output.id | default(none)) == input.id | default(none) }}",
        ],
    );
    refused(
        &flow("input.note == none | default(none)"),
        &["the `default` of `{{ input.note == none | default(none) }}` is that of `none`", "test.yaml:4:9"],
    );
    assert!(parse(&flow("(steps.a.output.id | default(none)) == none")).is_ok());
    let applied = json!({ "flow": "t", "steps": [{ "id": "a", "native": "f", "compensate": {
        "native": "g", "with": "{{ steps.a.output == none | default(none) }}" } }] });
    assert!(Definition::from_document(&applied).is_ok(), "what was applied once stays readable");
}

#[test]
fn a_step_without_a_readable_id_is_not_proposed() {
    let shown = problems(
        "flow: t\nsteps:\n  - { id: a, native: f }\n  - { id: B, native: f }\n  \
         - { id: c, native: f, with: \"{{ steps.x.output }}\" }\n",
    );
    assert!(shown.contains("`steps.x` is not an earlier step") && shown.ends_with("= expected: a"), "{shown}");
}
