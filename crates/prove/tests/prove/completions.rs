//! Steps whose answer only accepts the work: proofs walk every end of it, and cases name one.

use prove::{read_cases, run_cases};

use super::{flow, found, proved};

/// `undo`: the lines that undo the two steps.
fn text(undo_print: &str, undo_deliver: &str) -> String {
    format!(
        "flow: f
steps:
  - id: print
    http: {{ method: POST, url: \"http://print/x\", body: {{ to: \"{{{{ callback.url }}}}\" }} }}
    callback: {{ timeout: 1h }}
    retry: {{ attempts: 2, backoff: 1s..1s }}
{undo_print}  - id: deliver
    http: {{ method: POST, url: \"http://courier/x\" }}
    poll:
      url: \"http://courier/{{{{ response.body.id }}}}\"
      every: 10s
      until: \"{{{{ response.body.state == 'done' }}}}\"
      timeout: 1h
{undo_deliver}result: {{ by: \"{{{{ steps.deliver.output.by }}}}\" }}
"
    )
}

const UNDO: &str = "    compensate: { http: { method: DELETE, url: \"http://any/x\" } }\n";

#[test]
fn what_was_accepted_and_never_told_of_must_be_undone_too() {
    assert!(proved(&text(UNDO, UNDO)).is_proved());
    assert_eq!(found(&proved(&text("", UNDO))), ["effect-stands:print"]);
    assert_eq!(found(&proved(&text(UNDO, ""))), ["effect-stands:deliver"]);
}

/// All differences of a case, as they are told.
fn differences(given: &str, expect: &str) -> String {
    let flow = flow(&text(UNDO, UNDO));
    let cases = format!("cases:\n  - case: c\n    given: {given}\n    expect: {expect}\n");
    let file = read_cases("f.test.yaml", &cases, &flow)
        .unwrap_or_else(|problems| panic!("{}", problems.iter().map(ToString::to_string).collect::<String>()));
    let reports = run_cases(&flow, &file);
    reports.iter().flat_map(|report| &report.differences).map(|it| format!("{}: {it}\n", it.line)).collect()
}

#[test]
fn a_case_gives_callbacks_and_the_looks_of_a_poll() {
    let delivered =
        "{ status: 202, body: { id: 7 } }, 503, { body: { state: busy } }, { body: { state: done, by: ann } }";
    let steps = format!("steps: {{ print: 202, deliver: [{delivered}] }}");
    let good = "{ status: succeeded, result: { by: ann }, compensated: [], calls: [print, deliver, \
                { call: deliver, url: 'http://courier/7', at: 15s }, { call: deliver, at: 25s }, \
                { call: deliver, at: 35s }] }";
    assert_eq!(differences(&format!("{{ {steps}, callbacks: [{{ step: print, at: 5s }}] }}"), good), "");
    let retried =
        "{ status: failed, compensated: [], calls: [print, print], error: { step: print, code: step-failed } }";
    let failing = "callbacks: [{ step: print, at: 5s, outcome: retry }, { step: print, at: 9s, outcome: failed }]";
    assert_eq!(differences(&format!("{{ {steps}, {failing} }}"), retried), "");
    let vain = "{ status: failed, compensated: [print], error: { step: print, code: timed-out } }";
    assert_eq!(differences(&format!("{{ {steps} }}"), vain), "");
}

#[test]
fn a_case_gives_the_headers_that_a_poll_follows() {
    let text = text(UNDO, UNDO).replace("http://courier/{{ response.body.id }}", "{{ response.headers.location }}");
    let flow = flow(&text);
    let differences = |location: &str, expect: &str| -> String {
        let accepted = format!("{{ status: 202, headers: {{ location: '{location}' }} }}");
        let cases = format!(
            "cases:\n  - case: c\n    given: {{ steps: {{ print: 202, deliver: [{accepted}, {{ body: {{ state: done, \
             by: ann }} }}] }}, callbacks: [{{ step: print }}] }}\n    expect: {expect}\n"
        );
        let file = read_cases("f.test.yaml", &cases, &flow)
            .unwrap_or_else(|problems| panic!("{}", problems.iter().map(ToString::to_string).collect::<String>()));
        let reports = run_cases(&flow, &file);
        reports.iter().flat_map(|report| &report.differences).map(|it| format!("{}: {it}\n", it.line)).collect()
    };
    let good = "{ status: succeeded, calls: [print, deliver, { call: deliver, url: 'http://courier/7' }] }";
    assert_eq!(differences("/7", good), "");
    let elsewhere = "{ status: failed, error: { step: deliver, code: expression-failed }, calls: [print, deliver, undo \
                     deliver, undo print] }";
    assert_eq!(differences("http://elsewhere/7", elsewhere), "");
}

#[test]
fn work_that_must_not_be_asked_for_twice_is_proved_with_its_callback_and_its_question() {
    let once = |more: &str| {
        let text = text(UNDO, UNDO);
        let (print, _) = text.split_once("  - id: deliver").unwrap();
        format!("{print}    idempotent: false\n{more}")
    };
    assert!(proved(&once("")).is_proved(), "an operator decides");
    let verify = "    verify: { http: { url: 'http://print/x' }, done_when: '{{ response.status == 200 }}' }\n";
    assert!(proved(&once(verify)).is_proved());
}
