//! The answers to callers who wait: proofs find those that cannot be given, and cases hold them to what is expected.

use prove::{read_cases, run_cases};

use super::{flow, found, proved, told};

const RESPOND: &str = "flow: order
steps:
  - id: make
    http: { method: POST, url: \"http://make/x\", keep_headers: [ETag] }
    compensate: { http: { method: DELETE, url: \"http://make/x\" } }
result: \"{{ steps.make.output.total | default(0) }}\"
respond:
  status: \"{{ steps.make.status }}\"
  headers: { x-revision: \"{{ steps.make.headers.etag | default('none') }}\" }
  body: { total: \"{{ steps.make.output.total | default(0) }}\" }
";
const ONE: &str = "flow: one
steps:
  - { id: call, http: { method: POST, url: \"http://old/x\" } }
";

/// All differences of a case that gives this outcome to the step, and expects this answer.
fn differences(text: &str, given: &str, answer: &str) -> String {
    let flow = flow(text);
    let given = format!("given: {{ steps: {given} }}");
    let cases = format!("cases:\n  - case: it answers\n    {given}\n    expect: {{ answer: {answer} }}\n");
    let file = read_cases("order.test.yaml", &cases, &flow)
        .unwrap_or_else(|problems| panic!("{}", problems.iter().map(ToString::to_string).collect::<String>()));
    let reports = run_cases(&flow, &file);
    reports.iter().flat_map(|report| &report.differences).map(|it| format!("{}: {it}\n", it.line)).collect()
}

#[test]
fn a_case_compares_the_status_the_headers_and_the_body_that_a_flow_answers_with() {
    let given = "{ make: { status: 201, headers: { etag: r-7 }, body: { total: 3 } } }";
    let whole = "{ status: 201, headers: { x-revision: r-7 }, body: { total: 3 } }";
    for fine in [whole, "{ status: 201 }", "{ headers: { x-revision: r-7 } }", "{ body: { total: 3 } }", "{}"] {
        assert_eq!(differences(RESPOND, given, fine), "", "{fine}");
    }
    for wrong in ["{ status: 200 }", "{ headers: { x-revision: r-8 } }", "{ headers: { x-other: a } }", "{ body: 3 }"] {
        let told = differences(RESPOND, given, wrong);
        let got = r#"got       {"status":201,"headers":{"x-revision":"r-7"},"body":{"total":3}}"#;
        assert!(told.starts_with("4: answer\n  expected  {") && told.contains(got), "{wrong}: {told}");
    }
    let bare = "{ make: { status: 200, body: {} } }";
    assert_eq!(differences(RESPOND, bare, "{ status: 200, headers: { x-revision: none }, body: { total: 0 } }"), "");
}

#[test]
fn a_case_of_a_flow_that_answers_as_its_step_does_expects_what_the_step_was_given() {
    let given = "{ call: { status: 201, headers: { location: /orders/7 }, body: { id: 7 } } }";
    let answer = "{ status: 201, headers: { location: /orders/7 }, body: { id: 7 } }";
    assert_eq!(differences(ONE, given, answer), "");
    assert!(differences(ONE, given, "{ status: 200 }").contains(r#"got       {"status":201"#));
    // A flow of two steps answers with its result alone.
    let two = format!("{ONE}  - {{ id: more, native: more }}\nresult: done\n");
    let given = "{ call: { status: 201, body: { id: 7 } }, more: succeeds }";
    assert_eq!(differences(&two, given, "{ status: 200, headers: {}, body: done }"), "");
}

#[test]
fn an_answer_that_some_outcome_does_not_allow_is_found_and_told_as_the_answers() {
    assert!(proved(RESPOND).is_proved(), "{:?}", found(&proved(RESPOND)));
    // A step that was skipped has given nothing to answer with.
    let skips = RESPOND.replace("  - id: make\n", "  - id: make\n    when: \"{{ input.n > 1 }}\"\n");
    let input = "input: { type: object, required: [n], properties: { n: { type: integer }, code: {} } }\nsteps:\n";
    let skips = skips.replace("steps:\n", input);
    let skips = skips.replace("{{ steps.make.status }}", "{{ steps.make.status | default(input.code) }}");
    let proof = proved(&skips);
    assert_eq!(found(&proof), ["result-fails:result"]);
    let told = told(&proof, "result-fails:result");
    assert!(told.contains("`respond` cannot be evaluated") && told.contains("input.code"), "{told}");
    // A header that the step keeps is taken to be there.
    let kept = RESPOND.replace("steps.make.headers.etag | default('none')", "steps.make.headers.etag");
    assert!(proved(&kept).is_proved(), "{:?}", found(&proved(&kept)));
}
