//! The answer that a flow forms, and what it may read of its steps' answers.

use super::*;

fn respond(respond: &str) -> String {
    let steps = "steps:\n- { id: a, http: { method: POST, url: 'http://a/', keep_headers: [ETag, X-Total] } }\n\
                 - { id: b, native: f }\n";
    format!("flow: t\n{steps}respond: {respond}\n")
}

#[test]
fn an_answer_is_checked_when_it_is_read() {
    let headers: String = (0..33).map(|number| format!("x-{number}: y, ")).collect();
    for (given, told) in [
        ("{ status: 199 }", "`status`: 199 is no whole number from 200 to 599"),
        ("{ status: 600 }", "`status`: 600 is no whole number"),
        ("{ status: 200.5 }", "`status`: 200.5 is no whole number"),
        ("{ status: 206 }", "206 answers a condition or a range"),
        ("{ status: 304 }", "304 answers a condition or a range"),
        ("{ status: '201' }", "`status` is neither a number nor an expression"),
        ("{ status: '2{{ input.a }}' }", "`status` is neither a number nor an expression"),
        ("{ status: 204, body: x }", "an answer with the status 204 has no body"),
        ("{ headers: { Transfer-Encoding: x } }", "`transfer-encoding` is not one that a flow can answer with"),
        ("{ headers: { Set-Cookie: x } }", "`set-cookie` is not one that a flow can answer with"),
        ("{ headers: { 'a b': x } }", "`a b` is not a header's name"),
        ("{ headers: { x-a: \"a\\nb\" } }", "would hold a control character"),
        (&format!("{{ headers: {{ {headers} }} }}"), "`respond` has 33 headers"),
        ("{ body: '{{ env.A }}' }", "`env` is not known here"),
        ("{ body: '{{ steps.c.output }}' }", "`steps.c` is not an earlier step"),
        ("{ state: 200 }", "did you mean `status`?"),
        ("200", "`respond` is a number"),
    ] {
        refused(&respond(given), &[told]);
    }
    let full =
        "{ status: '{{ steps.a.status }}', headers: { location: '/x/{{ input.a }}' }, body: [1, '{{ input }}'] }";
    for good in [full, "{}", "{ status: 204 }", "{ status: 418, body: null }"] {
        assert!(parse(&respond(good)).is_ok(), "{good}");
    }
}

#[test]
fn of_an_answer_a_flow_reads_the_status_and_the_headers_that_its_step_keeps() {
    let body = |expression: &str| respond(&format!("{{ body: \"{{{{ {expression} }}}}\" }}"));
    for good in ["steps.a.status", "steps.a.headers.etag", "steps.a.headers.x_total", "steps.a.headers"] {
        let flow = parse(&body(good)).unwrap();
        assert_eq!(flow.steps().iter().map(|step| step.answer_is_read).collect::<Vec<_>>(), [true, false], "{good}");
    }
    let unread = parse(&body("steps.a.output.status")).unwrap();
    assert!(unread.steps().iter().all(|step| !step.answer_is_read), "nothing is carried for nobody");
    for (expression, told) in [
        ("steps.a.headers.x_totals", "did you mean `x_total`?"),
        ("steps.a.code", "a step has no `code`"),
        ("steps.b.status", "`b` does not end by the answer to an HTTP call"),
    ] {
        refused(&body(expression), &[told]);
    }
    let kept = |names: &str| respond("{}").replace("[ETag, X-Total]", names);
    refused(&kept("[a b]"), &["`a b` is not a header's name"]);
    refused(&kept("[Set-Cookie]"), &["`set-cookie` is not kept"]);
    refused(&kept(&format!("[{}]", "a,".repeat(17))), &["17 headers are too many"]);
    let silent = body("steps.a.headers.etag").replace(", keep_headers: [ETag, X-Total]", "");
    refused(&silent, &["`a` keeps no header `etag`", "`keep_headers: [etag]` in its `http`"]);
}

#[test]
fn only_a_flow_that_is_one_call_and_says_nothing_else_answers_as_its_step() {
    let one = "flow: t\nsteps:\n- { id: a, http: { method: GET, url: 'http://a/' } }\n";
    assert!(parse(one).unwrap().answers_as_its_step());
    for more in ["result: null\n", "respond: {}\n", "- { id: b, native: f }\n"] {
        assert!(!parse(&format!("{one}{more}")).unwrap().answers_as_its_step(), "{more}");
    }
    assert!(!parse("flow: t\nsteps:\n- { id: a, native: f }\n").unwrap().answers_as_its_step());
}
